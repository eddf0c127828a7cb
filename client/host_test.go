package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/client/internal/nstest"
)

// laptop is a machine with an uplink and a resolv.conf of its own.
type laptop struct {
	t   *testing.T
	cfg *Config
}

const ownResolvConf = "nameserver 192.168.1.1\n"

func newLaptop(t *testing.T) *laptop {
	nstest.Require(t)
	dir := t.TempDir()
	cfg := NewConfig()
	cfg.StateDir, cfg.ResolvConf = filepath.Join(dir, "state"), filepath.Join(dir, "resolv.conf")
	if err := errors.Join(os.WriteFile(cfg.ResolvConf, []byte(ownResolvConf), 0o644), os.Mkdir(cfg.StateDir, 0o700)); err != nil {
		t.Fatal(err)
	}
	l := &laptop{t, cfg}
	nstest.Cable(t, "up0", "up0x")
	nstest.Address(t, "up0", "192.168.1.2/24")
	nstest.Address(t, "up0", "2001:db8:1::2/64")
	l.ip("route add default via 192.168.1.1 dev up0")
	l.ip("-6 route add default via 2001:db8:1::1 dev up0")
	l.device()
	t.Cleanup(func() {
		if err := Cleanup(context.Background(), cfg, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *laptop) ip(args string) string {
	l.t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

// device makes what stands for the TUN device.
func (l *laptop) device() { nstest.Cable(l.t, "wf0", "wf0x") }

// run is one run of the daemon as far as the machine is concerned.
func (l *laptop) run() *host {
	h, err := newHost(l.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		l.t.Fatal(err)
	}
	return h
}

// network is a full tunnel with addresses of both families.
func network(addresses ...string) Network {
	n := Network{
		Interface: "wf0", LAN: true, Full: true,
		Networks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
		Ports:    []uint16{500, 4500},
		DNS:      []netip.Addr{netip.MustParseAddr("10.20.0.2")},
	}
	n.Carried = n.Networks
	for _, a := range addresses {
		n.Addresses = append(n.Addresses, netip.MustParseAddr(a))
	}
	return n
}

// way returns the interface a packet would leave by, "" if it would not.
func (l *laptop) way(to, from string) string {
	args := []string{"route", "get", to}
	if from != "" {
		args = append(append(args, "from"), strings.Fields(from)...)
	}
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "unreachable") {
		return ""
	}
	_, after, _ := strings.Cut(string(out), " dev ")
	name, _, _ := strings.Cut(after, " ")
	return name
}

func (l *laptop) expect(when string, ways map[string]string, resolvConf string) {
	l.t.Helper()
	for question, want := range ways {
		to, from, _ := strings.Cut(question, " from ")
		if got := l.way(to, from); got != want {
			l.t.Errorf("%s: %s leaves by %q, want %q", when, question, got, want)
		}
	}
	b, err := os.ReadFile(l.cfg.ResolvConf)
	if err != nil || !strings.Contains(string(b), resolvConf) {
		l.t.Errorf("%s: resolv.conf %q %v", when, b, err)
	}
}

// Where packets go with the tunnel, after a crash, and without.
var (
	throughTunnel = map[string]string{"8.8.8.8": "wf0", "2001:4860::1": "wf0", "192.168.1.9": "up0"}
	closed        = map[string]string{"8.8.8.8": "", "2001:4860::1": "", "192.168.1.9": "up0", "2001:4860::1 from fd00:30::1": ""}
	open          = map[string]string{"8.8.8.8": "up0", "2001:4860::1": "up0", "192.168.1.9": "up0"}
)

func (l *laptop) apply(h *host, n Network) {
	l.t.Helper()
	if err := h.Apply(context.Background(), n); err != nil {
		l.t.Fatal(err)
	}
}

func (l *laptop) clear(h *host, leaving bool) {
	l.t.Helper()
	if err := h.Clear(context.Background(), leaving); err != nil {
		l.t.Fatal(err)
	}
}

func TestMachine(t *testing.T) {
	l := newLaptop(t)
	h := l.run()
	l.apply(h, network("10.30.0.1", "fd00:30::1"))
	l.expect("up", throughTunnel, "nameserver 10.20.0.2")
	if own := h.NameServers(); len(own) != 1 || own[0].String() != "192.168.1.1" {
		t.Errorf("own name servers: %v", own)
	}
	// Other software removes our rules; upkeep brings them back.
	l.ip("rule flush")
	l.ip("rule add pref 32766 lookup main")
	if err := h.Maintain(context.Background()); err != nil {
		t.Fatal(err)
	}
	l.expect("after upkeep", throughTunnel, "nameserver 10.20.0.2")
	// Another address: the old one stays guarded.
	l.apply(h, network("10.30.0.7", "fd00:30::7"))
	l.expect("another address", map[string]string{"8.8.8.8": "wf0", "2001:4860::1 from fd00:30::1": ""}, "")
	l.clear(h, false)
	l.expect("down", open, ownResolvConf)
	l.expect("down", map[string]string{"2001:4860::1 from fd00:30::1": "", "2001:4860::1 from fd00:30::7": ""}, "")
	l.clear(h, true) // no program uses them any more
	if rules := l.ip("rule") + l.ip("-6 rule"); strings.Contains(rules, "fd00:30") || strings.Contains(rules, "2234") {
		t.Errorf("left behind:\n%s", rules)
	}
	if out, err := exec.Command("nft", "list", "ruleset").Output(); err == nil && strings.Contains(string(out), "wayfarer") {
		t.Errorf("left behind:\n%s", out)
	}
}

// TestMachineCrash: SIGKILL closes the machine; the next start, or "down" without a
// daemon, opens it again; name servers included.
func TestMachineCrash(t *testing.T) {
	for _, how := range []string{"next start", "down without a daemon", "resumed"} {
		t.Run(how, func(t *testing.T) {
			l := newLaptop(t)
			l.apply(l.run(), network("10.30.0.1", "fd00:30::1"))
			l.ip("link del wf0")
			l.expect("killed", closed, "nameserver 10.20.0.2")
			switch how {
			case "next start":
				l.clear(l.run(), true)
				l.expect(how, open, ownResolvConf)
			case "down without a daemon":
				if err := Cleanup(context.Background(), l.cfg, slog.New(slog.DiscardHandler)); err != nil {
					t.Fatal(err)
				}
				l.expect(how, open, ownResolvConf)
			case "resumed":
				h := l.run()
				if err := h.Adopt(context.Background()); err != nil {
					t.Fatal(err)
				}
				l.expect("adopted", closed, ownResolvConf)
				l.device()
				l.apply(h, network("10.30.0.7", "fd00:30::7"))
				l.expect(how, throughTunnel, "nameserver 10.20.0.2")
				l.expect(how, map[string]string{"2001:4860::1 from fd00:30::1": ""}, "")
				l.clear(h, true)
				l.expect("down", open, ownResolvConf)
			}
		})
	}
}

// TestMachineSocketsStay: an address that a program still holds a socket with stays
// blocked when the daemon leaves, and is released by the next run when the socket is
// closed.
func TestMachineSocketsStay(t *testing.T) {
	l := newLaptop(t)
	h := l.run()
	l.apply(h, network("10.30.0.1", "fd00:30::1"))
	socket, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.ParseIP("fd00:30::1")})
	if err != nil {
		t.Fatal(err)
	}
	l.clear(h, true)
	l.ip("link del wf0")
	l.expect("left", open, ownResolvConf)
	l.expect("left", map[string]string{"2001:4860::1 from fd00:30::1": ""}, "")
	_, werr := socket.WriteToUDP([]byte("x"), &net.UDPAddr{IP: net.ParseIP("2001:4860::1"), Port: 9})
	if !errors.Is(werr, unix.EINVAL) && !errors.Is(werr, unix.EACCES) && !errors.Is(werr, unix.EPERM) && !errors.Is(werr, unix.ENETUNREACH) {
		t.Errorf("the socket still sends: %v", werr)
	}
	socket.Close()
	l.clear(l.run(), true)
	if rules := l.ip("-6 rule"); strings.Contains(rules, "fd00:30") {
		t.Errorf("still blocked:\n%s", rules)
	}
}

// TestMachineAddressElsewhere: an inner address of before that a local network gives
// this machine is not blocked any more; a closed machine stays closed for all else.
func TestMachineAddressElsewhere(t *testing.T) {
	maintain := func(t *testing.T, h *host) {
		t.Helper()
		if err := h.Maintain(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name   string
		during func(t *testing.T, l *laptop, elsewhere func())
		ways   map[string]string
	}{
		{"down again", func(t *testing.T, l *laptop, elsewhere func()) {
			h := l.run()
			l.apply(h, network("10.30.0.1", "fd00:30::1"))
			l.clear(h, false)
			l.ip("link del wf0")
			elsewhere()
			l.clear(h, false)
		}, map[string]string{"8.8.8.8": "up0"}},
		{"without a tunnel", func(t *testing.T, l *laptop, elsewhere func()) {
			h := l.run()
			l.apply(h, network("10.30.0.1", "fd00:30::1"))
			l.clear(h, false)
			maintain(t, h) // the device is still there, with the address
			if _, err := l.send("fd00:30::1"); err == nil {
				t.Error("released while only the tunnel has the address")
			}
			l.ip("link del wf0")
			elsewhere()
			maintain(t, h)
		}, map[string]string{"8.8.8.8": "up0"}},
		{"with another address", func(t *testing.T, l *laptop, elsewhere func()) {
			h := l.run()
			l.apply(h, network("10.30.0.1", "fd00:30::1"))
			l.apply(h, network("10.30.0.7", "fd00:30::7"))
			elsewhere()
			maintain(t, h)
		}, map[string]string{"8.8.8.8": "wf0", "8.8.8.8 from 10.30.0.7": "wf0"}},
		{"adopted before", func(t *testing.T, l *laptop, elsewhere func()) {
			l.apply(l.run(), network("10.30.0.1", "fd00:30::1"))
			l.ip("link del wf0")
			h := l.run()
			if err := h.Adopt(context.Background()); err != nil {
				t.Fatal(err)
			}
			elsewhere()
			maintain(t, h)
		}, map[string]string{"8.8.8.8": "", "2001:4860::1": ""}},
		{"adopted after", func(t *testing.T, l *laptop, elsewhere func()) {
			l.apply(l.run(), network("10.30.0.1", "fd00:30::1"))
			l.ip("link del wf0")
			elsewhere()
			if err := l.run().Adopt(context.Background()); err != nil {
				t.Fatal(err)
			}
		}, map[string]string{"8.8.8.8": "", "2001:4860::1": ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLaptop(t)
			tt.during(t, l, func() { nstest.Address(t, "up0", "10.30.0.1/24") })
			l.expect(tt.name, tt.ways, "")
			l.expect(tt.name, map[string]string{"8.8.8.8 from 10.30.0.1 mark 22342": "up0", "2001:4860::1 from fd00:30::1": ""}, "")
			if out, err := l.send("10.30.0.1"); err != nil {
				t.Errorf("netfilter: %v\n%s", err, out)
			}
			if _, err := l.send("fd00:30::1"); err == nil {
				t.Error("the address that is nowhere is not guarded any more")
			}
		})
	}
}

// send sends a marked packet from an address, as our own sockets do, with the address or
// without it being there. The error is that of the guard.
func (l *laptop) send(from string) (rules string, err error) {
	l.t.Helper()
	a := netip.MustParseAddr(from)
	family, level, opt := unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_FREEBIND
	var local, target unix.Sockaddr = &unix.SockaddrInet6{Addr: a.As16()}, &unix.SockaddrInet6{Port: 9, Addr: netip.MustParseAddr("2001:db8:1::9").As16()}
	if a.Is4() {
		family, level, opt = unix.AF_INET, unix.SOL_IP, unix.IP_FREEBIND
		local, target = &unix.SockaddrInet4{Addr: a.As4()}, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{10, 30, 0, 9}}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, err := range []error{unix.SetsockoptInt(fd, level, opt, 1), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, Mark), unix.Bind(fd, local)} {
		if err != nil {
			l.t.Fatal(err)
		}
	}
	l.ip("neigh replace 10.30.0.9 lladdr 02:00:00:00:00:09 dev up0")
	out, _ := exec.Command("nft", "list", "ruleset").Output()
	return string(out), unix.Sendto(fd, []byte("x"), 0, target)
}
