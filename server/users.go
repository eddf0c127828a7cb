package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/atomicfile"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/pki"
)

// Admin manages the users of a gateway, with the daemon running or not: both read the
// same files.
type Admin struct {
	Path   string // of the configuration
	Config *Config
	Now    func() time.Time
}

// OpenAdmin reads the configuration. It need not be good enough for the daemon.
func OpenAdmin(path string) (*Admin, error) {
	c := NewConfig()
	if err := config.DecodeFile(path, c); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("there is no gateway configured at %s: make one with vpn-server init, or name the file with --config", path)
		}
		return nil, err
	}
	return &Admin{Path: path, Config: c, Now: time.Now}, nil
}

// UserKind is how a user authenticates.
type UserKind string

// Kinds of users.
const (
	CertificateUser UserKind = "certificate"
	SharedKeyUser   UserKind = "psk"
)

// User is a user as the command line shows it.
type User struct {
	Name     string     `json:"name"`
	Identity string     `json:"identity"`
	Kind     UserKind   `json:"kind"`
	State    string     `json:"state"` // active, expired, revoked
	Added    time.Time  `json:"added"`
	Expires  *time.Time `json:"expires,omitempty"`
	Revoked  *time.Time `json:"revoked,omitempty"`
	Profile  string     `json:"profile,omitempty"` // file, if it is still there

	serial string // of the certificate
}

// States of a user.
const (
	UserActive  = "active"
	UserExpired = "expired"
	UserRevoked = "revoked"
)

// UserOptions refine a new user; the zero value is good.
type UserOptions struct {
	Identity  string // NAME@gateway if empty
	SharedKey bool   // a pre-shared key instead of a certificate
	Lifetime  time.Duration
	KeyType   pki.KeyType
	Replace   bool // an existing user gets new credentials, and the old ones end
}

// AddUser makes credentials for a user and the profile that holds them.
func (a *Admin) AddUser(name string, o UserOptions) (*User, error) {
	if err := profile.CheckName(name); err != nil {
		return nil, reason.Wrap(reason.InvalidRequest, fmt.Errorf("user name: %w", err))
	}
	if o.SharedKey && o.Lifetime != 0 {
		return nil, reason.New(reason.InvalidRequest, "a pre-shared key has no lifetime: leave the days out, and remove the user when it is time")
	}
	if o.Identity == "" {
		o.Identity = a.identityFor(name)
	}
	if err := a.admitted(o.Identity); err != nil {
		return nil, err
	}
	// Before anything is issued or ended: a user without a usable profile is no use.
	draft := a.newProfile(name, o.Identity)
	problems := &config.Problems{}
	if draft.CheckSettings("", problems); problems.Err() != nil {
		return nil, reason.Wrap(reason.ConfigInvalid, fmt.Errorf("the profile of %s would not work, by %s: %w", name, a.Path, problems.Err()))
	}
	var user *User
	err := a.locked(func() (err error) {
		user, err = a.replaceUser(draft, o)
		return err
	})
	return user, err
}

// replaceUser makes a user's credentials and profile, and then ends the ones before.
// What fails leaves the user as he was. The lock is held.
func (a *Admin) replaceUser(p *profile.Profile, o UserOptions) (*User, error) {
	former, err := a.former(p.Name, o)
	if err != nil {
		return nil, err
	}
	issue := a.issueCertificate
	if o.SharedKey {
		issue = a.issueKey
	}
	undo, err := issue(p, o)
	if err != nil {
		return nil, err
	}
	defer p.Zero()
	if err := a.keepProfile(p); err != nil {
		if undone := undo(); undone != nil {
			err = fmt.Errorf("%w; and the new credentials, which nobody has, could not be taken back (%w): when that is mended, repeat the command with --replace, or end them with vpn-server user remove %s", err, undone, p.Name)
		}
		return nil, err
	}
	for _, u := range former {
		if u.Kind == SharedKeyUser && o.SharedKey {
			continue // replaced in one step
		}
		if err := a.endCredentials(u, pki.Superseded); err != nil {
			return nil, fmt.Errorf("user %s has new credentials, but the former ones are still good: when this is mended, repeat the command: %w", p.Name, err)
		}
	}
	return a.active(p.Name)
}

// identityFor is the identity that a user gets: an e-mail address at the gateway's
// name. A gateway without a name lends none.
func (a *Admin) identityFor(name string) string {
	if _, err := netip.ParseAddr(a.Config.Name); err == nil || a.Config.Name == "" {
		return name + "@wayfarer.internal"
	}
	return name + "@" + a.Config.Name
}

