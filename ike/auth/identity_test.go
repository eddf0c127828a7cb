package auth

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

func mustIdentity(t testing.TB, s string) Identity {
	t.Helper()
	id, err := ParseIdentity(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// dnCommonName is O=Roaming Lab, CN=client-rsa in PrintableStrings, as OpenSSL 3
// (asn1parse) shows the subject of a certificate made by strongSwan's pki.
const dnCommonName = "302b" +
	"3114" + "3012" + "0603" + "55040a" + "130b" + "526f616d696e67204c6162" +
	"3113" + "3011" + "0603" + "550403" + "130a" + "636c69656e742d727361"

func TestParseIdentity(t *testing.T) {
	for _, tc := range []struct {
		in   string
		kind message.IDType
		data string // "#": in hex
		out  string // String, if not in
	}{
		{"vpn.example.test", message.IDFQDN, "vpn.example.test", ""},
		{"vpn.example.test.", message.IDFQDN, "vpn.example.test", "vpn.example.test"},
		{"alice", message.IDFQDN, "alice", ""},
		{" alice ", message.IDFQDN, "alice", "alice"},
		{"laptop@example.test", message.IDRFC822, "laptop@example.test", ""},
		{"a=b@example.test", message.IDDERDN, "", "error"},
		{"laptop+a=b@example.test", message.IDDERDN, "", "error"},
		{"email:a=b@example.test", message.IDRFC822, "a=b@example.test", ""},
		{"laptop@a=b", message.IDRFC822, "laptop@a=b", ""},
		{"192.0.2.1", message.IDIPv4, "#c0000201", ""},
		{"ip:192.0.2.1", message.IDIPv4, "#c0000201", "192.0.2.1"},
		{"fqdn:192.0.2.1", message.IDFQDN, "192.0.2.1", ""},
		{"2001:db8::1", message.IDIPv6, "#20010db8000000000000000000000001", ""},
		{"2001:DB8:0::1", message.IDIPv6, "#20010db8000000000000000000000001", "2001:db8::1"},
		{"::ffff:192.0.2.1", message.IDIPv6, "#00000000000000000000ffffc0000201", ""},
		{"fe80::1%eth0", message.IDFQDN, "", "error"},
		{"ip:vpn.example.test", 0, "", "error"},
		{"keyid:branch 7", message.IDKeyID, "branch 7", ""},
		{"KEYID:#00ff", message.IDKeyID, "#00ff", "keyid:#00ff"},
		{"keyid:#0", 0, "", "error"},
		{"keyid:", 0, "", "error"},
		{"CN=client-rsa,O=Roaming Lab", message.IDDERDN, "#" + dnCommonName, ""},
		{"O=Roaming Lab, CN=client-rsa", message.IDDERDN, "#" + dnCommonName, "CN=client-rsa,O=Roaming Lab"},
		{"dn:CN=client-rsa,O=Roaming Lab", message.IDDERDN, "#" + dnCommonName, "CN=client-rsa,O=Roaming Lab"},
		{"dn:#" + dnCommonName, message.IDDERDN, "#" + dnCommonName, "CN=client-rsa,O=Roaming Lab"},
		{"dn:#" + dnCommonName + "00", 0, "", "error"},
		{"dn:#3000", 0, "", "error"},
		{"dn:", 0, "", "error"},
		{"", 0, "", "error"},
		{"fqdn:", 0, "", "error"},
		{"fqdn: a", 0, "", "error"},
		{"a .", 0, "", "error"},
		{"a\nb", 0, "", "error"},
		{"a\u202eb", 0, "", "error"},
		{"a\xffb", 0, "", "error"},
		{strings.Repeat("a", 1025), 0, "", "error"},
	} {
		t.Run(tc.in, func(t *testing.T) {
			id, err := ParseIdentity(tc.in)
			if tc.out == "error" {
				if !errors.Is(err, ErrBadIdentity) {
					t.Fatalf("got %v, %v; want ErrBadIdentity", id, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := []byte(tc.data)
			if digits, ok := strings.CutPrefix(tc.data, "#"); ok {
				want, _ = hex.DecodeString(digits)
			}
			if id.Kind != tc.kind || !bytes.Equal(id.Data, want) {
				t.Errorf("got kind %d, %x; want kind %d, %x", id.Kind, id.Data, tc.kind, want)
			}
			out := tc.out
			if out == "" {
				out = tc.in
			}
			if id.String() != out {
				t.Errorf("String() = %q, want %q", id.String(), out)
			}
		})
	}
}

func TestIdentityPayloadRoundTrip(t *testing.T) {
	id := mustIdentity(t, "laptop@example.test")
	for _, responder := range []bool{true, false} {
		p := id.Payload(responder)
		if p.Responder != responder {
			t.Errorf("Payload(%v).Responder = %v", responder, p.Responder)
		}
		back := FromPayload(p)
		if !back.Equal(id) {
			t.Errorf("got %v", back)
		}
		p.Data[0] = 'X'
		if back.Data[0] == 'X' || id.Data[0] == 'X' {
			t.Error("payload and identity share memory")
		}
	}
	if !FromPayload(nil).IsZero() || FromPayload(nil).Valid() == nil {
		t.Error("no payload gives a valid identity")
	}
}

func TestIdentityEqual(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"vpn.example.test", "VPN.Example.Test", true},
		{"vpn.example.test", "vpn.example.test.", true},
		{"vpn.example.test", "vpn1.example.test", false},
		{"Laptop@example.test", "laptop@EXAMPLE.test", true},
		{"laptop@example.test", "fqdn:laptop@example.test", false},
		{"straße.test", "STRASSE.test", false},
		{"192.0.2.1", "::ffff:192.0.2.1", false},
		{"keyid:a", "keyid:A", false},
		{"keyid:a", "keyid:#61", true},
		{"CN=a,O=b", "cn=A,o=B", true},
		{"CN=a,O=b", "CN=#0c0161,O=b", true}, // UTF8String in place of PrintableString
		{"CN=a b,O=b", "CN=a  b,O=b", true},
		{"CN=a,O=b", "dn:O=b,CN=a", false}, // another order is another name
		{"CN=a,O=b", "CN=a", false},
		{"CN=a,O=b", "CN=a+O=b", false},
		{"CN=a+UID=b", "UID=b+CN=a", true},
		{"CN=a,CN=b", `CN=a\,CN\=b`, false},
		{"CN=a", "OU=a", false},
		{"CN=a", "CN=#040161", false}, // OCTET STRING
	} {
		a, b := mustIdentity(t, tc.a), mustIdentity(t, tc.b)
		if a.Equal(b) != tc.want || b.Equal(a) != tc.want {
			t.Errorf("%q and %q: Equal is %v", tc.a, tc.b, !tc.want)
		}
		if (a.Key() == b.Key()) != tc.want {
			t.Errorf("%q and %q: keys %q and %q", tc.a, tc.b, a.Key(), b.Key())
		}
	}
}

// What a stranger sends must not reach a terminal as it is.
func TestIdentityStringIsSafe(t *testing.T) {
	for _, tc := range []struct {
		id   Identity
		want string
	}{
		{Identity{message.IDFQDN, []byte("a\x1b[31mb\n")}, `fqdn:a\u{1b}[31mb\u{a}`},
		{Identity{message.IDRFC822, []byte("a@b\x00.test")}, `email:a@b\u{0}.test`},
		{Identity{message.IDFQDN, []byte("a\xff\u202eb")}, `fqdn:a\xff\u{202e}b`},
		{Identity{message.IDKeyID, []byte{0, 1}}, "keyid:#0001"},
		{Identity{message.IDDERDN, []byte("junk")}, "dn:#6a756e6b"},
		{Identity{message.IDIPv4, []byte{1, 2, 3}}, "type 1:010203"},
		{Identity{message.IDDERGN, []byte{1}}, "type 10:01"},
		{Identity{Kind: message.IDNull}, "(anonymous)"},
		{Identity{}, "(none)"},
	} {
		if got := tc.id.String(); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
		if tc.id.Valid() == nil && tc.id.Kind != message.IDKeyID {
			t.Errorf("%v is valid", tc.id)
		}
		if Any().Match(tc.id) != (tc.id.Valid() == nil) {
			t.Errorf("%v: matched by *", tc.id)
		}
	}
	long := Identity{message.IDFQDN, bytes.Repeat([]byte("x"), 65000)}
	if n := len(long.String()); n > 5000 {
		t.Errorf("String has %d octets", n)
	}
	for _, kind := range []message.IDType{message.IDDERDN, message.IDKeyID, 99} {
		if n := len((Identity{kind, bytes.Repeat([]byte{0xff}, 65000)}).String()); n > 5000 {
			t.Errorf("kind %d: String has %d octets", kind, n)
		}
	}
}

func TestAddrIdentity(t *testing.T) {
	for _, s := range []string{"192.0.2.1", "2001:db8::1"} {
		a := netip.MustParseAddr(s)
		got, ok := AddrIdentity(a).Addr()
		if !ok || got != a {
			t.Errorf("%s: got %v, %v", s, got, ok)
		}
	}
	if _, ok := mustIdentity(t, "vpn.example.test").Addr(); ok {
		t.Error("a name has an address")
	}
}

// FuzzParseIdentity: what is accepted can be shown and read back.
func FuzzParseIdentity(f *testing.F) {
	for _, s := range []string{"vpn.example.test", "laptop@example.test", "192.0.2.1", "2001:db8::1", "keyid:#00ff",
		"keyid:x", "CN=a+UID=b,O=c", "O=a, CN=b", "dn:O=a,CN=b", `CN=\#a\,b\20,O=\c3\a4`, "fqdn: a.", "email:x", "C=a@b",
		"CN=#0c0161", "2.5.4.3=a", "OID.1.2.3=#0c0161", "dn:#" + dnCommonName} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseIdentity(s)
		if err != nil {
			return
		}
		shown := id.String()
		back, err := ParseIdentity(shown)
		if err != nil {
			t.Fatalf("%q is shown as %q, which is refused: %v", s, shown, err)
		}
		if !back.Equal(id) || !id.Equal(back) {
			t.Fatalf("%q is shown as %q, which is read as %q", s, shown, back)
		}
		if !Exactly(id).Match(id) || !Any().Match(id) {
			t.Fatalf("%q is not matched by itself", s)
		}
	})
}

// FuzzIdentity takes identities from the wire.
func FuzzIdentity(f *testing.F) {
	dn, _ := hex.DecodeString(dnCommonName)
	f.Add(uint8(message.IDDERDN), dn)
	f.Add(uint8(message.IDDERDN), []byte{0x30, 0x80})
	f.Add(uint8(message.IDFQDN), []byte("vpn.example.test"))
	f.Add(uint8(message.IDRFC822), []byte("a@b"))
	f.Add(uint8(message.IDIPv4), []byte{192, 0, 2, 1})
	f.Add(uint8(message.IDIPv6), make([]byte, 16))
	f.Add(uint8(message.IDKeyID), []byte("#1"))
	patterns := []Pattern{Any(), {}}
	for _, s := range []string{"*@b", "*.example.test", "CN=*,O=Roaming Lab", "O=Roaming Lab,*", "vpn.example.test"} {
		p, err := ParsePattern(s)
		if err != nil {
			f.Fatal(err)
		}
		patterns = append(patterns, p)
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		id := Identity{message.IDType(kind), data}
		shown := id.String()
		for _, r := range shown {
			if r < ' ' || r == 0x7f {
				t.Fatalf("%q holds a control character", shown)
			}
		}
		if !id.Equal(Identity{id.Kind, bytes.Clone(data)}) {
			t.Fatal("not equal to itself")
		}
		for _, p := range patterns {
			if p.Match(id) && id.Valid() != nil {
				t.Fatalf("pattern %v matches the malformed identity %v", p, id)
			}
		}
		if id.Valid() != nil {
			return
		}
		back, err := ParseIdentity(shown)
		if err != nil || !back.Equal(id) {
			t.Fatalf("kind %d %x is shown as %q, read as %v, %v", kind, data, shown, back, err)
		}
	})
}
