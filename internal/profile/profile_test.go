package profile

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/saconfig"
)

const block = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

const minimalPSK = `
server = "vpn.example.test"
id = "laptop@example.test"
[auth]
psk = "of the day"
`

func TestDefaults(t *testing.T) {
	p, err := Parse("dir/alice.toml", []byte(minimalPSK))
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "alice" || p.Method() != PSK || p.GatewayID() != "vpn.example.test" {
		t.Errorf("name %q, method %q, gateway %q", p.Name, p.Method(), p.GatewayID())
	}
	if !p.Tunnel.Routes.Full() || len(p.Tunnel.Routes.Networks()) != 2 || !p.Reconnect || !p.Tunnel.DNS || !p.Tunnel.Fragmentation {
		t.Errorf("defaults: %+v", p.Tunnel)
	}
	if p.Crypto.IKE != Modern || p.Timers != saconfig.DefaultTimers() {
		t.Errorf("defaults: %+v %+v", p.Crypto, p.Timers)
	}
}

// TestEveryKey sets every key to something else than its default, writes the profile
// and reads it again.
func TestEveryKey(t *testing.T) {
	text := `
name = "office"
server = ["vpn.example.test", "203.0.113.10", "2001:db8::1"]
remote_id = "*.example.test"
id = "laptop@example.test"
reconnect = false
[auth]
method = "certificate"
psk = 'with "quotes" \ and '
ca = '''
` + block + `'''
certificate = '''` + block + `'''
chain = '''` + block + block + `'''
key = '''` + strings.ReplaceAll(block, "CERTIFICATE", "PRIVATE KEY") + `'''
crl = '''` + strings.ReplaceAll(block, "CERTIFICATE", "X509 CRL") + `'''
[tunnel]
routes = ["10.20.0.0/24", "fd00:20::/64", "192.0.2.7"]
lan = "block"
dns = false
mtu = 1280
path_mtu = 1400
dscp = "copy"
tfc_padding = true
native_esp = true
replay_window = 64
fragmentation = false
nat_traversal = false
mobike = false
childless = "force"
[roaming]
interfaces = ["eth*", "wl*"]
metered = ["wwan*"]
family = "ipv6"
order = ["nat", "interface"]
standby = "cold"
standby_paths = 2
path_failure = "300ms"
keepalive = "15s"
probe_burst = 20
probes_per_second = 5
return_routability = "after"
[crypto]
ike = "aes256-sha256-x25519-ecp384"
esp = "aes128gcm16,aes256-sha256"
[timers]
rekey_ike = "5m"
rekey_child = "90s"
jitter = 0.25
dpd_delay = "2s"
dpd_timeout = "10s"
away_timeout = "12h"
rekey_bytes = "1GiB"
rekey_packets = 1000
`
	p, err := Parse("x.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	requireAllSet(t, reflect.ValueOf(*p), reflect.ValueOf(*New("")), "")
	if got := p.Tunnel.Routes.Networks()[2].String(); got != "192.0.2.7/32" {
		t.Errorf("an address became %s", got)
	}
	written, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse("other.toml", written)
	if err != nil {
		t.Fatalf("%v in\n%s", err, written)
	}
	if diff := difference(p, again); diff != "" {
		t.Errorf("%s in\n%s", diff, written)
	}
}

// requireAllSet fails for fields that still have their default: then a key is missing
// in the test above.
func requireAllSet(t *testing.T, v, standard reflect.Value, path string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		where := path + "." + f.Name
		if f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[config.Secret]() && f.Type != reflect.TypeFor[Routes]() {
			requireAllSet(t, v.Field(i), standard.Field(i), where)
			continue
		}
		if reflect.DeepEqual(v.Field(i).Interface(), standard.Field(i).Interface()) {
			t.Errorf("%s has its default", where)
		}
	}
}

// difference compares what two profiles say, whatever white space their PEM has.
func difference(a, b *Profile) string {
	flat := func(p *Profile) string {
		c := *p
		c.Auth.PSK, c.Auth.Key = config.Secret{}, config.Secret{}
		for _, s := range []*string{&c.Auth.CA, &c.Auth.Certificate, &c.Auth.Chain, &c.Auth.CRL} {
			*s = strings.TrimSpace(strings.ReplaceAll(*s, "\r\n", "\n"))
		}
		key := strings.TrimSpace(strings.ReplaceAll(string(p.Auth.Key.Bytes()), "\r\n", "\n"))
		return fmt.Sprintf("%+v psk %q key %q", c, p.Auth.PSK.Bytes(), key)
	}
	if x, y := flat(a), flat(b); x != y {
		return "differ:\n" + x + "\n" + y
	}
	return ""
}

