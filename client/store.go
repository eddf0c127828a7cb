package client

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/atomicfile"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// Store is the directory with the profiles of this machine, one file each. Profiles
// hold secrets, so the directory and its files belong to root alone.
type Store struct {
	Dir string
}

// profileSuffix ends the names of the files.
const profileSuffix = ".toml"

func (s Store) path(name string) string { return filepath.Join(s.Dir, name+profileSuffix) }

// Import checks the profile in a file and stores it, self-contained, under name, or
// under its own name if that is empty. An existing one is replaced only with force.
func (s Store) Import(path, name string, force bool, now time.Time) (p *profile.Profile, warnings []string, err error) {
	p, warnings, err = LoadProfile(path, now)
	if err != nil {
		return nil, nil, err
	}
	defer p.Zero()
	if name != "" {
		if err := profile.CheckName(name); err != nil {
			return nil, nil, reason.Wrap(reason.InvalidRequest, err)
		}
		p.Name = name
	}
	if _, err := os.Lstat(s.path(p.Name)); err == nil && !force {
		return nil, nil, reason.New(reason.AlreadyExists, "a profile called %s; give the new one another name with --name, or replace it with --force", p.Name)
	}
	text, err := p.Marshal()
	if err != nil {
		return nil, nil, err
	}
	defer clear(text)
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make the directory of profiles: %w", err)
	}
	if err := atomicfile.WriteFile(s.path(p.Name), text, 0o600); err != nil {
		return nil, nil, fmt.Errorf("store profile %s: %w", p.Name, err)
	}
	return p, append(warnings, exposed(path)...), nil
}

// exposed warns of a file with a profile that others can read.
func exposed(path string) []string {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s holds a secret and others can read it (mode %04o): delete it, or chmod 600 it", path, info.Mode().Perm())}
}

// LoadProfile reads a profile from a file and checks that it can work: the form, and
// that keys, certificates, proposals and identities are understood and fit.
func LoadProfile(path string, now time.Time) (*profile.Profile, []string, error) {
	var more []string
	p, warnings, err := profile.Load(path, func(p *profile.Profile, problems *config.Problems) {
		_, more = Policy(p, now, "", problems)
	})
	return p, append(warnings, more...), err
}

// Load reads a stored profile.
func (s Store) Load(name string, now time.Time) (*profile.Profile, []string, error) {
	if err := profile.CheckName(name); err != nil {
		return nil, nil, reason.Wrap(reason.InvalidRequest, err)
	}
	p, warnings, err := LoadProfile(s.path(name), now)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, s.notFound(name)
	}
	if err != nil {
		return nil, nil, err
	}
	p.Name = name // the file's name counts: it is what the user types
	return p, warnings, nil
}

func (s Store) notFound(name string) error {
	names, err := s.Names()
	if err != nil || len(names) == 0 {
		return reason.New(reason.NotFound, "there is no profile %s, nor any other in %s; get one from the gateway's administrator and run vpn-client import FILE", name, s.Dir)
	}
	return reason.New(reason.NotFound, "there is no profile %s; there are: %s", name, strings.Join(names, ", "))
}

// Names lists the stored profiles.
func (s Store) Names() ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list profiles: %w", err)
	}
	var names []string
	for _, e := range entries {
		name, isProfile := strings.CutSuffix(e.Name(), profileSuffix)
		if isProfile && profile.CheckName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Remove deletes a stored profile.
func (s Store) Remove(name string) error {
	if err := profile.CheckName(name); err != nil {
		return reason.Wrap(reason.InvalidRequest, err)
	}
	err := os.Remove(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return s.notFound(name)
	}
	if err != nil {
		return fmt.Errorf("remove profile %s: %w", name, err)
	}
	return nil
}
