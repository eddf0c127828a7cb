package tun

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// BenchmarkTunnel carries packets from the memory of one TUN device to that of the
// other: parse, choose, seal, open, check. One operation is one packet.
func BenchmarkTunnel(b *testing.B) {
	for _, alg := range algorithms {
		for _, size := range []int{64, 512, 1400} {
			b.Run(fmt.Sprintf("%s/%d", alg.name, size), func(b *testing.B) {
				const train = 32
				left, right := tunnel(b, true)
				add(left, right, alg, 1)
				right.dev.discard = true
				batch := make([]transport.ESPTrain, 0, train)
				left.sender.deliver = func(_ locator.Pair, udp bool, trains []transport.Train) {
					batch = batch[:0]
					for _, t := range trains {
						batch = append(batch, transport.ESPTrain{Pair: pairBA, UDP: udp, Train: t})
					}
					right.dp.HandleESP(batch)
				}
				var pkts [][]byte
				for range train {
					pkts = append(pkts, udpPacket("10.0.0.1", "10.1.0.1", size-28))
				}
				frames := framesOf(pkts...)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for i := 0; i < b.N; i += train {
					left.pushFrames(frames)
				}
			})
		}
	}
}

// manyHosts makes a data path with so many hosts of one Child SA each, the
// addresses of which start at 10.1.0.0.
func manyHosts(tb testing.TB, n int) *side {
	s := newSide(tb)
	s.dev.discard = true
	addr := netip.MustParseAddr("10.1.0.0")
	for i := range n {
		id := esp.HostID(i + 1)
		s.must(s.dp.AddHost(id, esp.Path{Pair: pairAB, UDP: true}))
		c, _ := algorithms[0].children(esp.ChildID(i + 1))
		c.Host, c.Remote = id, []esp.Selector{{Start: addr, End: addr, EndPort: 65535}}
		s.must(s.dp.AddChild(c))
		s.must(s.dp.ActivateChild(c.ID))
		addr = addr.Next()
	}
	return s
}

// BenchmarkOutboundHosts seals packets for hosts in turn: the worst case, where no
// two packets in a row go to the same one.
func BenchmarkOutboundHosts(b *testing.B) {
	for _, hosts := range []int{1, 100, 10000} {
		b.Run(fmt.Sprint(hosts), func(b *testing.B) {
			s := manyHosts(b, hosts)
			s.sender.deliver = func(locator.Pair, bool, []transport.Train) {}
			addr := netip.MustParseAddr("10.1.0.0")
			var pkts [][]byte
			for i := range 8192 {
				if i%hosts == 0 {
					addr = netip.MustParseAddr("10.1.0.0")
				}
				pkts = append(pkts, udpPacket("10.0.0.1", addr.String(), 600))
				addr = addr.Next()
			}
			frames := framesOf(pkts...)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += 64 {
				at := i % len(pkts)
				s.pushFrames(frames[at : at+64])
			}
		})
	}
}

// BenchmarkMemoryPerChild reports what an idle host with one Child SA costs.
func BenchmarkMemoryPerChild(b *testing.B) {
	const hosts = 10000
	for b.Loop() {
		before := heapInUse()
		one := manyHosts(b, 1)
		between := heapInUse()
		many := manyHosts(b, hosts+1)
		after := heapInUse()
		b.ReportMetric(float64(after-between-(between-before))/hosts, "B/child")
		runtime.KeepAlive(one)
		runtime.KeepAlive(many)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
