package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/client/internal/nstest"
	"github.com/wayfarer-vpn/wayfarer/client/route"
)

func TestMain(m *testing.M) { nstest.Main(m) }

var (
	inner4 = netip.MustParseAddr("10.30.0.1")
	inner6 = netip.MustParseAddr("fd00:30::1")
)

const mark = 0x5746

func run(t *testing.T, command string) string {
	t.Helper()
	words := strings.Fields(command)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

// laptop makes a machine with an uplink whose router answers (by a fixed neighbour
// entry), and a tunnel interface. The other end of the uplink's cable is "wire".
func laptop(t *testing.T) *route.Kernel {
	nstest.Cable(t, "up0", "wire")
	nstest.Cable(t, "wf0", "wf0x")
	nstest.Address(t, "up0", "192.168.1.2/24")
	nstest.Address(t, "up0", "2001:db8:1::2/64")
	run(t, "ip route add default via 192.168.1.1 dev up0")
	run(t, "ip -6 route add default via 2001:db8:1::1 dev up0")
	for _, a := range []string{"192.168.1.1", "2001:db8:1::1", "203.0.113.7", "2001:db8:7::7"} {
		run(t, "ip neigh add "+a+" lladdr 02:00:00:00:00:01 dev up0 nud permanent")
	}
	k, err := route.NewKernel(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(Remove(), k.Clear(nil)); err != nil {
			t.Error(err)
		}
		k.Close()
	})
	return k
}

// connect brings the tunnel up as the daemon does: guard first.
func connect(t *testing.T, k *route.Kernel) {
	t.Helper()
	if err := Set(Settings{Interface: "wf0", Addresses: []netip.Addr{inner4, inner6}}); err != nil {
		t.Fatal(err)
	}
	if err := k.Apply(route.Build(route.Settings{
		Interface: "wf0", Addresses: []netip.Addr{inner4, inner6}, Mark: mark,
		Networks: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/24"), netip.MustParsePrefix("fd00:20::/64")},
		Carried:  []netip.Prefix{netip.MustParsePrefix("10.20.0.0/24"), netip.MustParsePrefix("fd00:20::/64")},
	})); err != nil {
		t.Fatal(err)
	}
}

// tap sees every packet on the wire.
type tap struct{ fd int }

func newTap(t *testing.T) *tap {
	t.Helper()
	link, err := netlink.LinkByName("wire")
	if err != nil {
		t.Fatal(err)
	}
	const everything = 0x0300 // ETH_P_ALL in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, everything)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: link.Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	return &tap{fd}
}

// sources returns the source addresses of all packets so far. A cable of a namespace
// delivers before the sending call returns, so nothing is still on its way.
func (c *tap) sources(t *testing.T) (out []netip.Addr) {
	t.Helper()
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if a, ok := source(buf[:n]); ok {
			out = append(out, a)
		}
	}
}

func source(b []byte) (netip.Addr, bool) {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case len(b) >= 40 && b[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(b[8:24])), true
	}
	return netip.Addr{}, false
}

// clean fails if an inner address was seen on the wire, or if the control packet
// was not: then the test sees nothing at all.
func (c *tap) clean(t *testing.T, when string) {
	t.Helper()
	control, err := net.Dial("udp4", "203.0.113.200:9")
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	if _, err := control.Write([]byte("seen")); err != nil {
		t.Fatal(err)
	}
	sources := c.sources(t)
	if !slices.Contains(sources, netip.MustParseAddr("192.168.1.2")) {
		t.Errorf("%s: the capture does not even see what is allowed: %v", when, sources)
	}
	for _, a := range sources {
		if a == inner4 || a == inner6 {
			t.Errorf("%s: a packet from %s is on the wire in clear", when, a)
		}
	}
}

// program holds sockets with inner addresses and goes on using them, whatever
// happens, as real ones do.
type program struct {
	fds map[string]int
}

