package client

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wayfarer-vpn/wayfarer/client/internal/nstest"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/control"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

func TestMain(m *testing.M) { nstest.Main(m) }

const pskProfile = "server = '" + gateway + "'\nid = 'laptop@example.test'\n[auth]\npsk = 'a secret of sixteen octets'\n"

// testDaemon is a daemon in a world, with profiles called alice and bob.
func testDaemon(t *testing.T, w *world) *Daemon {
	t.Helper()
	dir := t.TempDir()
	cfg := NewConfig()
	cfg.ProfileDir, cfg.StateDir, cfg.Socket = filepath.Join(dir, "profiles"), filepath.Join(dir, "state"), filepath.Join(dir, "sock")
	if err := os.Mkdir(cfg.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"alice", "bob"} {
		path := filepath.Join(dir, name+".toml")
		if err := os.WriteFile(path, []byte(pskProfile), 0o600); err != nil {
			t.Fatal(err)
		}
		p, _, err := cfg.Store().Import(path, "", false, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if p.Name != name {
			t.Fatalf("imported as %q", p.Name)
		}
	}
	return anotherRun(cfg, w)
}

// anotherRun is a daemon with the same files as another one.
func anotherRun(cfg *Config, w *world) *Daemon {
	d := newDaemon(cfg, "1.2.3", slog.New(slog.DiscardHandler), w)
	d.newStack, d.system = w.newStack, w.lookup
	d.life = context.Background()
	return d
}

func codeOf(err error) reason.Code {
	var coded *reason.Error
	if errors.As(err, &coded) {
		return coded.Code
	}
	return ""
}

func TestDaemonCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, accepts("0.0.0.0/0"))
		d := testDaemon(t, w)
		ctx := context.Background()
		if s := d.Status(ctx); s.State != Disconnected || s.Version != "1.2.3" || s.Addresses == nil || s.Children == nil {
			t.Errorf("status: %+v", s)
		}
		if _, err := d.Up(ctx, "carol", 0); codeOf(err) != reason.NotFound || !strings.Contains(err.Error(), "alice, bob") {
			t.Errorf("an unknown profile: %v", err)
		}
		if _, err := d.Up(ctx, "", 0); codeOf(err) != reason.InvalidRequest {
			t.Errorf("one of several profiles: %v", err)
		}
		if _, err := d.Up(ctx, "../x", 0); codeOf(err) != reason.InvalidRequest {
			t.Errorf("a name that leaves the directory: %v", err)
		}
		first, err := d.Up(ctx, "alice", time.Minute)
		if err != nil || first.Generation != 1 || first.State != Connecting {
			t.Fatalf("%+v %v", first, err)
		}
		after(time.Second)
		if again, err := d.Up(ctx, "alice", 0); err != nil || again.Generation != 1 || !again.Connected {
			t.Errorf("up while it is up: %+v %v", again, err)
		}
		if _, err := d.Up(ctx, "bob", 0); codeOf(err) != reason.Conflict {
			t.Errorf("another profile: %v", err)
		}
		if _, err := d.Down(ctx, "bob"); codeOf(err) != reason.NotFound {
			t.Errorf("down of another profile: %v", err)
		}
		if i, ok := stateDir(d.cfg.StateDir).load(); !ok || i.Profile != "alice" || i.BootID == "" {
			t.Errorf("state file: %+v %v", i, ok)
		}
		if s, err := d.Down(ctx, ""); err != nil || s.State != Disconnected {
			t.Errorf("down: %+v %v", s, err)
		}
		if _, ok := stateDir(d.cfg.StateDir).load(); ok {
			t.Error("the state file is still there")
		}
		w.happened()
		if _, err := d.Down(ctx, ""); err != nil { // nothing is up: the machine is restored all the same
			t.Error(err)
		}
		if got := w.happened(); got != "clear leaving=false" {
			t.Errorf("happened: %s", got)
		}
		if s, err := d.Up(ctx, "bob", 0); err != nil || s.Generation != 2 {
			t.Errorf("%+v %v", s, err)
		}
		after(time.Second)
		if err := d.leave(); err != nil {
			t.Error(err)
		}
		if got := w.happened(); !strings.HasSuffix(got, "shutdown, clear leaving=true") {
			t.Errorf("happened: %s", got)
		}
	})
}