// userIdentity reads the identity of a user: one, and no pattern, neither as it is
// written nor as it will be kept. A key for a pattern would open every identity.
func userIdentity(text string) (auth.Identity, error) {
	id, err := auth.ParseIdentity(text)
	if err != nil {
		return id, err
	}
	for _, s := range []string{text, id.String()} {
		p, err := auth.ParsePattern(s)
		if err != nil {
			return id, err
		}
		if exact, ok := p.Exact(); !ok || !exact.Equal(id) {
			return id, fmt.Errorf("%q is a pattern: a user has one identity", s)
		}
	}
	return id, nil
}

// admitted checks that the daemon will let the identity in.
func (a *Admin) admitted(identity string) error {
	id, err := userIdentity(identity)
	if err != nil {
		return reason.Wrap(reason.InvalidRequest, fmt.Errorf("identity: %w", err))
	}
	for _, text := range a.Config.Auth.RemoteID {
		if p, err := auth.ParsePattern(text); err == nil && p.Match(id) {
			return nil
		}
	}
	return reason.New(reason.InvalidRequest, "auth.remote_id in %s does not admit %s (it has %s): give another identity with --id", a.Path, id, strings.Join(a.Config.Auth.RemoteID, ", "))
}

// former returns the active users that a new one of that name replaces. Name and
// identity must be free otherwise.
func (a *Admin) former(name string, o UserOptions) ([]User, error) {
	users, err := a.Users()
	if err != nil {
		return nil, err
	}
	var out []User
	for _, u := range users {
		switch {
		case u.State != UserActive:
		case u.Name == name && !o.Replace:
			return nil, reason.New(reason.AlreadyExists, "user %s: --replace gives new credentials and ends the old ones", name)
		case u.Name == name:
			out = append(out, u)
		case sameIdentity(u.Identity, o.Identity):
			return nil, reason.New(reason.AlreadyExists, "user %s has the identity %s already", u.Name, o.Identity)
		}
	}
	return out, nil
}

// sameIdentity compares as the daemon does: domain names have no case.
func sameIdentity(x, y string) bool {
	a, errA := auth.ParseIdentity(x)
	b, errB := auth.ParseIdentity(y)
	return x == y || errA == nil && errB == nil && a.Equal(b)
}

// issueCertificate puts a new certificate into a profile. undo makes it void.
func (a *Admin) issueCertificate(p *profile.Profile, o UserOptions) (undo func() error, err error) {
	authority, err := a.openAuthority()
	if err != nil {
		return nil, err
	}
	b, err := authority.IssueClient(o.Identity, pki.IssueOptions{Name: p.Name, KeyType: o.KeyType, Lifetime: o.Lifetime})
	if err != nil {
		return nil, err
	}
	p.Auth = profile.Auth{Method: profile.Certificate, CA: string(b.CA), Certificate: string(b.Cert), Key: config.NewSecret(b.Key)}
	return func() error {
		_, err := authority.Revoke(b.Issued.Serial, pki.CessationOfOperation)
		return err
	}, nil
}

// newProfile is a client's profile without credentials.
func (a *Admin) newProfile(name, identity string) *profile.Profile {
	c := a.Config
	p := profile.New(name)
	p.Server = profile.List(c.Addresses)
	if len(p.Server) == 0 {
		p.Server = profile.List{c.Name}
	}
	p.RemoteID = c.ID
	if p.RemoteID == "" {
		p.RemoteID = c.Name
	}
	p.ID = identity
	if !slices.ContainsFunc(c.Network.Networks, func(n netip.Prefix) bool { return n.Bits() == 0 }) {
		p.Tunnel.Routes.FromServer = true
	}
	p.Tunnel.NativeESP = c.Tunnel.NativeESP
	return p
}

func (a *Admin) profilePath(name string) string {
	return filepath.Join(a.Config.StateDir, profilesDir, name+".toml")
}

