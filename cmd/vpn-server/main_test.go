package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/cli"
	"github.com/wayfarer-vpn/wayfarer/internal/control"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/server"
)

// asCommand makes the test binary be the command, so that tests can run the daemon as
// a process of its own.
const asCommand = "WAYFARER_TEST_RUN_VPN_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		os.Exit(cli.Main(newApp()))
	}
	os.Exit(m.Run())
}

// vpnServer runs a command line and returns what it printed.
func vpnServer(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	app := newApp()
	var out, errs bytes.Buffer
	app.Writer, app.ErrWriter = &out, &errs
	code = cli.Run(t.Context(), app, append([]string{"vpn-server"}, args...))
	return out.String(), errs.String(), code
}

// gatewayDir makes a gateway and returns the option that names its configuration.
func gatewayDir(t *testing.T) (dir, option string) {
	t.Helper()
	dir = t.TempDir()
	_, stderr, code := vpnServer(t, "init", "--name", "vpn.example.test", "--address", "203.0.113.1", "--dir", dir, "--state", filepath.Join(dir, "state"),
		"--pool4", "10.77.0.0/24", "--pool6", "fd77::/112", "--dns", "9.9.9.9")
	if code != 0 {
		t.Fatalf("init: %d: %s", code, stderr)
	}
	// Nobody answers there: the tests must not meet a real gateway.
	config := filepath.Join(dir, "server.toml")
	data, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte("# socket = \"/run/wayfarer/server.sock\""), fmt.Appendf(nil, "socket = %q", filepath.Join(dir, "s")), 1)
	if err := os.WriteFile(config, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, "--config=" + config
}

func TestFromInitToProfile(t *testing.T) {
	dir, config := gatewayDir(t)
	steps := []struct {
		args   string
		code   int
		stdout string // a regular expression
		stderr string
	}{
		{"check", 0, `server\.toml: good`, `^$`},
		{"user list", 0, `^NAME +IDENTITY +KIND +STATE +EXPIRES\n$`, `^$`},
		{"user add alice", 0, `User alice \(alice@vpn\.example\.test\) may connect until 20[0-9-]+\.\nProfile: .*/state/profiles/alice\.toml\n`, `^$`},
		{"user add alice", 1, `^$`, `^error: .*alice`},
		{"user add --days 30 bob --json", 0, `"identity": "bob@vpn\.example\.test"`, `^$`},
		{"user add --psk phone", 0, `User phone \(phone@vpn\.example\.test\) may connect\.`, `^$`},
		{"user add --days 5 --psk x", 2, `^$`, `no lifetime`},
		{"user add", 2, `^$`, `NAME is missing`},
		{"user add --days -1 x", 2, `^$`, `must be from 1 to 36500`},
		{"user add --days 213505 x", 2, `^$`, `must be from 1 to 36500`},
		{"user add --key-type dsa x", 2, `^$`, `possible are ecdsa-p256`},
		{"user add ../x", 2, `^$`, `user name`},
		{"user list", 0, `(?s)alice .*certificate .*active.*bob .*phone .*psk +active +-`, `^$`},
		{"profile export alice", 0, `(?s)name = "alice".*BEGIN CERTIFICATE.*BEGIN PRIVATE KEY`, `^$`},
		{"profile export nobody", 7, `^$`, `vpn-server user list shows all`},
		{"user remove bob", 0, `User bob \(bob@vpn\.example\.test\) may not connect any more\.`, `^$`},
		{"user revoke bob", 7, `^$`, `user bob is revoked`},
		{"user list --json", 0, `(?s)"name": "alice".*"name": "phone"`, `^$`},
		{"user list --all", 0, `bob .*revoked`, `^$`},
		{"cert list", 0, `(?s)server +vpn\.example\.test.*client +alice.*client +bob.*revoked`, `^$`},
		{"cert renew", 0, `certificate for vpn\.example\.test.* is valid until`, `^$`},
		{"crl", 0, `BEGIN X509 CRL`, `^$`},
		{"check --json", 0, `"ok": true`, `^$`},
		{"status", 3, `^$`, `(?s)cannot reach the vpn-server daemon at .*hint: `},
		{"sessions", 3, `^$`, `is it running`},
		{"disconnect 7", 3, `^$`, `is it running`},
		{"disconnect", 2, `^$`, `ID is missing`},
		{"disconnect x", 2, `^$`, `"x" is not the number of a session`},
		{"reload", 3, `^$`, `is it running`},
		{"usr list", 2, `^$`, `Did you mean "user"`},
		{"status --jsn", 2, `^$`, `Did you mean --json`},
	}
	for _, s := range steps {
		stdout, stderr, code := vpnServer(t, append([]string{config}, strings.Fields(s.args)...)...)
		if code != s.code || !regexp.MustCompile(s.stdout).MatchString(stdout) || !regexp.MustCompile(s.stderr).MatchString(stderr) {
			t.Errorf("vpn-server %s: code %d, want %d\nstdout: %s\nstderr: %s", s.args, code, s.code, stdout, stderr)
		}
	}
	if _, stderr, code := vpnServer(t, "init", "--name", "x.test", "--dir", dir, "--state", filepath.Join(dir, "state")); code == 0 || !strings.Contains(stderr, "--force") {
		t.Errorf("a second init: %d %s", code, stderr)
	}
	out := filepath.Join(dir, "alice.toml")
	if _, stderr, code := vpnServer(t, config, "profile", "export", "alice", "--output", out, "--forget"); code != 0 {
		t.Errorf("export: %d %s", code, stderr)
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, stderr, code := vpnServer(t, config, "profile", "export", "alice"); code != 7 || !strings.Contains(stderr, "--replace") {
		t.Errorf("a forgotten profile: %d %s", code, stderr)
	}
}

func TestInitExplains(t *testing.T) {
	for args, want := range map[string]string{
		"init":                                  "name",
		"init --name a/b":                       "neither a host name nor an IP address",
		"init --name x --pool4 fd00::/64":       "--pool4",
		"init --name x --pool6 10.0.0.0/8":      "--pool6",
		"init --name x --dns one":               "--dns",
		"init --name x --key-type rot13":        "possible are",
		"init --name x --address 1.2.3.4:500":   "neither a host name nor an IP address",
		"init --name x --pool4 10.0.0.0/8 more": `unexpected argument "more"`,
	} {
		dir := t.TempDir()
		_, stderr, code := vpnServer(t, append(strings.Fields(args), "--dir", dir, "--state", dir)...)
		if code != cli.ExitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d %s, want %s", args, code, stderr, want)
		}
	}
}