// TestErrorOutlivesConnection: "up" again after a refusal does not hide it before there
// is news.
func TestErrorOutlivesConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, refuses(reason.AuthFailed, message.AuthenticationFailed))
		d := testDaemon(t, w)
		p, err := profile.Parse("x.toml", []byte("reconnect = false\n"+pskProfile))
		if err != nil {
			t.Fatal(err)
		}
		d.cfg.Profile = p
		if _, err := d.Up(context.Background(), "x", 0); err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		s := d.Status(context.Background())
		expect(t, s, Disconnected, reason.AuthFailed, "AUTHENTICATION_FAILED")
		if s.LastError.Generation != 1 {
			t.Errorf("generation %d", s.LastError.Generation)
		}
		if _, ok := stateDir(d.cfg.StateDir).load(); ok {
			t.Error("a connection that has ended by itself would be resumed")
		}
		w.set(gateway, nil)
		s, err = d.Up(context.Background(), "x", 0)
		if err != nil || s.State != Connecting || s.LastError == nil || s.LastError.Generation != 1 {
			t.Errorf("%+v %v", s, err)
		}
		if p.Auth.PSK.IsZero() {
			t.Error("the configuration's own secret was zeroed")
		}
		if _, err := d.Down(context.Background(), ""); err != nil {
			t.Error(err)
		}
	})
}

// TestRecovery: what a start does about the run before.
func TestRecovery(t *testing.T) {
	for _, tt := range []struct {
		name string
		left intent
		want string
	}{
		{"nothing", intent{}, "clear leaving=true"},
		{"crash", intent{Profile: "alice", BootID: bootID()}, "adopt"},
		{"crash of the machine", intent{Profile: "alice", BootID: "another boot"}, "clear leaving=true"},
		{"profile removed meanwhile", intent{Profile: "carol", BootID: bootID()}, "clear leaving=true"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.set(gateway, accepts("0.0.0.0/0"))
			d := testDaemon(t, w)
			dir := stateDir(d.cfg.StateDir)
			if tt.left.Profile != "" {
				if err := dir.save(tt.left); err != nil {
					t.Fatal(err)
				}
			}
			resume := d.recover(context.Background())
			if got := w.happened(); got != tt.want {
				t.Errorf("%s: %s", tt.name, got)
			}
			d.begin(context.Background(), resume)
			after(time.Second)
			if up := d.Status(context.Background()).Connected; up != (tt.want == "adopt") {
				t.Errorf("%s: connected %v", tt.name, up)
			}
			if err := d.leave(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStartFailsAfterCrash: a start that cannot take commands, or not bring back what
// was up, does not leave the machine closed, and the next start does not try again.
func TestStartFailsAfterCrash(t *testing.T) {
	crashed := func(t *testing.T, w *world) *Daemon {
		d := testDaemon(t, w)
		if err := stateDir(d.cfg.StateDir).save(intent{Profile: "alice", BootID: bootID()}); err != nil {
			t.Fatal(err)
		}
		return d
	}
	check := func(t *testing.T, w *world, d *Daemon) {
		t.Helper()
		if got := w.happened(); got != "adopt, clear leaving=true" {
			t.Errorf("happened: %s", got)
		}
		if _, ok := stateDir(d.cfg.StateDir).load(); ok {
			t.Error("the next start would resume again")
		}
	}
	t.Run("no socket", func(t *testing.T) {
		w := newWorld()
		d := crashed(t, w)
		if err := os.MkdirAll(filepath.Join(d.cfg.Socket, "not empty"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := d.Run(t.Context(), func() { t.Error("ready") }); err == nil {
			t.Error("the daemon ran without its socket")
		}
		check(t, w, d)
	})
	t.Run("not brought up", func(t *testing.T) {
		w := newWorld()
		d := crashed(t, w)
		resume := d.recover(t.Context())
		if err := d.cfg.Store().Remove("alice"); err != nil {
			t.Fatal(err)
		}
		d.begin(t.Context(), resume)
		check(t, w, d)
	})
}

// TestResumeFailsClosed: until the tunnel is back, a machine left closed by a crash
// stays closed.
func TestResumeFailsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := testDaemon(t, w)
		if _, err := d.up(context.Background(), "alice", 0, true); err != nil {
			t.Fatal(err)
		}
		after(10 * time.Minute)
		if got := w.happened(); strings.Contains(got, "clear") {
			t.Errorf("happened: %s", got)
		}
		if s := d.Status(context.Background()); s.State != Reconnecting {
			t.Errorf("state %s", s.State)
		}
		if err := d.leave(); err != nil {
			t.Error(err)
		}
	})
}

// TestAlive: the watchdog asks the engine of the present connection.
func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, accepts("0.0.0.0/0"))
		d := testDaemon(t, w)
		alive := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			return d.Alive(ctx)
		}
		if err := alive(); err != nil {
			t.Errorf("without a connection: %v", err)
		}
		if _, err := d.Up(t.Context(), "alice", 0); err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		if err := alive(); err != nil {
			t.Errorf("connected: %v", err)
		}
		w.stack().stuck = true
		if err := alive(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stuck: %v", err)
		}
		w.stack().stuck = false
		if err := d.leave(); err != nil {
			t.Error(err)
		}
		if err := alive(); err != nil {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestAutoconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, accepts("0.0.0.0/0"))
		d := testDaemon(t, w)
		d.cfg.Autoconnect = "bob"
		d.begin(context.Background(), d.recover(context.Background()))
		after(time.Second)
		if s := d.Status(context.Background()); !s.Connected || s.Profile != "bob" {
			t.Errorf("status: %+v", s)
		}
		if err := d.leave(); err != nil {
			t.Error(err)
		}
	})
}

