package tun

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/esp/tun/vnet"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// A gateway with many clients: what a packet, a change and memory cost then.

const manyClients = 10000

// clientAddr is the inner address of a client.
func clientAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
}

// addClient makes a client known and active.
func (s *side) addClient(i int, alg algorithm) {
	s.t.Helper()
	id, addr := esp.HostID(i+1), clientAddr(i)
	c, _ := alg.children(esp.ChildID(i + 1))
	c.Host, c.Remote = id, []esp.Selector{{Start: addr, End: addr, EndPort: 65535}}
	c.Local = []esp.Selector{esp.PrefixSelector(netip.MustParsePrefix("0.0.0.0/0")), esp.PrefixSelector(netip.MustParsePrefix("::/0"))}
	s.must(s.dp.AddHost(id, esp.Path{Pair: pairAB, UDP: true}))
	s.must(s.dp.AddChild(c))
	s.must(s.dp.ActivateChild(c.ID))
}

// gateway makes a data path with so many clients.
func gateway(tb testing.TB, clients int, alg algorithm) *side {
	s := newSide(tb)
	s.dev.discard = true
	s.sender.deliver = func(locator.Pair, bool, []transport.Train) {}
	for i := range clients {
		s.addClient(i, alg)
	}
	return s
}

// crowd makes trains of packets, each to a client chosen at random. The packets are
// always the same memory: what differs is what the data path has to look at.
type crowd struct {
	clients int
	rng     *rand.Rand
	frames  [][]byte
}

func newCrowd(clients, train, size int) *crowd {
	c := &crowd{clients: clients, rng: rand.New(rand.NewPCG(1, 2))}
	for range train {
		c.frames = append(c.frames, framesOf(udpPacket("192.0.2.80", clientAddr(0).String(), size-28))...)
	}
	return c
}

func (c *crowd) next() [][]byte {
	i := c.rng.IntN(c.clients)
	for _, f := range c.frames {
		binary.BigEndian.PutUint16(f[vnet.HeaderLen+18:], uint16(i))
	}
	return c.frames
}

// BenchmarkClients carries trains to a random one among many clients and, by turns, to
// the only client of another gateway, and compares CPU time per packet: chosen and
// sealed ("out"), or also opened by the clients' end ("tunnel"). Trains of one packet
// are the worst case: nothing of the client's SA is in the processor's cache.
func BenchmarkClients(b *testing.B) {
	for _, kind := range []string{"out", "tunnel"} {
		for _, size := range []int{64, 1400} {
			for _, train := range []int{1, 8, 32} {
				b.Run(fmt.Sprintf("%s/%dB/train%d", kind, size, train), func(b *testing.B) {
					benchmarkClients(b, kind, size, train)
				})
			}
		}
	}
}

func benchmarkClients(b *testing.B, kind string, size, train int) {
	const turn = 2000 // trains
	var sides [2]*side
	var crowds [2]*crowd
	var spent [2]int64
	for i, clients := range []int{1, manyClients} {
		sides[i], crowds[i] = gateway(b, clients, algorithms[0]), newCrowd(clients, train, size)
		if kind == "tunnel" {
			into(sides[i], farEnd(b, clients, algorithms[0]))
		}
	}
	allocated := countAllocations(b)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.ResetTimer()
	packets := 0
	for packets < b.N {
		for i, s := range sides {
			before := threadTime(b)
			for range turn {
				s.pushFrames(crowds[i].next())
			}
			spent[i] += threadTime(b) - before
		}
		packets += turn * train
	}
	allocated(packets)
	b.ReportMetric(0, "ns/op") // of both
	b.ReportMetric(float64(spent[0])/float64(packets), "ns/packet-1")
	b.ReportMetric(float64(spent[1])/float64(packets), fmt.Sprintf("ns/packet-%d", manyClients))
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "ratio")
}

// countAllocations reports the allocations for each packet, since an iteration may be
// thousands of them.
func countAllocations(b *testing.B) (report func(packets int)) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	return func(packets int) {
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(2*packets), "B/op")
		b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(2*packets), "allocs/op")
	}
}

