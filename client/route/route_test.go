package route

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func addrs(words ...string) (out []netip.Addr) {
	for _, w := range words {
		out = append(out, netip.MustParseAddr(w))
	}
	return out
}

func nets(words ...string) (out []netip.Prefix) {
	for _, w := range words {
		out = append(out, netip.MustParsePrefix(w))
	}
	return out
}

// describe writes a plan as ip(8) would, for comparison.
func describe(p Plan) string {
	var b strings.Builder
	tables := map[int]string{TunnelTable: "tunnel", GuardTable: "guard", unix.RT_TABLE_MAIN: "main"}
	for _, r := range p.Rules {
		fmt.Fprintf(&b, "%d:", r.Priority)
		if r.NotMark != 0 {
			fmt.Fprintf(&b, " not %#x", r.NotMark)
		}
		if r.From.IsValid() {
			fmt.Fprintf(&b, " from %s", r.From)
		}
		if r.To.IsValid() {
			fmt.Fprintf(&b, " to %s", r.To)
		}
		if r.Protocol != 0 {
			fmt.Fprintf(&b, " proto %d port %d", r.Protocol, r.FromPort)
		}
		switch {
		case r.Goto != 0:
			fmt.Fprintf(&b, " goto %d", r.Goto)
		case r.Table != 0:
			fmt.Fprintf(&b, " lookup %s", tables[r.Table])
		default:
			b.WriteString(" nop")
		}
		if r.Specific {
			b.WriteString(" specific")
		}
		fmt.Fprintf(&b, " v%d\n", map[int]int{unix.AF_INET: 4, unix.AF_INET6: 6}[r.Family])
	}
	for _, r := range p.Routes {
		kind := map[Kind]string{Via: "via", Blackhole: "blackhole", Unreachable: "unreachable"}[r.Kind]
		fmt.Fprintf(&b, "%s: %s %s", tables[r.Table], kind, r.To)
		if r.Source.IsValid() {
			fmt.Fprintf(&b, " src %s", r.Source)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestBuild(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    Settings
		want string
	}{
		{"nothing", Settings{Mark: 1}, ""},
		{"split", Settings{
			Addresses: addrs("10.30.0.1", "fd00:30::1"), Networks: nets("10.20.0.0/24", "fd00:20::/64"),
			Carried: nets("10.20.0.0/24", "fd00:20::/64"), Attached: nets("192.168.1.0/24"), Mark: 7,
		}, `
70: from 10.30.0.1/32 lookup tunnel v4
71: from 10.30.0.1/32 lookup guard v4
74: not 0x7 lookup tunnel v4
70: from fd00:30::1/128 lookup tunnel v6
71: from fd00:30::1/128 lookup guard v6
74: not 0x7 lookup tunnel v6
tunnel: via 10.20.0.0/24 src 10.30.0.1
tunnel: unreachable 10.20.0.0/24
tunnel: via fd00:20::/64 src fd00:30::1
tunnel: unreachable fd00:20::/64
guard: blackhole 0.0.0.0/0
guard: blackhole ::/0
`},
		{"full, IPv4 only: IPv6 must not leak", Settings{
			Addresses: addrs("10.30.0.1"), Networks: nets("0.0.0.0/0", "::/0"), Carried: nets("0.0.0.0/0", "::/0"),
			Attached: nets("192.168.1.0/24", "203.0.113.0/24", "0.0.0.0/1", "fd12::/64", "2001:db8::/64", "fe80::/64"),
			Ports:    []uint16{500, 4500}, NativeESP: true, Mark: 7,
		}, `
70: from 10.30.0.1/32 lookup tunnel v4
71: from 10.30.0.1/32 lookup guard v4
72: proto 17 port 500 goto 79 v4
72: proto 17 port 4500 goto 79 v4
72: proto 50 port 0 goto 79 v4
73: to 192.168.1.0/24 lookup main specific v4
74: not 0x7 lookup tunnel v4
79: nop v4
72: proto 17 port 500 goto 79 v6
72: proto 17 port 4500 goto 79 v6
72: proto 50 port 0 goto 79 v6
73: to fd12::/64 lookup main specific v6
73: to fe80::/10 lookup main specific v6
73: to fe80::/64 lookup main specific v6
74: not 0x7 lookup tunnel v6
79: nop v6
tunnel: via 0.0.0.0/0 src 10.30.0.1
tunnel: unreachable 0.0.0.0/0
tunnel: unreachable ::/0
guard: blackhole 0.0.0.0/0
`},
		{"full, but the gateway carries one network only", Settings{
			Addresses: addrs("10.30.0.1"), Networks: nets("0.0.0.0/0"), Carried: nets("10.20.0.0/24"), Mark: 7,
		}, `
70: from 10.30.0.1/32 lookup tunnel v4
71: from 10.30.0.1/32 lookup guard v4
74: not 0x7 lookup tunnel v4
tunnel: unreachable 0.0.0.0/0
tunnel: via 10.20.0.0/24 src 10.30.0.1
guard: blackhole 0.0.0.0/0
`},
		{"a named network goes into the tunnel also where the LAN claims it", Settings{
			Addresses: addrs("10.30.0.1"), Networks: nets("0.0.0.0/0", "10.0.0.0/8"), Carried: nets("0.0.0.0/0"),
			Attached: nets("10.1.2.0/24"), Mark: 7,
		}, `
70: from 10.30.0.1/32 lookup tunnel v4
71: from 10.30.0.1/32 lookup guard v4
74: not 0x7 lookup tunnel v4
tunnel: via 0.0.0.0/0 src 10.30.0.1
tunnel: unreachable 0.0.0.0/0
tunnel: via 10.0.0.0/8 src 10.30.0.1
tunnel: unreachable 10.0.0.0/8
guard: blackhole 0.0.0.0/0
`},
		{"guard of former addresses", Settings{Guarded: addrs("10.30.0.9", "fd00:30::9")}, `
71: from 10.30.0.9/32 lookup guard v4
71: from fd00:30::9/128 lookup guard v6
guard: blackhole 0.0.0.0/0
guard: blackhole ::/0
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := describe(Build(tt.s)); got != strings.TrimPrefix(tt.want, "\n") {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func TestPrefixes(t *testing.T) {
	for _, tt := range []struct{ start, end, want string }{
		{"0.0.0.0", "255.255.255.255", "[0.0.0.0/0]"},
		{"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "[::/0]"},
		{"10.0.0.0", "10.255.255.255", "[10.0.0.0/8]"},
		{"10.0.0.1", "10.0.0.1", "[10.0.0.1/32]"},
		{"10.0.0.1", "10.0.0.6", "[10.0.0.1/32 10.0.0.2/31 10.0.0.4/31 10.0.0.6/32]"},
		{"0.0.0.1", "255.255.255.255", ""}, // counted below
		{"fd00::", "fd00::2", "[fd00::/127 fd00::2/128]"},
		{"10.0.0.2", "10.0.0.1", "[]"},
		{"10.0.0.2", "fd00::", "[]"},
	} {
		got := Prefixes(netip.MustParseAddr(tt.start), netip.MustParseAddr(tt.end))
		if tt.want != "" && fmt.Sprint(got) != tt.want {
			t.Errorf("%s-%s: %v, want %s", tt.start, tt.end, got, tt.want)
		}
		if tt.want == "" && len(got) != 32 {
			t.Errorf("%s-%s: %d prefixes, want 32", tt.start, tt.end, len(got))
		}
	}
}

// TestRawRule: what the kernel is told about a rule is what is read back.
func TestRawRule(t *testing.T) {
	p := Build(Settings{
		Addresses: addrs("10.30.0.1", "fd00:30::1"), Networks: nets("0.0.0.0/0", "::/0"), Carried: nets("0.0.0.0/0"),
		Attached: nets("192.168.0.0/24"), Ports: []uint16{40000}, NativeESP: true, Mark: 7,
	})
	for _, r := range p.Rules {
		if got := ruleOf(*rawRule(r)); got != r {
			t.Errorf("%+v became %+v", r, got)
		}
	}
	for _, r := range p.Routes {
		if got := routeOf(*rawRoute(r, nil)); got.Kind != r.Kind || got.To != r.To || got.Metric != r.Metric || got.Table != r.Table {
			t.Errorf("%+v became %+v", r, got)
		}
	}
	if again := Build(Settings{Addresses: addrs("10.30.0.1"), Networks: nets("10.0.0.0/8", "10.0.0.0/8"), Carried: nets("0.0.0.0/0"), Mark: 7}); !reflect.DeepEqual(
		again, Build(Settings{Addresses: addrs("10.30.0.1"), Networks: nets("10.0.0.0/8"), Carried: nets("0.0.0.0/0"), Mark: 7})) {
		t.Error("a network named twice makes a difference")
	}
}
