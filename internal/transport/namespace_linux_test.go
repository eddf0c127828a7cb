package transport

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// TestSmallMTU sends packets larger than the device takes, in a network
// namespace of its own: neither a train nor a single one is refused for it.
func TestSmallMTU(t *testing.T) {
	requireRoot(t, "an interface with a small MTU")
	inNamespace(t, func() {
		setLoopback(t, 1280)
		families := []netip.Addr{loopback4, loopback6}
		for _, addr := range families {
			rec := newRecorder()
			a, b := listen(t, Config{}, newRecorder()), listen(t, Config{}, rec)
			pair := pairTo(a, b, NATT, addr, addr)
			sendAndCompare(t, a, rec, pair, []int{2000, 2000, 2000, 500, 500, 500})
			if err := a.SendIKE(pair, ikeMessage(1, 5000)); err != nil {
				t.Fatal(err)
			}
			if got := <-rec.ike; len(got.data) != 5000 {
				t.Errorf("%s: got %d octets of IKE", addr, len(got.data))
			}
			if n := a.Counters().SendErrors; n != 0 {
				t.Errorf("%s: counted %d send errors", addr, n)
			}
		}
	})
}

// TestProbesAreNotFragmented sends path MTU probes by a device with a small MTU: they
// leave whole or not at all, and what is sent after them may be fragmented again.
func TestProbesAreNotFragmented(t *testing.T) {
	requireRoot(t, "an interface with a small MTU")
	inNamespace(t, func() {
		setLoopback(t, 1280)
		for _, addr := range []netip.Addr{loopback4, loopback6} {
			rec := newRecorder()
			a, b := listen(t, Config{}, newRecorder()), listen(t, Config{}, rec)
			pair := pairTo(a, b, NATT, addr, addr)
			overhead := 20 + 8 + 4
			if addr.Is6() {
				overhead += 20
			}
			if err := a.SendProbe(pair, ikeMessage(1, 1281-overhead)); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("%s: 1281 octets: %v", addr, err)
			}
			for _, send := range []func(locator.Pair, []byte) error{a.SendProbe, a.SendIKE} {
				if err := send(pair, ikeMessage(1, 1280-overhead)); err != nil {
					t.Fatal(err)
				}
				if got := <-rec.ike; len(got.data) != 1280-overhead {
					t.Errorf("%s: got %d octets", addr, len(got.data))
				}
			}
			if err := a.SendIKE(pair, ikeMessage(1, 5000)); err != nil {
				t.Fatal(err)
			}
			<-rec.ike
		}
	})
}

// TestRawESP sends protocol 50. Raw sockets see all of a machine, so this has
// one of its own.
func TestRawESP(t *testing.T) {
	requireRoot(t, "raw ESP")
	inNamespace(t, func() {
		setLoopback(t, 65536)
		for _, addr := range []netip.Addr{loopback4, loopback6} {
			sendRawESP(t, addr)
		}
	})
}

func sendRawESP(t *testing.T, addr netip.Addr) {
	t.Helper()
	recA, recB := newRecorder(), newRecorder()
	cfg := Config{RawESP: true, Addresses: []netip.Addr{addr}}
	a, b := listen(t, cfg, recA), listen(t, cfg, recB)
	pair := locator.Pair{Local: netip.AddrPortFrom(addr, 0), Remote: netip.AddrPortFrom(addr, 0)}
	pkts := [][]byte{espPacket(60, 1), espPacket(1300, 2), espPacket(4, 3)}
	wrong := [][]byte{{0, 0, 0, 0, 1}, {1, 2}} // SPI zero, and shorter than an SPI
	if err := a.SendESP(pair, false, trains(append(wrong, pkts...))); err != nil {
		t.Errorf("%s: %v", pair, err)
		return
	}
	for _, rec := range []*recorder{recA, recB} { // both sockets get a copy
		for i, want := range pkts {
			got := <-rec.esp
			if !bytes.Equal(got.data, want) || got.udp {
				t.Errorf("packet %d: UDP %v, % x", i, got.udp, got.data)
			}
			if got.pair.Local != pair.Local || got.pair.Remote != pair.Remote {
				t.Errorf("packet %d: pair %s, want %s", i, got.pair, pair)
			}
		}
	}
	if n := b.Counters().Malformed; n != 2 {
		t.Errorf("%s: counted %d malformed packets, want 2", addr, n)
	}
}

