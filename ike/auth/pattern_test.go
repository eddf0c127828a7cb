package auth

import (
	"errors"
	"testing"
)

func TestPatternMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern, id string
		want        bool
	}{
		{"*", "laptop@example.test", true},
		{"%any", "192.0.2.1", true},
		{"*", "CN=a,O=b", true},
		{"laptop@example.test", "LAPTOP@example.test", true},
		{"laptop@example.test", "laptop@example.com", false},
		{"laptop@example.test", "fqdn:laptop@example.test", false},
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "fqdn:192.0.2.1", false},

		{"*@example.test", "alice@example.test", true},
		{"*@Example.Test", "alice@EXAMPLE.test", true},
		{"*@example.test", "email:@example.test", false},
		{"*@example.test", "alice@sub.example.test", false},
		{"*@example.test", "alice@evil.com@example.test", false},
		{"*@example.test", "alice@example.test@evil.com", false},
		{"*@example.test", "alice@notexample.test", false},
		{"*@example.test", "fqdn:alice@example.test", false},
		{"*@example.test", "example.test", false},

		{"*.example.test", "vpn.example.test", true},
		{"*.example.test", "a.b.example.test", true},
		{"*.Example.test.", "vpn.EXAMPLE.test", true},
		{"*.example.test", "example.test", false},
		{"*.example.test", "fqdn:.example.test", false},
		{"*.example.test", "vpnexample.test", false},
		{"*.example.test", "vpn.example.test.evil.com", false},
		{"*.example.test", "email:vpn.example.test", false},

		{"CN=*,O=Lab", "CN=a,O=lab", true},
		{"O=Lab, CN=*", "CN=a,O=lab", true},
		{"CN=*,O=Lab", "CN=a,OU=x,O=lab", false},
		{"CN=*,O=Lab", "CN=a,O=other", false},
		{"CN=*,O=Lab", "OU=a,O=lab", false},
		{"CN=*,O=Lab", "fqdn:a", false},
		{`CN=\2a,O=Lab`, `CN=\2a,O=Lab`, true},
		{`CN=\2a,O=Lab`, "CN=a,O=Lab", false},
		{"O=Lab,*", "CN=a,OU=x,O=Lab", true},
		{"*,O=Lab", "CN=a,OU=x,O=Lab", true},
		{"O=Lab,*", "O=Lab", true},
		{"O=Lab,OU=Field,*", "CN=a,OU=field,O=lab,C=FI", true},
		{"O=Lab,OU=Field,*", "CN=a,O=Lab", false},
		{"OU=*,OU=x,*", "CN=a,OU=x,OU=y", true},
		{"OU=*,OU=x,*", "CN=a,OU=x,OU=x", true},
		{"OU=*,OU=x,*", "CN=a,OU=x", false},
		{"CN=*+UID=*,O=Lab", "UID=7+CN=a,O=Lab", true},
		{"CN=*+UID=*,O=Lab", "CN=a,O=Lab", false},
		{"CN=*+UID=*,O=Lab", "CN=a+CN=b,O=Lab", false},
		{"dn:CN=*,O=Lab", "CN=a,O=Lab", true},
	} {
		p, err := ParsePattern(tc.pattern)
		if err != nil {
			t.Errorf("%q: %v", tc.pattern, err)
			continue
		}
		if got := p.Match(mustIdentity(t, tc.id)); got != tc.want {
			t.Errorf("pattern %q and identity %q: %v", tc.pattern, tc.id, got)
		}
	}
}

func TestParsePatternRefuses(t *testing.T) {
	for _, s := range []string{"", "*@", "*.", "*@*", "*.*.test", "a*@example.test", "vpn*.example.test", "a.*.test",
		"*@a@b", "*.a@b", "CN=*,Q=b", "CN=\xff,*", "ip:*", "*.a\nb"} {
		if p, err := ParsePattern(s); !errors.Is(err, ErrBadIdentity) {
			t.Errorf("%q: got %v, %v", s, p, err)
		}
	}
}

func TestPatternZeroAndExact(t *testing.T) {
	if (Pattern{}).Match(mustIdentity(t, "alice")) {
		t.Error("the zero pattern matches")
	}
	if _, ok := Any().Exact(); ok {
		t.Error("* is exact")
	}
	p, err := ParsePattern("vpn.example.test")
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := p.Exact(); !ok || !id.Equal(mustIdentity(t, "vpn.example.test")) {
		t.Errorf("got %v, %v", id, ok)
	}
	// A name with a wildcard is a pattern, not a name.
	if _, err := ParseIdentity("CN=*,O=Lab"); !errors.Is(err, ErrBadIdentity) {
		t.Errorf("identity with a wildcard: %v", err)
	}
}

func FuzzParsePattern(f *testing.F) {
	for _, s := range []string{"*", "*@a.test", "*.a.test", "CN=*,O=a", "O=a,*", "a@b", "dn:#3000"} {
		f.Add(s, "a@a.test")
	}
	f.Fuzz(func(t *testing.T, s, who string) {
		p, err := ParsePattern(s)
		if err != nil {
			if p.Match(Identity{2, []byte("a")}) {
				t.Fatal("a refused pattern matches")
			}
			return
		}
		if again, err := ParsePattern(p.String()); err != nil {
			t.Fatalf("%q is shown as %q, which is refused: %v", s, p, err)
		} else if id, err := ParseIdentity(who); err == nil && p.Match(id) != again.Match(id) {
			t.Fatalf("%q is shown as %q, which matches differently", s, p)
		}
	})
}
