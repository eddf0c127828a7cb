package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.IPv6Loopback()
)

// packet is one that a handler received, copied.
type packet struct {
	pair locator.Pair
	udp  bool
	data []byte
}

// recorder is a handler that keeps what it gets. Its channels are deep enough
// for every test, so that a reader never waits for one.
type recorder struct {
	ike, esp chan packet
	batches  chan int
}

func newRecorder() *recorder {
	return &recorder{ike: make(chan packet, 8192), esp: make(chan packet, 8192), batches: make(chan int, 8192)}
}

func (r *recorder) HandleIKE(pair locator.Pair, data []byte) { r.ike <- packet{pair, true, data} }

func (r *recorder) HandleESP(batch []ESPTrain) {
	n := 0
	for _, t := range batch {
		n += t.Packets()
		for p := range slices.Chunk(t.Data, t.Size) {
			r.esp <- packet{t.Pair, t.UDP, bytes.Clone(p)}
			clear(p) // it is ours to write to
		}
	}
	r.batches <- n
}

// trains puts packets one behind the other, those of one size into one train.
func trains(pkts [][]byte) (out []Train) {
	for _, p := range pkts {
		last := len(out) - 1
		if last < 0 || out[last].Size < len(p) || len(out[last].Data)%out[last].Size != 0 {
			out = append(out, Train{Size: len(p)})
			last++
		}
		out[last].Data = append(out[last].Data, p...)
	}
	return out
}

// listen opens a transport on ephemeral ports that the test closes.
func listen(t testing.TB, cfg Config, h Handler) *Transport {
	t.Helper()
	tr, err := Listen(cfg, h, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

// requireIPv6 skips where the machine has no IPv6 loopback.
func requireIPv6(t testing.TB) {
	t.Helper()
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skipf("SKIPPED, NOT TESTED: no IPv6 on the loopback interface: %v", err)
	}
	c.Close()
}

func requireRoot(t testing.TB, what string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("SKIPPED, NOT TESTED: %s needs root", what)
	}
}

// families runs a test over both.
func families(t *testing.T, run func(t *testing.T, addr netip.Addr)) {
	t.Run("IPv4", func(t *testing.T) { run(t, loopback4) })
	t.Run("IPv6", func(t *testing.T) { requireIPv6(t); run(t, loopback6) })
}

// pairTo is the pair from a port of one transport to the same port of another.
func pairTo(from, to *Transport, p Port, local, remote netip.Addr) locator.Pair {
	return locator.Pair{
		Local:  netip.AddrPortFrom(local, from.LocalPort(p)),
		Remote: netip.AddrPortFrom(remote, to.LocalPort(p)),
	}
}

// espPacket returns n octets that read as ESP and differ by number.
func espPacket(n, number int) []byte {
	p := bytes.Repeat([]byte{byte(number), byte(number >> 8), byte(n)}, n/3+1)[:n]
	copy(p, []byte{0, 0, 1, 0})
	return p
}

func TestIKE(t *testing.T) {
	families(t, func(t *testing.T, addr netip.Addr) {
		a, rec := listen(t, Config{}, newRecorder()), newRecorder()
		b := listen(t, Config{}, rec)
		for _, port := range []Port{IKE, NATT} {
			message := ikeMessage(0x0102030405060708, 300)
			pair := pairTo(a, b, port, addr, addr)
			if err := a.SendIKE(pair, message); err != nil {
				t.Fatal(err)
			}
			got := <-rec.ike
			if !bytes.Equal(got.data, message) {
				t.Errorf("%s: got % x", port, got.data)
			}
			if got.pair.Local != pair.Remote || got.pair.Remote != pair.Local || got.pair.Interface == 0 {
				t.Errorf("%s: got pair %s on interface %d, sent on %s", port, got.pair, got.pair.Interface, pair)
			}
		}
	})
}

