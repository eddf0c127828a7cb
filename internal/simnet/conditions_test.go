package simnet

import (
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// TestRates compares how often something happened with its probability: within
// five standard deviations, for seeds that are fixed.
func TestRates(t *testing.T) {
	const sent = 5000
	tests := []struct {
		name       string
		conditions func(p float64) Conditions
		count      func(n *Network, b *probe) uint64
	}{
		{"loss", func(p float64) Conditions { return Conditions{Loss: p} },
			func(n *Network, b *probe) uint64 { return sent - uint64(len(b.got)) }},
		{"duplication", func(p float64) Conditions { return Conditions{Duplicate: p} },
			func(n *Network, b *probe) uint64 { return uint64(len(b.got)) - sent }},
		{"corruption", func(p float64) Conditions { return Conditions{Corrupt: p} },
			func(n *Network, b *probe) uint64 { return differing(b) }},
		{"reordering", func(p float64) Conditions { return Conditions{Reorder: p, ReorderDelay: time.Hour} },
			func(n *Network, b *probe) uint64 { return later(b, time.Hour) }},
	}
	for _, tt := range tests {
		for _, p := range []float64{0, 0.01, 0.2, 0.5, 1} {
			t.Run(fmt.Sprintf("%s/%v", tt.name, p), func(t *testing.T) {
				n, a, b := two(t, 42)
				n.SetTransit(tt.conditions(p))
				for range sent {
					send(t, a, aToB, "0123456789")
				}
				run(t, n, 2*time.Hour)
				got, want := float64(tt.count(n, b)), sent*p
				if margin := 5 * math.Sqrt(sent*p*(1-p)); math.Abs(got-want) > margin {
					t.Errorf("%v of %d, want %v ± %v", got, sent, want, margin)
				}
			})
		}
	}
}

// differing counts packets with exactly one wrong bit; more is a mistake.
func differing(b *probe) (count uint64) {
	for _, a := range b.got {
		wrong := 0
		for i, c := range []byte("0123456789") {
			wrong += bits.OnesCount8(c ^ a.data[i])
		}
		if wrong > 1 {
			return math.MaxUint32
		}
		count += uint64(wrong)
	}
	return count
}

func later(b *probe, d time.Duration) (count uint64) {
	for _, a := range b.got {
		if !a.at.Before(DefaultStart.Add(d)) {
			count++
		}
	}
	return count
}

// TestJitter checks that delays spread over the whole range and keep the order.
func TestJitter(t *testing.T) {
	n, a, b := two(t, 3)
	n.SetTransit(Conditions{Delay: 100 * time.Millisecond, Jitter: 50 * time.Millisecond})
	for i := range 1000 {
		n.After(time.Duration(i)*time.Second, func() { send(t, a, aToB, fmt.Sprintf("%04d", i)) })
		n.After(time.Duration(i)*time.Second, func() { send(t, a, aToB, fmt.Sprintf("%04d", i)) })
	}
	run(t, n, time.Hour)
	if len(b.got) != 2000 {
		t.Fatalf("%d arrived", len(b.got))
	}
	least, most := time.Hour, time.Duration(0)
	last := ""
	for i, got := range b.got {
		delay := got.at.Sub(DefaultStart) - time.Duration(i/2)*time.Second
		least, most = min(least, delay), max(most, delay)
		if string(got.data) < last {
			t.Errorf("%s after %s", got.data, last)
		}
		last = string(got.data)
	}
	if least < 100*time.Millisecond || least > 105*time.Millisecond || most > 150*time.Millisecond || most < 145*time.Millisecond {
		t.Errorf("delays from %s to %s, want 100 to 150 ms", least, most)
	}
}

func TestReorder(t *testing.T) {
	n, a, b := two(t, 3)
	n.SetTransit(Conditions{Delay: time.Millisecond, Reorder: 1})
	send(t, a, aToB, "held")
	run(t, n, 0)
	n.SetTransit(Conditions{Delay: time.Millisecond})
	send(t, a, aToB, "passes")
	run(t, n, time.Second)
	if got := b.texts(); got != "passes held" {
		t.Errorf("order %q", got)
	}
	if at := b.got[1].at.Sub(DefaultStart); at != time.Millisecond+defaultReorderDelay {
		t.Errorf("held back until %s", at)
	}
}

// TestBandwidth sends ten packets of 1000 octets (972 and headers) at once into
// 80 kbit/s: they leave one every 100 ms, and not all find room in a short queue.
func TestBandwidth(t *testing.T) {
	payload := strings.Repeat("x", 972)
	n, a, b := two(t, 1)
	n.SetTransit(Conditions{Bandwidth: 80_000})
	for range 10 {
		send(t, a, aToB, payload)
	}
	run(t, n, time.Minute)
	for i, got := range b.got {
		if at, want := got.at.Sub(DefaultStart), time.Duration(i+1)*100*time.Millisecond; at != want {
			t.Errorf("packet %d at %s, want %s", i, at, want)
		}
	}
	if len(b.got) != 10 {
		t.Errorf("%d arrived", len(b.got))
	}

	n.SetTransit(Conditions{Bandwidth: 80_000, Queue: 3000})
	for range 10 {
		send(t, a, aToB, payload)
	}
	run(t, n, time.Minute)
	if got := len(b.got) - 10; got != 3 {
		t.Errorf("%d arrived through a queue for three", got)
	}
	if dropped := n.Stats().Dropped[QueueFull]; dropped != 7 {
		t.Errorf("%d dropped, want 7", dropped)
	}
}

// TestWhole checks the don't fragment bit: what would go in pieces is dropped, without
// a word.
func TestWhole(t *testing.T) {
	for length, delivered := range map[int]int{1372: 1, 1373: 0} {
		n, a, b := two(t, 1)
		n.SetTransit(Conditions{MTU: 1400})
		if err := a.host.SendWhole(aToB, make([]byte, length)); err != nil {
			t.Fatal(err)
		}
		run(t, n, time.Second)
		if len(b.got) != delivered || len(a.mtus) != 0 {
			t.Errorf("%d octets: %d arrived, sender was told %v", length, len(b.got), a.mtus)
		}
	}
}

func TestMTU(t *testing.T) {
	v6a, v6b := netip.MustParseAddr("2001:db8::a"), netip.MustParseAddr("2001:db8::b")
	raw := locator.Pair{Local: netip.AddrPortFrom(addrA, 0), Remote: netip.AddrPortFrom(addrB, 0)}
	tests := []struct {
		name      string
		pair      locator.Pair
		first     Conditions // of the sender's link
		second    Conditions // of the transit
		length    int
		delivered bool
		cause     Cause
		told      int
	}{
		{"exactly", aToB, Conditions{}, Conditions{MTU: 1500, Oversize: DropSilently}, 1472, true, 0, 0},
		{"one more", aToB, Conditions{}, Conditions{MTU: 1500, Oversize: DropSilently}, 1473, false, TooBig, 0},
		{"exactly, IPv6", pairOf(v6a, v6b), Conditions{}, Conditions{MTU: 1500, Oversize: DropSilently}, 1452, true, 0, 0},
		{"one more, IPv6", pairOf(v6a, v6b), Conditions{}, Conditions{MTU: 1500, Oversize: DropSilently}, 1453, false, TooBig, 0},
		{"exactly, protocol 50", raw, Conditions{}, Conditions{MTU: 1500, Oversize: DropSilently}, 1480, true, 0, 0},
		{"one more, protocol 50", raw, Conditions{}, Conditions{MTU: 1500, Oversize: DropSilently}, 1481, false, TooBig, 0},
		{"sender is told", aToB, Conditions{}, Conditions{MTU: 1400, Oversize: DropAndTell}, 1473, false, TooBig, 1400},
		{"in pieces", aToB, Conditions{}, Conditions{MTU: 1500}, 1473, true, 0, 0},
		{"pieces are dropped", aToB, Conditions{}, Conditions{MTU: 1500, DropFragments: true}, 1473, false, Fragmented, 0},
		{"pieces are dropped later", aToB, Conditions{MTU: 1500}, Conditions{DropFragments: true}, 1473, false, Fragmented, 0},
		{"pieces fit", aToB, Conditions{MTU: 1400}, Conditions{MTU: 1400, Oversize: DropSilently}, 1473, true, 0, 0},
		{"pieces do not fit", aToB, Conditions{MTU: 1400}, Conditions{MTU: 1300, Oversize: DropSilently}, 1473, false, TooBig, 0},
		{"whole ones pass where fragments do not", aToB, Conditions{}, Conditions{MTU: 1500, DropFragments: true}, 1472, true, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, a, b := two(t, 1)
			a.host.Links()[0].AddAddr(v6a)
			b.host.Links()[0].AddAddr(v6b)
			a.host.Links()[0].SetConditions(Out, tt.first)
			n.SetTransit(tt.second)
			send(t, a, tt.pair, strings.Repeat("x", tt.length))
			run(t, n, time.Second)
			if delivered := len(b.got) == 1; delivered != tt.delivered {
				t.Errorf("delivered: %v", delivered)
			}
			if !tt.delivered && n.Stats().Dropped[tt.cause] != 1 {
				t.Errorf("dropped %v, want one %s", n.Stats().Dropped, tt.cause)
			}
			if tt.told != 0 && (len(a.mtus) != 1 || a.mtus[0] != tt.told) || tt.told == 0 && len(a.mtus) != 0 {
				t.Errorf("sender was told %v, want %d", a.mtus, tt.told)
			}
		})
	}
}

