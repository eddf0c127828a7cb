package simnet

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// TestOneWay checks black holes and paths that are bad in one direction only.
func TestOneWay(t *testing.T) {
	var any netip.Addr
	tests := []struct {
		name      string
		spoil     func(n *Network)
		there     bool
		backwards bool
		cause     Cause
	}{
		{"nothing", func(*Network) {}, true, true, 0},
		{"black hole", func(n *Network) { n.Block(addrA, addrB) }, false, true, Blocked},
		{"from anywhere", func(n *Network) { n.Block(any, addrA) }, true, false, Blocked},
		{"to anywhere", func(n *Network) { n.Block(addrA, any) }, false, true, Blocked},
		{"everything", func(n *Network) { n.Block(any, any) }, false, false, Blocked},
		{"healed", func(n *Network) { n.Block(addrA, addrB); n.Unblock(addrA, addrB) }, true, true, 0},
		{"path", func(n *Network) { n.SetPath(addrB, addrA, Conditions{Loss: 1}) }, true, false, Lost},
		{"good path in a bad world", func(n *Network) {
			n.SetTransit(Conditions{Loss: 1})
			n.SetPath(addrA, addrB, Conditions{})
		}, true, false, Lost},
		{"path like the others again", func(n *Network) {
			n.SetPath(addrA, addrB, Conditions{Loss: 1})
			n.ClearPath(addrA, addrB)
		}, true, true, 0},
		{"filter", func(n *Network) {
			n.SetFilter(func(p Packet) bool { return p.Src.Addr() == addrA && p.Dst.Port() == 4500 })
		}, false, true, Filtered},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, a, b := two(t, 1)
			tt.spoil(n)
			send(t, a, aToB, "there")
			send(t, b, aToB.Reverse(), "back")
			run(t, n, time.Second)
			if there, back := len(b.got) == 1, len(a.got) == 1; there != tt.there || back != tt.backwards {
				t.Errorf("there %v, back %v", there, back)
			}
			if s := n.Stats(); s.TotalDropped() != s.Dropped[tt.cause] {
				t.Errorf("dropped %v, want all for %s", s.Dropped, tt.cause)
			}
		})
	}
}

func TestLinkDown(t *testing.T) {
	for _, end := range []string{"sender", "receiver"} {
		n, a, b := two(t, 1)
		n.SetTransit(Conditions{Delay: time.Second})
		link := a.host.Links()[0]
		link.SetConditions(Out, Conditions{Delay: time.Second})
		if end == "receiver" {
			link = b.host.Links()[0]
		}
		send(t, a, aToB, "in flight")
		link.SetUp(false)
		run(t, n, 10*time.Second)
		if len(b.got) != 0 || n.Stats().Dropped[LinkDown] != 1 {
			t.Errorf("%s's link is down: %d arrived, dropped %v", end, len(b.got), n.Stats().Dropped)
		}
		link.SetUp(true)
		send(t, a, aToB, "again")
		run(t, n, 10*time.Second)
		if b.texts() != "again" {
			t.Errorf("%s's link is up again: got %q", end, b.texts())
		}
	}
}

// TestAddressGone checks that what was sent to an address before it went, or
// from one that is not there, does not arrive.
func TestAddressGone(t *testing.T) {
	n, a, b := two(t, 1)
	n.SetTransit(Conditions{Delay: time.Second})
	link := b.host.Links()[0]
	link.SetConditions(In, Conditions{Delay: time.Second})
	send(t, a, aToB, "lost at the door")
	run(t, n, 1500*time.Millisecond)
	link.RemoveAddr(addrB)
	link.RemoveAddr(addrB)
	send(t, a, aToB, "lost on the way")
	run(t, n, time.Minute)
	if len(b.got) != 0 || n.Stats().Dropped[NoSuchAddress] != 2 {
		t.Errorf("%q arrived, dropped %v", b.texts(), n.Stats().Dropped)
	}
	if err := b.host.Send(aToB.Reverse(), nil); !errors.Is(err, ErrNoAddress) {
		t.Errorf("send from an address that is gone: %v", err)
	}
	link.AddAddr(addrC)
	send(t, a, pairOf(addrA, addrC), "found")
	run(t, n, time.Minute)
	if b.texts() != "found" {
		t.Errorf("got %q", b.texts())
	}
}

