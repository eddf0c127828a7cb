package transport

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// TestInterfaceOfPair has two uplinks with default routes of their own, and sends from
// the address of each: the packets leave by the interface of the pair, not by the
// better route.
func TestInterfaceOfPair(t *testing.T) {
	requireRoot(t, "two uplinks")
	for _, family := range []struct {
		remote string
		local  [2]string
	}{
		{"203.0.113.9", [2]string{"192.0.2.1", "198.51.100.1"}},
		{"2001:db8:113::9", [2]string{"2001:db8:a::1", "2001:db8:c::1"}},
	} {
		t.Run(family.remote, func(t *testing.T) {
			inNamespace(t, func() {
				setLoopback(t, 65536)
				remote := netip.MustParseAddr(family.remote)
				var index [2]int
				for i, local := range family.local {
					bits := netip.MustParseAddr(local).BitLen()
					index[i] = addLink(t, fmt.Sprintf("up%d", i), fmt.Sprintf("%s/%d", local, bits-8))
					setUp(t, fmt.Sprintf("up%d-far", i))
					addWay(t, index[i], remote, 100*(i+1))
				}
				tr := listen(t, Config{}, newRecorder())
				for i, local := range family.local {
					pair := locator.Pair{
						Local:     netip.AddrPortFrom(netip.MustParseAddr(local), tr.LocalPort(NATT)),
						Remote:    netip.AddrPortFrom(remote, 4500),
						Interface: index[i],
					}
					const packets = 50 // more than what a new link says by itself
					before := sentBy(t, index[i])
					for range packets {
						if err := tr.SendIKE(pair, ikeMessage(1, 100)); err != nil {
							t.Errorf("%s: %v", pair, err)
							return
						}
					}
					if n := sentBy(t, index[i]) - before; n < packets {
						t.Errorf("%s: %d of %d packets left by interface %d", pair, n, packets, index[i])
					}
				}
				// The port is still ours alone.
				if other, err := Listen(Config{IKEPort: tr.LocalPort(IKE), NATTPort: tr.LocalPort(NATT)}, newRecorder(), nil); err == nil {
					other.Close()
					t.Error("a second daemon got the same ports")
				}
			})
		})
	}
}

func setUp(t *testing.T, name string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		t.Errorf("set %s up: %v", name, err)
		runtime.Goexit()
	}
}

// addWay makes a default route, and a neighbour that nobody has to ask for.
func addWay(t *testing.T, index int, remote netip.Addr, metric int) {
	t.Helper()
	_, all, _ := net.ParseCIDR("0.0.0.0/0")
	if remote.Is6() {
		_, all, _ = net.ParseCIDR("::/0")
	}
	err := netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: all, Priority: metric})
	if err == nil {
		err = netlink.NeighSet(&netlink.Neigh{LinkIndex: index, IP: remote.AsSlice(), State: netlink.NUD_PERMANENT,
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
	}
	if err != nil {
		t.Errorf("route over interface %d: %v", index, err)
		runtime.Goexit()
	}
}

func sentBy(t *testing.T, index int) int {
	t.Helper()
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		t.Error(err)
		runtime.Goexit()
	}
	return int(link.Attrs().Statistics.TxPackets)
}