// TestLargeIKE sends a message that needs fragments on any real link, and one
// beyond what UDP can carry.
func TestLargeIKE(t *testing.T) {
	families(t, func(t *testing.T, addr netip.Addr) {
		a, rec := listen(t, Config{}, newRecorder()), newRecorder()
		b := listen(t, Config{}, rec)
		pair := pairTo(a, b, NATT, netip.Addr{}, addr)
		large := ikeMessage(1, 65000)
		if err := a.SendIKE(pair, large); err != nil {
			t.Fatal(err)
		}
		if got := <-rec.ike; !bytes.Equal(got.data, large) {
			t.Errorf("got %d octets", len(got.data))
		}
		if err := a.SendIKE(pair, make([]byte, 65536)); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("too large a message: %v, want EMSGSIZE", err)
		}
		if n := a.Counters().SendErrors; n != 1 {
			t.Errorf("counted %d send errors, want 1", n)
		}
	})
}

// TestESPBatches sends batches of many shapes; all arrive, whole and in order.
func TestESPBatches(t *testing.T) {
	sizes := func(n ...int) []int { return n }
	repeat := func(size, count int) []int {
		s := make([]int, count)
		for i := range s {
			s[i] = size
		}
		return s
	}
	shapes := []struct {
		name  string
		sizes []int
	}{
		{"one", sizes(100)},
		{"two alike", sizes(100, 100)},
		{"shorter at the end", sizes(100, 100, 60)},
		{"growing", sizes(60, 100, 140)},
		{"mixed", sizes(1400, 1400, 60, 60, 1400, 900, 1400, 4, 4, 4)},
		{"more than one train", repeat(1400, 130)},
		{"more than one call", repeat(1400, 700)},
		{"no two alike in many calls", mixedSizes(600)},
		{"largest", sizes(65000, 65000, 100)},
	}
	families(t, func(t *testing.T, addr netip.Addr) {
		for _, offload := range []bool{true, false} {
			rec := newRecorder()
			a, b := listen(t, Config{}, newRecorder()), listen(t, Config{}, rec)
			for _, s := range a.sockets {
				s.offload = s.offload && offload
			}
			pair := pairTo(a, b, NATT, addr, addr)
			for _, shape := range shapes {
				t.Run(fmt.Sprintf("%s/offload=%v", shape.name, offload), func(t *testing.T) {
					sendAndCompare(t, a, rec, pair, shape.sizes)
				})
			}
			if c := b.Counters(); c != (Counters{}) {
				t.Errorf("receiver counted %+v", c)
			}
		}
	})
}

func mixedSizes(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = 60 + (i*37)%300
	}
	return s
}

func sendAndCompare(t *testing.T, a *Transport, rec *recorder, pair locator.Pair, sizes []int) {
	t.Helper()
	pkts := make([][]byte, len(sizes))
	for i, n := range sizes {
		pkts[i] = espPacket(n, i)
	}
	if err := a.SendESP(pair, true, trains(pkts)); err != nil {
		t.Fatal(err)
	}
	for i, want := range pkts {
		got := <-rec.esp
		if !bytes.Equal(got.data, want) {
			t.Fatalf("packet %d of %d: got %d octets % x..., want %d", i, len(pkts), len(got.data), got.data[:4], len(want))
		}
		if !got.udp || got.pair.Remote != pair.Local || got.pair.Local != pair.Remote {
			t.Fatalf("packet %d: pair %s, UDP %v", i, got.pair, got.udp)
		}
	}
}

// TestSource sends from chosen local addresses.
func TestSource(t *testing.T) {
	rec := newRecorder()
	a, b := listen(t, Config{}, newRecorder()), listen(t, Config{}, rec)
	for _, local := range []string{"127.0.0.1", "127.0.0.2", "127.9.9.9"} {
		addr := netip.MustParseAddr(local)
		for _, to := range []string{"127.0.0.1", "127.0.0.3"} {
			pair := pairTo(a, b, NATT, addr, netip.MustParseAddr(to))
			if err := a.SendIKE(pair, ikeMessage(1, 28)); err != nil {
				t.Fatal(err)
			}
			if got := <-rec.ike; got.pair.Remote != pair.Local || got.pair.Local != pair.Remote {
				t.Errorf("sent on %s, arrived as %s", pair, got.pair)
			}
			if err := a.SendESP(pair, true, trains([][]byte{espPacket(99, 0), espPacket(99, 1)})); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if got := <-rec.esp; got.pair.Remote != pair.Local || got.pair.Local != pair.Remote {
					t.Errorf("sent on %s, arrived as %s", pair, got.pair)
				}
			}
		}
	}
}

