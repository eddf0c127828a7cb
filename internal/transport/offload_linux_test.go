package transport

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// socketOf is the NAT traversal socket of a family.
func (t *Transport) nattSocket(ipv6 bool) *socket {
	for _, s := range t.sockets {
		if !s.esp && s.port == NATT && s.ipv6 == ipv6 {
			return s
		}
	}
	return nil
}

func trainOf(n, size int) [][]byte {
	pkts := make([][]byte, n)
	for i := range pkts {
		pkts[i] = espPacket(size, i)
	}
	return pkts
}

// hasTrain reports whether a message asks for segmentation: its control data then
// goes on behind the source address.
func hasTrain(m *mmsghdr) bool {
	return int(m.hdr.Controllen) > unix.CmsgSpace(pktinfo4Len)
}

func TestTrainSplit(t *testing.T) {
	train := func(octets, size int) Train { return Train{make([]byte, octets), size, 0} }
	tests := []struct {
		name  string
		train Train
		whole bool
		want  []int // packets of each message
	}{
		{"single", train(100, 100), true, []int{1}},
		{"equal", train(300, 100), true, []int{3}},
		{"last one shorter", train(240, 100), true, []int{3}},
		{"one by one", train(240, 100), false, []int{1, 1, 1}},
		{"kernel's limit", train(50000, 500), true, []int{trainPackets, 100 - trainPackets}},
		{"size of a packet", train(60*1400, 1400), true, []int{trainBytes / 1400, 60 - trainBytes/1400}},
		{"too large for any", train(70000, 70000), true, []int{1}},
	}
	for _, tt := range tests {
		var got []int
		for rest := tt.train; len(rest.Data) > 0; {
			var first Train
			first, rest = rest.split(tt.whole)
			got = append(got, first.Packets())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestOffloadIsUsed looks at what goes to the kernel: one message, not forty, and
// one joined read on the other side where the kernel does that.
func TestOffloadIsUsed(t *testing.T) {
	families(t, func(t *testing.T, addr netip.Addr) {
		rec := newRecorder()
		a, b := listen(t, Config{}, newRecorder()), listen(t, Config{}, rec)
		s := a.nattSocket(addr.Is6())
		if !s.offload {
			t.Skip("SKIPPED, NOT TESTED: this kernel has no UDP_SEGMENT")
		}
		messages := 0
		s.sendmmsg = func(fd uintptr, msgs []mmsghdr) (int, unix.Errno) {
			n, errno := sendmmsg(fd, msgs)
			messages += n
			return n, errno
		}
		sendAndCompare(t, a, rec, pairTo(a, b, NATT, addr, addr), []int{1400, 1400, 1400, 1400, 200, 1400})
		if messages != 2 {
			t.Errorf("6 packets in two runs took %d messages, want 2", messages)
		}
		if n := <-rec.batches; n < 5 {
			t.Errorf("first batch has %d packets, want the whole run of 5", n)
		}
	})
}

// TestTOS checks that what is asked for arrives, for single packets, trains and
// protocol 50, and that trains of different TOS stay apart.
func TestTOS(t *testing.T) {
	check := func(t *testing.T, udp bool, cfg Config, addr netip.Addr) {
		got := make(chan ESPTrain, 16)
		b := listen(t, cfg, handlerFunc(func(batch []ESPTrain) {
			for _, x := range batch {
				got <- x
			}
		}))
		a := listen(t, cfg, newRecorder())
		pair := pairTo(a, b, NATT, addr, addr)
		var want []uint8
		var out []Train
		for _, tos := range []uint8{0, 0xb8, 0x02, 0x03, 0} {
			n := 3
			if !udp {
				n, pair = 1, locator.Pair{Local: netip.AddrPortFrom(addr, 0), Remote: netip.AddrPortFrom(addr, 0)}
			}
			for range n {
				want = append(want, tos)
			}
			out = append(out, Train{bytes.Join(trainOf(n, 700), nil), 700, tos})
		}
		if err := a.SendESP(pair, udp, out); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(want); {
			x := <-got
			for range x.Packets() {
				if x.TOS != want[i] {
					t.Errorf("%s, packet %d: TOS %#x, want %#x", addr, i, x.TOS, want[i])
				}
				i++
			}
		}
	}
	families(t, func(t *testing.T, addr netip.Addr) { check(t, true, Config{}, addr) })
	t.Run("protocol 50", func(t *testing.T) {
		requireRoot(t, "raw ESP")
		inNamespace(t, func() {
			setLoopback(t, 65536)
			for _, addr := range []netip.Addr{loopback4, loopback6} {
				check(t, false, Config{RawESP: true, Addresses: []netip.Addr{addr}}, addr)
			}
		})
	})
}

// TestDeviceRefuses plays a device without checksum offload: EIO for every
// train. Packets arrive all the same, the socket stops asking, and asks again later.
func TestDeviceRefuses(t *testing.T) {
	rec := newRecorder()
	a, b := listen(t, Config{}, newRecorder()), listen(t, Config{}, rec)
	s := a.nattSocket(false)
	s.offload = true
	refused := 0
	s.sendmmsg = func(fd uintptr, msgs []mmsghdr) (int, unix.Errno) {
		for i := range msgs {
			if !hasTrain(&msgs[i]) {
				continue
			}
			if i == 0 {
				refused++
				return 0, unix.EIO
			}
			return sendmmsg(fd, msgs[:i])
		}
		return sendmmsg(fd, msgs)
	}
	pair := pairTo(a, b, NATT, loopback4, loopback4)
	sizes := []int{64, 100, 100, 100, 64, 64, 200, 300, 300}
	sendAndCompare(t, a, rec, pair, sizes)
	if refused != 2 || a.Counters().TrainsRefused != 2 {
		t.Errorf("%d trains refused, counted %d, want 2", refused, a.Counters().TrainsRefused)
	}
	sendAndCompare(t, a, rec, pair, sizes)
	if refused != 2 {
		t.Error("the socket asks again at once")
	}
	for range gsoPauseBatches {
		sendAndCompare(t, a, rec, pair, []int{64})
	}
	sendAndCompare(t, a, rec, pair, []int{64, 64})
	if refused != 3 {
		t.Errorf("%d trains refused: the socket never asks again", refused)
	}
	if n := a.Counters().SendErrors; n != 0 {
		t.Errorf("counted %d send errors", n)
	}
}

// TestKernelRefuses makes the real kernel refuse: it segments nothing on a
// socket without checksums.
func TestKernelRefuses(t *testing.T) {
	rec := newRecorder()
	a, b := listen(t, Config{}, newRecorder()), listen(t, Config{}, rec)
	s := a.nattSocket(false)
	if !s.offload {
		t.Skip("SKIPPED, NOT TESTED: this kernel has no UDP_SEGMENT")
	}
	if err := s.raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			t.Fatal(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	sendAndCompare(t, a, rec, pairTo(a, b, NATT, loopback4, loopback4), []int{300, 300, 300, 100, 700, 700})
	if n := a.Counters().TrainsRefused; n != 2 {
		t.Errorf("counted %d refused trains, want 2", n)
	}
}

// TestRefusedBatch checks that an error about the pair ends a batch and one
// about a packet does not.
func TestRefusedBatch(t *testing.T) {
	rec := newRecorder()
	a, b := listen(t, Config{}, newRecorder()), listen(t, Config{}, rec)
	s := a.nattSocket(false)
	pair := pairTo(a, b, NATT, loopback4, loopback4)
	pkts := [][]byte{espPacket(64, 0), make([]byte, 66000), espPacket(80, 2)}
	if err := a.SendESP(pair, true, trains(pkts)); err == nil {
		t.Error("no error for a packet that is too large")
	}
	for _, want := range [][]byte{pkts[0], pkts[2]} {
		if got := <-rec.esp; !bytes.Equal(got.data, want) {
			t.Errorf("got %d octets, want %d", len(got.data), len(want))
		}
	}
	if n := a.Counters().SendErrors; n != 1 {
		t.Errorf("counted %d send errors, want 1", n)
	}

	calls := 0
	s.sendmmsg = func(uintptr, []mmsghdr) (int, unix.Errno) { calls++; return 0, unix.ENETUNREACH }
	if err := a.SendESP(pair, true, trains(mixedPackets(300))); err == nil {
		t.Error("no error for an unreachable network")
	}
	if n := a.Counters().SendErrors; calls != 1 || n != 301 {
		t.Errorf("%d calls, %d send errors; want 1 and 301", calls, n)
	}

	calls = 0
	s.sendmmsg = func(fd uintptr, msgs []mmsghdr) (int, unix.Errno) {
		if calls++; calls == 1 {
			return 0, unix.ECONNREFUSED // an ICMP error about something earlier
		}
		return sendmmsg(fd, msgs)
	}
	sendAndCompare(t, a, rec, pair, []int{100})
}

func mixedPackets(n int) [][]byte {
	pkts := make([][]byte, n)
	for i, size := range mixedSizes(n) {
		pkts[i] = espPacket(size, i)
	}
	return pkts
}

// TestFullBuffer lets the kernel say that there is no room; the call waits and
// everything arrives.
func TestFullBuffer(t *testing.T) {
	rec := newRecorder()
	a, b := listen(t, Config{}, newRecorder()), listen(t, Config{}, rec)
	s := a.nattSocket(false)
	calls := 0
	s.sendmmsg = func(fd uintptr, msgs []mmsghdr) (int, unix.Errno) {
		if calls++; calls%2 == 1 {
			return 0, unix.EAGAIN
		}
		return sendmmsg(fd, msgs[:1])
	}
	sendAndCompare(t, a, rec, pairTo(a, b, NATT, loopback4, loopback4), mixedSizes(20))
}

// TestSendAllocates nothing once the pool is warm.
func TestSendAllocates(t *testing.T) {
	h := handlerFunc(func([]ESPTrain) {})
	a, b := listen(t, Config{}, h), listen(t, Config{}, h)
	pair := pairTo(a, b, NATT, loopback4, loopback4)
	pkts := trains(trainOf(32, 1000))
	n := testing.AllocsPerRun(200, func() {
		if err := a.SendESP(pair, true, pkts); err != nil {
			t.Fatal(err)
		}
	})
	if n >= 1 && !raceEnabled {
		t.Errorf("%v allocations per batch of 32, sent and received; want none", n)
	}
}
