package server

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/pki"
)

var testTime = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// writeConfig writes a configuration; STATE and DIR stand for directories of its own.
func writeConfig(t testing.TB, text string) (path, dir string) {
	t.Helper()
	dir = t.TempDir()
	path = filepath.Join(dir, "server.toml")
	text = strings.NewReplacer("STATE", filepath.Join(dir, "state"), "DIR", dir).Replace(text)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, dir
}

const minimal = `name = "vpn.example.test"
state_dir = "STATE"
[[psk]]
id = "*"
secret = "x"
[network]
pool4 = "10.30.0.0/24"
`

func TestMinimalConfiguration(t *testing.T) {
	path, _ := writeConfig(t, minimal)
	s, err := Load(path, testTime)
	if err != nil {
		t.Fatal(err)
	}
	p := s.Policy
	if p.Local.ID.String() != "vpn.example.test" || string(p.Local.PSK) != "x" || !p.Remote.AllowPSK || p.Remote.AllowSignature ||
		len(p.LocalSelectors) != 2 || !p.AssignAddresses || p.RekeyIKE != 4*time.Hour || !p.Fragmentation || p.Childless != ike.ChildlessAllow {
		t.Errorf("policy %+v", p)
	}
	if len(s.Warnings) != 0 {
		t.Errorf("warnings %q", s.Warnings)
	}
	r := s.Responder(3)
	if r.CookieThreshold != 11 || r.HalfOpenLimit != 1366 || r.SessionLimit != 0 {
		t.Errorf("responder %+v", r)
	}
	if tr := s.Transport(false); tr.IKEPort != 500 || tr.NATTPort != 4500 || !tr.FollowRoutes || tr.RawESP {
		t.Errorf("transport %+v", tr)
	}
}

func TestEveryKey(t *testing.T) {
	path, _ := writeConfig(t, `
name = "vpn.example.test"
id = "gw@example.test"
addresses = ["203.0.113.1", "vpn.example.test"]
state_dir = "STATE"
[listen]
addresses = ["203.0.113.1", "2001:db8::1"]
port = 1500
natt_port = 14500
[auth]
methods = ["psk"]
remote_id = ["*@example.test", "O=Example,*"]
unique = "replace"
require_crl = true
send_certificate = false
[[psk]]
id = "laptop@example.test"
secret = "one"
[[psk]]
id = "*@example.test"
secret = "two"
[network]
pool4 = "10.30.0.0/24"
pool6 = "fd00:30::/112"
gateway = ["10.30.0.1"]
networks = ["10.20.0.0/24", "fd00:20::/64"]
dns = ["10.20.0.2", "fd00:20::2"]
domains = ["example.test"]
masquerade = true
manage = false
[tunnel]
device = "vpn7"
mtu = 1300
path_mtu = 1450
dscp = "46"
tfc_padding = true
native_esp = true
replay_window = 64
fragmentation = false
mobike = false
childless = "force"
[crypto]
ike = "aes256-sha256-x25519-ecp384,aes128gcm16-prfsha256-ecp256"
esp = "aes256gcm16-x25519,aes128-sha256"
[timers]
rekey_ike = "4s"
rekey_child = 0
jitter = 0.0
rekey_bytes = "1GiB"
rekey_packets = 1000
dpd_delay = "10s"
dpd_timeout = "60s"
[limits]
cookie_threshold = 5
half_open = 100
half_open_per_address = 10
half_open_timeout = "5s"
sessions = 50
[control]
socket = "/run/test.sock"
group = "vpn"
[log]
level = "debug"
format = "json"
`)
	s, err := Load(path, testTime)
	if err != nil {
		t.Fatal(err)
	}
	p := s.Policy
	if p.Local.ID.String() != "gw@example.test" || p.Local.PSK != nil || p.RekeyIKE != 4*time.Second || p.RekeyChild != 0 || p.Jitter != 0 ||
		p.Lifetime != esp.RekeyAfter(1<<30, 1000) || p.LivenessDelay != 10*time.Second || p.PeerTimeout != time.Minute ||
		p.Fragmentation || p.DiscoverPathMTU || p.PathMTU != 1450 || !p.NativeESP || p.ReplayWindow != 64 || p.Childless != ike.ChildlessForce || len(p.IKE) != 2 || len(p.ESP) != 2 || p.SendCertificates {
		t.Errorf("policy %+v", p)
	}
	if !p.Remote.ID.Match(p.Local.ID) || len(s.Patterns) != 2 || s.Unique != UniqueReplace || !p.Remote.RequireCRL {
		t.Errorf("remote %+v", p.Remote)
	}
	r := s.Responder(2)
	if r.CookieThreshold != 3 || r.HalfOpenLimit != 50 || r.HalfOpenPerAddress != 5 || r.HalfOpenTimeout != 5*time.Second || r.SessionLimit != 25 {
		t.Errorf("responder %+v", r)
	}
	if d := s.Network("vpn7", datapath.Choice{}); d.MTU != 1300 || len(d.Pools) != 2 || !d.Masquerade || len(d.Addresses) != 1 {
		t.Errorf("network %+v", d)
	}
	if tr := s.Transport(false); tr.IKEPort != 1500 || tr.NATTPort != 14500 || !tr.RawESP || len(tr.Addresses) != 2 {
		t.Errorf("transport %+v", tr)
	}
}