func TestCheckTellsEverything(t *testing.T) {
	file := filepath.Join(t.TempDir(), "server.toml")
	if err := os.WriteFile(file, []byte("name = \"x\"\nzebra = 1\n[network]\npol4 = \"10.0.0.0/24\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := vpnServer(t, "check", "--config", file)
	if code != cli.ExitUsage || !strings.Contains(stdout, file+`:2: unknown key "zebra"`) || !strings.Contains(stdout, `:4: unknown key "pol4" in [network] (did you mean "pool4"?)`) ||
		!strings.Contains(stderr, "cannot be used") {
		t.Errorf("%d\n%s\n%s", code, stdout, stderr)
	}
	_, stderr, code = vpnServer(t, "--config", file)
	if code != cli.ExitConfig || !strings.Contains(stderr, `unknown key "zebra"`) {
		t.Errorf("run: %d %s", code, stderr)
	}
	_, stderr, code = vpnServer(t, "run", "--config", file+".missing")
	if code != cli.ExitConfig || !strings.Contains(stderr, "vpn-server init") {
		t.Errorf("run without configuration: %d %s", code, stderr)
	}
}

// fake answers in place of a daemon.
type fake struct{ ended []uint64 }

var (
	connected = time.Now().Add(-90 * time.Minute)
	alice     = &server.Session{
		ID: 7, Identity: "alice@example.test\x1b[31m", State: "established", SPIi: "00112233445566aa", SPIr: "8899aabbccddeeff",
		Local: "203.0.113.1:4500", Remote: "192.0.2.10:40001", Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.2")},
		Auth: "shared key", Algorithms: "aes256gcm16-prfsha256-x25519", NAT: server.NAT{Peer: true}, Encapsulated: true,
		Established: connected, Started: connected, Traffic: server.Traffic{InBytes: 3 << 20, OutBytes: 100},
		Children:  []server.Child{{SPIIn: "c0ffee01", SPIOut: "c0ffee02", Algorithms: "aes256gcm16", Local: []string{"10.20.0.0/24"}, Remote: []string{"10.77.0.2/32"}}},
		MoveCount: 5, Moves: []server.Move{{Time: connected.Add(time.Hour), From: netip.MustParseAddrPort("198.51.100.7:4500"),
			To: netip.MustParseAddrPort("192.0.2.10:40001"), Cause: "peer-moved", Verified: true, TookMS: 12.4}},
	}
)

func (f *fake) Status(context.Context) (*server.Status, error) {
	st := &server.Status{State: "running", Name: "vpn.example.test", PID: 42, Version: "1.2.3", Started: connected,
		Pools:     []server.PoolStatus{{Network: netip.MustParsePrefix("10.77.0.0/24"), Size: 253, InUse: 1}},
		LastError: &server.LastError{Time: connected, Code: reason.AuthFailedPSK, Notify: "AUTHENTICATION_FAILED", Title: reason.AuthFailedPSK.Title(), Peer: "mallory@example.test", Remote: netip.MustParseAddrPort("192.0.2.66:500")}}
	st.Sessions.Established = 1
	return st, nil
}
func (f *fake) Sessions(context.Context, bool) ([]*server.Session, error) {
	return []*server.Session{alice}, nil
}
func (f *fake) Disconnect(_ context.Context, id uint64) error {
	f.ended = append(f.ended, id)
	if id != alice.ID {
		return reason.New(reason.NotFound, "session %d", id)
	}
	return nil
}
func (f *fake) Reload(context.Context) ([]string, error) {
	return nil, reason.Wrap(reason.ConfigInvalid, errors.New("server.toml:7: unknown key"))
}
func (f *fake) SetLogLevel(string) error { return nil }
func (f *fake) Watch() (<-chan server.Event, func()) {
	return make(chan server.Event), func() {}
}

func TestCommandsThatAskTheDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := control.Listen(socket, "")
	if err != nil {
		t.Fatal(err)
	}
	core := &fake{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Serve(ctx, l, server.Handler(core)) }()
	defer func() { cancel(); <-done }()
	for _, s := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"status", 0, `(?s)Gateway: +vpn\.example\.test\n.*running since .*\(1h30m\), process 42, version 1\.2\.3\n.*1 established, 0 half-open.*10\.77\.0\.0/24: 1 of 253 in use.*Last error: +1h30m ago: .*mallory@example\.test from 192\.0\.2\.66:500`, `^$`},
		{"status --json", 0, `"notify": "AUTHENTICATION_FAILED"`, `^$`},
		{"sessions", 0, `ID +IDENTITY +STATE .*\n7 +alice@example\.test\?\[31m +established +192\.0\.2\.10:40001 +198\.51\.100\.7:4500 \(30m\d\ds ago\) +10\.77\.0\.2 +1h30m +3\.0MiB +100B\n`, `^$`},
		{"sessions --json", 0, `"spi_i": "00112233445566aa",\s+"spi_r": "8899aabbccddeeff"`, `^$`},
		{"sessions 7", 0, `(?s)Session: +7, established.*the client is behind a NAT, ESP in UDP.*Moved: +30m\d\ds ago from 198\.51\.100\.7:4500 to 192\.0\.2\.10:40001, because of peer-moved, in 12 ms\nMoved before: +4 times.*in c0ffee01, out c0ffee02.*10\.20\.0\.0/24 <- 10\.77\.0\.2/32`, `^$`},
		{"sessions 8", 7, `^$`, `session 8`},
		{"disconnect 7", 0, `Session 7 is being ended\.`, `^$`},
		{"disconnect 7 9", 7, `^$`, `session 9`},
		{"disconnect 7 --json", 0, `"disconnected"`, `^$`},
		{"reload", 2, `^$`, `server\.toml:7: unknown key`},
		{"log-level debug", 0, `^$`, `^$`},
		{"cleanup", 1, `^$`, `(?i)running`},
	} {
		stdout, stderr, code := vpnServer(t, append([]string{"--socket", socket}, strings.Fields(s.args)...)...)
		if code != s.code || !regexp.MustCompile(s.stdout).MatchString(stdout) || !regexp.MustCompile(s.stderr).MatchString(stderr) {
			t.Errorf("vpn-server %s: code %d, want %d\nstdout: %s\nstderr: %s", s.args, code, s.code, stdout, stderr)
		}
		if strings.ContainsRune(stdout, '\x1b') && !strings.Contains(s.args, "json") {
			t.Errorf("vpn-server %s lets a control character through", s.args)
		}
	}
	if fmt.Sprint(core.ended) != "[7 7 9 7]" {
		t.Errorf("ended: %v", core.ended)
	}
}