// TestFragmentLoss checks that a packet in pieces is lost more often: all of its
// pieces must arrive.
func TestFragmentLoss(t *testing.T) {
	const sent = 5000
	n, a, b := two(t, 9)
	n.SetTransit(Conditions{Loss: 0.2, MTU: 1280})
	for range sent {
		send(t, a, aToB, strings.Repeat("x", 3000)) // three pieces
	}
	run(t, n, time.Second)
	p := math.Pow(0.8, 3)
	if got, margin := float64(len(b.got)), 5*math.Sqrt(sent*p*(1-p)); math.Abs(got-sent*p) > margin {
		t.Errorf("%v arrived, want %v ± %v", got, sent*p, margin)
	}
}

func TestPieces(t *testing.T) {
	tests := []struct {
		dst         netip.AddrPort
		length, mtu int
		want        int
	}{
		{netip.MustParseAddrPort("192.0.2.1:500"), 1473, 1500, 2},
		{netip.MustParseAddrPort("192.0.2.1:500"), 2952, 1500, 2}, // 2960 = 2 × 1480
		{netip.MustParseAddrPort("192.0.2.1:500"), 2953, 1500, 3},
		{netip.MustParseAddrPort("[2001:db8::1]:500"), 1453, 1500, 2},
		{netip.MustParseAddrPort("[2001:db8::1]:500"), 2888, 1500, 2}, // 2896 = 2 × 1448
		{netip.MustParseAddrPort("[2001:db8::1]:500"), 2889, 1500, 3},
		{netip.MustParseAddrPort("192.0.2.1:500"), 10, 1, 3}, // never less than eight octets
	}
	for _, tt := range tests {
		p := Packet{Src: tt.dst, Dst: tt.dst, Data: make([]byte, tt.length)}
		if got := p.pieces(tt.mtu); got != tt.want {
			t.Errorf("%d octets to %s with MTU %d: %d pieces, want %d", tt.length, tt.dst, tt.mtu, got, tt.want)
		}
	}
}
