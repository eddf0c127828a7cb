package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

type testUser struct {
	Name string `toml:"name"`
	PSK  Secret `toml:"psk"`
}

type testDNS struct {
	Servers []netip.Addr `toml:"servers"`
}

type base struct {
	Comment string `toml:"comment"`
}

type testConfig struct {
	base
	Name    string `toml:"name"`
	Port    uint16 `toml:"port"`
	Level   int8   `toml:"level"`
	Ratio   float64
	Verbose bool `toml:"verbose"`
	Network struct {
		Pool      netip.Prefix `toml:"pool"`
		Pool6     netip.Prefix `toml:"pool6"`
		Lease     Duration     `toml:"lease_time"`
		Timeout   time.Duration
		MaxBytes  Size     `toml:"max-bytes"`
		DNS       *testDNS `toml:"dns"`
		Listen    netip.AddrPort
		Exclude   []netip.Prefix
		Forbidden string `toml:"-"`
	} `toml:"network"`
	Users  []testUser           `toml:"user"`
	Labels map[string]string    `toml:"labels"`
	Links  map[string]*testUser `toml:"links"`
	Since  time.Time            `toml:"since"`
	Free   any                  `toml:"free"`
}

const goodFile = `# a comment with [brackets] and "quotes
name = "gw"
port = 4500
level = -3
ratio = 1
verbose = true
comment = "embedded"
since = 2026-01-31T12:00:00Z
free = [1, "a"]

[network]
pool = "10.1.0.0/24"
lease_time = "1d12h"
timeout = "1m"
max-bytes = "1GiB"
listen = "[::1]:500"
exclude = [
  "10.0.0.0/8", # why
  "fd00::/8",
]
dns = { servers = ["9.9.9.9"] }

[[user]]
name = "alice"
psk = 'wonderland'

[[user]]
name = """
bob"""

[labels]
"a.b" = "c"
d = 'e'

[links.home]
name = "h"
`