// TestAnswer sends back over the pair as received, interface included.
func TestAnswer(t *testing.T) {
	families(t, func(t *testing.T, addr netip.Addr) {
		recA, recB := newRecorder(), newRecorder()
		a, b := listen(t, Config{}, recA), listen(t, Config{}, recB)
		if err := a.SendIKE(pairTo(a, b, NATT, netip.Addr{}, addr), ikeMessage(1, 28)); err != nil {
			t.Fatal(err)
		}
		got := <-recB.ike
		if err := b.SendIKE(got.pair, ikeMessage(1, 40)); err != nil {
			t.Fatal(err)
		}
		if answer := <-recA.ike; answer.pair.Remote != got.pair.Local {
			t.Errorf("answer to %s came as %s", got.pair, answer.pair)
		}
	})
}

func TestFollowRoutes(t *testing.T) {
	rec := newRecorder()
	a, b := listen(t, Config{}, newRecorder()), listen(t, Config{FollowRoutes: true}, rec)
	if err := a.SendIKE(pairTo(a, b, IKE, loopback4, loopback4), ikeMessage(1, 28)); err != nil {
		t.Fatal(err)
	}
	if got := <-rec.ike; got.pair.Interface != 0 {
		t.Errorf("interface %d, want none", got.pair.Interface)
	}
}

// TestAddresses binds single addresses; each pair takes its own socket.
func TestAddresses(t *testing.T) {
	one, two := loopback4, netip.MustParseAddr("127.0.0.2")
	rec := newRecorder()
	a := listen(t, Config{Addresses: []netip.Addr{one, two, one}}, newRecorder())
	b := listen(t, Config{}, rec)
	if n := len(a.sockets); n != 4 {
		t.Fatalf("%d sockets, want 4: a repeated address counts once", n)
	}
	for _, local := range []netip.Addr{one, two} {
		if err := a.SendIKE(pairTo(a, b, IKE, local, one), ikeMessage(1, 28)); err != nil {
			t.Fatal(err)
		}
		if got := <-rec.ike; got.pair.Remote.Addr() != local {
			t.Errorf("from %s, want %s", got.pair.Remote, local)
		}
	}
	other := pairTo(a, b, IKE, netip.MustParseAddr("127.0.0.9"), one)
	if err := a.SendIKE(other, ikeMessage(1, 28)); !errors.Is(err, ErrNoSocket) {
		t.Errorf("local address that is not bound: %v, want ErrNoSocket", err)
	}
}

// TestRefusals lists pairs that cannot work; nothing panics and nothing is sent.
func TestRefusals(t *testing.T) {
	rec := newRecorder()
	a := listen(t, Config{}, rec)
	natt, ike := a.LocalPort(NATT), a.LocalPort(IKE)
	remote := netip.MustParseAddrPort("127.0.0.1:9")
	local := func(addr netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(addr, port) }
	tests := []struct {
		name string
		pair locator.Pair
		want error
	}{
		{"zero pair", locator.Pair{}, unix.EDESTADDRREQ},
		{"no remote port", locator.Pair{Local: local(loopback4, natt), Remote: netip.AddrPortFrom(loopback4, 0)}, unix.EDESTADDRREQ},
		{"unspecified remote", locator.Pair{Local: local(loopback4, natt), Remote: netip.MustParseAddrPort("0.0.0.0:4500")}, unix.EDESTADDRREQ},
		{"mixed families", locator.Pair{Local: local(loopback6, natt), Remote: remote}, unix.EAFNOSUPPORT},
		{"port not ours", locator.Pair{Local: local(loopback4, 1), Remote: remote}, ErrNoSocket},
		{"foreign local address", locator.Pair{Local: local(netip.MustParseAddr("192.0.2.1"), natt), Remote: remote}, nil}, // which error depends on the kernel
	}
	for _, tt := range tests {
		if err := a.SendIKE(tt.pair, ikeMessage(1, 28)); !refusedFor(err, tt.want) {
			t.Errorf("%s: SendIKE: %v, want %v", tt.name, err, tt.want)
		}
		if err := a.SendESP(tt.pair, true, trains([][]byte{espPacket(64, 0), espPacket(64, 1)})); !refusedFor(err, tt.want) {
			t.Errorf("%s: SendESP: %v, want %v", tt.name, err, tt.want)
		}
		if err := a.SendKeepalive(tt.pair); !refusedFor(err, tt.want) {
			t.Errorf("%s: SendKeepalive: %v, want %v", tt.name, err, tt.want)
		}
	}
	onIKEPort := locator.Pair{Local: local(loopback4, ike), Remote: remote}
	if err := a.SendESP(onIKEPort, true, trains([][]byte{espPacket(64, 0)})); !errors.Is(err, ErrNoSocket) {
		t.Errorf("ESP from the IKE port: %v", err)
	}
	if err := a.SendKeepalive(onIKEPort); !errors.Is(err, ErrNoSocket) {
		t.Errorf("keepalive from the IKE port: %v", err)
	}
	if err := a.SendESP(locator.Pair{Remote: remote}, false, trains([][]byte{espPacket(64, 0)})); !errors.Is(err, ErrNoSocket) {
		t.Errorf("protocol 50 without a socket: %v", err)
	}
}