// TestRun runs the daemon with its socket, as the command does.
func TestRun(t *testing.T) {
	w := newWorld()
	w.set(gateway, accepts("0.0.0.0/0"))
	d := testDaemon(t, w)
	d.journal = NewJournal(10)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- d.Run(ctx, func() { close(ready) }) }()
	<-ready
	if err := anotherRun(d.cfg, w).Run(ctx, func() {}); !errors.Is(err, errRunning) {
		t.Errorf("a second daemon: %v", err)
	}
	if err := Cleanup(ctx, d.cfg, d.log); !errors.Is(err, errRunning) {
		t.Errorf("a clean-up beside the daemon: %v", err)
	}
	c := control.NewClient(d.cfg.Socket, "vpn-client")
	var s Status
	if err := c.Post(ctx, "/v1/up", UpRequest{Profile: "alice", TimeoutMS: 5000}, &s); err != nil || s.Generation != 1 {
		t.Fatalf("%+v %v", s, err)
	}
	done := errors.New("done")
	if err := c.Stream(ctx, "/v1/status/stream", func(line json.RawMessage) error {
		s = Status{}
		if err := json.Unmarshal(line, &s); err != nil {
			return err
		}
		if s.Connected {
			return done
		}
		return nil
	}); !errors.Is(err, done) {
		t.Fatal(err)
	}
	if s.Profile != "alice" || len(s.Addresses) != 2 || s.Addresses[0].String() != "10.30.0.1" {
		t.Errorf("status: %+v", s)
	}
	for path, in := range map[string]any{
		"/v1/up": map[string]any{"profil": "alice"}, "/v1/down": map[string]any{"force": true},
	} {
		var refused *control.Error
		if err := c.Post(ctx, path, in, nil); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
			t.Errorf("%s: %v", path, err)
		}
	}
	var refused *control.Error
	if err := c.Post(ctx, "/v1/up", UpRequest{Profile: "alice", TimeoutMS: -1}, nil); !errors.As(err, &refused) || refused.Code != reason.InvalidRequest {
		t.Errorf("a negative timeout: %v", err)
	}
	if err := c.Post(ctx, "/v1/up", UpRequest{Profile: "bob"}, nil); !errors.As(err, &refused) || refused.Status != http.StatusConflict {
		t.Errorf("another profile: %v", err)
	}
	if err := c.Post(ctx, "/v1/down", DownRequest{}, &s); err != nil || s.State != Disconnected {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := d.journal.Write([]byte("one\ntwo\n")); err != nil {
		t.Fatal(err)
	}
	var lines []string
	if err := c.Stream(ctx, "/v1/logs", func(line json.RawMessage) error {
		lines = append(lines, string(line))
		return nil
	}); err != nil || strings.Join(lines, "") != `{"line":"one"}{"line":"two"}` {
		t.Errorf("logs: %v %v", lines, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := w.happened(); !strings.HasPrefix(got, "clear leaving=true, stack") || !strings.HasSuffix(got, "clear leaving=true") {
		t.Errorf("happened: %s", got)
	}
}

func TestJournal(t *testing.T) {
	j := NewJournal(3)
	lines, total, more := j.Since(0)
	if len(lines) != 0 || total != 0 {
		t.Errorf("at first: %v %d", lines, total)
	}
	if _, err := j.Write([]byte("1\n2\n")); err != nil {
		t.Fatal(err)
	}
	<-more
	if lines, total, _ = j.Since(1); strings.Join(lines, "") != "2" || total != 2 {
		t.Errorf("after two: %v %d", lines, total)
	}
	for _, line := range []string{"3", "4", "5"} {
		if _, err := j.Write([]byte(line + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	for since, want := range map[uint64]string{0: "345", 2: "345", 4: "5", 5: "", 9: ""} {
		if lines, total, _ := j.Since(since); strings.Join(lines, "") != want || total != 5 {
			t.Errorf("since %d: %v %d", since, lines, total)
		}
	}
}

func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "client.toml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c, _, err := LoadConfig(path, true, time.Now()); err != nil || c.Socket != DefaultSocket || c.Profile != nil {
		t.Errorf("no file: %+v %v", c, err)
	}
	if _, _, err := LoadConfig(path, false, time.Now()); err == nil {
		t.Error("a file that was named and is missing is no error")
	}
	write("interface = 'vpn0'\n")
	if c, _, err := LoadConfig(path, false, time.Now()); err != nil || c.Interface != "vpn0" || c.Profile != nil || !c.Netfilter {
		t.Errorf("%+v %v", c, err)
	}
	write("state_dir = '/tmp/x'\n[profile]\nserver = '192.0.2.1'\nid = 'a@b'\n[profile.auth]\npsk = 'secret'\n[profile.tunnel]\nmtu = 1300\n")
	c, warnings, err := LoadConfig(path, false, time.Now())
	if err != nil || c.Profile == nil || c.Profile.Name != "client" || c.Profile.Tunnel.MTU != 1300 || !c.Profile.Tunnel.DNS || !c.Profile.Reconnect {
		t.Fatalf("%+v %v", c, err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "6 octets") {
		t.Errorf("warnings: %q", warnings)
	}
	for _, tt := range []struct{ text, want string }{
		{"sockt = '/x'", `did you mean "socket"?`},
		{"socket = 'x'", "client.toml:1: socket: \"x\" is not an absolute path"},
		{"interface = '0'", "cannot be the name of an interface"},
		{"autoconnect = '../x'", "autoconnect"},
		{"port = 4500", "natt_port: must differ"},
		{"[log]\nlevel = 'loud'", "none of debug, info"},
		{"[log]\nformat = 'xml'", "neither"},
		{"[profile]\nserver = ''\n[profile.crypto]\nike = 'aes512'", "profile.server"},
		{"[profile]\nserver = 'x'\n[profile.crypto]\nike = 'aes512'", "client.toml:4: profile.crypto.ike"},
		{"[profile]\nserver = 'x'\nid = 'a@b'\n[profile.auth]\npsk = 'p'\nky = 'x'", `unknown key "ky" in [profile.auth]`},
	} {
		write(tt.text)
		if _, _, err := LoadConfig(path, false, time.Now()); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\ngave %v\nwant %q", tt.text, err, tt.want)
		}
	}
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	s := Store{filepath.Join(dir, "profiles")}
	if names, err := s.Names(); err != nil || len(names) != 0 {
		t.Errorf("%v %v", names, err)
	}
	if _, _, err := s.Load("alice", time.Now()); codeOf(err) != reason.NotFound || !strings.Contains(err.Error(), "vpn-client import") {
		t.Errorf("an empty store: %v", err)
	}
	file := filepath.Join(dir, "alice.toml")
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("a long and random secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(pskProfile, "a secret of sixteen octets", "file:key", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Import(file, "", false, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Import(file, "", false, time.Now()); codeOf(err) != reason.AlreadyExists {
		t.Errorf("the second time: %v", err)
	}
	if _, _, err := s.Import(file, "", true, time.Now()); err != nil {
		t.Errorf("with force: %v", err)
	}
	if _, _, err := s.Import(file, "office", false, time.Now()); err != nil {
		t.Errorf("under another name: %v", err)
	}
	if _, _, err := s.Import(file, "../evil", true, time.Now()); err == nil {
		t.Error("a name that leaves the directory")
	}
	info, err := os.Stat(filepath.Join(s.Dir, "office.toml"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if d, err := os.Stat(s.Dir); err != nil || d.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", d, err)
	}
	if err := os.Remove(filepath.Join(dir, "key")); err != nil { // what was imported needs it no more
		t.Fatal(err)
	}
	p, _, err := s.Load("office", time.Now())
	if err != nil || p.Name != "office" || string(p.Auth.PSK.Bytes()) != "a long and random secret" {
		t.Errorf("%+v %v", p, err)
	}
	if names, err := s.Names(); err != nil || strings.Join(names, " ") != "alice office" {
		t.Errorf("%v %v", names, err)
	}
	if err := s.Remove("alice"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("alice"); codeOf(err) != reason.NotFound {
		t.Errorf("removed twice: %v", err)
	}
	bad := filepath.Join(dir, "bad.toml")
	if err := os.WriteFile(bad, []byte(pskProfile+"[crypto]\nike = 'aes999'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.Import(bad, "", false, time.Now())
	if problems, ok := config.AsProblems(err); !ok || len(problems) != 1 || problems[0].Line != 6 {
		t.Errorf("a bad proposal: %v", err)
	}
}