func TestDecodeEverything(t *testing.T) {
	var c testConfig
	c.Network.Pool6 = netip.MustParsePrefix("fd00::/64") // a default that stays
	doc, err := Parse("good.toml", []byte(goodFile), &c)
	if err != nil {
		t.Fatal(err)
	}
	var want testConfig
	want.Comment, want.Name, want.Port, want.Level, want.Ratio, want.Verbose = "embedded", "gw", 4500, -3, 1, true
	want.Since = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	want.Free = []any{int64(1), "a"}
	n := &want.Network
	n.Pool, n.Pool6 = netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00::/64")
	n.Lease, n.Timeout, n.MaxBytes = Duration(36*time.Hour), time.Minute, 1<<30
	n.Listen = netip.MustParseAddrPort("[::1]:500")
	n.Exclude = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	n.DNS = &testDNS{Servers: []netip.Addr{netip.MustParseAddr("9.9.9.9")}}
	want.Users = []testUser{{"alice", NewSecret([]byte("wonderland"))}, {"bob", Secret{}}}
	want.Labels = map[string]string{"a.b": "c", "d": "e"}
	want.Links = map[string]*testUser{"home": {Name: "h"}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("decoded\n%+v\nwant\n%+v", c, want)
	}
	for key, line := range map[string]int{
		"name": 2, "network": 11, "network.pool": 12, "network.exclude[1]": 19, "network.dns": 21, "network.dns.servers[0]": 21,
		"user": 23, "user[0].psk": 25, "user[1]": 27, "user[1].name": 28, `labels."a.b"`: 32, "links.home.name": 36, "user[1].psk": 0,
	} {
		if got := doc.Line(key); got != line {
			t.Errorf("%s stands on line %d, want %d", key, got, line)
		}
		if doc.Defined(key) != (line > 0) {
			t.Errorf("Defined(%s) is %v", key, doc.Defined(key))
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"misspelt key", "[network]\npol = \"10.0.0.0/8\"", `f.toml:2: unknown key "pol" in [network] (did you mean "pool"?)`},
		{"swapped letters", "nmae = 'x'", `f.toml:1: unknown key "nmae" at the top level (did you mean "name"?)`},
		{"hyphen for underscore", "[network]\nlease-time = '1s'", `f.toml:2: unknown key "lease-time" in [network] (did you mean "lease_time"?)`},
		{"case matters", "Name = 'x'", `f.toml:1: unknown key "Name" at the top level (did you mean "name"?)`},
		{"right key, wrong table", "[network]\nverbose = true", `f.toml:2: unknown key "verbose" in [network] ("verbose" belongs at the top, before the first table)`},
		{"right key at the top", "lease_time = '1s'", `f.toml:1: unknown key "lease_time" at the top level ("lease_time" belongs in [network])`},
		{"misspelt table", "[netwrok]\npool = '10.0.0.0/8'", `f.toml:1: unknown table [netwrok] (did you mean [network]?)`},
		{"nothing near", "\n\nzebra = 1", `f.toml:3: unknown key "zebra" at the top level`},
		{"in an array of tables", "[[user]]\nname='a'\n[[user]]\nnam='b'", `f.toml:4: unknown key "nam" in user[1] (did you mean "name"?)`},
		{"in an inline table", "[network]\ndns = { servers = [], extra = 1 }", `f.toml:2: unknown key "extra" in [network.dns]`},
		{"hidden field", "[network]\nForbidden = 'x'", `f.toml:2: unknown key "Forbidden" in [network]`},
		{"all of them, in order", "zebra = 1\nport = 'x'\n[network]\npol = 1\n[[user]]\nyak = 2",
			"f.toml:1: unknown key \"zebra\" at the top level\nf.toml:2: port: must be a whole number, not a string: leave the quotes out\n" +
				"f.toml:4: unknown key \"pol\" in [network] (did you mean \"pool\"?)\nf.toml:6: unknown key \"yak\" in user[0]"},
		{"string without quotes", "name = 4", `f.toml:1: name: must be a string, not a whole number: put it in quotes`},
		{"out of range", "port = 70000", `f.toml:1: port: 70000 is out of range (0 to 65535)`},
		{"negative", "port = -1", `f.toml:1: port: -1 is out of range (0 to 65535)`},
		{"signed range", "level = 128", `f.toml:1: level: 128 is out of range (-128 to 127)`},
		{"fraction", "port = 1.5", `f.toml:1: port: must be a whole number, not a number with a fraction`},
		{"bool", "verbose = 'yes'", `f.toml:1: verbose: must be true or false, not a string: leave the quotes out`},
		{"table for a string", "[name]\nx = 1", `f.toml:1: name: must be a string, not a table`},
		{"string for a table", "network = 'x'", `f.toml:1: network: must be a table, not a string`},
		{"string for a list", "[network]\nexclude = '10.0.0.0/8'", `f.toml:2: network.exclude: must be a list in brackets, not a string`},
		{"element of a list", "[network]\nexclude = [\n'10.0.0.0/8',\n'10.0.0.0']", `f.toml:4: network.exclude[1]: "10.0.0.0" is not a network such as 192.0.2.0/24 or 2001:db8::/64`},
		{"address", "[network]\ndns = { servers = ['x'] }", `f.toml:2: network.dns.servers[0]: "x" is not an IP address such as 192.0.2.1 or 2001:db8::1`},
		{"duration without unit", "[network]\nlease_time = 10", `f.toml:2: network.lease_time: must be a duration with a unit in quotes, such as "10s"`},
		{"date in quotes", "since = '2026-01-31'", `f.toml:1: since: must be a date and time without quotes, such as 2026-01-31T12:00:00Z, not a string`},
		{"secret of a wrong type", "[[user]]\npsk = 12345", `f.toml:2: user[0].psk: must be a string, or "file:/path" to read it from a file, not a whole number: put it in quotes`},
		{"syntax", "name = 'x'\nport = = 3", "f.toml:2:8: expected value but found '=' instead\n    port = = 3"},
		{"syntax beside a secret", "psk = \"hunter2\nport = 3", "f.toml:1:15: strings cannot contain newlines"},
		{"a secret without quotes", "psk = hunter2", "f.toml:1:7: the value cannot be read: text has to be in quotes"},
		{"a key twice", "name = 'x'\nname = 'y'", "f.toml:2:12: Key 'name' has already been defined.\n    name = 'y'"},
		{"not UTF-8", "name = 'x'\nport = \xff", "f.toml:2:8: not valid UTF-8: save the file as UTF-8 text"},
		{"UTF-16", "n\x00a\x00", "f.toml:1:2: holds a NUL character: save the file as UTF-8 text"},
		{"deep key", strings.Repeat("a.", 40) + "b = 1", "f.toml:1:66: keys are nested deeper than 32 levels"},
		{"deep list", "free = " + strings.Repeat("[", 1000), "f.toml:1:40: values are nested deeper than 32 levels"},
		{"too large", "# " + strings.Repeat("x", MaxSize), "f.toml: larger than 1048576 octets"},
		{"long key", strings.Repeat("x", 600) + " = 1", "f.toml:1:602: the key is longer than 512 characters"},
		{"many keys", "free = [" + strings.Repeat("1,", 1<<16) + "]", "f.toml:1:131079: more than 65536 keys"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c testConfig
			err := Decode("f.toml", []byte(tt.file), &c)
			if err == nil {
				t.Fatalf("no error, want %s", tt.want)
			}
			if err.Error() != tt.want {
				t.Errorf("got\n%s\nwant\n%s", err, tt.want)
			}
		})
	}
}

