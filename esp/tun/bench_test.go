package tun

import (
	"fmt"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// BenchmarkTunnel carries packets from the memory of one TUN device to that of the
// other: parse, choose, seal, open, check. One operation is one packet.
func BenchmarkTunnel(b *testing.B) {
	for _, alg := range algorithms {
		for _, size := range []int{64, 512, 1400, 8900} {
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
