package route

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/client/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// uplink makes a machine with one uplink, 192.168.1.2/24 and 2001:db8:1::2/64, with
// default routes, and a tunnel interface wf0 that nobody reads from. It returns the
// function that takes the tunnel interface away, as a crash does.
func uplink(t *testing.T) (k *Kernel, crash func()) {
	nstest.Cable(t, "up0", "up0x")
	nstest.Address(t, "up0", "192.168.1.2/24")
	nstest.Address(t, "up0", "2001:db8:1::2/64")
	run(t, "ip route add default via 192.168.1.1 dev up0")
	run(t, "ip -6 route add default via 2001:db8:1::1 dev up0")
	nstest.Cable(t, "wf0", "wf0x")
	k, err := NewKernel(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Clear(nil); err != nil {
			t.Error(err)
		}
		if left, err := k.Present(); left || err != nil {
			t.Errorf("left something behind: %v %v", left, err)
		}
		k.Close()
	})
	return k, func() { run(t, "ip link del wf0") }
}

func run(t *testing.T, command string) string {
	t.Helper()
	words := strings.Fields(command)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

const mark = 0x5746

// way returns the interface a packet would leave by, or why it would not.
func way(t *testing.T, to string, from string, marked bool) string {
	t.Helper()
	args := []string{"route", "get", to}
	if from != "" {
		args = append(args, "from", from)
	}
	if marked {
		args = append(args, "mark", "0x5746")
	}
	out, err := exec.Command("ip", args...).CombinedOutput()
	text := string(out)
	if err != nil || strings.Contains(text, "unreachable") || strings.Contains(text, "blackhole") {
		return "blocked"
	}
	_, after, _ := strings.Cut(text, " dev ")
	name, _, _ := strings.Cut(after, " ")
	return strings.TrimSpace(name)
}

type question struct {
	to, from string
	marked   bool
	want     string
}

func ask(t *testing.T, when string, questions []question) {
	t.Helper()
	for _, q := range questions {
		if got := way(t, q.to, q.from, q.marked); got != q.want {
			t.Errorf("%s: packet to %s from %q (ours: %v) goes %s, want %s", when, q.to, q.from, q.marked, got, q.want)
		}
	}
}

func TestFullTunnel(t *testing.T) {
	k, crash := uplink(t)
	attached, err := k.Attached("wf0")
	if err != nil {
		t.Fatal(err)
	}
	s := Settings{
		Interface: "wf0", Addresses: addrs("10.30.0.1", "fd00:30::1"), Networks: nets("0.0.0.0/0", "::/0"),
		Carried: nets("0.0.0.0/0", "::/0"), Attached: attached, Ports: []uint16{500, 4500}, Mark: mark,
	}
	up := []question{
		{"8.8.8.8", "", false, "wf0"}, {"2001:4860::1", "", false, "wf0"},
		{"8.8.8.8", "10.30.0.1", false, "wf0"}, {"2001:4860::1", "fd00:30::1", false, "wf0"},
		{"8.8.8.8", "192.168.1.2", false, "wf0"}, // bound to the uplink's address: no way around
		{"8.8.8.8", "", true, "up0"}, {"2001:4860::1", "", true, "up0"},
		{"198.51.100.1", "", true, "up0"}, {"198.51.100.1", "", false, "wf0"},
		{"192.168.1.77", "", false, "up0"}, // the printer
		{"192.168.1.77", "10.30.0.1", false, "wf0"},
		{"2001:db8:1::77", "", false, "wf0"}, // attached, but not private
	}
	for _, when := range []string{"first", "second"} { // the second changes nothing
		if err := k.Apply(Build(s)); err != nil {
			t.Fatal(err)
		}
		ask(t, when, up)
	}
	rules := run(t, "ip rule") + run(t, "ip -6 rule")
	if n := strings.Count(rules, "lookup 22342"); n != 4 {
		t.Errorf("%d rules look the tunnel up, want 4:\n%s", n, rules)
	}
	crash()
	down := []question{
		{"8.8.8.8", "", false, "blocked"}, {"2001:4860::1", "", false, "blocked"},
		{"8.8.8.8", "192.168.1.2", false, "blocked"},
		{"2001:4860::1", "fd00:30::1", false, "blocked"},
		{"8.8.8.8", "", true, "up0"}, {"192.168.1.77", "", false, "up0"},
	}
	ask(t, "after a crash", down)
	if err := k.Clear(nil); err != nil {
		t.Fatal(err)
	}
	ask(t, "cleared", []question{{"8.8.8.8", "", false, "up0"}, {"2001:4860::1", "", false, "up0"}})
}

func TestSplitTunnel(t *testing.T) {
	k, crash := uplink(t)
	s := Settings{
		Interface: "wf0", Addresses: addrs("10.30.0.1", "fd00:30::1"), Networks: nets("10.20.0.0/24", "fd00:20::/64"),
		Carried: nets("10.20.0.0/24", "fd00:20::/64"), Mark: mark,
	}
	if err := k.Apply(Build(s)); err != nil {
		t.Fatal(err)
	}
	ask(t, "up", []question{
		{"10.20.0.2", "", false, "wf0"}, {"fd00:20::2", "", false, "wf0"},
		{"8.8.8.8", "", false, "up0"}, {"2001:4860::1", "", false, "up0"},
		{"8.8.8.8", "10.30.0.1", false, "blocked"}, {"2001:4860::1", "fd00:30::1", false, "blocked"},
	})
	// Another inner address: the old one stays guarded, the new one is used.
	s.Addresses, s.Guarded = addrs("10.30.0.5", "fd00:30::5"), addrs("10.30.0.1", "fd00:30::1")
	if err := k.Apply(Build(s)); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "ip -6 route get fd00:20::2"); !strings.Contains(out, "src fd00:30::5") {
		t.Errorf("route: %s", out)
	}
	if out := run(t, "ip addr show dev wf0"); strings.Contains(out, "10.30.0.1/") || strings.Contains(out, "fd00:30::1/") || !strings.Contains(out, "10.30.0.5/32") {
		t.Errorf("addresses: %s", out)
	}
	ask(t, "after the change", []question{
		{"10.20.0.2", "", false, "wf0"}, {"fd00:20::2", "fd00:30::1", false, "blocked"}, {"fd00:20::2", "", false, "wf0"},
	})
	crash()
	ask(t, "after a crash", []question{
		{"10.20.0.2", "", false, "blocked"}, {"fd00:20::2", "", false, "blocked"},
		{"8.8.8.8", "", false, "up0"}, {"2001:4860::1", "fd00:30::5", false, "blocked"},
	})
	// The next run finds what is left and removes it, except what sockets still use.
	guarded, err := k.Guarded()
	if err != nil || len(guarded) != 4 {
		t.Fatalf("guarded: %v %v", guarded, err)
	}
	if err := k.Clear(addrs("fd00:30::5")); err != nil {
		t.Fatal(err)
	}
	ask(t, "cleared but one", []question{
		{"10.20.0.2", "", false, "up0"}, {"fd00:20::2", "", false, "up0"},
		{"2001:4860::1", "fd00:30::5", false, "blocked"}, {"2001:4860::1", "2001:db8:1::2", false, "up0"},
	})
}

