//go:build linux

package tun

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// namespace runs functions on a thread in a network namespace of its own, which
// goes away with the thread.
type namespace struct{ calls chan func() }

func newNamespace(t testing.TB) *namespace {
	t.Helper()
	n := &namespace{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range n.calls {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	t.Cleanup(func() { close(n.calls) })
	return n
}

func (n *namespace) do(t testing.TB, f func() error) {
	t.Helper()
	done := make(chan error)
	n.calls <- func() { done <- f() }
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// realSide makes a data path with a real TUN device in a namespace.
func realSide(t testing.TB, ns *namespace, mtu int, addrs, routes []string) *DataPath {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and /dev/net/tun")
	}
	var dp *DataPath
	ns.do(t, func() (err error) {
		dp, err = New(Config{Name: "wftest%d", MTU: mtu})
		if err != nil {
			return err
		}
		name, err := dp.Name()
		if err != nil {
			return err
		}
		return configure(name, addrs, routes)
	})
	t.Cleanup(func() { dp.Close() })
	return dp
}

func configure(name string, addrs, routes []string) error {
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := h.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	for _, r := range routes {
		dst, err := netlink.ParseIPNet(r)
		if err != nil {
			return err
		}
		if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst}); err != nil {
			return fmt.Errorf("route %s: %w", r, err)
		}
	}
	return nil
}

// wire delivers to the other data path in the goroutine that sends.
type wire struct {
	to    *DataPath
	mu    sync.Mutex
	batch []transport.ESPTrain
	tap   func(pkt []byte)
}

func (w *wire) SendESP(pair locator.Pair, udp bool, trains []transport.Train) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batch = w.batch[:0]
	for _, t := range trains {
		if w.tap != nil {
			for p := range slices.Chunk(t.Data, t.Size) {
				w.tap(p)
			}
		}
		w.batch = append(w.batch, transport.ESPTrain{Pair: pair.Reverse(), UDP: udp, Train: t})
	}
	w.to.HandleESP(w.batch)
	return nil
}

func (w *wire) SendKeepalive(locator.Pair) error { return nil }

// realTunnel makes two TUN devices in two namespaces with a tunnel between them.
func realTunnel(t testing.TB, alg algorithm, pathMTU int) (nsA, nsB *namespace, a, b *DataPath) {
	t.Helper()
	nsA, nsB = newNamespace(t), newNamespace(t)
	a = realSide(t, nsA, 1400, []string{"10.0.0.1/24", "fd00:a::1/64"}, []string{"10.1.0.0/24", "fd00:b::/64"})
	b = realSide(t, nsB, 1400, []string{"10.1.0.1/24", "fd00:b::1/64"}, []string{"10.0.0.0/24", "fd00:a::/64"})
	a.SetSender(&wire{to: b})
	b.SetSender(&wire{to: a})
	forA, forB := alg.children(1)
	for _, err := range []error{
		a.AddHost(theHost, esp.Path{Pair: pairAB, UDP: true, MTU: pathMTU}),
		b.AddHost(theHost, esp.Path{Pair: pairBA, UDP: true, MTU: pathMTU}),
		a.AddChild(forA), b.AddChild(forB), a.ActivateChild(1), b.ActivateChild(1),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return nsA, nsB, a, b
}

// connect opens a TCP connection from one namespace to an address in the other.
func connect(t testing.TB, from, to *namespace, addr string) (client, server net.Conn) {
	t.Helper()
	var l net.Listener
	to.do(t, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(addr, "0"))
		return err
	})
	defer l.Close()
	from.do(t, func() (err error) {
		client, err = net.Dial("tcp", l.Addr().String())
		return err
	})
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// transfer sends data over TCP and returns what arrived.
func transfer(t testing.TB, from, to *namespace, addr string, data []byte) []byte {
	t.Helper()
	client, server := connect(t, from, to, addr)
	sendErr := make(chan error, 1)
	go func() {
		_, err := client.Write(data)
		sendErr <- errors.Join(err, client.Close())
	}()
	got, err := io.ReadAll(server)
	if err := errors.Join(err, <-sendErr, server.Close()); err != nil {
		t.Fatal(err)
	}
	return got
}