// start opens TCP and UDP sockets of both families, bound to the inner addresses,
// connected and not, and bound to the uplink.
func start(t *testing.T) *program {
	p := &program{map[string]int{}}
	t.Cleanup(func() {
		for _, fd := range p.fds {
			unix.Close(fd)
		}
	})
	for _, a := range []netip.Addr{inner4, inner6} {
		for kind, st := range map[string]int{"udp": unix.SOCK_DGRAM, "tcp": unix.SOCK_STREAM} {
			for _, device := range []string{"", "up0"} {
				fd, err := unix.Socket(family(a), st|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				p.fds[fmt.Sprintf("%s %s bound to %q", kind, a, device)] = fd
				if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(a, 0))); err != nil {
					t.Fatal(err)
				}
				if device == "" {
					continue
				}
				if err := unix.BindToDevice(fd, device); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return p
}

// use sends from every socket to the inner network, the internet and the router.
// Errors are what is hoped for.
func (p *program) use() {
	for name, fd := range p.fds {
		to := []string{"10.20.0.2", "203.0.113.7", "192.168.1.1"}
		if strings.Contains(name, inner6.String()) {
			to = []string{"fd00:20::2", "2001:db8:7::7", "2001:db8:1::1"}
		}
		for _, a := range to {
			target := sockaddr(netip.AddrPortFrom(netip.MustParseAddr(a), 80))
			if strings.HasPrefix(name, "tcp") {
				_ = unix.Connect(fd, target)
				continue
			}
			_ = unix.Sendto(fd, []byte("in clear?"), 0, target)
		}
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
}

// TestNothingInClear follows open sockets with inner addresses through the life of a
// tunnel: connected, crashed, cleaned up, down.
func TestNothingInClear(t *testing.T) {
	k := laptop(t)
	wire := newTap(t)
	connect(t, k)
	p := start(t)
	p.use()
	wire.clean(t, "connected")

	run(t, "ip link del wf0") // what remains of a TUN device after SIGKILL
	p.use()
	wire.clean(t, "after a crash")

	nstest.Cable(t, "wf0", "wf0x")
	connect(t, k)
	p.use()
	wire.clean(t, "connected again")

	run(t, "ip link del wf0")
	if err := EndConnections([]netip.Addr{inner4, inner6}); err != nil {
		t.Fatal(err)
	}
	still, err := InUse([]netip.Addr{inner4, inner6})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Set(Settings{Addresses: still}), k.Clear(still)); err != nil {
		t.Fatal(err)
	}
	p.use()
	wire.clean(t, "disconnected")
	if !slices.Contains(still, inner6) {
		t.Errorf("a bound UDP socket over IPv6 does not hold its address: %v", still)
	}
}

// TestTheDanger shows that the test above can fail: without guard packets do leave.
func TestTheDanger(t *testing.T) {
	laptop(t)
	wire := newTap(t)
	nstest.Address(t, "wf0", "fd00:30::1/128")
	nstest.Address(t, "wf0", "10.30.0.1/32")
	p := start(t)
	run(t, "ip link del wf0")
	p.use()
	if !slices.Contains(wire.sources(t), inner6) {
		t.Error("without guard nothing left over IPv6: what is the guard good for?")
	}
}

// TestTable: the netfilter guard alone holds against sockets that are bound to the
// uplink.
func TestTable(t *testing.T) {
	laptop(t)
	wire := newTap(t)
	if err := Set(Settings{Interface: "wf0", Addresses: []netip.Addr{inner4, inner6}}); err != nil {
		t.Fatal(err)
	}
	nstest.Address(t, "wf0", "fd00:30::1/128")
	nstest.Address(t, "wf0", "10.30.0.1/32")
	p := start(t)
	p.use()
	wire.clean(t, "netfilter alone")
	for range 2 { // replacing it leaves one of each rule
		if err := Set(Settings{Interface: "wf0", Addresses: []netip.Addr{inner6}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := exec.LookPath("nft"); err == nil {
		out := run(t, "nft list table inet "+tableName)
		if strings.Count(out, "drop") != 1 || !strings.Contains(out, "fd00:30::1") {
			t.Errorf("table:\n%s", out)
		}
	}
	if present, err := Present(); err != nil || !present {
		t.Errorf("present: %v %v", present, err)
	}
	for range 2 { // removing what is not there is no error
		if err := Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if present, err := Present(); err != nil || present {
		t.Errorf("present: %v %v", present, err)
	}
}

// TestFirewallReversePath: a firewall that drops what would not go back the way it came
// (this is firewalld's rule) does not drop the gateway's packets while everything is
// behind the tunnel.
func TestFirewallReversePath(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("SKIPPED: nft is not installed; firewalls with reverse path filters were not tested")
	}
	k := laptop(t)
	rules := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(rules, []byte("table inet fw { chain c { type filter hook prerouting priority -290; meta nfproto ipv6 fib saddr . mark . iif oif missing drop; }; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "nft -f "+rules)
	t.Cleanup(func() { _ = exec.Command("nft", "delete table inet fw").Run() })
	const port = 4500
	if err := k.Apply(route.Build(route.Settings{
		Interface: "wf0", Addresses: []netip.Addr{inner4, inner6}, Mark: mark, Ports: []uint16{port},
		Networks: []netip.Prefix{netip.MustParsePrefix("::/0")}, Carried: []netip.Prefix{netip.MustParsePrefix("::/0")},
	})); err != nil {
		t.Fatal(err)
	}
	if err := Set(Settings{Interface: "wf0", Addresses: []netip.Addr{inner6}, Ports: []uint16{port}, Mark: mark}); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.ParseIP("2001:db8:1::2"), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fromWire(t, netip.MustParseAddrPort("[2001:db8:7::7]:4500"), netip.MustParseAddrPort("[2001:db8:1::2]:4500"))
	if err := l.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil { // to fail, not to hang
		t.Fatal(err)
	}
	if _, from, err := l.ReadFromUDPAddrPort(make([]byte, 100)); err != nil || from.Addr().String() != "2001:db8:7::7" {
		t.Errorf("received from %v, %v", from, err)
	}
	// Without the mark it is dropped: the firewall does filter.
	if err := Set(Settings{Interface: "wf0", Addresses: []netip.Addr{inner6}}); err != nil {
		t.Fatal(err)
	}
	fromWire(t, netip.MustParseAddrPort("[2001:db8:7::7]:4500"), netip.MustParseAddrPort("[2001:db8:1::2]:4500"))
	if err := l.SetReadDeadline(time.Unix(1, 0)); err != nil { // what is there, is there by now
		t.Fatal(err)
	}
	if n, _, err := l.ReadFromUDPAddrPort(make([]byte, 100)); err == nil {
		t.Errorf("the firewall let %d octets pass without the mark", n)
	}
}

// fromWire puts an IPv6 UDP packet without payload on the wire, towards the laptop.
func fromWire(t *testing.T, from, to netip.AddrPort) {
	t.Helper()
	const headers = 48
	b := make([]byte, headers)
	b[0], b[5], b[6], b[7] = 0x60, 8, unix.IPPROTO_UDP, 64
	copy(b[8:], from.Addr().AsSlice())
	copy(b[24:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[40:], from.Port())
	binary.BigEndian.PutUint16(b[42:], to.Port())
	b[45] = 8
	// The checksum covers the addresses, the length, the protocol and the UDP header
	// (RFC 8200 §8.1).
	sum := uint32(8 + unix.IPPROTO_UDP)
	for i := 8; i < headers; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[46:], ^uint16(sum))
	near, err := netlink.LinkByName("wire")
	if err != nil {
		t.Fatal(err)
	}
	far, err := netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const ipv6 = 0xdd86 // ETH_P_IPV6 in network order
	target := &unix.SockaddrLinklayer{Protocol: ipv6, Ifindex: near.Attrs().Index, Halen: 6}
	copy(target.Addr[:], far.Attrs().HardwareAddr)
	if err := unix.Sendto(fd, b, 0, target); err != nil {
		t.Fatal(err)
	}
}

// TestEndConnections ends a TCP connection over each family, and only those with the
// given address; a UDP socket keeps its address in use.
func TestEndConnections(t *testing.T) {
	laptop(t)
	nstest.Address(t, "wf0", "fd00:30::1/128")
	nstest.Address(t, "wf0", "10.30.0.1/32")
	for _, a := range []netip.Addr{inner4, inner6} {
		ours, other := pair(t, a), pair(t, netip.MustParseAddr("192.168.1.2"))
		if used, err := InUse([]netip.Addr{a}); err != nil || len(used) != 1 {
			t.Fatalf("in use: %v %v", used, err)
		}
		if err := EndConnections([]netip.Addr{a}); err != nil {
			t.Fatal(err)
		}
		if used, err := InUse([]netip.Addr{a}); err != nil || len(used) != 0 {
			t.Errorf("still in use: %v %v", used, err)
		}
		if _, err := ours.Write([]byte("x")); err == nil {
			t.Errorf("the connection from %s still works", a)
		} else if !errors.Is(err, syscall.ECONNABORTED) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the program got %v", err)
		}
		if _, err := other.Write([]byte("x")); err != nil {
			t.Errorf("a connection of another address has suffered: %v", err)
		}
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
		if err != nil {
			t.Fatal(err)
		}
		defer udp.Close()
		if err := EndConnections([]netip.Addr{a}); err != nil {
			t.Fatal(err)
		}
		if used, err := InUse([]netip.Addr{a}); err != nil || len(used) != 1 {
			t.Errorf("with a UDP socket, in use: %v %v", used, err)
		}
	}
	if err := EndConnections(nil); err != nil {
		t.Error(err)
	}
}

func TestScanSockets(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("SKIPPED: the lines below are from a little-endian machine")
	}
	// Lines of /proc/net/tcp and tcp6 of Linux 6.18.
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:9E2F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 36 1 0 100 0 0 10 0
   1: 01001E0A:B8A4 0200140A:0016 01 00000000:00000000 00:00000000 00000000     0        0 37 1 0 20 4 30 10 -1
   2: 300000FD000000000000000001000000:B8A4 00000000000000000000000000000000:0000 01 00000000:00000000
   3: 0000000000000000FFFF000001001E0A:B8A4 00000000000000000000000000000000:0000 06 00000000:00000000
`
	for _, tt := range []struct {
		tcp  bool
		want string
	}{{true, "10.30.0.1 fd00:30::1 "}, {false, "127.0.0.1 10.30.0.1 fd00:30::1 10.30.0.1 "}} {
		got := ""
		if err := scanSockets(strings.NewReader(text), tt.tcp, func(a netip.Addr) { got += a.String() + " " }); err != nil {
			t.Fatal(err)
		}
		if got != tt.want {
			t.Errorf("tcp %v: %q, want %q", tt.tcp, got, tt.want)
		}
	}
	for _, bad := range []string{"x\n1: 0 0 0A\n", "x\n1: 0100007F:1 0 XX\n", "x\n1: 0100007:1 0 01\n", "x\n1: GG00007F:1 0 01\n"} {
		if err := scanSockets(strings.NewReader(bad), false, func(netip.Addr) {}); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// pair makes a TCP connection from the address to itself.
func pair(t *testing.T, a netip.Addr) net.Conn {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0)), Timeout: 10 * time.Second}
	c, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
