package simnet

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

var (
	inside  = netip.MustParseAddr("10.0.0.2")
	inside2 = netip.MustParseAddr("10.0.0.3")
)

// natNet is a laptop behind a NAT at addrC, a server with two addresses and a
// stranger, all with a delay that is zero.
type natNet struct {
	*Network
	nat              *NAT
	laptop, server   *probe
	wifi             *Link
	server2, foreign netip.Addr
	stranger         *probe
}

func newNATNet(t testing.TB, cfg NATConfig) *natNet {
	n := &natNet{Network: New(Config{Seed: 5})}
	n.Report(t)
	cfg.Name, cfg.Public = "nat", addrC
	n.nat = n.AddNAT(cfg)
	n.server2, n.foreign = addrB.Next(), netip.MustParseAddr("192.0.2.99")
	n.laptop, n.wifi = attach(n.Network, "laptop", n.nat, inside)
	n.server, _ = attach(n.Network, "server", nil, addrB, n.server2)
	n.stranger, _ = attach(n.Network, "stranger", nil, n.foreign)
	return n
}

// seenAs sends from the laptop and returns the source that the server saw.
func (n *natNet) seenAs(t testing.TB, local, remote netip.AddrPort) netip.AddrPort {
	t.Helper()
	n.server.got = nil
	send(t, n.laptop, locator.Pair{Local: local, Remote: remote}, "out")
	run(t, n.Network, 0)
	if len(n.server.got) != 1 {
		t.Fatalf("%s > %s: %d arrived", local, remote, len(n.server.got))
	}
	return n.server.got[0].pair.Remote
}

// letsIn reports whether a packet to a public endpoint reaches the laptop.
func (n *natNet) letsIn(t testing.TB, from *probe, local, public netip.AddrPort) bool {
	t.Helper()
	n.laptop.got = nil
	send(t, from, locator.Pair{Local: local, Remote: public}, "in")
	run(t, n.Network, 0)
	return len(n.laptop.got) == 1
}

func on(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

func TestNATMapping(t *testing.T) {
	tests := []struct {
		mapping                 Behaviour
		otherPort, otherAddress bool // the same public end there
	}{
		{EndpointIndependent, true, true},
		{AddressDependent, true, false},
		{AddressAndPortDependent, false, false},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.mapping), func(t *testing.T) {
			n := newNATNet(t, NATConfig{Mapping: tt.mapping})
			local := on(inside, 4500)
			first := n.seenAs(t, local, on(addrB, 4500))
			if first.Addr() != addrC || first.Port() == 4500 {
				t.Errorf("seen as %s", first)
			}
			if again := n.seenAs(t, local, on(addrB, 4500)); again != first {
				t.Errorf("seen as %s, then as %s", first, again)
			}
			if same := n.seenAs(t, local, on(addrB, 500)) == first; same != tt.otherPort {
				t.Errorf("same to another port: %v", same)
			}
			if same := n.seenAs(t, local, on(n.server2, 4500)) == first; same != tt.otherAddress {
				t.Errorf("same to another address: %v", same)
			}
			if n.seenAs(t, on(inside, 500), on(addrB, 4500)) == first {
				t.Error("two inside ports are seen as one")
			}
		})
	}
}

func TestNATFiltering(t *testing.T) {
	tests := []struct {
		filtering                     Behaviour
		samePort, otherPort, stranger bool
	}{
		{EndpointIndependent, true, true, true},
		{AddressDependent, true, true, false},
		{AddressAndPortDependent, true, false, false},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.filtering), func(t *testing.T) {
			n := newNATNet(t, NATConfig{Filtering: tt.filtering})
			if n.letsIn(t, n.server, on(addrB, 4500), on(addrC, 40000)) {
				t.Error("in before anything went out")
			}
			public := n.seenAs(t, on(inside, 4500), on(addrB, 4500))
			if in := n.letsIn(t, n.server, on(addrB, 4500), public); in != tt.samePort {
				t.Errorf("from where it went: %v", in)
			}
			if got := n.laptop.got[0].pair; got.Local != on(inside, 4500) || got.Remote != on(addrB, 4500) {
				t.Errorf("the laptop sees %s", got)
			}
			if in := n.letsIn(t, n.server, on(addrB, 500), public); in != tt.otherPort {
				t.Errorf("from another port: %v", in)
			}
			if in := n.letsIn(t, n.stranger, on(n.foreign, 4500), public); in != tt.stranger {
				t.Errorf("from a stranger: %v", in)
			}
			if n.letsIn(t, n.server, on(addrB, 4500), on(addrC, public.Port()^1)) {
				t.Error("in at a port that is not mapped")
			}
		})
	}
}

