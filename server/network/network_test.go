package network

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/rtnl"
)

// inOwnNamespace runs the test on a thread with a network namespace of its own, which
// ends with the thread.
func inOwnNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces, routes and nftables are not tested")
	}
	runtime.LockOSThread() // never unlocked: the thread dies with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("network namespaces are not available, the network is not tested: %v", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
}

func addTUN(t *testing.T, name string) netlink.Link {
	t.Helper()
	tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TUN}
	if err := netlink.LinkAdd(tun); err != nil {
		t.Skipf("TUN devices are not available, the network is not tested: %v", err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// addUplink makes a veth with a default route, so that whatever has no better route
// leaves by it; the other end is in a namespace that the result captures in.
func addUplink(t *testing.T) *capture {
	t.Helper()
	own, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	far, err := netns.New() // switches to it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	cap := newCapture(t)
	if err := netns.Set(own); err != nil {
		t.Fatal(err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0"}, PeerName: "far0", PeerNamespace: netlink.NsFd(far)}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	h, err := netlink.NewHandleAt(far)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	peer, err := h.LinkByName("far0")
	if err != nil {
		t.Fatal(err)
	}
	must(t, h.LinkSetUp(peer))
	for _, a := range []string{"203.0.113.10/24", "2001:db8:113::10/64"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		addr.Flags = unix.IFA_F_NODAD
		must(t, netlink.AddrAdd(link, addr))
	}
	must(t, netlink.LinkSetUp(link))
	for _, gw := range []string{"203.0.113.1", "2001:db8:113::1"} {
		ip := net.ParseIP(gw)
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: ip}))
		must(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: ip, HardwareAddr: peer.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT}))
	}
	return cap
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// capture collects the IP packets that arrive in a namespace.
type capture struct {
	t  *testing.T
	fd int
}

func newCapture(t *testing.T) *capture {
	proto := int(htons(unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &capture{t, fd}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// to returns how many packets to an address were captured. A veth hands packets over
// within the sender's system call or a soft interrupt soon after; a marker packet that
// is sent last and seen tells that all before it have arrived.
func (c *capture) to(dst netip.Addr) (n int) {
	c.t.Helper()
	marker := netip.MustParseAddr("192.0.2.99")
	send(c.t, marker, netip.Addr{})
	buf := make([]byte, 2048)
	for range 5000 {
		size, _, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			c.t.Fatal(err)
		}
		switch destinationOf(buf[:size]) {
		case marker:
			return n
		case dst:
			n++
		}
	}
	c.t.Fatal("the capture does not see the uplink at all")
	return 0
}

func destinationOf(p []byte) netip.Addr {
	if len(p) >= 20 && p[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(p[16:20]))
	}
	if len(p) >= 40 && p[0]>>4 == 6 {
		return netip.AddrFrom16([16]byte(p[24:40]))
	}
	return netip.Addr{}
}

// send sends a datagram, from a given source if that is valid.
func send(t *testing.T, dst, src netip.Addr) error {
	t.Helper()
	var local *net.UDPAddr
	if src.IsValid() {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0))
	}
	conn, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, 9)))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("in clear"))
	return err
}

func desired() Desired {
	return Desired{
		Device: "wfs9", MTU: 1380,
		Addresses:  []netip.Addr{netip.MustParseAddr("10.30.0.1"), netip.MustParseAddr("fd00:30::1")},
		Pools:      []netip.Prefix{netip.MustParsePrefix("10.30.0.0/24"), netip.MustParsePrefix("fd00:30::/112")},
		Masquerade: true,
	}
}

// ours lists what belongs to us, in a form that two states can be compared by.
func ours(t *testing.T) []string {
	t.Helper()
	h, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var out []string
	must(t, eachRoute(h, func(r netlink.Route) error {
		out = append(out, fmt.Sprintf("route %s type %d metric %d", r.Dst, r.Type, r.Priority))
		return nil
	}))
	must(t, eachRule(h, func(r netlink.Rule) error {
		out = append(out, fmt.Sprintf("rule %s table %d priority %d", r.Dst, r.Table, r.Priority))
		return nil
	}))
	slices.Sort(out)
	return out
}

func guards(prefixes ...string) []string {
	var out []string
	for _, p := range prefixes {
		out = append(out, fmt.Sprintf("route %s type %d metric %d", p, unix.RTN_UNREACHABLE, guardMetric), fmt.Sprintf("rule %s table 254 priority 87", p))
	}
	slices.Sort(out)
	return out
}

func up(guards []string, prefixes ...string) []string {
	for _, p := range prefixes {
		guards = append(guards, fmt.Sprintf("route %s type %d metric 1", p, unix.RTN_UNICAST))
	}
	slices.Sort(guards)
	return guards
}

