package transport

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// BenchmarkLoopback sends batches from one transport to another on the loopback
// interface; lost packets (the sender outruns the receiver) are reported.
func BenchmarkLoopback(b *testing.B) {
	for _, offload := range []bool{true, false} {
		for _, size := range []int{64, 1400} {
			b.Run(fmt.Sprintf("offload=%v/size=%d", offload, size), func(b *testing.B) {
				benchmarkLoopback(b, offload, size)
			})
		}
	}
}

func benchmarkLoopback(b *testing.B, offload bool, size int) {
	var received atomic.Uint64
	sink := handlerFunc(func(batch []ESPTrain) {
		for _, t := range batch {
			received.Add(uint64(t.Packets()))
		}
	})
	from, to := listen(b, Config{}, sink), listen(b, Config{}, sink)
	s := from.nattSocket(false)
	s.offload = s.offload && offload
	pair := pairTo(from, to, NATT, loopback4, loopback4)
	const batch = 32
	pkts := trains(trainOf(batch, size))
	b.SetBytes(int64(size))
	b.ReportAllocs()
	sent := 0
	for b.Loop() {
		if sent%batch == 0 {
			if err := from.SendESP(pair, true, pkts); err != nil {
				b.Fatal(err)
			}
		}
		sent++
	}
	b.ReportMetric(float64(to.Counters().KernelDrops)/float64(sent), "lost/op")
}