func TestNATLifetime(t *testing.T) {
	for _, refresh := range []bool{false, true} {
		t.Run(fmt.Sprintf("refreshed by inbound %v", refresh), func(t *testing.T) {
			n := newNATNet(t, NATConfig{Lifetime: 30 * time.Second, RefreshInbound: refresh})
			local, remote := on(inside, 4500), on(addrB, 4500)
			public := n.seenAs(t, local, remote)
			run(t, n.Network, 29*time.Second)
			if !n.letsIn(t, n.server, remote, public) {
				t.Fatal("the mapping went too early")
			}
			run(t, n.Network, 2*time.Second)
			if in := n.letsIn(t, n.server, remote, public); in != refresh {
				t.Errorf("in 31 s after the last packet out: %v", in)
			}
			public = n.seenAs(t, local, remote)
			for range 10 { // keepalives
				run(t, n.Network, 20*time.Second)
				if again := n.seenAs(t, local, remote); again != public {
					t.Fatalf("seen as %s, then as %s", public, again)
				}
			}
			run(t, n.Network, 30*time.Second)
			if n.nat.Mappings() != 0 {
				t.Errorf("%d mappings live", n.nat.Mappings())
			}
			if n.seenAs(t, local, remote) == public {
				t.Error("a forgotten mapping came back")
			}
		})
	}
}

func TestNATRebind(t *testing.T) {
	for _, preserve := range []bool{false, true} {
		t.Run(fmt.Sprintf("preserves ports %v", preserve), func(t *testing.T) {
			n := newNATNet(t, NATConfig{PreservePort: preserve, Mapping: AddressAndPortDependent})
			local, remote := on(inside, 4500), on(addrB, 4500)
			before := n.seenAs(t, local, remote)
			if (before.Port() == 4500) != preserve {
				t.Errorf("seen as %s", before)
			}
			n.nat.Rebind()
			if n.letsIn(t, n.server, remote, before) {
				t.Error("the old mapping lives")
			}
			after := n.seenAs(t, local, remote)
			if after.Port() == before.Port() || after.Addr() != before.Addr() {
				t.Errorf("seen as %s, after rebinding as %s", before, after)
			}
			if !n.letsIn(t, n.server, remote, after) {
				t.Error("the new mapping does not work")
			}
		})
	}
}

func TestNATRestart(t *testing.T) {
	n := newNATNet(t, NATConfig{PreservePort: true})
	local, remote := on(inside, 4500), on(addrB, 4500)
	before := n.seenAs(t, local, remote)
	n.nat.Restart()
	if n.letsIn(t, n.server, remote, before) {
		t.Error("a mapping survived")
	}
	if after := n.seenAs(t, local, remote); after != before {
		t.Errorf("seen as %s, after a restart as %s", before, after)
	}
}

func TestNATPublicAddress(t *testing.T) {
	n := newNATNet(t, NATConfig{})
	local, remote := on(inside, 4500), on(addrB, 4500)
	before := n.seenAs(t, local, remote)
	moved := addrC.Next()
	n.nat.SetPublic(moved)
	if n.letsIn(t, n.server, remote, before) {
		t.Error("in at the old address")
	}
	if after := n.seenAs(t, local, remote); after != on(moved, before.Port()) || n.nat.Public() != moved {
		t.Errorf("seen as %s, want %s", after, on(moved, before.Port()))
	}
	attach(n.Network, "next", nil, addrC) // the old address is free
}

// TestNATPorts maps two hosts that use one port, where the NAT keeps ports.
func TestNATPorts(t *testing.T) {
	n := newNATNet(t, NATConfig{PreservePort: true})
	second, _ := attach(n.Network, "second", n.nat, inside2)
	first := n.seenAs(t, on(inside, 4500), on(addrB, 4500))
	send(t, second, pairOf(inside2, addrB), "out")
	run(t, n.Network, 0)
	other := n.server.got[1].pair.Remote
	if first.Port() != 4500 || other.Port() == 4500 || other.Addr() != addrC {
		t.Errorf("seen as %s and %s", first, other)
	}
	if !n.letsIn(t, n.server, on(addrB, 4500), first) || len(second.got) != 0 {
		t.Error("the answer went elsewhere")
	}
}

