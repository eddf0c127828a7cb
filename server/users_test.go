package server

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/pki"
)

type netipPrefix = netip.Prefix

func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func sprint(v any) string { return fmt.Sprintf("%+v", v) }

func newAdmin(t *testing.T) *Admin {
	t.Helper()
	dir := t.TempDir()
	r, err := Setup(SetupOptions{Name: "vpn.example.test", Addresses: []string{"203.0.113.1"}, ConfigDir: dir, StateDir: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	a, err := OpenAdmin(r.Config)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestCertificateUser(t *testing.T) {
	a := newAdmin(t)
	u, err := a.AddUser("alice", UserOptions{Lifetime: 30 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if u.Identity != "alice@vpn.example.test" || u.State != UserActive || u.Kind != CertificateUser || time.Until(*u.Expires) > 31*24*time.Hour {
		t.Errorf("user %+v", u)
	}
	if info, err := os.Stat(u.Profile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("profile: %v, %v", info, err)
	}
	data, err := a.Profile("alice")
	if err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse("alice.toml", data)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "alice" || p.Server[0] != "203.0.113.1" || p.RemoteID != "vpn.example.test" || p.ID != "alice@vpn.example.test" || !p.Tunnel.Routes.Full() {
		t.Errorf("profile %+v", p)
	}

	// The gateway accepts what the profile holds.
	settings := mustLoad(t, a)
	chain, err := auth.LoadCertificatesPEM([]byte(p.Auth.Certificate))
	if err != nil {
		t.Fatal(err)
	}
	id, err := auth.ParseIdentity(p.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := settings.Policy.Remote.VerifyChain(time.Now(), id, chain, nil); err != nil {
		t.Error(err)
	}
	if settings.trust.revoked[keyOf(chain[0].RawIssuer, chain[0].SerialNumber)] {
		t.Error("revoked from the beginning")
	}

	for name, o := range map[string]UserOptions{"alice": {}, "alice2": {Identity: "alice@vpn.example.test"}} {
		if _, err := a.AddUser(name, o); reason.Of(err) != reason.AlreadyExists {
			t.Errorf("%s again: %v", name, err)
		}
	}
	if _, err := a.AddUser("alice", UserOptions{Replace: true}); err != nil {
		t.Error(err)
	}
	settings = mustLoad(t, a)
	if !settings.trust.revoked[keyOf(chain[0].RawIssuer, chain[0].SerialNumber)] {
		t.Error("the replaced certificate is not revoked")
	}
	if _, err := settings.Policy.Remote.VerifyChain(time.Now(), id, chain, nil); err == nil {
		t.Error("the replaced certificate is accepted")
	}

	if _, err := a.EndUser("alice@vpn.example.test", pki.KeyCompromise); err != nil {
		t.Error(err)
	}
	if _, err := a.EndUser("alice", pki.KeyCompromise); reason.Of(err) != reason.NotFound || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("ended twice: %v", err)
	}
	if _, err := os.Stat(u.Profile); !os.IsNotExist(err) {
		t.Errorf("the profile is still there: %v", err)
	}
	users, err := a.Users()
	if err != nil || len(users) != 2 || users[0].State != UserRevoked || users[1].State != UserRevoked {
		t.Errorf("users %+v, %v", users, err)
	}
	if u, err = a.AddUser("alice", UserOptions{}); err != nil || u.State != UserActive {
		t.Errorf("a new alice: %+v, %v", u, err)
	}
	if err := a.ForgetProfile("alice"); err != nil {
		t.Error(err)
	}
	if _, err := a.Profile("alice"); reason.Of(err) != reason.NotFound || !strings.Contains(err.Error(), "--replace") {
		t.Errorf("a forgotten profile: %v", err)
	}
}

func mustLoad(t *testing.T, a *Admin) *Settings {
	t.Helper()
	s, err := Load(a.Path, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSharedKeyUser(t *testing.T) {
	a := newAdmin(t)
	for _, name := range []string{"phone", "tablet"} {
		if _, err := a.AddUser(name, UserOptions{SharedKey: true}); err != nil {
			t.Fatal(err)
		}
	}
	data, err := a.Profile("phone")
	if err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse("phone.toml", data)
	if err != nil {
		t.Fatal(err)
	}
	s := mustLoad(t, a)
	id, _ := auth.ParseIdentity(p.ID)
	other, _ := auth.ParseIdentity("tablet@vpn.example.test")
	secret, err := s.Policy.Remote.SharedKey(id)
	if err != nil || string(secret) != string(p.Auth.PSK.Bytes()) || len(secret) != 43 {
		t.Errorf("%d octets, %v", len(secret), err)
	}
	if another, err := s.Policy.Remote.SharedKey(other); err != nil || string(another) == string(secret) {
		t.Errorf("the second user's key: %v", err)
	}
	if !s.Policy.Remote.AllowPSK || !s.Policy.Remote.AllowSignature {
		t.Error("not both methods are open")
	}
	if info, err := os.Stat(filepath.Join(a.Config.StateDir, keyUsersFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := a.EndUser("phone", pki.Unspecified); err != nil {
		t.Fatal(err)
	}
	if _, err := mustLoad(t, a).Policy.Remote.SharedKey(id); err == nil {
		t.Error("the key of a removed user is still there")
	}
}

func TestUsersThatCannotBe(t *testing.T) {
	a := newAdmin(t)
	a.Config.Auth.RemoteID = []string{"*@vpn.example.test"}
	for name, o := range map[string]UserOptions{
		"../../etc/passwd": {}, "": {}, "-x": {}, "a b": {},
		"bob":   {Identity: "bob@elsewhere.test"},
		"carol": {SharedKey: true, Lifetime: time.Hour},
		"dave":  {Identity: "dave\n@vpn.example.test"},
		// A key for one of these would open the identities of others.
		"all":    {Identity: "*", SharedKey: true},
		"any":    {Identity: "%any", SharedKey: true},
		"domain": {Identity: "*@vpn.example.test", SharedKey: true},
		"email":  {Identity: "email:*@vpn.example.test", SharedKey: true},
		"below":  {Identity: "*.vpn.example.test", SharedKey: true},
		"dn":     {Identity: "CN=*,O=Example", SharedKey: true},
		"client": {Identity: "*@vpn.example.test"},
	} {
		if u, err := a.AddUser(name, o); reason.Of(err) != reason.InvalidRequest {
			t.Errorf("%q %+v: %+v, %v", name, o, u, err)
		}
	}
	if users, err := a.Users(); err != nil || len(users) != 0 {
		t.Errorf("%v, %v", users, err)
	}
	if _, err := a.EndUser("nobody", pki.Unspecified); reason.Of(err) != reason.NotFound {
		t.Error(err)
	}
}

// Ending a user ends that user: nobody whose name or identity looks like it, and not
// the gateway.
func TestEndingAUserEndsNobodyElse(t *testing.T) {
	a := newAdmin(t)
	for _, u := range []struct {
		name, id string
		psk      bool
	}{
		{"Alice", "", false}, {"alice", "second-alice@vpn.example.test", false},
		{"carol", "dave", false}, {"dave", "", false}, {"aaa", "bob", true}, {"bob", "", true},
		{"vpn.example.test", "x@example.test", false},
	} {
		if _, err := a.AddUser(u.name, UserOptions{Identity: u.id, SharedKey: u.psk}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"dave", "bob"} {
		if p, err := profile.Parse(name, []byte(mustProfile(t, a, name))); err != nil || p.Name != name {
			t.Errorf("the profile of %s is that of %s: %v", name, p.Name, err)
		}
	}
	ended := []string{"Alice", "dave", "bob", "vpn.example.test"}
	for _, name := range ended {
		if u, err := a.EndUser(name, pki.CessationOfOperation); err != nil || u.Name != name {
			t.Errorf("remove %s has ended %s: %v", name, u.Name, err)
		}
	}
	list, err := a.Users()
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range list {
		if (u.State == UserActive) == slices.Contains(ended, u.Name) {
			t.Errorf("%s is %s", u.Name, u.State)
		}
	}
	certificates, err := a.Certificates()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range certificates {
		if c.Kind == pki.KindServer && c.Revoked() {
			t.Error("the gateway's own certificate is revoked")
		}
	}
	// A name that somebody has had stays his: the command once more ends nobody.
	if u, err := a.EndUser("dave", pki.CessationOfOperation); reason.Of(err) != reason.NotFound {
		t.Errorf("remove dave, again: %+v, %v", u, err)
	}
	if u, err := a.EndUser("BOB", pki.CessationOfOperation); err != nil || u.Name != "aaa" {
		t.Errorf("by the identity: %+v, %v", u, err)
	}
}

// Two users cannot have one identity, however it is written, and whatever proves it.
func TestOneIdentityOneUser(t *testing.T) {
	a := newAdmin(t)
	a.Config.PSK = []PSKConfig{{ID: "Printer@vpn.example.test", Secret: config.NewSecret([]byte("secret"))}}
	for name, o := range map[string]UserOptions{"eve": {SharedKey: true}, "mallory": {}} {
		if _, err := a.AddUser(name, o); err != nil {
			t.Fatal(err)
		}
	}
	for i, id := range []string{"Eve@VPN.example.test", "email:eve@vpn.example.test", "MALLORY@vpn.example.test", "email:mallory@vpn.example.test"} {
		for _, psk := range []bool{true, false} {
			if _, err := a.AddUser(fmt.Sprint("user", i), UserOptions{Identity: id, SharedKey: psk}); reason.Of(err) != reason.AlreadyExists {
				t.Errorf("%s, psk %v: %v", id, psk, err)
			}
		}
	}
	if _, err := a.AddUser("printer", UserOptions{SharedKey: true}); reason.Of(err) != reason.AlreadyExists || !strings.Contains(err.Error(), "[[psk]]") {
		t.Errorf("an identity with a key in the configuration: %v", err)
	}
}

// Keys of users that a former version kept for patterns open nothing.
func TestKeptKeyForAPattern(t *testing.T) {
	a := newAdmin(t)
	if err := saveKeyUsers(a.Config.StateDir, []keyUser{{Name: "all", ID: "*", Secret: config.NewSecret([]byte("secret"))}}); err != nil {
		t.Fatal(err)
	}
	s := mustLoad(t, a)
	id, _ := auth.ParseIdentity("anybody@vpn.example.test")
	if _, err := s.Policy.Remote.SharedKey(id); err == nil {
		t.Error("the key is good for anybody")
	}
	if !strings.Contains(strings.Join(s.Warnings, "\n"), "user all") {
		t.Errorf("warnings %q", s.Warnings)
	}
}

// A user whose replacement fails keeps what he has.
func TestFailedReplacementLeavesTheUser(t *testing.T) {
	for name, kind := range map[string]UserOptions{"certificate": {}, "psk": {SharedKey: true}} {
		t.Run(name, func(t *testing.T) {
			a := newAdmin(t)
			for _, user := range []string{"alice", "bob"} {
				if _, err := a.AddUser(user, kind); err != nil {
					t.Fatal(err)
				}
			}
			before, profile := users(t, a), mustProfile(t, a, "alice")
			fails := func(what string, o UserOptions) {
				t.Helper()
				if _, err := a.AddUser("alice", o); err == nil {
					t.Errorf("%s: no error", what)
				}
				if after := users(t, a); after != before {
					t.Errorf("%s left\n%s, before\n%s", what, after, before)
				}
				if mustProfile(t, a, "alice") != profile {
					t.Errorf("%s: another profile", what)
				}
			}
			fails("an identity that is bob's", UserOptions{Replace: true, Identity: "bob@VPN.example.test"})
			fails("an identity that no certificate has", UserOptions{Replace: true, Identity: "CN=alice"})
			a.Config.Addresses = []string{"203.0.113.300"}
			fails("a gateway without a usable address", UserOptions{Replace: true, SharedKey: kind.SharedKey})
		})
	}
}

// A user whose profile cannot be written is not made.
func TestUserWithoutProfileIsUndone(t *testing.T) {
	for name, kind := range map[string]UserOptions{"certificate": {}, "psk": {SharedKey: true}} {
		a := newAdmin(t)
		dir := filepath.Join(a.Config.StateDir, profilesDir)
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := a.AddUser("alice", kind); err == nil {
			t.Errorf("%s: no error", name)
		}
		if list := users(t, a); strings.Contains(list, UserActive) {
			t.Errorf("%s: left are %s", name, list)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := a.AddUser("alice", kind); err != nil {
			t.Errorf("%s: and then: %v", name, err)
		}
	}
}

// Nor does a replacement whose profile cannot be written end what was there.
func TestReplacementWithoutProfileIsUndone(t *testing.T) {
	for name, kind := range map[string]UserOptions{"certificate": {}, "psk": {SharedKey: true}} {
		t.Run(name, func(t *testing.T) {
			a := newAdmin(t)
			before, err := a.AddUser("alice", kind)
			if err != nil {
				t.Fatal(err)
			}
			keys := mustLoad(t, a)
			if err := errors.Join(os.Remove(before.Profile), os.Mkdir(before.Profile, 0o700)); err != nil {
				t.Fatal(err)
			}
			kind.Replace = true
			if _, err := a.AddUser("alice", kind); err == nil {
				t.Error("no error")
			}
			active, err := a.find("alice")
			if err != nil || len(active) != 1 || active[0].serial != before.serial {
				t.Errorf("%+v, %v; before %+v", active, err, before)
			}
			id, _ := auth.ParseIdentity(before.Identity)
			then, _ := keys.Policy.Remote.SharedKey(id)
			if now, _ := mustLoad(t, a).Policy.Remote.SharedKey(id); !bytes.Equal(now, then) {
				t.Error("another key")
			}
		})
	}
}

// From one kind of credentials to another.
func TestReplaceByAnotherKind(t *testing.T) {
	a := newAdmin(t)
	for _, o := range []UserOptions{{}, {SharedKey: true, Replace: true}, {SharedKey: true, Replace: true}, {Replace: true}} {
		if _, err := a.AddUser("alice", o); err != nil {
			t.Fatal(err)
		}
		list, err := a.Users()
		if err != nil {
			t.Fatal(err)
		}
		active := 0
		for _, u := range list {
			if u.State == UserActive {
				active++
				if (u.Kind == SharedKeyUser) != o.SharedKey || u.Profile == "" {
					t.Errorf("after %+v: %+v", o, u)
				}
			}
		}
		if active != 1 {
			t.Errorf("after %+v %d are active: %+v", o, active, list)
		}
	}
}

// users lists what there is, to compare.
func users(t *testing.T, a *Admin) string {
	t.Helper()
	list, err := a.Users()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, u := range list {
		out = append(out, u.Name+" "+u.Identity+" "+string(u.Kind)+" "+u.State+" "+u.serial)
	}
	return strings.Join(out, "\n")
}

func mustProfile(t *testing.T, a *Admin, name string) string {
	t.Helper()
	data, err := a.Profile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestSetupRefusesAddressesThatProfilesWouldNot(t *testing.T) {
	for _, bad := range []string{"203.0.113.300", "0.0.0.0", "vpn.example.test:500", "a b"} {
		for _, o := range []SetupOptions{{Name: bad}, {Name: "vpn.example.test", Addresses: []string{bad}}} {
			dir := t.TempDir()
			o.ConfigDir, o.StateDir = dir, filepath.Join(dir, "state")
			if _, err := Setup(o); reason.Of(err) != reason.InvalidRequest {
				t.Errorf("%+v: %v", o, err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("%s: %v was made", bad, left)
			}
		}
	}
}

// What TOML has to escape is kept as it is.
func TestKeyUserWithQuotes(t *testing.T) {
	a := newAdmin(t)
	const identity = `er"in\@vpn.example.test`
	if _, err := a.AddUser("erin", UserOptions{SharedKey: true, Identity: identity}); err != nil {
		t.Fatal(err)
	}
	kept, err := loadKeyUsers(a.Config.StateDir)
	if err != nil || len(kept) != 1 || kept[0].ID != identity || kept[0].Name != "erin" {
		t.Errorf("kept %+v, %v", kept, err)
	}
	p, err := profile.Parse("erin.toml", []byte(mustProfile(t, a, "erin")))
	if err != nil || p.ID != identity || !p.Auth.PSK.Equal(kept[0].Secret) {
		t.Errorf("profile %+v, %v", p, err)
	}
	bad := []keyUser{{Name: "x", ID: "\xff@vpn.example.test", Secret: config.NewSecret([]byte("x"))}}
	if err := saveKeyUsers(a.Config.StateDir, bad); reason.Of(err) != reason.InvalidRequest {
		t.Errorf("what is not text: %v", err)
	}
}

func TestSetupInADirectoryWithQuotes(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, `a "state" \ directory`)
	r, err := Setup(SetupOptions{Name: "vpn.example.test", ConfigDir: dir, StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := Load(r.Config, time.Now()); err != nil || s.Config.StateDir != state {
		t.Errorf("%v", err)
	}
}