// TestSyntaxErrorsKeepSecrets: wherever the parser stumbles, the secret is not shown.
func TestSyntaxErrorsKeepSecrets(t *testing.T) {
	for _, file := range []string{
		"psk = topsecret",
		"psk = topsecret # 'x'",
		"psk = 1topsecret",
		"psk = 0btopsecret",
		"psk = 0x12topsecret",
		"psk = -0x7topsecret",
		"psk = 12345678901234567890123",
		"psk = 1e999999",
		"psk = 1.5.topsecret",
		"psk = 2026-topsecret",
		"psk = 2026-13-01T00:00:00Z",
		"psk = inftopsecret",
		"psk = 'top'secret'",
		"psk = \"topsecret\\q\"",
		"psk = \"\\u12topsecret\"",
		"psk = \"\\xtopsecret\"",
		"psk = [topsecret]",
		"psk = { a = topsecret }",
		"[auth]\npsk = '''\ntop\n''secret'''\ntopsecret",
		"[auth]\npsk = \"\"\"\ntop\\qsecret\n\"\"\"",
		"[auth]\npsk = \"\"\"\ntopsecret\\q\n\n\"\"\"",
		"[auth]\nkey = \"\"\"\na\ntopsecret \\u12 \"\"\"",
		"psk = [\n'a',\ntopsecret\n]",
		"psk =\ntopsecret",
		"psk = 'a'\ntopsecret",
		"[[user]]\npsk = '''\ntopsecret",
	} {
		err := Decode("f.toml", []byte(file), &testConfig{})
		if err == nil {
			t.Errorf("%q: no error", file)
			continue
		}
		for _, part := range []string{"secret", "topse", "12345678", "999", "2026"} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("%q: the error shows %q:\n%s", file, part, err)
			}
		}
	}
}

func TestManyProblemsAreCountedNotKept(t *testing.T) {
	var file strings.Builder
	for i := range 500 {
		fmt.Fprintf(&file, "zebra%d = 1\n", i)
	}
	var c testConfig
	err := Decode("f.toml", []byte(file.String()), &c)
	if list, ok := AsProblems(err); !ok || len(list) != maxProblems {
		t.Fatalf("%d problems kept", len(list))
	}
	if !strings.HasSuffix(err.Error(), "\nand 400 more") {
		t.Errorf("ends in %q", err.Error()[len(err.Error())-30:])
	}
}

func TestSemanticProblems(t *testing.T) {
	var c testConfig
	doc, err := Parse("f.toml", []byte("name = ''\nport = 'x'\n[network]\npool = '10.0.0.0/30'\n"), &c)
	if doc == nil || err == nil {
		t.Fatal("want a document and an error")
	}
	p := doc.Problems()
	p.Add("network.pool", "%s is too small", c.Network.Pool)
	p.Add("network.listen", "is missing")
	p.Add("port", "must not be zero") // follows from the wrong type: not repeated
	p.Add("name", "must not be empty")
	p.Add("user", "at least one is needed")
	want := `f.toml: user: at least one is needed
f.toml:1: name: must not be empty
f.toml:2: port: must be a whole number, not a string: leave the quotes out
f.toml:3: network.listen: is missing
f.toml:4: network.pool: 10.0.0.0/30 is too small`
	if got := p.Err().Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var one Problem
	if !errors.As(p.Err(), &one) {
		t.Error("a single problem cannot be taken out with errors.As")
	}
	if (&Problems{}).Err() != nil {
		t.Error("an empty list is an error")
	}
}

func TestDecodeFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "server.toml")
	write := func(name, data string, mode fs.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("psk", "from a file\n", 0o644)
	write("crlf", "from windows\r\n", 0o600)
	write("empty", "\n", 0o600)
	write("server.toml", "[[user]]\npsk = 'file:psk'\n[[user]]\npsk = 'file:"+filepath.Join(dir, "crlf")+"'\n", 0o600)
	var c testConfig
	doc, err := Load(path, &c)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(c.Users[0].PSK.Bytes()) + "," + string(c.Users[1].PSK.Bytes()); got != "from a file,from windows" {
		t.Errorf("secrets: %s", got)
	}
	w := doc.Warnings()
	if len(w) != 1 || !strings.HasPrefix(w[0], path+":2: user[0].psk: the secret file ") || !strings.Contains(w[0], "0644") {
		t.Errorf("warnings: %q", w)
	}
	for _, tt := range []struct{ psk, want string }{
		{"file:empty", "is empty"}, {"file:nowhere", "no such file"}, {"file:", "lacks the name"},
		{"file:.", "not a regular file"}, {"", "the secret is empty"}, {"(secret)", "placeholder"},
	} {
		write("server.toml", "[[user]]\npsk = '"+tt.psk+"'", 0o600)
		if err := DecodeFile(path, &c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("psk %q: %v, want %q in it", tt.psk, err, tt.want)
		}
	}
	write("server.toml", "[[user]]\npsk = 'file:psk'", 0o600)
	if _, err := Load(path, &c, WithoutFiles()); err == nil || !strings.Contains(err.Error(), "not allowed here") {
		t.Errorf("a secret file was read although files are forbidden: %v", err)
	}
	if err := DecodeFile(filepath.Join(dir, "nowhere.toml"), &c); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := DecodeFile("/dev/zero", &c); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a device: %v", err)
	}
	if err := Decode("f.toml", nil, c); err == nil {
		t.Error("a target that is no pointer was accepted")
	}
}

func TestSecretNeverShows(t *testing.T) {
	s := NewSecret([]byte("hunter2"))
	holder := struct{ S Secret }{s}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "s", s, "holder", holder, "p", &s)
	js, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	tm, err := toml.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%v %+v %#v %s %q %x %d %v %+v %#v", s, s, s, s, s, s, s, &s, holder, &holder)
	for _, text := range []string{printed, logged.String(), string(js), string(tm)} {
		if !strings.Contains(text, "(secret)") {
			t.Errorf("no placeholder in %s", text)
		}
		for _, leak := range []string{"hunter", "68756e74", "104 117"} {
			if strings.Contains(text, leak) {
				t.Errorf("shows the secret: %s", text)
			}
		}
	}
	if !s.Equal(NewSecret([]byte("hunter2"))) || s.Equal(NewSecret([]byte("hunter"))) {
		t.Error("Equal is wrong")
	}
	copied := s
	s.Zero()
	if !s.IsZero() || slices.ContainsFunc(copied.Bytes(), func(b byte) bool { return b != 0 }) {
		t.Error("Zero left the secret in a copy")
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "never": 0, "10s": 10 * time.Second, "250ms": 250 * time.Millisecond, "1h30m": 90 * time.Minute,
		"2d": 48 * time.Hour, "1.5d": 36 * time.Hour, "1w1d": 8 * 24 * time.Hour, "0s": 0, "3650d": 3650 * 24 * time.Hour,
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Std() != want {
			t.Errorf("%q is %v, %v; want %v", text, d.Std(), err, want)
		}
		var again Duration
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%q prints as %q, which reads as %v, %v", text, d, again, err)
		}
	}
	for _, text := range []string{"", "10", "-1s", "1y", "s", "1 s", "99999999w", "200000h200000d99999999h", "1e9s", "1h-1m", strings.Repeat("1s", 20)} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was accepted as %v", text, d)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "17": 17, "1B": 1, "1kB": 1000, "1 KiB": 1024, "1gib": 1 << 30, "500MB": 500e6, "3TiB": 3 << 40, "16777215TiB": 16777215 << 40,
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is %d, %v; want %d", text, s, err, want)
		}
		var again Size
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%q prints as %q, which reads as %d, %v", text, s, again, err)
		}
	}
	for _, text := range []string{"", "B", "-1", "1.5GiB", "1Gi", "16777216TiB", "99999999999999999999", "1  KiB", "0x10"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was accepted as %d", text, s)
		}
	}
	var s Size
	if err := s.UnmarshalTOML(int64(-1)); err == nil {
		t.Error("a negative size was accepted")
	}
}