func TestProblems(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "server: the address of the gateway is missing"},
		{"sever = 'x'", `unknown key "sever"`},
		{minimalPSK + "kee = 'x'", `unknown key "kee" in [auth] (did you mean "key"?)`},
		{strings.Replace(minimalPSK, "vpn.example.test", "vpn.example.test:500", 1), "a port cannot be given"},
		{strings.Replace(minimalPSK, "vpn.example.test", "203.0.113", 1), "neither a host name nor an IP address"},
		{strings.Replace(minimalPSK, "vpn.example.test", "0.0.0.0", 1), "not the address of a gateway"},
		{strings.Replace(minimalPSK, `psk = "of the day"`, "", 1), "auth.ca: the certificate of the authority"},
		{strings.Replace(minimalPSK, `id = "laptop@example.test"`, "", 1), "id: our own identity is missing"},
		{"name = '../x'\n" + minimalPSK, "is no name for a profile"},
		{minimalPSK + "method = 'eap'", `"eap" is neither "psk" nor "certificate"`},
		{minimalPSK + "[tunnel]\nroutes = ['10.0.0.1/8']", "write 10.0.0.0/8 for the network"},
		{minimalPSK + "[tunnel]\nroutes = []", "the list is empty"},
		{minimalPSK + "[tunnel]\nroutes = 'split'", `neither "full" nor "server"`},
		{minimalPSK + "[tunnel]\nroutes = [1]", "in quotes"},
		{minimalPSK + "[tunnel]\nmtu = 100", "x.toml:7: tunnel.mtu: 100 is not between"},
		{minimalPSK + "[tunnel]\npath_mtu = 100", "x.toml:7: tunnel.path_mtu: 100 is not between"},
		{minimalPSK + "[tunnel]\nlan = 'none'", "tunnel.lan"},
		{minimalPSK + "[tunnel]\nchildless = 'maybe'", "tunnel.childless"},
		{minimalPSK + "[tunnel]\nreplay_window = -1", "tunnel.replay_window"},
		{minimalPSK + "[tunnel]\nnat_traversal = false", "set native_esp = true"},
		{minimalPSK + "[roaming]\npath_failure = '100ms'", "roaming.path_failure: 100ms is not between 300ms and 30s"},
		{minimalPSK + "[roaming]\nkeepalive = '1s'", "roaming.keepalive"},
		{minimalPSK + "[roaming]\nstandby = 'warm'", `"warm" is none of "hot", "cold"`},
		{minimalPSK + "[roaming]\norder = ['price']", `"price" is none of "interface", "metered"`},
		{minimalPSK + "[roaming]\norder = ['nat', 'nat']", "listed twice"},
		{minimalPSK + "[roaming]\norder = []", "roaming.order: the list is empty"},
		{minimalPSK + "[roaming]\nmetered = ['[']", "interface pattern"},
		{minimalPSK + "[roaming]\nprobe_burst = 5000", "probe burst 5000 is out of range"},
		{minimalPSK + "[roaming]\nreturn_routability = 'sometimes'", `none of "before", "after", "never"`},
		{minimalPSK + "[crypto]\nike = ' '", "crypto.ike"},
		{minimalPSK + "[timers]\njitter = 0.9", "timers.jitter"},
		{minimalPSK + "[timers]\njitter = nan", "timers.jitter"},
		{minimalPSK + "[timers]\ndpd_delay = '10ms'", "timers.dpd_delay"},
		{minimalPSK + "[timers]\nrekey_ike = 300", `must be a duration with a unit`},
		{minimalPSK + "ca = 'file:nowhere.pem'\nmethod = 'certificate'", "no such file"},
		{minimalPSK + "ca = 'xyz'\nmethod = 'certificate'", "holds no PEM block"},
		{"server = [1]", "must be a list of strings"},
		{"server = 1", "must be a string or a list of strings"},
	} {
		_, err := Parse("x.toml", []byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\ngave %v\nwant %q", tt.text, err, tt.want)
		}
	}
}