// TestHelpHasExamples: that of every command, as the README says.
func TestHelpHasExamples(t *testing.T) {
	check := func(args ...string) {
		if stdout, _, code := vpnServer(t, append(args, "--help")...); code != 0 || !strings.Contains(stdout, "EXAMPLES") {
			t.Errorf("%s: %d %s", args, code, stdout)
		}
	}
	check()
	for _, c := range newApp().Commands {
		if len(c.Subcommands) == 0 && !c.Hidden {
			check(c.Name)
		}
		for _, sub := range c.Subcommands {
			check(c.Name, sub.Name)
		}
	}
}

// The daemon as a process, in a network namespace of its own: it becomes ready, answers,
// survives a broken reload, gives up capabilities, and ends in time.
func TestDaemon(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the daemon is not started")
	}
	dir, config := gatewayDir(t)
	log := &logBuffer{}
	daemon := exec.Command(os.Args[0], config)
	daemon.Env = append(os.Environ(), asCommand+"=1")
	daemon.Stderr = log
	daemon.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		t.Skipf("network namespaces are not available, the daemon is not started: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	defer daemon.Process.Kill()

	await := func(what string, f func() bool) {
		t.Helper()
		for range 600 {
			if f() {
				return
			}
			select {
			case err := <-ended:
				if strings.Contains(log.String(), "TUN device") {
					t.Skipf("TUN devices are not available, the daemon is not tested: %s", log.String())
				}
				t.Fatalf("the daemon ended (%v) before %s:\n%s", err, what, log.String())
			case <-time.After(50 * time.Millisecond):
			}
		}
		t.Fatalf("%s: not within 30 s", what)
	}
	await("it was ready", func() bool { _, _, code := vpnServer(t, config, "status"); return code == 0 })
	stdout, _, _ := vpnServer(t, config, "status", "--json")
	var st server.Status
	if err := json.Unmarshal([]byte(stdout), &st); err != nil || st.PID != daemon.Process.Pid || len(st.Pools) != 2 {
		t.Errorf("status %s, %v", stdout, err)
	}
	if _, stderr, code := vpnServer(t, config, "run"); code == 0 || !strings.Contains(stderr, "another") {
		t.Errorf("a second daemon: %d %s", code, stderr)
	}
	// A user added while it runs is known at once, without a word.
	if stdout, stderr, code := vpnServer(t, config, "user", "add", "phone", "--psk"); code != 0 || stderr != "" {
		t.Errorf("user add: %s%s", stdout, stderr)
	}
	checkCapabilities(t, daemon.Process.Pid)

	file := filepath.Join(dir, "server.toml")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(good, "\nzebra = 1\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := "--socket=" + filepath.Join(dir, "s")
	if _, stderr, code := vpnServer(t, socket, "reload"); code != cli.ExitUsage || !strings.Contains(stderr, "zebra") {
		t.Errorf("reload of a broken configuration: %d %s", code, stderr)
	}
	if err := daemon.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if _, _, code := vpnServer(t, socket, "status"); code != 0 {
		t.Error("it does not answer after a broken reload")
	}
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code := vpnServer(t, config, "reload"); code != 0 || !strings.Contains(stdout, "in force") {
		t.Errorf("reload: %d %s", code, stderr)
	}

	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the end: %v", err)
		}
	case <-time.After(60 * time.Second):
		t.Fatalf("it did not end:\n%s", log.String())
	}
	for _, want := range []string{"gateway is ready", "configuration reloaded", "the old one stays in force", "gateway has ended"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is not in the log:\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "level=ERROR msg=\"restore") {
		t.Error(log.String())
	}
}

// logBuffer is written by one goroutine and read by another.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// checkCapabilities checks that all threads have CAP_NET_ADMIN only.
func checkCapabilities(t *testing.T, pid int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("threads: %v", err)
	}
	if cgoEnabled {
		t.Log("in a test binary with cgo capabilities cannot be dropped in all threads: not checked")
		return
	}
	want := fmt.Sprintf("%016x", uint64(1)<<unix.CAP_NET_ADMIN)
	for _, name := range threads {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
			if !regexp.MustCompile(set + `:\s+` + want).Match(data) {
				t.Errorf("%s: %s is not %s:\n%s", name, set, want, data)
				return
			}
		}
	}
}