// TestStrictReversePath: packets of the gateway come in although strict reverse path
// filtering is on and the whole world is behind the tunnel.
func TestStrictReversePath(t *testing.T) {
	k, _ := uplink(t)
	nstest.Cable(t, "va", "vb")
	nstest.Address(t, "va", "192.168.9.2/24")
	run(t, "ip route add 198.51.100.0/24 via 192.168.9.1 dev va")
	for _, name := range []string{"all", "va"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+name+"/rp_filter", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("0"), 0) })
	s := Settings{
		Interface: "wf0", Addresses: addrs("10.30.0.1"), Networks: nets("0.0.0.0/0"), Carried: nets("0.0.0.0/0"),
		Attached: nets("192.168.9.0/24"), Ports: []uint16{500, 40000}, Mark: mark,
	}
	if err := k.Apply(Build(s)); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 168, 9, 2), Port: 40000})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil { // to fail, not to hang
		t.Fatal(err)
	}
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 168, 9, 2), Port: 40001})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	// To another port first: the filter is on, and drops it.
	sendUDP(t, "vb", "va", netip.MustParseAddrPort("198.51.100.1:4500"), netip.MustParseAddrPort("192.168.9.2:40001"))
	sendUDP(t, "vb", "va", netip.MustParseAddrPort("198.51.100.1:4500"), netip.MustParseAddrPort("192.168.9.2:40000"))
	buf := make([]byte, 100)
	_, from, err := l.ReadFromUDPAddrPort(buf)
	if err != nil || from.Addr() != netip.MustParseAddr("198.51.100.1") {
		t.Errorf("received from %v, %v", from, err)
	}
	if err := other.SetReadDeadline(time.Unix(1, 0)); err != nil { // what is there, is there by now
		t.Fatal(err)
	}
	if n, _, err := other.ReadFromUDPAddrPort(buf); err == nil {
		t.Errorf("reverse path filtering is off: received %d octets on another port", n)
	}
}