func TestApplyAnyNumberOfTimes(t *testing.T) {
	inOwnNamespace(t)
	addTUN(t, "wfs9")
	n := New(filepath.Join(t.TempDir(), "network.json"), slog.New(slog.DiscardHandler))
	d := desired()
	both := []string{"10.30.0.0/24", "fd00:30::/112"}
	for range 3 {
		must(t, n.Apply(d))
		if got, want := ours(t), up(guards(both...), both...); !slices.Equal(got, want) {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	link, _ := netlink.LinkByName("wfs9")
	if link.Attrs().MTU != 1380 || link.Attrs().Flags&net.FlagUp == 0 {
		t.Errorf("device: %+v", link.Attrs())
	}
	addrs, _ := netlink.AddrList(link, netlink.FAMILY_ALL)
	if len(addrs) != 2 {
		t.Errorf("addresses: %v", addrs)
	}
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if n.sysctls.get(name) != "1" {
			t.Errorf("%s is not 1: the machine does not forward", name)
		}
	}

	// A reload with another pool: the old one's routes go, also those of the guard.
	d.Pools = []netip.Prefix{netip.MustParsePrefix("10.31.0.0/24")}
	d.Addresses = []netip.Addr{netip.MustParseAddr("10.31.0.1")}
	must(t, n.Apply(d))
	if got, want := ours(t), up(guards("10.31.0.0/24"), "10.31.0.0/24"); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if addrs, _ = netlink.AddrList(link, netlink.FAMILY_ALL); len(addrs) != 1 || addrs[0].IP.String() != "10.31.0.1" {
		t.Errorf("addresses: %v", addrs)
	}

	// An orderly end keeps the guards, removal does not.
	must(t, n.Leave())
	if got, want := ours(t), guards("10.31.0.0/24"); !slices.Equal(got, want) {
		t.Errorf("after the end\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if out, err := exec.Command("nft", "list", "tables").CombinedOutput(); err == nil && bytes.Contains(out, []byte(tableName)) {
		t.Errorf("the filter table is still there: %s", out)
	}
	must(t, n.Remove())
	if got := ours(t); len(got) != 0 {
		t.Errorf("after removal: %s", got)
	}
	must(t, n.Remove()) // nothing left is no error
}

// A client of ours on the same machine marks its rules with the same protocol.
func TestRulesOfAClientStay(t *testing.T) {
	inOwnNamespace(t)
	addTUN(t, "wfs9")
	n := New(filepath.Join(t.TempDir(), "network.json"), slog.New(slog.DiscardHandler))
	client := netlink.NewRule()
	client.Family, client.Priority, client.Table, client.Protocol = unix.AF_INET, 75, 4711, protocol
	must(t, netlink.RuleAdd(client))
	for what, f := range map[string]func() error{
		"Apply": func() error { return n.Apply(desired()) }, "Leave": n.Leave, "Remove": n.Remove,
	} {
		must(t, f())
		rules, err := netlink.RuleList(unix.AF_INET)
		must(t, err)
		if !slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Table == client.Table && r.Priority == client.Priority }) {
			t.Fatalf("%s has removed the client's rule; left are %v", what, rules)
		}
	}
}

// Nothing for a pool leaves by the uplink: not while the gateway runs, not after its
// device has gone without a word, not after an orderly end, and not when a policy rule
// of the administrator's chooses the uplink by source address.
func TestNothingForAPoolLeavesByTheUplink(t *testing.T) {
	inOwnNamespace(t)
	wire := addUplink(t)
	d := desired()
	free := []netip.Addr{netip.MustParseAddr("10.30.0.77"), netip.MustParseAddr("fd00:30::77")}
	sources := []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:113::10")}

	// The administrator's tables by source address, as on a gateway with two uplinks.
	uplink, _ := netlink.LinkByName("up0")
	for i, src := range sources {
		gw := net.ParseIP([]string{"203.0.113.1", "2001:db8:113::1"}[i])
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: uplink.Attrs().Index, Gw: gw, Table: 101}))
		rule := netlink.NewRule()
		rule.Src, rule.Table, rule.Priority, rule.Family = rtnl.IPNet(netip.PrefixFrom(src, src.BitLen())), 101, 101, rtnl.Family(src)
		must(t, netlink.RuleAdd(rule))
	}

	// The check can fail: without us, the packets do leave.
	for i, a := range free {
		must(t, send(t, a, netip.Addr{}))
		must(t, send(t, a, sources[i]))
		if got := wire.to(a); got != 2 {
			t.Fatalf("before the gateway runs %d packets to %s left by the uplink, want 2", got, a)
		}
	}

	addTUN(t, "wfs9")
	n := New(filepath.Join(t.TempDir(), "network.json"), slog.New(slog.DiscardHandler))
	must(t, n.Apply(d))
	link, _ := netlink.LinkByName("wfs9")
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"running", func() {}},
		{"crashed", func() { must(t, netlink.LinkDel(link)) }},
		{"ended", func() { must(t, n.Leave()) }},
	} {
		step.do()
		for i, a := range free {
			for _, src := range []netip.Addr{{}, sources[i]} {
				err := send(t, a, src)
				if step.name != "running" && err == nil {
					t.Errorf("%s: a packet to %s was accepted, it should be unreachable", step.name, a)
				}
			}
			if got := wire.to(a); got != 0 {
				t.Errorf("%s: %d packets to %s left by the uplink", step.name, got, a)
			}
		}
	}
}

