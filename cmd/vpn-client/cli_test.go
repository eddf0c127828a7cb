package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/client"
	"github.com/wayfarer-vpn/wayfarer/internal/cli"
	"github.com/wayfarer-vpn/wayfarer/internal/control"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// result is what a command left.
type result struct {
	code     int
	out, err string
}

// place is a directory with what a command line needs.
type place struct {
	t      *testing.T
	dir    string
	socket string
}

func newPlace(t *testing.T) *place {
	// Paths of Unix sockets are short; those of t.TempDir with long test names are not.
	dir, err := os.MkdirTemp("", "vc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &place{t, dir, filepath.Join(dir, "sock")}
	p.write("client.toml", "profile_dir = '"+dir+"/profiles'\nstate_dir = '"+dir+"/state'\nsocket = '"+p.socket+"'\nresolv_conf = '"+dir+"/resolv.conf'\n")
	return p
}

func (p *place) write(name, text string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

func (p *place) run(args ...string) result {
	p.t.Helper()
	var out, err strings.Builder
	app := newApp()
	app.Writer, app.ErrWriter = &out, &err
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	code := cli.Run(ctx, app, append([]string{"vpn-client", "--config", filepath.Join(p.dir, "client.toml")}, args...))
	return result{code, out.String(), err.String()}
}

func (p *place) expect(r result, code int, out, err string) {
	p.t.Helper()
	if r.code != code || !strings.Contains(r.out, out) || !strings.Contains(r.err, err) {
		p.t.Errorf("exit code %d, output %q, errors %q; want %d, %q, %q", r.code, r.out, r.err, code, out, err)
	}
}

const aliceProfile = "server = 'vpn.example.test'\nid = 'alice@example.test'\n[auth]\npsk = 'a secret of sixteen octets'\n"

func TestProfiles(t *testing.T) {
	p := newPlace(t)
	file := p.write("alice.toml", aliceProfile)
	p.expect(p.run("list"), 0, "vpn-client import FILE", "")
	p.expect(p.run("import"), cli.ExitUsage, "", "FILE is missing")
	p.expect(p.run("import", file), 0, "imported alice (gateway vpn.example.test)\nconnect with: vpn-client up alice\n", "")
	p.expect(p.run("import", file), cli.ExitFailure, "", "--force")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	p.expect(p.run("import", file, "--force"), 0, "imported alice", "others can read it (mode 0644)")
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := p.run("import", file, "--force"); r.err != "" {
		t.Errorf("warns: %s", r.err)
	}
	p.expect(p.run("import", file, "--force"), 0, "imported alice", "")
	p.expect(p.run("import", file, "--name", "office"), 0, "imported office", "")
	p.expect(p.run("list"), 0, "NAME    GATEWAY           IDENTITY            AUTH  ROUTES\nalice   vpn.example.test  alice@example.test  psk   full\noffice", "")
	var list []info
	if err := json.Unmarshal([]byte(p.run("list", "--json").out), &list); err != nil || len(list) != 2 || list[0].Name != "alice" || list[0].Auth != "psk" {
		t.Errorf("%+v %v", list, err)
	}
	p.expect(p.run("check"), 0, "2 profiles are fine", "")
	p.expect(p.run("check", "office"), 0, "office is fine", "")
	p.expect(p.run("check", "office", "--json"), 0, `"checked": "office"`, "")
	p.expect(p.run("check", "--json"), 0, `"ok": true`, "")
	p.expect(p.run("check", file), 0, "is fine", "")
	p.expect(p.run("check", filepath.Join(p.dir, "client.toml")), 0, "is fine", "")
	if err := os.Mkdir(filepath.Join(p.dir, "office"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(p.dir)
	p.expect(p.run("check", "office"), 0, "office is fine", "")
	p.expect(p.run("remove", "office"), 0, "", "")
	p.expect(p.run("remove", "office"), cli.ExitNotFound, "", "there are: alice")
	bad := p.write("bad.toml", strings.Replace(aliceProfile, "psk", "pks", 1)+"mtu = 1\n")
	r := p.run("check", bad)
	p.expect(r, cli.ExitUsage, "", `bad.toml:4: unknown key "pks" in [auth] (did you mean "psk"?)`)
	p.expect(r, cli.ExitUsage, "", `bad.toml:5: unknown key "mtu" in [auth] ("mtu" belongs in [tunnel])`)
	p.expect(p.run("import", bad), cli.ExitUsage, "", "unknown key")
	weak := p.write("weak.toml", strings.Replace(aliceProfile, "a secret of sixteen octets", "short", 1))
	p.expect(p.run("import", weak), 0, "imported weak", "warning: the pre-shared key has 5 octets only")
	p.expect(p.run("import", filepath.Join(p.dir, "nowhere.toml")), cli.ExitFailure, "", "no such file")
	// A stored profile that was spoilt by hand does not hide the others.
	if err := os.WriteFile(filepath.Join(p.dir, "profiles", "weak.toml"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.expect(p.run("list"), 0, "alice  vpn.example.test", "")
	p.expect(p.run("list"), 0, "cannot be used", "")
	p.expect(p.run("check"), cli.ExitUsage, "", "not all profiles")
	if text := p.run("list").out + p.run("list", "--json").out + p.run("check", "alice").out; strings.Contains(text, "sixteen octets") {
		t.Errorf("a secret is shown:\n%s", text)
	}
}

func TestRunWithAnInvalidConfiguration(t *testing.T) {
	p := newPlace(t)
	p.expect(p.run("run", "more"), cli.ExitUsage, "", "unexpected argument")
	p.write("client.toml", "zebra = 1\n")
	p.expect(p.run("run"), cli.ExitConfig, "", `unknown key "zebra"`)
	p.expect(p.run("status"), cli.ExitUsage, "", `unknown key "zebra"`)
}

func TestWithoutDaemon(t *testing.T) {
	p := newPlace(t)
	p.expect(p.run("status"), cli.ExitNotRunning, "", "is it running?")
	r := p.run("up", "alice")
	p.expect(r, cli.ExitNotRunning, "", "systemctl start vpn-client")
	p.expect(r, cli.ExitNotRunning, "", "vpn-client up --foreground alice")
	p.expect(p.run("logs"), cli.ExitNotRunning, "", "is it running?")
	p.expect(p.run("up", "./alice.toml"), cli.ExitUsage, "", "vpn-client import ./alice.toml")
	p.expect(p.run("up", "alice", "--timeout", "0s"), cli.ExitUsage, "", "--timeout")
	p.expect(p.run("up", "alice", "bob"), cli.ExitUsage, "", "unexpected argument")
	p.expect(p.run("statsu"), cli.ExitUsage, "", `Did you mean "status"?`)
}

// gateway is what a scripted daemon tells: the answers to /v1/up, then the statuses of
// the stream, the last one again and again.
type script struct {
	up       *control.Error
	begun    client.Status
	statuses []client.Status
	requests []string
}

func (s *script) serve(t *testing.T, p *place) {
	l, err := control.Listen(p.socket, "")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /v1/up", control.HandlerFunc(func(r *http.Request) (any, error) {
		var in client.UpRequest
		if err := control.ReadJSON(r, &in); err != nil {
			return nil, err
		}
		s.requests = append(s.requests, "up "+in.Profile+" "+(time.Duration(in.TimeoutMS)*time.Millisecond).String())
		if s.up != nil {
			return nil, s.up
		}
		return s.begun, nil
	}))
	mux.Handle("POST /v1/down", control.HandlerFunc(func(r *http.Request) (any, error) {
		var in client.DownRequest
		if err := control.ReadJSON(r, &in); err != nil {
			return nil, err
		}
		s.requests = append(s.requests, "down "+in.Profile)
		return client.Status{State: client.Disconnected}, nil
	}))
	mux.Handle("GET /v1/status", control.HandlerFunc(func(*http.Request) (any, error) { return s.statuses[0], nil }))
	mux.HandleFunc("GET /v1/status/stream", func(w http.ResponseWriter, r *http.Request) {
		control.Stream(w, r, func(ctx context.Context, send func(any) error) error {
			for _, st := range s.statuses {
				if err := send(st); err != nil {
					return err
				}
			}
			<-ctx.Done()
			return ctx.Err()
		})
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Serve(ctx, l, mux) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func problem(code reason.Code, generation uint64, notify string, permanent bool) *client.Problem {
	return &client.Problem{Code: code, Message: code.Title(), Hint: code.Hint(), Notify: notify, Permanent: permanent, Generation: generation, Time: time.Now()}
}

func TestUp(t *testing.T) {
	connecting := client.Status{State: client.Connecting, Generation: 2, Step: "asking 192.0.2.1", LastError: problem(reason.PeerDead, 1, "TIMEOUT", false)}
	connected := client.Status{State: client.Connected, Connected: true, Generation: 2, Profile: "alice", Server: "vpn.example.test",
		Addresses: []netip.Addr{netip.MustParseAddr("10.30.0.1")}}
	with := func(s client.Status, change func(*client.Status)) client.Status {
		change(&s)
		return s
	}
	for _, tt := range []struct {
		name     string
		up       *control.Error
		statuses []client.Status
		code     int
		out, err string
	}{
		{"connected", nil, []client.Status{connecting, connected}, 0, "connected: alice through vpn.example.test, address 10.30.0.1\n", ""},
		{"blocked networks are told", nil, []client.Status{with(connected, func(s *client.Status) { s.Blocked = []netip.Prefix{netip.MustParsePrefix("::/0")} })}, 0, "does not carry ::/0", ""},
		{"refused", nil, []client.Status{connecting, with(connecting, func(s *client.Status) {
			s.State, s.LastError = client.Disconnected, problem(reason.AuthFailedPSK, 2, "AUTHENTICATION_FAILED", true)
		})}, cli.ExitNotConnected, "", "error: " + reason.AuthFailedPSK.Title()},
		{"refused, tried again", nil, []client.Status{with(connecting, func(s *client.Status) {
			s.LastError = problem(reason.AuthFailed, 2, "AUTHENTICATION_FAILED", true)
		})}, cli.ExitNotConnected, "", "vpn-client down ends it"},
		{"our refusal", nil, []client.Status{with(connecting, func(s *client.Status) {
			s.State, s.LastError = client.Disconnected, problem(reason.CertUntrusted, 2, "AUTHENTICATION_FAILED", true)
		})}, cli.ExitNotConnected, "", "hint: "},
		{"no answer", nil, []client.Status{with(connecting, func(s *client.Status) {
			s.State, s.LastError = client.Disconnected, problem(reason.NoAnswer, 2, "TIMEOUT", false)
		})}, cli.ExitTimeout, "", reason.NoAnswer.Title()},
		{"another command came", nil, []client.Status{with(connecting, func(s *client.Status) { s.Generation = 3 })}, cli.ExitNotConnected, "", "another command"},
		{"unknown profile", &control.Error{Code: reason.NotFound, Message: "there is no profile alice"}, nil, cli.ExitNotFound, "", "there is no profile alice"},
		{"other profile up", &control.Error{Code: reason.Conflict, Message: "profile bob is up; bring it down first"}, nil, cli.ExitFailure, "", "bob is up"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t)
			s := &script{up: tt.up, begun: connecting, statuses: tt.statuses}
			s.serve(t, p)
			p.expect(p.run("up", "alice", "--timeout", "20s"), tt.code, tt.out, tt.err)
			if strings.Join(s.requests, ",") != "up alice 20s" {
				t.Errorf("requests: %v", s.requests)
			}
		})
	}
}

func TestUpJSON(t *testing.T) {
	p := newPlace(t)
	s := &script{begun: client.Status{Generation: 1}, statuses: []client.Status{{State: client.Connected, Connected: true, Generation: 1, Profile: "alice"}}}
	s.serve(t, p)
	var got client.Status
	r := p.run("up", "--json")
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.code != 0 || got.Profile != "alice" {
		t.Errorf("%+v %v", r, err)
	}
}

func TestDown(t *testing.T) {
	p := newPlace(t)
	s := &script{}
	s.serve(t, p)
	p.expect(p.run("down"), 0, "disconnected\n", "")
	p.expect(p.run("down", "alice"), 0, "disconnected\n", "")
	if strings.Join(s.requests, ",") != "down ,down alice" {
		t.Errorf("requests: %v", s.requests)
	}
}

// full is a status with everything in it.
func full(now time.Time) client.Status {
	since := now.Add(-90 * time.Minute)
	return client.Status{
		State: client.Connected, Connected: true, Profile: "alice", Server: "vpn.example.test", RemoteID: "gw.example.test", LocalID: "alice@example.test",
		Since: &since, SPIi: "0011223344556677", SPIr: "8899aabbccddeeff", Algorithm: "aes256gcm16-prfsha256-x25519", Encapsulation: "udp",
		Local:  &client.Endpoint{Address: netip.MustParseAddr("192.168.1.2"), Port: 4500},
		Remote: &client.Endpoint{Address: netip.MustParseAddr("2001:db8::1"), Port: 4500}, NAT: &client.NAT{Local: true},
		Interface: "wf0", MTU: 1380, Addresses: []netip.Addr{netip.MustParseAddr("10.30.0.1"), netip.MustParseAddr("fd00:30::1")},
		Routes: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/24")}, DNS: []netip.Addr{netip.MustParseAddr("10.20.0.2")},
		Children:  []client.Child{{SPIIn: "c0ffee00", SPIOut: "0badcafe", Algorithm: "aes256gcm16"}},
		Traffic:   &client.Traffic{InBytes: 3 << 20, OutBytes: 512},
		LastError: problem(reason.PeerDead, 1, "TIMEOUT", false),
	}
}

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := full(now)
	s.LastError.Time = now.Add(-2 * time.Hour)
	var b strings.Builder
	if err := printStatus(&b, s, now); err != nil {
		t.Fatal(err)
	}
	want := `state:         connected for 1h30m
profile:       alice
gateway:       vpn.example.test (gw.example.test)
our identity:  alice@example.test
path:          192.168.1.2:4500 > [2001:db8::1]:4500, ESP in UDP, we are behind a NAT
addresses:     10.30.0.1, fd00:30::1
routes:        10.20.0.0/24
name servers:  10.20.0.2
interface:     wf0, MTU 1380
traffic:       3.0MiB in, 512B out
IKE SA:        0011223344556677 8899aabbccddeeff, aes256gcm16-prfsha256-x25519
Child SA:      in c0ffee00, out 0badcafe, aes256gcm16
last error:    ` + reason.PeerDead.Title() + ` (2h00m ago)
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	s.Handover = &client.Handover{Time: now.Add(-time.Minute), From: netip.MustParseAddrPort("192.0.2.10:4500"), To: netip.MustParseAddrPort("192.168.1.2:4500"),
		FromGateway: netip.MustParseAddrPort("203.0.113.1:4500"), Gateway: netip.MustParseAddrPort("203.0.113.1:4500"),
		Cause: "local-lost", Confirmed: true, GapMS: 12.4}
	b.Reset()
	if err := printStatus(&b, s, now); err != nil {
		t.Fatal(err)
	}
	line := "last move:     1m00s ago, from 192.0.2.10:4500 to 192.168.1.2:4500, because of local-lost, 12 ms without a path\n"
	if !strings.Contains(b.String(), line) {
		t.Errorf("no %q in\n%s", line, b.String())
	}
	retry := now.Add(8 * time.Second)
	down := client.Status{State: client.Reconnecting, Profile: "alice", RetryAt: &retry, Problem: problem(reason.NoAnswer, 1, "TIMEOUT", false)}
	b.Reset()
	if err := printStatus(&b, down, now); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"state:    reconnecting, trying again in 8s\n", "problem:  " + reason.NoAnswer.Title(), "hint:     "} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("no %q in\n%s", line, b.String())
		}
	}
}

func TestStatus(t *testing.T) {
	p := newPlace(t)
	s := &script{statuses: []client.Status{full(time.Now())}}
	s.serve(t, p)
	p.expect(p.run("status"), 0, "state:         connected for 1h30m", "")
	p.expect(p.run("status", "--check"), 0, "", "")
	var got map[string]any
	if err := json.Unmarshal([]byte(p.run("status", "--json").out), &got); err != nil {
		t.Fatal(err)
	}
	// Scripts rely on these names.
	for _, key := range []string{"state", "connected", "profile", "server", "spi_i", "spi_r", "local", "remote", "addresses", "dns", "routes", "children",
		"algorithms", "nat", "since", "traffic", "last_error", "interface", "generation", "version"} {
		if _, ok := got[key]; !ok {
			t.Errorf("no %q in the JSON", key)
		}
	}
	if e := got["last_error"].(map[string]any); e["notify"] != "TIMEOUT" || e["code"] != "peer-dead" || e["message"] == "" {
		t.Errorf("last_error: %v", e)
	}
	s.statuses[0] = client.Status{State: client.Reconnecting}
	p.expect(p.run("status", "--check"), cli.ExitNotConnected, "", "the tunnel is reconnecting")
}

// TestHelpHasExamples: that of every command, as the README says.
func TestHelpHasExamples(t *testing.T) {
	p := newPlace(t)
	for _, c := range newApp().Commands {
		if !c.Hidden {
			p.expect(p.run(c.Name, "--help"), 0, "EXAMPLES", "")
		}
	}
}

// TestManAndCompletion: what is generated from the command line is there.
func TestManAndCompletion(t *testing.T) {
	p := newPlace(t)
	p.expect(p.run("man"), 0, ".TH VPN-CLIENT 8", "")
	for _, shell := range []string{"bash", "zsh", "fish"} {
		p.expect(p.run("completion", shell), 0, "vpn-client", "")
	}
	for _, command := range []string{"import", "list", "remove", "up", "down", "status", "logs", "check", "run"} {
		p.expect(p.run(command, "--help"), 0, "USAGE", "")
	}
}