// TestSourceChoice attaches a laptop with Wi-Fi and LTE, and asks which it uses.
func TestSourceChoice(t *testing.T) {
	wifi4, wifi6 := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8:1::10")
	lte4, lte6 := netip.MustParseAddr("192.0.2.20"), netip.MustParseAddr("2001:db8:2::20")
	remote6 := netip.MustParseAddr("2001:db8::b")
	var none netip.Addr
	tests := []struct {
		name      string
		down      int // index of a link that is down
		local     netip.Addr
		ifindex   int
		remote    netip.Addr
		want      netip.Addr
		wantError error
	}{
		{"first", 0, none, 0, addrB, wifi4, nil},
		{"unspecified", 0, netip.IPv4Unspecified(), 0, addrB, wifi4, nil},
		{"family of the remote", 0, none, 0, remote6, wifi6, nil},
		{"interface", 0, none, 2, addrB, lte4, nil},
		{"address", 0, lte6, 0, remote6, lte6, nil},
		{"address and interface", 0, lte4, 2, addrB, lte4, nil},
		{"address of another interface", 0, lte4, 1, addrB, none, ErrNoRoute},
		{"address of another family", 0, lte6, 0, addrB, none, ErrNoRoute},
		{"first is down", 1, none, 0, addrB, lte4, nil},
		{"interface is down", 1, none, 1, addrB, none, ErrNoRoute},
		{"address is down", 1, wifi4, 0, addrB, none, ErrNoRoute},
		{"foreign address", 0, addrC, 0, addrB, none, ErrNoAddress},
		{"no such interface", 0, none, 7, addrB, none, ErrNoRoute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := New(Config{})
			n.Report(t)
			b, _ := attach(n, "b", nil, addrB, remote6)
			a := new(probe)
			a.host = n.Attach("laptop", a)
			links := []*Link{
				a.host.AddLink(LinkConfig{Name: "wifi", Addrs: []netip.Addr{wifi4, wifi6}}),
				a.host.AddLink(LinkConfig{Name: "lte", Addrs: []netip.Addr{lte4, lte6}}),
			}
			if tt.down > 0 {
				links[tt.down-1].SetUp(false)
			}
			pair := pairOf(tt.local, tt.remote)
			pair.Interface = tt.ifindex
			if err := a.host.Send(pair, []byte("x")); !errors.Is(err, tt.wantError) {
				t.Fatalf("Send: %v, want %v", err, tt.wantError)
			}
			run(t, n, time.Second)
			if tt.wantError != nil {
				return
			}
			if len(b.got) != 1 || b.got[0].pair.Remote != netip.AddrPortFrom(tt.want, 4500) {
				t.Errorf("got %v, want from %s", b.got, tt.want)
			}
		})
	}
}

// TestInterface checks that a packet tells the interface it came in by.
func TestInterface(t *testing.T) {
	n, a, b := two(t, 1)
	second := b.host.AddLink(LinkConfig{Name: "eth1", Addrs: []netip.Addr{addrC}})
	send(t, a, pairOf(addrA, addrC), "x")
	run(t, n, time.Second)
	if len(b.got) != 1 || b.got[0].pair.Interface != second.Index() || second.Index() != 2 {
		t.Errorf("got %v", b.got)
	}
}

// TestRawESP checks that protocol 50 goes where there is no NAT.
func TestRawESP(t *testing.T) {
	n, a, b := two(t, 1)
	raw := locator.Pair{Local: netip.AddrPortFrom(addrA, 0), Remote: netip.AddrPortFrom(addrB, 0)}
	send(t, a, raw, "esp")
	run(t, n, time.Second)
	if len(b.got) != 1 || b.got[0].pair.Local.Port() != 0 || b.got[0].pair.Remote.Port() != 0 {
		t.Errorf("got %v", b.got)
	}
}

func TestMistakesPanic(t *testing.T) {
	tests := []struct {
		name string
		make func(n *Network)
	}{
		{"two hosts", func(n *Network) { attach(n, "x", nil, addrA) }},
		{"host and NAT", func(n *Network) { n.AddNAT(NATConfig{Public: addrA}) }},
		{"no address", func(n *Network) { attach(n, "x", nil, netip.Addr{}) }},
		{"NAT without address", func(n *Network) { n.AddNAT(NATConfig{}) }},
		{"NAT of two families", func(n *Network) {
			n.AddNAT(NATConfig{Public: addrC}).SetPublic(netip.MustParseAddr("2001:db8::c"))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, _, _ := two(t, 1)
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			tt.make(n)
		})
	}
}