// TestLinkLocal sends between link-local addresses, which mean nothing without
// the interface: it is told by the pair, or by the zone, and is always reported.
func TestLinkLocal(t *testing.T) {
	requireRoot(t, "a link-local address")
	inNamespace(t, func() {
		setLoopback(t, 65536)
		addr := netip.MustParseAddr("fe80::1")
		// Here, since on other interfaces IPv6 waits for the carrier.
		index := addAddress(t, "lo", "fe80::1/64")
		recA, recB := newRecorder(), newRecorder()
		a := listen(t, Config{FollowRoutes: true}, recA)
		b := listen(t, Config{FollowRoutes: true, Addresses: []netip.Addr{addr.WithZone("lo")}}, recB)
		byIndex := pairTo(a, b, NATT, addr, addr)
		byIndex.Interface = index
		byZone := pairTo(a, b, NATT, addr, addr.WithZone("lo"))
		for _, pair := range []locator.Pair{byIndex, byZone} {
			if err := a.SendIKE(pair, ikeMessage(1, 28)); err != nil {
				t.Errorf("%s: %v", pair, err)
				return
			}
			got := <-recB.ike
			if got.pair.Remote != byIndex.Local || got.pair.Interface == 0 {
				t.Errorf("sent on %s, arrived as %s by interface %d", pair, got.pair, got.pair.Interface)
			}
			if err := b.SendIKE(got.pair, ikeMessage(1, 28)); err != nil {
				t.Errorf("answer on %s: %v", got.pair, err)
				return
			}
			<-recA.ike
		}
		pair := byIndex
		pair.Interface = 0
		if err := a.SendIKE(pair, ikeMessage(1, 28)); err == nil {
			t.Error("sent to a link-local address without interface")
		}
		local, found, err := a.LocalAddressFor(addr.WithZone("lo"))
		if err != nil || local != addr || found != index {
			t.Errorf("way to %s: %s, interface %d, %v", addr, local, found, err)
		}
	})
}

// TestRouteByMark looks up routes in a table that only marked packets see.
func TestRouteByMark(t *testing.T) {
	requireRoot(t, "policy routing")
	inNamespace(t, func() {
		setLoopback(t, 65536)
		first := addLink(t, "wlan0", "192.0.2.1/24")
		second := addLink(t, "wwan0", "198.51.100.1/24")
		const mark, table = 0x77, 100
		addDefault(t, first, 0)
		addDefault(t, second, table)
		rule := netlink.NewRule()
		rule.Mark, rule.Table, rule.Family = mark, table, unix.AF_INET
		if err := netlink.RuleAdd(rule); err != nil {
			t.Errorf("add a rule: %v", err)
			return
		}
		remote := netip.MustParseAddr("203.0.113.9")
		for _, want := range []struct {
			mark  uint32
			local string
			index int
		}{{0, "192.0.2.1", first}, {mark, "198.51.100.1", second}} {
			local, index, err := LocalAddressFor(remote, want.mark)
			if err != nil || local.String() != want.local || index != want.index {
				t.Errorf("mark %#x: %s, interface %d, %v; want %s, %d", want.mark, local, index, err, want.local, want.index)
			}
		}
	})
}

// addLink makes one end of a link that leads nowhere.
func addLink(t *testing.T, name, prefix string) int {
	t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-far"}
	err := netlink.LinkAdd(link)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		t.Errorf("add %s: %v", name, err)
		runtime.Goexit()
	}
	return addAddress(t, name, prefix)
}

func addAddress(t *testing.T, name, prefix string) int {
	t.Helper()
	link, err := netlink.LinkByName(name)
	var addr *netlink.Addr
	if err == nil {
		addr, err = netlink.ParseAddr(prefix)
	}
	if err == nil {
		addr.Flags = unix.IFA_F_NODAD
		err = netlink.AddrReplace(link, addr)
	}
	if err != nil {
		t.Errorf("add %s to %s: %v", prefix, name, err)
		runtime.Goexit()
	}
	for !hasLocalRoute(t, addr.IP) { // IPv6 adds it a moment after the address
		runtime.Gosched()
	}
	return link.Attrs().Index
}

// hasLocalRoute reports whether packets to an address of this machine arrive.
func hasLocalRoute(t *testing.T, ip net.IP) bool {
	t.Helper()
	family, bits := unix.AF_INET, 32
	if ip.To4() == nil {
		family, bits = unix.AF_INET6, 128
	}
	want := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Dst: &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)}}
	routes, err := netlink.RouteListFiltered(family, want, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	if err != nil {
		t.Errorf("list local routes: %v", err)
		runtime.Goexit()
	}
	return len(routes) > 0
}

func addDefault(t *testing.T, index, table int) {
	t.Helper()
	_, all, err := net.ParseCIDR("0.0.0.0/0")
	if err == nil {
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: all, Table: table})
	}
	if err != nil {
		t.Errorf("add a default route: %v", err)
		runtime.Goexit()
	}
}

// inNamespace runs f in a new network namespace, which ends with its last
// socket: the thread is thrown away, it has no name to remove.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make a network namespace: %v", err)
			return
		}
		f()
	}()
	<-done
}

func setLoopback(t *testing.T, mtu int) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetMTU(lo, mtu)
	}
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Errorf("set up lo: %v", err)
		runtime.Goexit()
	}
}