// TestRealDevices runs TCP through two TUN devices with their offloads, in both
// families and directions, over a wide path and one that is narrower than the
// devices.
func TestRealDevices(t *testing.T) {
	data := make([]byte, 1<<20)
	rng := rand.NewChaCha8([32]byte{5})
	rng.Read(data)
	for _, alg := range algorithms {
		for _, pathMTU := range []int{0, 1380} {
			t.Run(fmt.Sprintf("%s path %d", alg.name, pathMTU), func(t *testing.T) {
				nsA, nsB, a, b := realTunnel(t, alg, pathMTU)
				largest := 0
				for dp, peer := range map[*DataPath]*DataPath{a: b, b: a} {
					dp.SetSender(&wire{to: peer, tap: func(p []byte) { largest = max(largest, len(p)+28) }})
					break // one goroutine, one counter
				}
				for _, way := range []struct {
					from, to *namespace
					addr     string
				}{{nsA, nsB, "10.1.0.1"}, {nsA, nsB, "fd00:b::1"}, {nsB, nsA, "10.0.0.1"}, {nsB, nsA, "fd00:a::1"}} {
					if got := transfer(t, way.from, way.to, way.addr, data); !bytes.Equal(got, data) {
						t.Fatalf("to %s: %d octets arrived changed", way.addr, len(got))
					}
				}
				for _, dp := range []*DataPath{a, b} {
					st, err := dp.QueryHost(theHost)
					if err != nil {
						t.Fatal(err)
					}
					if st.AuthFailed+st.Replayed+st.SelectorMismatch != 0 || st.InPackets == 0 {
						t.Errorf("%+v", st)
					}
					if c := dp.Counters(); c.InMalformed+c.OutExhausted+c.OutUnsent+c.InUnwritten != 0 {
						t.Errorf("%+v", c)
					}
				}
				if pathMTU != 0 && largest > pathMTU {
					t.Errorf("an outer packet of %d octets was sent on a path of %d", largest, pathMTU)
				}
			})
		}
	}
}

// TestRealPathMTU: a UDP sender that may not fragment learns the MTU of the tunnel
// from the kernel, which learnt it from our ICMP.
func TestRealPathMTU(t *testing.T) {
	nsA, _, _, _ := realTunnel(t, algorithms[0], 1350)
	for _, v := range []struct {
		network, addr string
		level, opt    int
		want          int // largest payload: 1288 inside, less the headers
	}{
		{"udp4", "10.1.0.1:9", unix.IPPROTO_IP, unix.IP_MTU, 1286},
		{"udp6", "[fd00:b::1]:9", unix.IPPROTO_IPV6, unix.IPV6_MTU, 1286},
	} {
		t.Run(v.network, func(t *testing.T) {
			nsA.do(t, func() error { return learnMTU(v.network, v.addr, v.level, v.opt, v.want) })
		})
	}
}

// learnMTU sends until the kernel's idea of the path MTU is the wanted one. The
// answer comes through another goroutine, so it takes a few packets; the time only
// bounds how long a failure takes to show.
func learnMTU(network, addr string, level, opt, want int) error {
	conn, err := net.Dial(network, netip.MustParseAddrPort(addr).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	got := 0
	for start := time.Now(); time.Since(start) < time.Minute; runtime.Gosched() {
		conn.Write(make([]byte, 1340))
		var optErr error
		if err := raw.Control(func(fd uintptr) { got, optErr = unix.GetsockoptInt(int(fd), level, opt) }); err != nil || optErr != nil {
			return errors.Join(err, optErr)
		}
		if got == want {
			return nil
		}
	}
	return fmt.Errorf("the kernel takes the path MTU for %d, want %d", got, want)
}

// BenchmarkRealTCP is one TCP stream from one TUN device to the other: everything
// but the sockets in between.
func BenchmarkRealTCP(b *testing.B) {
	for _, alg := range algorithms {
		b.Run(alg.name, func(b *testing.B) {
			nsA, nsB, _, _ := realTunnel(b, alg, 0)
			client, server := connect(b, nsA, nsB, "10.1.0.1")
			defer client.Close()
			defer server.Close()
			out, in := make([]byte, 1<<20), make([]byte, 1<<20)
			b.SetBytes(int64(len(out)))
			for b.Loop() {
				sendErr := make(chan error, 1)
				go func() {
					_, err := client.Write(out)
					sendErr <- err
				}()
				_, err := io.ReadFull(server, in)
				if err := errors.Join(err, <-sendErr); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
