package locator

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// BenchmarkGateway shows what an entry costs a gateway: bytes of memory each, and
// the time of the events that happen all day.
func BenchmarkGateway(b *testing.B) {
	peer := func(i int) Pair {
		return Pair{Local: here, Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 4500)}
	}
	b.Run("memory", func(b *testing.B) {
		const n = 10000
		for range b.N {
			entries := make([]*Entry, 0, n)
			before := heap()
			for i := range n {
				entries = append(entries, NewEntry(Policy{}, start, peer(i), Responder))
			}
			b.ReportMetric(float64(heap()-before)/n, "bytes/entry")
			runtime.KeepAlive(entries)
		}
	})
	b.Run("heard", func(b *testing.B) {
		e, p, now := NewEntry(Policy{}, start, peer(1), Responder), peer(1), start
		b.ReportAllocs()
		for b.Loop() {
			now = now.Add(time.Millisecond)
			e.Heard(now, p)
			e.Deadline()
		}
	})
	b.Run("move", func(b *testing.B) {
		e, now := NewEntry(Policy{}, start, peer(1), Responder), start
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			p := peer(i % 4)
			now = now.Add(time.Minute)
			e.Verify(now, p)
			e.Answered(now, p, time.Millisecond)
			e.Decisions()
		}
	})
}

// BenchmarkClient shows the cost of time passing for a client, calm and in an
// outage, by the number of pairs.
func BenchmarkClient(b *testing.B) {
	for _, n := range []int{1, 2, 8} {
		b.Run(fmt.Sprintf("pairs=%d/calm", n*n), func(b *testing.B) {
			e := crowded(n)
			now := start.Add(time.Minute)
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(time.Millisecond)
				e.Tick(now)
				e.Deadline()
				e.Decisions()
			}
		})
		b.Run(fmt.Sprintf("pairs=%d/outage", n*n), func(b *testing.B) {
			e := crowded(n)
			now := start.Add(time.Minute)
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(10 * time.Millisecond)
				e.Unanswered(now, start)
				e.Deadline()
				e.Decisions()
			}
		})
	}
}

// crowded returns an entry with n addresses on both sides.
func crowded(n int) *Entry {
	var ls []Local
	var fs []Foreign
	for i := range n {
		ls = append(ls, Local{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)}), Interface: 2 + i, Name: "wlan0"})
		fs = append(fs, Foreign{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + i)}), 4500)})
	}
	e := NewEntry(Policy{}, start, onWifi(gw1))
	e.SetForeign(start, fs)
	e.SetLocal(start, ls)
	for i := range 20 {
		for _, p := range e.Pairs() {
			e.Answered(start.Add(time.Duration(i)*time.Second), p.Pair, 10*time.Millisecond)
		}
	}
	e.Decisions()
	return e
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