// refusedFor reports whether err is an error, and the one wanted if that is told.
func refusedFor(err, want error) bool {
	return err != nil && (want == nil || errors.Is(err, want))
}

// TestStrangers sends what does not belong, then something that does: only that
// arrives, and each drop is counted.
func TestStrangers(t *testing.T) {
	families(t, func(t *testing.T, addr netip.Addr) {
		rec := newRecorder()
		b := listen(t, Config{}, rec)
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: addr.AsSlice()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		natt := netip.AddrPortFrom(addr, b.LocalPort(NATT))
		ike := netip.AddrPortFrom(addr, b.LocalPort(IKE))
		send := func(to netip.AddrPort, data []byte) {
			t.Helper()
			if _, err := c.WriteToUDPAddrPort(data, to); err != nil {
				t.Fatal(err)
			}
		}
		message := ikeMessage(0x1122334455667788, 80)
		for _, data := range [][]byte{{0xff}, {}, {1}, {1, 2, 3}, {0, 0, 0, 0}, marked(message[:20])} {
			send(natt, data)
		}
		send(natt, message) // without marker: reads as ESP of an unknown SPI
		send(natt, marked(message))
		for _, data := range [][]byte{{0xff}, {0}, message[:10], marked(message), message} {
			send(ike, data)
		}
		for range 2 {
			if got := <-rec.ike; !bytes.Equal(got.data, message) {
				t.Errorf("got % x", got.data)
			}
		}
		if got := <-rec.esp; !bytes.Equal(got.data, message) {
			t.Errorf("got % x", got.data)
		}
		want := Counters{Keepalives: 2, Short: 4, ShortIKE: 3, MarkedOnIKEPort: 1}
		if got := b.Counters(); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
	})
}