// sendUDP puts an IPv4 UDP packet on the wire at one end of a cable.
func sendUDP(t *testing.T, by, other string, from, to netip.AddrPort) {
	t.Helper()
	near, err := netlink.LinkByName(by)
	if err != nil {
		t.Fatal(err)
	}
	far, err := netlink.LinkByName(other)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 28)
	b[0], b[3], b[8], b[9] = 0x45, byte(len(b)), 64, unix.IPPROTO_UDP
	copy(b[12:], from.Addr().AsSlice())
	copy(b[16:], to.Addr().AsSlice())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	b[10], b[11] = byte(^sum>>8), byte(^sum)
	b[20], b[21] = byte(from.Port()>>8), byte(from.Port())
	b[22], b[23] = byte(to.Port()>>8), byte(to.Port())
	b[25] = 8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	target := &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: near.Attrs().Index, Halen: 6}
	copy(target.Addr[:], far.Attrs().HardwareAddr)
	if err := unix.Sendto(fd, b, 0, target); err != nil {
		t.Fatal(err)
	}
}

func TestElsewhere(t *testing.T) {
	k, _ := uplink(t)
	for except, want := range map[string]bool{"wf0": true, "up0": false, "": true, "none0": true} {
		got, err := k.Elsewhere(except)
		if err != nil || got[netip.MustParseAddr("192.168.1.2")] != want || got[netip.MustParseAddr("10.30.0.1")] {
			t.Errorf("beside %q: %v %v", except, got, err)
		}
	}
}

// TestRelease: what was guarded before is let go, and nothing else changes, also not
// the closed tunnel of a run that has crashed.
func TestRelease(t *testing.T) {
	k, _ := uplink(t)
	if err := k.Apply(Build(Settings{
		Interface: "wf0", Addresses: addrs("10.30.0.1"), Networks: nets("0.0.0.0/0"), Carried: nets("0.0.0.0/0"), Mark: mark, Guarded: addrs("10.30.0.7", "10.30.0.8"),
	})); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := k.Release(addrs("10.30.0.7")); err != nil {
			t.Fatal(err)
		}
		guarded, err := k.Guarded()
		if err != nil || !slices.Equal(guarded, addrs("10.30.0.1", "10.30.0.8")) {
			t.Errorf("guarded: %v %v", guarded, err)
		}
		ask(t, "released", []question{{"8.8.8.8", "", false, "wf0"}, {"8.8.8.8", "", true, "up0"}})
	}
}

// TestWithoutIPv6: on a machine where IPv6 is switched off the IPv4 part works.
func TestWithoutIPv6(t *testing.T) {
	k, _ := uplink(t)
	set := func(value string) {
		for _, name := range []string{"all", "default", "wf0", "up0"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte(value), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	set("1")
	t.Cleanup(func() {
		for _, name := range []string{"all", "default"} {
			_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("0"), 0)
		}
	})
	for range 2 {
		if err := k.Apply(Build(Settings{
			Interface: "wf0", Addresses: addrs("10.30.0.1", "fd00:30::1"), Networks: nets("0.0.0.0/0", "::/0"),
			Carried: nets("0.0.0.0/0", "::/0"), Ports: []uint16{500, 4500}, NativeESP: true, Mark: mark,
		})); err != nil {
			t.Fatal(err)
		}
		ask(t, "without IPv6", []question{{"8.8.8.8", "", false, "wf0"}, {"8.8.8.8", "", true, "up0"}})
	}
}