// TestFiles reads certificates and secrets from files and writes them inline.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"ca.pem": block, "own.pem": block, "own.key": strings.ReplaceAll(block, "CERTIFICATE", "EC PRIVATE KEY"),
		"alice.toml": "server = '192.0.2.1'\n[auth]\nca = 'file:ca.pem'\ncertificate = 'file:" + dir + "/own.pem'\nkey = 'file:own.key'\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, warnings, err := Load(filepath.Join(dir, "alice.toml"))
	if err != nil || len(warnings) != 0 {
		t.Fatal(err, warnings)
	}
	written, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(written), "file:") || strings.Count(string(written), "-----BEGIN") != 3 {
		t.Errorf("not self-contained:\n%s", written)
	}
	if _, _, err := Load(dir); err == nil {
		t.Error("a directory was read")
	}
}

// TestMarshalRefuses lists what cannot be written so that it reads back the same.
func TestMarshalRefuses(t *testing.T) {
	for _, psk := range []string{"file:/etc/shadow", "(secret)", "\xff\xfe"} {
		p, err := Parse("a.toml", []byte(minimalPSK))
		if err != nil {
			t.Fatal(err)
		}
		p.Auth.PSK = config.NewSecret([]byte(psk))
		if text, err := p.Marshal(); err == nil {
			t.Errorf("%q was written:\n%s", psk, text)
		}
	}
	if _, err := New("x").Marshal(); err == nil {
		t.Error("an empty profile was written")
	}
}

// TestMarshalShowsDefaults: all keys are in the file, those with defaults as comments,
// and the comments are right: without their marks the file means the same.
func TestMarshalShowsDefaults(t *testing.T) {
	p, err := Parse("alice.toml", []byte(minimalPSK))
	if err != nil {
		t.Fatal(err)
	}
	written, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var live strings.Builder
	for line := range strings.Lines(string(written)) {
		name, _, isKey := strings.Cut(strings.TrimPrefix(line, "# "), " = ")
		if isKey && !strings.Contains(name, " ") {
			line = strings.TrimPrefix(line, "# ")
		}
		live.WriteString(line)
	}
	again, err := Parse("alice.toml", []byte(live.String()))
	if err != nil {
		t.Fatalf("%v in\n%s", err, live.String())
	}
	if diff := difference(p, again); diff != "" {
		t.Error(diff)
	}
	for _, key := range []string{"routes", "lan", "dns", "mtu", "ike", "rekey_child", "reconnect"} {
		if !strings.Contains(string(written), "\n# "+key+" = ") {
			t.Errorf("no default of %s in\n%s", key, written)
		}
	}
}

func TestZero(t *testing.T) {
	p, err := Parse("a.toml", []byte(minimalPSK))
	if err != nil {
		t.Fatal(err)
	}
	psk := p.Auth.PSK.Bytes()
	p.Zero()
	if !p.Auth.PSK.IsZero() || strings.Trim(string(psk), "\x00") != "" {
		t.Error("the secret is still there")
	}
	if d := New("x").Timers.RekeyChild.Std(); d != time.Hour {
		t.Errorf("rekey_child %s", d)
	}
}

// FuzzParse: no input makes Parse panic, and what it accepts survives being written
// and read.
func FuzzParse(f *testing.F) {
	f.Add([]byte(minimalPSK))
	f.Add([]byte(minimalPSK + "[tunnel]\nroutes = ['10.0.0.0/8', '::/0']\n[timers]\njitter = 1e-3\nrekey_bytes = '1kB'"))
	f.Add([]byte("server = ['a', '::1']\n[auth]\nca = '''\n" + block + "'''\ncertificate = \"\"\"" + block + "\"\"\"\nkey = '''" + block + "'''"))
	f.Add([]byte("id = \"\\u0007\"\n" + minimalPSK))
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), filePrefix) {
			return // not to read files of this machine
		}
		p, err := Parse("fuzz.toml", data)
		if err != nil {
			return
		}
		written, err := p.Marshal()
		if err != nil {
			t.Fatalf("accepted but not written: %v", err)
		}
		again, err := Parse("fuzz.toml", written)
		if err != nil {
			t.Fatalf("not read back: %v\n%s", err, written)
		}
		if diff := difference(p, again); diff != "" {
			t.Fatalf("%s\n%s", diff, written)
		}
	})
}