// threadTime is the CPU time of this thread: it says what packets cost also when
// other programs want the processor.
func threadTime(tb testing.TB) int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		tb.Fatal(err)
	}
	return t.Nano()
}

// farEnd is one data path that has the other end of every client's SA.
func farEnd(tb testing.TB, clients int, alg algorithm) *side {
	s := newSide(tb)
	s.dev.discard = true
	for i := range clients {
		addr := clientAddr(i)
		_, c := alg.children(esp.ChildID(i + 1))
		c.Host = esp.HostID(i + 1)
		c.Local = []esp.Selector{{Start: addr, End: addr, EndPort: 65535}}
		c.Remote = []esp.Selector{esp.PrefixSelector(netip.MustParsePrefix("0.0.0.0/0"))}
		s.must(s.dp.AddHost(c.Host, esp.Path{Pair: pairBA, UDP: true}))
		s.must(s.dp.AddChild(c))
	}
	return s
}

// into delivers what one data path sends to another.
func into(from, to *side) {
	batch := make([]transport.ESPTrain, 0, 128)
	from.sender.deliver = func(_ locator.Pair, udp bool, trains []transport.Train) {
		batch = batch[:0]
		for _, t := range trains {
			batch = append(batch, transport.ESPTrain{Pair: pairBA, UDP: udp, Train: t})
		}
		to.dp.HandleESP(batch)
	}
}

// BenchmarkChanges replaces a client's Child SA, as a rekey does, beside many others.
func BenchmarkChanges(b *testing.B) {
	for _, clients := range []int{1, 100, manyClients} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			s := gateway(b, clients, algorithms[0])
			rng := rand.New(rand.NewPCG(1, 2))
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				i := rng.IntN(clients)
				s.must(s.dp.RemoveHost(esp.HostID(i + 1)))
				s.addClient(i, algorithms[0])
			}
		})
	}
}

// maxChildMemory is what an idle host with one Child SA may cost in the data path.
const maxChildMemory = 4096

// An idle client is cheap, whatever its algorithms.
func TestMemoryPerChild(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs memory of its own")
	}
	for _, alg := range algorithms {
		t.Run(alg.name, func(t *testing.T) {
			if got := memoryPerChild(t, alg, 2000); got > maxChildMemory {
				t.Errorf("%d octets, more than %d", got, maxChildMemory)
			} else {
				t.Logf("%d octets", got)
			}
		})
	}
}

// memoryPerChild is the growth of the heap for each client, beyond what the data
// path needs anyhow.
func memoryPerChild(tb testing.TB, alg algorithm, clients int) int {
	s := gateway(tb, 1, alg)
	before := heapInUse()
	for i := range clients {
		s.addClient(i+1, alg)
	}
	after := heapInUse()
	runtime.KeepAlive(s)
	return int(after-before) / clients
}

// BenchmarkMemoryPerChild reports what TestMemoryPerChild limits.
func BenchmarkMemoryPerChild(b *testing.B) {
	for _, alg := range algorithms {
		b.Run(alg.name, func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(float64(memoryPerChild(b, alg, manyClients)), "B/child")
			}
		})
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Packets to many clients are carried without allocating, and each to its own.
func TestManyClients(t *testing.T) {
	const clients = 300
	s, far := gateway(t, clients, algorithms[0]), farEnd(t, clients, algorithms[0])
	into(s, far)
	for i := range clients {
		s.push(udpPacket("192.0.2.80", clientAddr(i).String(), 10))
	}
	for i := range clients {
		out, err := s.dp.QueryHost(esp.HostID(i + 1))
		s.must(err)
		in, err := far.dp.QueryHost(esp.HostID(i + 1))
		s.must(err)
		if out.OutPackets != 1 || in.InPackets != 1 {
			t.Fatalf("client %d: %d packets sent, %d received", i, out.OutPackets, in.InPackets)
		}
	}
	if raceEnabled {
		return
	}
	c := newCrowd(clients, 8, 200)
	if n := testing.AllocsPerRun(200, func() { s.pushFrames(c.next()) }); n > 0 {
		t.Errorf("%v allocations for a train", n)
	}
}