// keepProfile writes the profile.
func (a *Admin) keepProfile(p *profile.Profile) error {
	data, err := p.Marshal()
	if err != nil {
		return fmt.Errorf("write the profile of %s: %w", p.Name, err)
	}
	defer clear(data)
	path := a.profilePath(p.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.WriteFile(path, data, 0o600)
}

// active describes the active user of a name.
func (a *Admin) active(name string) (*User, error) {
	users, err := a.Users()
	if err != nil {
		return nil, err
	}
	for _, u := range users {
		if u.Name == name && u.State == UserActive {
			return &u, nil
		}
	}
	return nil, fmt.Errorf("user %s has been made and is gone again", name)
}

// Users lists all users, by name, the newest credentials of each first.
func (a *Admin) Users() ([]User, error) {
	out := []User{}
	p, err := a.openAuthority()
	if err == nil {
		certificates, err := p.List()
		if err != nil {
			return nil, err
		}
		for _, c := range certificates {
			if c.Kind == pki.KindClient {
				out = append(out, a.certificateUser(c))
			}
		}
	} else if a.Config.Auth.Certificate == "" && len(a.Config.Auth.CA) == 0 && !errors.Is(err, pki.ErrNoAuthority) {
		return nil, err
	}
	keyUsers, err := loadKeyUsers(a.Config.StateDir)
	if err != nil {
		return nil, err
	}
	for _, k := range keyUsers {
		out = append(out, User{Name: k.Name, Identity: k.ID, Kind: SharedKeyUser, State: UserActive, Added: k.Added})
	}
	slices.SortStableFunc(out, func(x, y User) int {
		if c := strings.Compare(x.Name, y.Name); c != 0 {
			return c
		}
		return y.Added.Compare(x.Added)
	})
	for i := range out {
		if _, err := os.Stat(a.profilePath(out[i].Name)); err == nil && out[i].State == UserActive {
			out[i].Profile = a.profilePath(out[i].Name)
		}
	}
	return out, nil
}

func (a *Admin) certificateUser(c pki.Certificate) User {
	u := User{Name: c.Name, Kind: CertificateUser, State: UserActive, Added: c.Issued(), Expires: &c.NotAfter, Revoked: c.RevokedAt, serial: c.Serial}
	if len(c.Identities) > 0 {
		u.Identity = c.Identities[0]
	}
	switch {
	case c.Revoked():
		u.State = UserRevoked
	case a.Now().After(c.NotAfter):
		u.State = UserExpired
	}
	return u
}

// find returns the active credentials of a user: of that name or, if nobody has ever
// had it, of that identity.
func (a *Admin) find(who string) ([]User, error) {
	all, err := a.Users()
	if err != nil {
		return nil, err
	}
	found := matching(all, func(u User) bool { return u.Name == who })
	if len(found) == 0 {
		found = matching(all, func(u User) bool { return sameIdentity(u.Identity, who) })
	}
	if len(found) == 0 {
		return nil, reason.New(reason.NotFound, "user %s; vpn-server user list shows all", who)
	}
	active := matching(found, func(u User) bool { return u.State == UserActive })
	if len(active) == 0 {
		return nil, reason.New(reason.NotFound, "user %s is %s", found[0].Name, found[0].State)
	}
	for _, u := range active {
		if u.Name != active[0].Name {
			return nil, reason.New(reason.InvalidRequest, "%s and %s have the identity %s: say which of them, by name", active[0].Name, u.Name, who)
		}
	}
	return active, nil
}

func matching(all []User, ok func(User) bool) []User {
	return slices.DeleteFunc(slices.Clone(all), func(u User) bool { return !ok(u) })
}

// EndUser ends the access of a user, who is named as find says: certificates are
// revoked, the shared key is forgotten, and the profile removed.
func (a *Admin) EndUser(who string, why pki.Reason) (User, error) {
	var u User
	err := a.locked(func() error {
		active, err := a.find(who)
		if err != nil {
			return err
		}
		u = active[0]
		for _, credentials := range active {
			if err := a.endCredentials(credentials, why); err != nil {
				return err
			}
		}
		return a.forgetProfile(u.Name)
	})
	return u, err
}

// endCredentials forgets a user's shared key, or revokes his certificate. The lock is
// held.
func (a *Admin) endCredentials(u User, why pki.Reason) error {
	if u.Kind == SharedKeyUser {
		users, err := loadKeyUsers(a.Config.StateDir)
		if err != nil {
			return err
		}
		users = slices.DeleteFunc(users, func(k keyUser) bool { return k.Name == u.Name })
		return saveKeyUsers(a.Config.StateDir, users)
	}
	p, err := a.openAuthority()
	if err != nil {
		return err
	}
	_, err = p.Revoke(u.serial, why)
	return err
}

func (a *Admin) forgetProfile(name string) error {
	if err := os.Remove(a.profilePath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Profile returns the profile of an active user.
func (a *Admin) Profile(who string) ([]byte, error) {
	active, err := a.find(who)
	if err != nil {
		return nil, err
	}
	u := active[0]
	data, err := os.ReadFile(a.profilePath(u.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, reason.New(reason.NotFound, "the profile of %s is not kept here any more: vpn-server user add --replace %s makes a new one", u.Name, u.Name)
	}
	return data, err
}

// ForgetProfile removes the kept profile of a user, which holds the private key, once
// it has been handed out. The user stays.
func (a *Admin) ForgetProfile(who string) error {
	active, err := a.find(who)
	if err != nil {
		return err
	}
	return a.forgetProfile(active[0].Name)
}

// locked runs f while no other command changes users.
func (a *Admin) locked(f func() error) error {
	if err := os.MkdirAll(a.Config.StateDir, 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(a.Config.StateDir, "users.lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return f()
}
