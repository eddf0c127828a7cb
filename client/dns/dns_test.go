package dns

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/client/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

var tunnel = []netip.Addr{netip.MustParseAddr("10.20.0.2"), netip.MustParseAddr("fd00:20::2")}

const home = "# from the DHCP client\nsearch home.example\nnameserver 192.168.1.1\noptions edns0\n"

// place is a directory with a resolv.conf in it.
type place struct {
	dir, path string
}

func newPlace(t *testing.T, content string) place {
	dir := t.TempDir()
	p := place{dir, filepath.Join(dir, "resolv.conf")}
	if content != "" {
		p.write(t, content)
	}
	return p
}

func (p place) write(t *testing.T, content string) {
	t.Helper()
	if err := os.WriteFile(p.path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (p place) read(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// manager is one run of the daemon; a crash is that it is not used any more.
func (p place) manager() *Manager {
	return New(Config{ResolvConf: p.path, Backup: filepath.Join(p.dir, "state", "backup"), Log: slog.New(slog.DiscardHandler)})
}

func (p place) apply(t *testing.T, m *Manager, full bool) {
	t.Helper()
	if err := m.Apply(context.Background(), Settings{Interface: "wf0", Servers: tunnel, Full: full}); err != nil {
		t.Fatal(err)
	}
}

func (p place) revert(t *testing.T, m *Manager) {
	t.Helper()
	if err := m.Revert(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "state", "backup")); !os.IsNotExist(err) {
		t.Errorf("the copy is still there: %v", err)
	}
}

func TestFile(t *testing.T) {
	for _, tt := range []struct {
		full bool
		want string
	}{
		{true, heading + "nameserver 10.20.0.2\nnameserver fd00:20::2\nsearch home.example\noptions edns0\n"},
		{false, heading + "nameserver 10.20.0.2\nnameserver fd00:20::2\nnameserver 192.168.1.1\nsearch home.example\noptions edns0\n"},
	} {
		p := newPlace(t, home)
		m := p.manager()
		for range 2 { // the second time changes nothing
			p.apply(t, m, tt.full)
			if got := p.read(t); got != tt.want {
				t.Errorf("full %v:\n%s", tt.full, got)
			}
		}
		if own := m.Own(); len(own) != 1 || own[0].String() != "192.168.1.1" {
			t.Errorf("own servers: %v", own)
		}
		p.revert(t, m)
		if got := p.read(t); got != home {
			t.Errorf("restored:\n%s", got)
		}
		p.revert(t, m) // nothing to do
		if own := m.Own(); len(own) != 1 {
			t.Errorf("own servers: %v", own)
		}
	}
}

func TestServersChange(t *testing.T) {
	p := newPlace(t, home)
	m := p.manager()
	p.apply(t, m, true)
	other := Settings{Interface: "wf0", Servers: tunnel[:1], Full: true}
	if err := m.Apply(context.Background(), other); err != nil {
		t.Fatal(err)
	}
	if got := p.read(t); strings.Contains(got, "fd00:20::2") || !strings.Contains(got, "10.20.0.2") {
		t.Errorf("written:\n%s", got)
	}
	if err := m.Apply(context.Background(), Settings{Interface: "wf0"}); err != nil { // no servers any more
		t.Fatal(err)
	}
	if got := p.read(t); got != home {
		t.Errorf("restored:\n%s", got)
	}
}

// TestCrash: whatever moment the daemon is killed in, the next run restores the file.
func TestCrash(t *testing.T) {
	p := newPlace(t, home)
	p.apply(t, p.manager(), true)
	p.revert(t, p.manager())
	if got := p.read(t); got != home {
		t.Errorf("after a crash while up:\n%s", got)
	}
	// Killed while the file was written in place: only a beginning is there.
	for _, cut := range []int{0, 1, len(heading), len(heading) + 5} {
		p.apply(t, p.manager(), true)
		p.write(t, p.read(t)[:cut])
		p.revert(t, p.manager())
		if got := p.read(t); got != home {
			t.Errorf("cut after %d octets:\n%s", cut, got)
		}
	}
	// Killed between the copy and the change.
	p.apply(t, p.manager(), true)
	p.write(t, home)
	p.revert(t, p.manager())
	if got := p.read(t); got != home {
		t.Errorf("killed before the change:\n%s", got)
	}
	// Crash, start, connect, crash, start: the first original counts.
	p.apply(t, p.manager(), true)
	p.apply(t, p.manager(), false)
	p.revert(t, p.manager())
	if got := p.read(t); got != home {
		t.Errorf("after two crashes:\n%s", got)
	}
}

// TestOthersWrite: a DHCP client renews its lease while the tunnel is up.
func TestOthersWrite(t *testing.T) {
	const renewed = "nameserver 192.168.7.1\n"
	p := newPlace(t, home)
	m := p.manager()
	p.apply(t, m, true)
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	p.write(t, renewed)
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	if got := p.read(t); !strings.HasPrefix(got, heading) {
		t.Errorf("the tunnel's servers are gone:\n%s", got)
	}
	p.revert(t, m)
	if got := p.read(t); got != renewed {
		t.Errorf("restored:\n%s", got)
	}
	// Without a check in between, the newer truth stays.
	p.apply(t, m, true)
	p.write(t, home)
	p.revert(t, m)
	if got := p.read(t); got != home {
		t.Errorf("overwrote what another program wrote:\n%s", got)
	}
	if err := m.Check(); err != nil { // not applied: nothing to check
		t.Fatal(err)
	}
}

func TestMissingFile(t *testing.T) {
	p := newPlace(t, "")
	m := p.manager()
	p.apply(t, m, false)
	if got := p.read(t); !strings.Contains(got, "nameserver 10.20.0.2") {
		t.Errorf("written:\n%s", got)
	}
	p.revert(t, m)
	if _, err := os.Lstat(p.path); !os.IsNotExist(err) {
		t.Errorf("there was no file before: %v", err)
	}
}

func TestSymbolicLink(t *testing.T) {
	for _, target := range []string{"managed.conf", "nowhere.conf"} {
		p := newPlace(t, "")
		if err := os.WriteFile(filepath.Join(p.dir, "managed.conf"), []byte(home), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, p.path); err != nil {
			t.Fatal(err)
		}
		p.apply(t, p.manager(), true)
		if got := p.read(t); !strings.HasPrefix(got, heading) {
			t.Errorf("written:\n%s", got)
		}
		p.revert(t, p.manager()) // by another run
		if got, err := os.Readlink(p.path); err != nil || got != target {
			t.Errorf("link: %s %v", got, err)
		}
		if b, err := os.ReadFile(filepath.Join(p.dir, "managed.conf")); err != nil || string(b) != home {
			t.Errorf("the file of the other program was changed: %s %v", b, err)
		}
	}
}

// TestMounted: in containers resolv.conf is a mount point and cannot be replaced.
func TestMounted(t *testing.T) {
	nstest.Require(t)
	p := newPlace(t, "placeholder")
	source := filepath.Join(p.dir, "source")
	if err := os.WriteFile(source, []byte(home), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, p.path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(p.path, unix.MNT_DETACH)
	p.apply(t, p.manager(), true)
	if b, _ := os.ReadFile(source); !strings.HasPrefix(string(b), heading) {
		t.Errorf("written:\n%s", b)
	}
	p.revert(t, p.manager())
	if b, _ := os.ReadFile(source); string(b) != home {
		t.Errorf("restored:\n%s", b)
	}
}

func TestBrokenBackup(t *testing.T) {
	p := newPlace(t, home)
	if err := os.MkdirAll(filepath.Join(p.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "state", "backup"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := p.manager()
	p.apply(t, m, true)
	p.revert(t, m)
	if got := p.read(t); got != home {
		t.Errorf("restored:\n%s", got)
	}
}

func TestMode(t *testing.T) {
	p := newPlace(t, home)
	if err := os.Chmod(p.path, 0o600); err != nil {
		t.Fatal(err)
	}
	m := p.manager()
	p.apply(t, m, true)
	p.revert(t, m)
	if info, err := os.Stat(p.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
}

// fakeResolved records what it is told.
type fakeResolved struct {
	up   bool
	link map[string]Settings
}

func (f *fakeResolved) Available(context.Context) bool { return f.up }
func (f *fakeResolved) SetLink(_ context.Context, s Settings) error {
	f.link[s.Interface] = s
	return nil
}
func (f *fakeResolved) RevertLink(_ context.Context, iface string) error {
	delete(f.link, iface)
	return nil
}

func TestChoice(t *testing.T) {
	for _, tt := range []struct {
		content string
		up      bool
		want    bool
	}{
		{"nameserver 127.0.0.53\noptions edns0\n", true, true},
		{"nameserver 127.0.0.53\n", false, false}, // it does not run
		{"nameserver 127.0.0.53\nnameserver 192.168.1.1\n", true, false},
		{home, true, false}, // it runs, but programs do not ask it
		{"", true, false},
	} {
		p := newPlace(t, tt.content)
		f := &fakeResolved{up: tt.up, link: map[string]Settings{}}
		m := p.manager()
		m.cfg.Resolved = f
		p.apply(t, m, true)
		if _, got := f.link["wf0"]; got != tt.want {
			t.Errorf("%q, service up %v: through systemd-resolved %v", tt.content, tt.up, got)
		}
		if tt.want && p.read(t) != tt.content {
			t.Errorf("the file was changed too:\n%s", p.read(t))
		}
		p.revert(t, m)
		if len(f.link) != 0 {
			t.Errorf("left with systemd-resolved: %v", f.link)
		}
	}
}

func TestDomains(t *testing.T) {
	for _, tt := range []struct {
		s    Settings
		want []linkDomain
	}{
		{Settings{}, []linkDomain{{".", true}}},
		{Settings{Domains: []string{"corp.example.", "lab.example"}}, []linkDomain{{"corp.example", true}, {"lab.example", true}}},
		{Settings{Full: true, Domains: []string{"corp.example"}}, []linkDomain{{".", true}, {"corp.example", true}}},
		{Settings{Domains: []string{"."}}, []linkDomain{}},
	} {
		if got := domainsFor(tt.s); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %v", tt.s, got)
		}
	}
}

// FuzzResolvConf: whatever stands in resolv.conf, the file for the tunnel names the
// tunnel's servers first, and at most three.
func FuzzResolvConf(f *testing.F) {
	f.Add([]byte(home), true)
	f.Add([]byte("nameserver\nnameserver x\n;c\nnameserver fe80::1%eth0\n"), false)
	f.Fuzz(func(t *testing.T, data []byte, full bool) {
		got := resolvConf(data).tunneled(Settings{Servers: tunnel, Full: full}).servers()
		if len(got) < 2 || len(got) > maxServers || !slices.Equal(got[:2], tunnel) || full && len(got) != 2 {
			t.Errorf("servers: %v", got)
		}
	})
}
