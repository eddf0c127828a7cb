package server

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/atomicfile"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// keyUser is a user with a pre-shared key that the command line has added.
type keyUser struct {
	Name   string        `toml:"name"`
	ID     string        `toml:"id"`
	Secret config.Secret `toml:"secret"`
	Added  time.Time     `toml:"added"`
}

// keyUserFile is the file of users with pre-shared keys.
type keyUserFile struct {
	Users []keyUser `toml:"user"`
}

// loadKeyUsers reads the users with pre-shared keys of a state directory.
func loadKeyUsers(stateDir string) ([]keyUser, error) {
	var f keyUserFile
	err := config.DecodeFile(filepath.Join(stateDir, keyUsersFile), &f)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return f.Users, err
}

// saveKeyUsers replaces the file of users with pre-shared keys.
func saveKeyUsers(stateDir string, users []keyUser) error {
	b := []byte("# Users with pre-shared keys, kept by \"vpn-server user\".\n")
	defer func() { clear(b) }()
	for _, u := range users {
		if !utf8.ValidString(u.ID) || !utf8.Valid(u.Secret.Bytes()) {
			return reason.New(reason.InvalidRequest, "the identity or key of %s is not UTF-8 text and cannot be kept", u.Name)
		}
		b = fmt.Appendf(b, "\n[[user]]\nname = %s\nid = %s\nsecret = %s\nadded = %s\n",
			config.Quote(u.Name), config.Quote(u.ID), config.Quote(string(u.Secret.Bytes())), u.Added.UTC().Format(time.RFC3339))
	}
	return atomicfile.WriteFile(filepath.Join(stateDir, keyUsersFile), b, 0o600)
}

// secretOctets is the length of a generated key: as strong as the strongest PRF.
const secretOctets = 32

// issueKey puts a new pre-shared key into a profile, and into the file that the daemon
// reads in place of the user's old one. undo brings that back.
func (a *Admin) issueKey(p *profile.Profile, o UserOptions) (undo func() error, err error) {
	before, err := loadKeyUsers(a.Config.StateDir)
	if err != nil {
		return nil, err
	}
	if err := a.noConfiguredKey(o.Identity); err != nil {
		return nil, err
	}
	random := make([]byte, secretOctets)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	defer clear(random)
	secret := base64.RawURLEncoding.AppendEncode(nil, random)
	id, err := auth.ParseIdentity(o.Identity)
	if err != nil {
		return nil, reason.Wrap(reason.InvalidRequest, err)
	}
	users := slices.DeleteFunc(slices.Clone(before), func(k keyUser) bool { return k.Name == p.Name })
	users = append(users, keyUser{Name: p.Name, ID: id.String(), Secret: config.NewSecret(secret), Added: a.Now().UTC().Truncate(time.Second)})
	if err := saveKeyUsers(a.Config.StateDir, users); err != nil {
		return nil, err
	}
	p.Auth = profile.Auth{Method: profile.PSK, PSK: config.NewSecret(slices.Clone(secret))}
	return func() error { return saveKeyUsers(a.Config.StateDir, before) }, nil
}

// noConfiguredKey refuses an identity that has a key in the configuration: the daemon
// would take that one.
func (a *Admin) noConfiguredKey(identity string) error {
	for _, k := range a.Config.PSK {
		if sameIdentity(k.ID, identity) {
			return reason.New(reason.AlreadyExists, "[[psk]] in %s has a key for %s already: remove it there, or give another identity with --id", a.Path, identity)
		}
	}
	return nil
}