// TestBroadcast sends to everybody on the loopback interface; the packet after
// it arrives alone.
func TestBroadcast(t *testing.T) {
	rec := newRecorder()
	b := listen(t, Config{}, rec)
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback4.AsSlice()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, to := range []string{"127.255.255.255", "127.0.0.1"} {
		addr := netip.AddrPortFrom(netip.MustParseAddr(to), b.LocalPort(IKE))
		if _, err := c.WriteToUDPAddrPort(ikeMessage(uint64(i+1)<<32, 28), addr); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-rec.ike; got.pair.Local.Addr() != loopback4 {
		t.Errorf("got a packet to %s", got.pair.Local)
	}
	if n := b.Counters().NotUnicast; n != 1 {
		t.Errorf("counted %d broadcasts, want 1", n)
	}
}

// TestKernelDrops overruns the receive queue of a handler that is stuck.
func TestKernelDrops(t *testing.T) {
	h := &stuckHandler{gate: make(chan struct{}), last: make(chan struct{}, 1)}
	a, b := listen(t, Config{}, newRecorder()), listen(t, Config{}, h)
	pair := pairTo(a, b, IKE, loopback4, loopback4)
	send := func(m []byte) {
		if err := a.SendIKE(pair, m); err != nil {
			t.Error(err)
		}
	}
	const more = 4 * ikeBuffer / 50000
	for range more {
		send(ikeMessage(1<<32, 50000))
	}
	close(h.gate)
	for { // until the queue has room again
		send(ikeMessage(lastSPI, 28))
		select {
		case <-h.last:
		default:
			continue
		}
		break
	}
	if n := b.Counters().KernelDrops; n == 0 {
		t.Error("no drops counted")
	}
}

const lastSPI = 0xfeedfeedfeedfeed

// stuckHandler waits with its first message, and tells when it sees lastSPI.
type stuckHandler struct {
	gate, last chan struct{}
}

func (h *stuckHandler) HandleESP([]ESPTrain) {}
func (h *stuckHandler) HandleIKE(_ locator.Pair, data []byte) {
	<-h.gate
	if binary.BigEndian.Uint64(data) != lastSPI {
		return
	}
	select {
	case h.last <- struct{}{}:
	default:
	}
}

func TestKeepalive(t *testing.T) {
	rec := newRecorder()
	a, b := listen(t, Config{}, newRecorder()), listen(t, Config{}, rec)
	pair := pairTo(a, b, NATT, loopback4, loopback4)
	if err := a.SendKeepalive(pair); err != nil {
		t.Fatal(err)
	}
	if err := a.SendESP(pair, true, trains([][]byte{espPacket(64, 0)})); err != nil {
		t.Fatal(err)
	}
	<-rec.esp // came after the keepalive, on the same socket
	if n := b.Counters().Keepalives; n != 1 {
		t.Errorf("counted %d keepalives, want 1", n)
	}
}

// TestOrder checks that ESP before an IKE message of the same call is handled
// before it.
func TestOrder(t *testing.T) {
	seen := make(chan string, 100)
	gate := make(chan struct{})
	h := &orderHandler{seen: seen, gate: gate}
	a, b := listen(t, Config{}, newRecorder()), listen(t, Config{}, h)
	pair := pairTo(a, b, NATT, loopback4, loopback4)
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	step(a.SendIKE(pair, ikeMessage(1, 28))) // holds the reader
	step(a.SendESP(pair, true, trains([][]byte{espPacket(64, 0)})))
	step(a.SendIKE(pair, ikeMessage(2, 28)))
	step(a.SendESP(pair, true, trains([][]byte{espPacket(64, 1), espPacket(64, 2)})))
	close(gate)
	for i, want := range []string{"IKE", "ESP 1", "IKE", "ESP 2"} {
		if got := <-seen; got != want {
			t.Errorf("event %d is %s, want %s", i, got, want)
		}
	}
}

type orderHandler struct {
	seen chan string
	gate chan struct{}
}

func (h *orderHandler) HandleIKE(locator.Pair, []byte) { <-h.gate; h.seen <- "IKE" }
func (h *orderHandler) HandleESP(b []ESPTrain) {
	h.seen <- fmt.Sprintf("ESP %d", packets(Train{}, unpaired(b)))
}

func unpaired(list []ESPTrain) (out []Train) {
	for _, t := range list {
		out = append(out, t.Train)
	}
	return out
}

// TestCloseWhileBusy closes while others send and receive.
func TestCloseWhileBusy(t *testing.T) {
	a, err := Listen(Config{}, handlerFunc(func([]ESPTrain) {}), nil)
	if err != nil {
		t.Fatal(err)
	}
	pair := pairTo(a, a, NATT, loopback4, loopback4)
	pkts := make([][]byte, 100)
	for i := range pkts {
		pkts[i] = espPacket(1200, i)
	}
	var busy sync.WaitGroup
	started := make(chan struct{}, 4)
	for range 4 {
		busy.Go(func() {
			started <- struct{}{}
			for {
				if err := a.SendESP(pair, true, trains(pkts)); err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Errorf("send ended with %v, want net.ErrClosed", err)
					}
					return
				}
			}
		})
	}
	for range 4 {
		<-started
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	busy.Wait()
	if err := a.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if err := a.SendIKE(pair, ikeMessage(1, 28)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("send after close: %v, want net.ErrClosed", err)
	}
}

type handlerFunc func(batch []ESPTrain)

func (f handlerFunc) HandleESP(batch []ESPTrain)       { f(batch) }
func (handlerFunc) HandleIKE(_ locator.Pair, _ []byte) {}