func TestFilterRules(t *testing.T) {
	inOwnNamespace(t)
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed: the filter's rules are not compared")
	}
	addTUN(t, "wfs9")
	n := New(filepath.Join(t.TempDir(), "network.json"), slog.New(slog.DiscardHandler))
	d := desired()
	must(t, n.Apply(d))
	list := func() string {
		out, err := exec.Command("nft", "list", "table", "inet", tableName).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.Join(strings.Fields(string(out)), " ")
	}
	got := list()
	for _, want := range []string{
		`iifname != "wfs9" iifname != "lo" ip saddr 10.30.0.0/24 counter packets 0 bytes 0 drop`,
		`iifname != "wfs9" iifname != "lo" ip6 saddr fd00:30::/112 counter packets 0 bytes 0 drop`,
		`oifname != "wfs9" oifname != "lo" ip daddr 10.30.0.0/24 counter packets 0 bytes 0 drop`,
		`oifname != "wfs9" oifname != "lo" ip6 daddr fd00:30::/112 counter packets 0 bytes 0 drop`,
		`oifname != "wfs9" oifname != "lo" ip saddr 10.30.0.0/24 counter packets 0 bytes 0 masquerade`,
		`oifname != "wfs9" oifname != "lo" ip6 saddr fd00:30::/112 counter packets 0 bytes 0 masquerade`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in the table:\n%s", want, got)
		}
	}
	d.Masquerade = false
	must(t, n.Apply(d))
	if got := list(); strings.Contains(got, "masquerade") || strings.Count(got, "drop") != 4 {
		t.Errorf("without masquerade: %s", got)
	}
}

func TestOtherFiltersAreTold(t *testing.T) {
	inOwnNamespace(t)
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed")
	}
	addTUN(t, "wfs9")
	out, err := exec.Command("nft", "add table ip other; add chain ip other FORWARD { type filter hook forward priority 0; policy drop; }").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var logged bytes.Buffer
	n := New(filepath.Join(t.TempDir(), "network.json"), slog.New(slog.NewTextHandler(&logged, nil)))
	must(t, n.Apply(desired()))
	must(t, n.Apply(desired()))
	if strings.Count(logged.String(), `chain="ip other FORWARD"`) != 1 {
		t.Errorf("log: %s", logged.String())
	}
	if got, err := ForwardDroppers(); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestApplyWithoutDevice(t *testing.T) {
	inOwnNamespace(t)
	n := New(filepath.Join(t.TempDir(), "network.json"), slog.New(slog.DiscardHandler))
	err := n.Apply(desired())
	if err == nil || !strings.Contains(err.Error(), "wfs9") {
		t.Errorf("error: %v", err)
	}
	// The guards stand already: failing is not leaking.
	if got, want := ours(t), guards("10.30.0.0/24", "fd00:30::/112"); !slices.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestKernelPathFilters: the rules for the kernel's data path are ones that the kernel
// takes, and say what they should.
func TestKernelPathFilters(t *testing.T) {
	inOwnNamespace(t)
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("nft is not installed: the rules cannot be read back")
	}
	d := Desired{Device: "wfs0", Pools: []netip.Prefix{netip.MustParsePrefix("10.66.0.0/24")}, Masquerade: true, KernelESP: true}
	n := New(filepath.Join(t.TempDir(), "notes"), slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		policyBased bool
		want        []string
	}{
		{false, []string{`oifname "wfs0" tcp flags`, `maxseg size set rt mtu`, `iifname != "wfs0" iifname != "lo" ip saddr`, `oifname != "wfs0" rt ipsec missing`}},
		{true, []string{`rt ipsec exists`, `maxseg size set rt mtu`, `rt ipsec missing`, `secpath missing`}},
	} {
		d.PolicyBased = c.policyBased
		if err := n.filter(d); err != nil {
			t.Skipf("this kernel does not take the rules: %v", err)
		}
		out, err := exec.Command(nft, "list", "table", "inet", tableName).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		text := strings.ReplaceAll(strings.ReplaceAll(string(out), "meta ipsec", "secpath"), "meta secpath", "secpath")
		for _, w := range c.want {
			if !strings.Contains(text, w) {
				t.Errorf("policy based %v: no %q in\n%s", c.policyBased, w, out)
			}
		}
	}
}