func TestNATHairpin(t *testing.T) {
	for _, hairpin := range []bool{false, true} {
		n := newNATNet(t, NATConfig{Hairpin: hairpin})
		second, _ := attach(n.Network, "second", n.nat, inside2)
		public := n.seenAs(t, on(inside, 4500), on(addrB, 4500))
		if in := n.letsIn(t, second, on(inside2, 4500), public); in != hairpin {
			t.Errorf("hairpin %v: in %v", hairpin, in)
		}
		// The private address works without the NAT, and is not translated.
		if !n.letsIn(t, second, on(inside2, 4500), on(inside, 4500)) {
			t.Error("neighbours do not reach each other")
		} else if got := n.laptop.got[0].pair.Remote; got != on(inside2, 4500) {
			t.Errorf("the neighbour is seen as %s", got)
		}
	}
}

func TestNestedNAT(t *testing.T) {
	n := New(Config{Seed: 6})
	n.Report(t)
	carrier := n.AddNAT(NATConfig{Name: "carrier", Public: addrC, Lifetime: 10 * time.Second})
	home := n.AddNAT(NATConfig{Name: "home", Public: netip.MustParseAddr("100.64.0.7"), Behind: carrier})
	laptop, _ := attach(n, "laptop", home, inside)
	server, _ := attach(n, "server", nil, addrB)
	server.answer = true
	send(t, laptop, pairOf(inside, addrB), "through two")
	run(t, n, 0)
	if len(server.got) != 1 || server.got[0].pair.Remote.Addr() != addrC {
		t.Fatalf("the server got %v", server.got)
	}
	if laptop.texts() != "through two" || laptop.got[0].pair.Remote != on(addrB, 4500) {
		t.Errorf("the laptop got %v", laptop.got)
	}
	run(t, n, 10*time.Second)
	if home.Mappings() != 1 || carrier.Mappings() != 0 {
		t.Errorf("mappings: home %d, carrier %d", home.Mappings(), carrier.Mappings())
	}
}

// TestNATLimits checks what a NAT does not translate.
func TestNATLimits(t *testing.T) {
	n := newNATNet(t, NATConfig{})
	v6, server6 := netip.MustParseAddr("2001:db8:1::2"), netip.MustParseAddr("2001:db8::b")
	n.wifi.AddAddr(v6)
	n.server.host.Links()[0].AddAddr(server6)
	if got := n.seenAs(t, on(v6, 4500), on(server6, 4500)); got != on(v6, 4500) {
		t.Errorf("IPv6 is seen as %s", got)
	}
	send(t, n.laptop, locator.Pair{Local: on(inside, 0), Remote: on(addrB, 0)}, "protocol 50")
	run(t, n.Network, 0)
	if len(n.server.got) != 1 || n.Stats().Dropped[NATRefused] != 1 {
		t.Errorf("protocol 50 passed: %v", n.server.got)
	}
	if n.letsIn(t, n.stranger, on(n.foreign, 4500), on(inside, 4500)) {
		t.Error("a private address can be reached from outside")
	}
}

// TestMove takes a laptop from one Wi-Fi to another.
func TestMove(t *testing.T) {
	n := newNATNet(t, NATConfig{})
	cafe := n.AddNAT(NATConfig{Name: "cafe", Public: addrA})
	before := n.seenAs(t, on(inside, 4500), on(addrB, 4500))
	n.wifi.Move(cafe, inside) // the same private address, elsewhere
	if n.letsIn(t, n.server, on(addrB, 4500), before) {
		t.Error("reached where it was")
	}
	after := n.seenAs(t, on(inside, 4500), on(addrB, 4500))
	if after.Addr() != addrA || !n.letsIn(t, n.server, on(addrB, 4500), after) {
		t.Errorf("seen as %s", after)
	}
	n.wifi.Move(nil, addrA.Next())
	if got := n.seenAs(t, on(addrA.Next(), 4500), on(addrB, 4500)); got != on(addrA.Next(), 4500) {
		t.Errorf("without NAT seen as %s", got)
	}
}

// TestNATExhaustion fills every port; the next mapping is refused, until the
// old ones expire.
func TestNATExhaustion(t *testing.T) {
	const ports = 300
	n := newNATNet(t, NATConfig{Mapping: AddressAndPortDependent, Lifetime: time.Minute, Ports: ports})
	for port := range ports {
		p := &packet{Packet: Packet{Src: on(inside, 4500), Dst: on(addrB, uint16(port+1))}}
		if !n.nat.outbound(n.Now(), p) {
			t.Fatalf("mapping %d was refused", port)
		}
	}
	p := &packet{Packet: Packet{Src: on(inside, 4500), Dst: on(n.server2, 1)}}
	if n.nat.outbound(n.Now(), p) {
		t.Errorf("more mappings than ports: %s", p.Src)
	}
	if !n.nat.outbound(n.Now().Add(time.Minute), p) {
		t.Error("refused though everything has expired")
	}
}
