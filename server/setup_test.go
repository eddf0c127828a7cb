package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// With --force there is a new gateway without the users of the former one, of which
// nothing is lost.
func TestSetupWithForce(t *testing.T) {
	dir := t.TempDir()
	o := SetupOptions{Name: "vpn.example.test", ConfigDir: filepath.Join(dir, "etc"), StateDir: filepath.Join(dir, "state"), Now: func() time.Time { return testTime }}
	r, err := Setup(o)
	if err != nil {
		t.Fatal(err)
	}
	a, err := OpenAdmin(r.Config)
	if err != nil {
		t.Fatal(err)
	}
	a.Now = o.Now
	for name, kind := range map[string]UserOptions{"alice": {}, "phone": {SharedKey: true}} {
		if _, err := a.AddUser(name, kind); err != nil {
			t.Fatal(err)
		}
	}
	former := users(t, a)
	text, err := os.ReadFile(r.Config)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, "\n[[psk]]\nid = \"printer@example.test\"\nsecret = \"s\"\n"...)
	if err := os.WriteFile(r.Config, text, 0o600); err != nil {
		t.Fatal(err)
	}

	o.Force, o.Pool4 = true, mustPrefix("10.99.0.0/24")
	again, err := Setup(o)
	if err != nil {
		t.Fatal(err)
	}
	if got := users(t, a); got != "" {
		t.Errorf("users of the new gateway:\n%s", got)
	}
	s, err := Load(r.Config, testTime)
	if err != nil {
		t.Fatal(err)
	}
	if s.Policy.Remote.AllowPSK || s.Config.Network.Pool4 != o.Pool4 {
		t.Errorf("the former configuration: %+v", s.Config)
	}
	if left, _ := filepath.Glob(filepath.Join(o.StateDir, profilesDir, "*")); len(left) != 0 {
		t.Errorf("profiles %v", left)
	}
	// A third one in the same second overwrites nothing of what is kept.
	if _, err := Setup(o); reason.Of(err) != reason.AlreadyExists {
		t.Errorf("at once again: %v", err)
	}

	// Everything back in its place.
	for _, kept := range again.Kept {
		path := strings.TrimSuffix(kept, filepath.Ext(kept))
		if err := errors.Join(os.RemoveAll(path), os.Rename(kept, path)); err != nil {
			t.Fatal(err)
		}
	}
	if got := users(t, a); got != former {
		t.Errorf("users\n%s, before\n%s", got, former)
	}
	if got, err := os.ReadFile(r.Config); err != nil || string(got) != string(text) {
		t.Errorf("the configuration: %v\n%s", err, got)
	}
	if s, err := Load(r.Config, testTime); err != nil || !s.Policy.Remote.AllowPSK {
		t.Errorf("the former gateway: %v", err)
	}
	for _, name := range []string{"alice", "phone"} {
		mustProfile(t, a, name)
	}
}

// Wherever the state directory is, what init writes passes the check.
func TestSetupInAnyDirectory(t *testing.T) {
	for _, name := range []string{"st", "./with space", `a"quote`, `back\slash`, "Ünï", "-x", "tab\tand\nline", "#", "''"} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			r, err := Setup(SetupOptions{Name: "vpn.example.test", ConfigDir: "etc", StateDir: name, Now: func() time.Time { return testTime }})
			if err != nil {
				t.Fatal(err)
			}
			if !filepath.IsAbs(r.Config) || !filepath.IsAbs(r.StateDir) {
				t.Errorf("%+v", r)
			}
			s, err := Load(r.Config, testTime)
			if err != nil {
				t.Fatal(err)
			}
			if s.Config.StateDir != r.StateDir || filepath.Base(s.Config.StateDir) != filepath.Base(name) {
				t.Errorf("state_dir %q, asked for %q", s.Config.StateDir, name)
			}
		})
	}
	for _, name := range []string{"\xff", ""} {
		dir := t.TempDir()
		if _, err := Setup(SetupOptions{Name: "vpn.example.test", ConfigDir: dir, StateDir: name}); reason.Of(err) != reason.InvalidRequest {
			t.Errorf("%q: %v", name, err)
		}
	}
}