func TestConfigurationProblems(t *testing.T) {
	tests := []struct {
		name, change string // lines to add to the minimal configuration, or "old => new"
		want         string
	}{
		{"no name", `name = "vpn.example.test" => `, "server.toml: name: the gateway's name is missing"},
		{"bad name", `vpn.example.test => vpn example`, `:1: name: "vpn example" is neither a host name nor an IP address`},
		{"bad address", `state_dir => addresses = ["203.0.113.1:500"]` + "\nstate_dir", `:2: addresses[0]: "203.0.113.1:500" is neither`},
		{"mistyped address", `state_dir => addresses = ["203.0.113.300"]` + "\nstate_dir", `:2: addresses[0]: "203.0.113.300" is neither`},
		{"no address", `state_dir => addresses = ["0.0.0.0"]` + "\nstate_dir", `:2: addresses[0]: 0.0.0.0 is not the address of a gateway`},
		{"relative state", `STATE => state`, `:2: state_dir: "state" is not an absolute path`},
		{"misspelt", `pool4 = => pol4 =`, `:7: unknown key "pol4" in [network] (did you mean "pool4"?)`},
		{"no pool", `pool4 = "10.30.0.0/24" => `, "network.pool4: no pool"},
		{"host bits", `10.30.0.0/24 => 10.30.0.1/24`, `:7: network.pool4: 10.30.0.1/24 has host bits set: did you mean 10.30.0.0/24?`},
		{"wrong family", `10.30.0.0/24 => fd00::/64`, `:7: network.pool4: fd00::/64 is not an IPv4 network`},
		{"tiny pool", `pool4 = "10.30.0.0/24" => pool4 = "10.30.0.5/32"` + "\ngateway = [\"10.30.0.5\"]", `has no address to lease`},
		{"multicast pool", `10.30.0.0/24 => 224.0.0.0/24`, "holds no addresses for clients"},
		{"overlap", `pool4 = "10.30.0.0/24" => pool4 = "10.30.0.0/24"` + "\nnetworks = [\"10.30.0.128/25\"]", `:7: network.pool4: 10.30.0.0/24 overlaps network.networks[0]`},
		{"gateway elsewhere", `pool4 = => gateway = ["10.31.0.1"]` + "\npool4 =", `:7: network.gateway[0]: 10.31.0.1 is in neither pool`},
		{"no networks", `pool4 = => networks = []` + "\npool4 =", ":7: network.networks: is empty"},
		{"empty network", `pool4 = => networks = [""]` + "\npool4 =", ":7: network.networks[0]: is empty"},
		{"bad dns", `pool4 = => dns = ["127.0.0.53"]` + "\npool4 =", ":7: network.dns[0]: 127.0.0.53 is not an address that clients can ask"},
		{"own address in the pool", `state_dir => addresses = ["10.30.0.9"]` + "\nstate_dir", `:8: network.pool4: 10.30.0.0/24 contains the gateway's own address (addresses[0], 10.30.0.9)`},
		{"same ports", "[listen]\nnatt_port = 500", ":9: listen.natt_port: is the same as listen.port"},
		{"zero port", "[listen]\nport = 0", "listen: ports must not be 0"},
		{"any address", "[listen]\naddresses = [\"0.0.0.0\"]", ":9: listen.addresses[0]: 0.0.0.0 is not an address of this machine"},
		{"device", "[tunnel]\ndevice = \"a-name-that-is-too-long\"", ":9: tunnel.device: "},
		{"mtu", "[tunnel]\nmtu = 500", ":9: tunnel.mtu: 500 is not between"},
		{"mtu for IPv6", "pool6 = \"fd00::/112\"\n[tunnel]\nmtu = 1279", ":10: tunnel.mtu: 1279 is too small for IPv6"},
		{"dscp", "[tunnel]\ndscp = \"64\"", ":9: tunnel.dscp: "},
		{"path mtu", "[tunnel]\npath_mtu = 500", ":9: tunnel.path_mtu: 500 is not between"},
		{"window", "[tunnel]\nreplay_window = -1", ":9: tunnel.replay_window"},
		{"childless", "[tunnel]\nchildless = \"yes\"", `:9: tunnel.childless: "yes" is none of`},
		{"jitter", "[timers]\njitter = 0.9", ":9: timers.jitter: 0.9 is not between"},
		{"nan", "[timers]\njitter = nan", ":9: timers.jitter"},
		{"short timer", "[timers]\nrekey_ike = \"10ms\"", ":9: timers.rekey_ike: 10ms is less than 1s"},
		{"limits", "[limits]\nhalf_open = -5", ":9: limits.half_open: -5 is not between"},
		{"log level", "[log]\nlevel = \"loud\"", `:9: log.level: "loud" is none of`},
		{"log format", "[log]\nformat = \"xml\"", `:9: log.format: "xml" is neither`},
		{"proposal", "[crypto]\nike = \"aes256-sha257-x25519\"", `:9: crypto.ike: `},
		{"esp proposal", "[crypto]\nesp = \"3des\"", `:9: crypto.esp: `},
		{"pattern", "[auth]\nremote_id = [\"a*@example.test\"]", `:9: auth.remote_id[0]: `},
		{"no pattern", "[auth]\nremote_id = []", `:9: auth.remote_id: is empty`},
		{"method", "[auth]\nmethods = [\"eap\"]", `:9: auth.methods[0]: "eap" is neither certificate nor psk`},
		{"method without credentials", "[auth]\nmethods = [\"certificate\"]", `:9: auth.methods[0]: certificates are allowed, but the gateway has none`},
		{"unique", "[auth]\nunique = \"maybe\"", `:9: auth.unique`},
		{"no credentials", "[[psk]]\nid = \"*\"\nsecret = \"x\" => ", "auth: the gateway has neither certificates nor pre-shared keys"},
		{"same key twice", "[[psk]]\nid = \"*\"\nsecret = \"y\"", `:9: psk[1].id: there is a key for * already`},
		{"key without id", "[[psk]]\nsecret = \"y\"", `:8: psk[1].id: is missing`},
		{"key without secret", "[[psk]]\nid = \"a@b\"", `:8: psk[1].secret: is missing`},
		{"missing file", "[auth]\nca = [\"nowhere.pem\"]", `:9: auth.ca[0]: there is no file DIR/nowhere.pem`},
		{"not PEM", "[auth]\nca = [\"server.toml\"]", `:9: auth.ca[0]: DIR/server.toml: `},
		{"directory", "[auth]\ncrl = [\"DIR\"]", `:9: auth.crl[0]: DIR is not a regular file`},
		{"certificate without key", "[auth]\ncertificate = \"server.toml\"", `auth.key: is missing`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := minimal
			if old, new, ok := strings.Cut(tt.change, " => "); ok {
				if !strings.Contains(text, old) {
					t.Fatalf("%q is not in the configuration", old)
				}
				text = strings.Replace(text, old, new, 1)
			} else {
				text += tt.change + "\n"
			}
			path, dir := writeConfig(t, text)
			_, err := Load(path, testTime)
			want := strings.ReplaceAll(tt.want, "DIR", dir)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got\n%v\nwant in it\n%s", err, want)
			}
			if _, ok := config.AsProblems(err); !ok {
				t.Errorf("%T is no list of problems", err)
			}
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	path, _ := writeConfig(t, "name = \"a b\"\nstate_dir = \"STATE\"\nzebra = 1\n[network]\npool4 = \"10.0.0.0/33\"\nmasquerade = 3\n[log]\nlevel = \"x\"\n")
	r := Check(path, testTime)
	if r.OK || len(r.Problems) != 6 {
		t.Fatalf("%d problems: %+v", len(r.Problems), r.Problems)
	}
	for i, line := range []int{0, 1, 3, 5, 6, 8} {
		if r.Problems[i].Line != line {
			t.Errorf("problem %d is on line %d, want %d: %s", i, r.Problems[i].Line, line, r.Problems[i].Text)
		}
	}
	if r := Check("/nonexistent/server.toml", testTime); r.OK || len(r.Problems) != 1 {
		t.Errorf("a missing file: %+v", r)
	}
}

func TestPoolsThatOverlapTheHost(t *testing.T) {
	path, _ := writeConfig(t, minimal+"[listen]\naddresses = [\"203.0.113.9\"]\n")
	s, err := Load(path, testTime)
	if err != nil {
		t.Fatal(err)
	}
	host := []hostAddress{{mustPrefix("10.30.0.77/26"), "eth0"}, {mustPrefix("10.30.0.1/32"), "wfs0"}, {mustPrefix("203.0.113.10/24"), "eth1"}}
	got := strings.Join(s.fits(host), "\n")
	if !strings.Contains(got, "10.30.0.0/24 overlaps the network 10.30.0.64/26 of eth0") || strings.Contains(got, "wfs0") || !strings.Contains(got, "does not have 203.0.113.9") {
		t.Error(got)
	}
}

// What init writes is good, and the defaults that it shows in comments are the
// defaults, and keys that exist.
func TestSetup(t *testing.T) {
	dir := t.TempDir()
	now := func() time.Time { return testTime }
	o := SetupOptions{Name: "vpn.example.test", Addresses: []string{"203.0.113.1", "2001:db8::1"}, ConfigDir: filepath.Join(dir, "etc"), StateDir: filepath.Join(dir, "state"), Now: now}
	r, err := Setup(o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(r.Config, testTime)
	if err != nil {
		t.Fatal(err)
	}
	if own := s.Policy.Local.Certificate(); own == nil || own.DNSNames[0] != "vpn.example.test" || len(own.IPAddresses) != 2 || len(s.Warnings) != 0 {
		t.Errorf("certificate %v, warnings %q", own, s.Warnings)
	}
	if !s.Policy.Remote.AllowSignature || s.Policy.Remote.AllowPSK || len(s.Policy.Remote.CRLs) != 1 {
		t.Errorf("remote %+v", s.Policy.Remote)
	}
	for name, mode := range map[string]os.FileMode{r.Config: 0o600, filepath.Join(o.StateDir, gatewayFile): 0o600, o.StateDir: 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}

	text, err := os.ReadFile(r.Config)
	if err != nil {
		t.Fatal(err)
	}
	live := regexp.MustCompile(`(?m)^[a-z]`).FindAll(text, -1)
	if len(live) > 12 {
		t.Errorf("%d live lines", len(live))
	}
	// Uncomment the defaults. Examples are not defaults: files, domains, keys.
	shown := regexp.MustCompile(`(?m)^# ((?:[a-z0-9_]+) = .*)$`).ReplaceAllString(string(text), "$1")
	for _, example := range []string{"certificate", "key", "chain", "ca", "crl", "domains", "id", "secret", "methods", "dns", "group"} {
		shown = regexp.MustCompile(`(?m)^`+example+` = .*\n`).ReplaceAllString(shown, "")
	}
	var all, none Config
	all, none = *NewConfig(), *NewConfig()
	if err := config.Decode("shown", []byte(shown), &all); err != nil {
		t.Fatalf("%v in\n%s", err, shown)
	}
	if err := config.Decode("live", text, &none); err != nil {
		t.Fatal(err)
	}
	// Defaults that the engine has are shown with their value, and are zero here.
	all.Timers.DPDTimeout, all.Limits = none.Timers.DPDTimeout, none.Limits
	all.Timers.AwayTimeout = none.Timers.AwayTimeout
	all.Network, all.Listen.Addresses = none.Network, none.Listen.Addresses
	if got, want := describe(all), describe(none); got != want {
		t.Errorf("the defaults shown are\n%s\nand really\n%s", got, want)
	}

	if _, err := Setup(o); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a second time: %v", err)
	}
	for _, bad := range []SetupOptions{{Name: ""}, {Name: "a b"}, {Name: "vpn", Addresses: []string{"1.2.3.4:500"}}} {
		bad.ConfigDir, bad.StateDir = filepath.Join(dir, "x"), filepath.Join(dir, "y")
		if _, err := Setup(bad); err == nil {
			t.Errorf("%+v was set up", bad)
		}
	}
}

func describe(c Config) string {
	var b strings.Builder
	for _, part := range []any{c.Name, c.ID, c.Listen, c.Auth, c.Network, c.Tunnel, c.Crypto, c.Timers, c.Limits, c.Control, c.Log} {
		b.WriteString(strings.ReplaceAll(strings.TrimSpace(sprint(part)), "[]", "") + "\n")
	}
	return b.String()
}

func TestSetupThatWasInterruptedCanBeRepeated(t *testing.T) {
	dir := t.TempDir()
	o := SetupOptions{Name: "203.0.113.1", ConfigDir: filepath.Join(dir, "etc"), StateDir: filepath.Join(dir, "state"), Now: func() time.Time { return testTime }}
	if _, err := pki.Create(filepath.Join(o.StateDir, authorityDir), pki.Options{Name: "x", Now: o.Now}); err != nil {
		t.Fatal(err)
	}
	r, err := Setup(o)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := Load(r.Config, testTime); err != nil || s.Policy.Local.ID.String() != "203.0.113.1" {
		t.Errorf("%v", err)
	}
}

func TestExpiryIsToldAndDoesNotStop(t *testing.T) {
	dir := t.TempDir()
	o := SetupOptions{Name: "vpn.example.test", ConfigDir: dir, StateDir: filepath.Join(dir, "state")}
	r, err := Setup(o)
	if err != nil {
		t.Fatal(err)
	}
	end := r.Certificate.NotAfter
	for at, want := range map[time.Time]string{end.Add(-20 * 24 * time.Hour): "expires on", end.Add(time.Hour): "has expired on", time.Now().Add(-3 * 24 * time.Hour): "is not valid before"} {
		s, err := Load(r.Config, at)
		if err != nil {
			t.Errorf("%v: %v", at, err)
			continue
		}
		if got := strings.Join(s.Warnings, "\n"); !strings.Contains(got, want) {
			t.Errorf("%v: warnings %q, want %q", at, got, want)
		}
	}
}

func TestFreePool(t *testing.T) {
	if p := freePool4(nil); p.String() != "10.66.0.0/22" {
		t.Error(p)
	}
	if p := freePool4([]netipPrefix{mustPrefix("10.66.1.0/24"), mustPrefix("10.67.0.0/16")}); p.String() != "10.68.0.0/22" {
		t.Error(p)
	}
	a, err := randomPool6()
	if err != nil || !mustPrefix("fd00::/8").Overlaps(a) || a.Bits() != 112 {
		t.Error(a, err)
	}
	if b, _ := randomPool6(); a == b {
		t.Error("two random networks are the same")
	}
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("# x\nnameserver 127.0.0.53\nsearch a\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver 2001:db8::53 \nnameserver bogus\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := text(hostResolvers(path)); got != "[192.0.2.53 2001:db8::53]" {
		t.Error(got)
	}
}

// Whatever is in a configuration: problems or settings, no panic.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(pskConfig))
	f.Add([]byte("name=\"x\"\n[network]\npool6=\"fd00::/64\"\ngateway=[\"fd00::1\"]\nnetworks=[\"::/0\"]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := NewConfig()
		doc, _ := config.Parse("/nonexistent/server.toml", data, c, config.WithoutFiles())
		if doc == nil {
			return
		}
		// No files: the fuzzer must not wander through this machine.
		c.StateDir = "/nonexistent"
		c.Auth.Certificate, c.Auth.Key, c.Auth.CA, c.Auth.Chain, c.Auth.CRL = "", "", nil, nil, nil
		l := &loader{now: testTime, dir: "/nonexistent", Settings: &Settings{Config: c}, problems: doc.Problems()}
		l.load()
		if l.problems.Err() == nil {
			l.Responder(4)
			l.Network("x", datapath.Choice{})
			if _, err := newLeases(l.Pools(), c.Network.Gateway, nil, nil, time.Now); err != nil {
				t.Errorf("the checks let a pool pass that cannot be made: %v", err)
			}
		}
	})
}