func TestPorts(t *testing.T) {
	a := listen(t, Config{}, newRecorder())
	ike, natt := a.LocalPort(IKE), a.LocalPort(NATT)
	if ike == 0 || natt == 0 || ike == natt {
		t.Fatalf("ephemeral ports %d and %d", ike, natt)
	}
	for _, s := range a.sockets {
		if s.bound.Port() != a.LocalPort(s.port) {
			t.Errorf("%s is not on port %d", s.bound, a.LocalPort(s.port))
		}
	}
	_, err := Listen(Config{IKEPort: ike, NATTPort: natt}, newRecorder(), nil)
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("taken ports: %v, want EADDRINUSE", err)
	}
	b := listen(t, Config{IKEPort: ike, NATTPort: natt, Ephemeral: true}, newRecorder())
	if b.LocalPort(IKE) == ike || b.LocalPort(NATT) == natt || b.LocalPort(IKE) == 0 {
		t.Errorf("ports %d and %d are taken", b.LocalPort(IKE), b.LocalPort(NATT))
	}
}

func TestListenErrors(t *testing.T) {
	tests := []struct {
		name string
		cfg  Config
	}{
		{"one port for both", Config{IKEPort: 4500, NATTPort: 4500}},
		{"foreign address", Config{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}},
		{"multicast address", Config{Addresses: []netip.Addr{netip.MustParseAddr("224.0.0.1")}}},
		{"invalid address", Config{Addresses: []netip.Addr{{}}}},
		{"unknown zone", Config{Addresses: []netip.Addr{netip.MustParseAddr("fe80::1%nosuchlink0")}}},
	}
	for _, tt := range tests {
		tr, err := Listen(tt.cfg, newRecorder(), nil)
		if err == nil {
			tr.Close()
			t.Errorf("%s: no error", tt.name)
		}
	}
}

func TestMark(t *testing.T) {
	requireRoot(t, "SO_MARK")
	a := listen(t, Config{Mark: 0x5746, RawESP: true}, newRecorder())
	for _, s := range a.sockets {
		var mark int
		var err error
		if cerr := s.raw.Control(func(fd uintptr) {
			mark, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK)
		}); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		if mark != 0x5746 {
			t.Errorf("%s: mark %#x", s.file.Name(), mark)
		}
	}
}

func TestLocalAddressFor(t *testing.T) {
	families(t, func(t *testing.T, addr netip.Addr) {
		a := listen(t, Config{}, newRecorder())
		local, index, err := a.LocalAddressFor(addr)
		if err != nil {
			t.Fatal(err)
		}
		ifi, err := net.InterfaceByIndex(index)
		if err != nil {
			t.Fatal(err)
		}
		if local != addr || ifi.Flags&net.FlagLoopback == 0 {
			t.Errorf("way to %s is from %s on %s", addr, local, ifi.Name)
		}
	})
	for _, bad := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if _, _, err := LocalAddressFor(bad, 0); err == nil {
			t.Errorf("way to %q found", bad)
		}
	}
}

// TestReaders shares the port among sockets: packets of one peer keep their order, and
// another program cannot have the port.
func TestReaders(t *testing.T) {
	families(t, func(t *testing.T, addr netip.Addr) {
		rec := newRecorder()
		b := listen(t, Config{Readers: 3, FollowRoutes: true}, rec)
		const peers, each = 8, 20
		for range peers {
			a := listen(t, Config{}, newRecorder())
			for i := range each {
				if err := a.SendESP(pairTo(a, b, NATT, addr, addr), true, trains([][]byte{espPacket(64, i)})); err != nil {
					t.Fatal(err)
				}
			}
		}
		next := map[netip.AddrPort]int{}
		for range peers * each {
			got := <-rec.esp
			from := got.pair.Remote
			if want := espPacket(64, next[from]); !bytes.Equal(got.data, want) {
				t.Fatalf("packet %d of %s is out of order", next[from], from)
			}
			next[from]++
		}
		if len(next) != peers {
			t.Errorf("heard %d peers, want %d", len(next), peers)
		}
		taken := Config{NATTPort: b.LocalPort(NATT), Addresses: []netip.Addr{addr}}
		if c, err := Listen(taken, newRecorder(), nil); err == nil {
			c.Close()
			t.Error("a second transport got the same port")
		}
	})
}
