package mobike

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/simnet"
)

// narrow makes the path from one address to another carry no more than mtu, drop
// fragments, and tell nobody.
func (w *world) narrow(from, to netip.Addr, mtu int, loss float64) {
	w.net.SetPath(from, to, simnet.Conditions{Delay: 5 * time.Millisecond, MTU: mtu, DropFragments: true, Loss: loss})
}

func TestPathMTUIsFound(t *testing.T) {
	for _, tc := range []struct {
		name           string
		v6             bool
		client, server int // MTU from there
		loss           float64
	}{
		{"wide", false, 1500, 1500, 0},
		{"both directions 1400", false, 1400, 1400, 0},
		{"both directions 1280", false, 1280, 1280, 0},
		{"to the gateway only", false, 1400, 1500, 0},
		{"from the gateway only", false, 1500, 1280, 0},
		{"each its own", false, 1380, 1492, 0},
		{"below 1280", false, 1006, 1500, 0},
		{"wide, IPv6", true, 1500, 1500, 0},
		{"IPv6", true, 1400, 1280, 0},
		{"lossy", false, 1400, 1500, 0.05},
		{"lossy IPv6", true, 1500, 1420, 0.05},
	} {
		t.Run(tc.name, func(t *testing.T) {
			from, to := addrA, srv1
			if tc.v6 {
				from, to = addrC, srv1v6
			}
			w := newWorld(t, 3, func(w *world) {
				w.large, w.allUp = true, true
				w.narrow(from, to, tc.client, tc.loss)
				w.narrow(to, from, tc.server, tc.loss)
			})
			t.Cleanup(func() { w.net.Report(t) })
			w.run(3 * time.Second)
			if tc.v6 {
				w.a.SetUp(false)
				w.b.SetUp(false)
				w.client.changed()
			}
			w.talk(20 * time.Millisecond)
			w.run(30 * time.Second)
			if w.client.path.Pair.Remote.Addr() != to {
				t.Fatalf("client is on %v", w.client.path.Pair)
			}
			for _, n := range []struct {
				*node
				want int
			}{{w.client, tc.client}, {w.server, tc.server}} {
				if got := n.path.MTU; got > n.want || tc.loss == 0 && got != n.want || got < n.want-100 {
					t.Errorf("%s found %d, want %d (%v)", n.name, got, n.want, n.mtus)
				}
			}
		})
	}
}

// A path becomes narrow under traffic that fills it. Nobody is told, but traffic goes on
// after less time than it takes TCP to double its timeout twice.
func TestPathBecomesNarrow(t *testing.T) {
	for _, tc := range []struct {
		name     string
		from, to netip.Addr
		mtu      int
	}{
		{"to the gateway, 1400", addrA, srv1, 1400},
		{"to the gateway, 1280", addrA, srv1, 1280},
		{"from the gateway, 1400", srv1, addrA, 1400},
		{"from the gateway, 1280", srv1, addrA, 1280},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := connected(t, 1, func(w *world) { w.large = true })
			w.run(5 * time.Second)
			if w.client.path.MTU != 1500 || w.server.path.MTU != 1500 {
				t.Fatalf("at first %d and %d", w.client.path.MTU, w.server.path.MTU)
			}
			w.narrow(tc.from, tc.to, tc.mtu, 0)
			w.run(5 * time.Second)
			w.alive(1300 * time.Millisecond)
			got := w.client.path.MTU
			if tc.from == srv1 {
				got = w.server.path.MTU
			}
			if got != tc.mtu {
				t.Errorf("found %d, want %d", got, tc.mtu)
			}
			if len(w.client.changes) != 0 {
				t.Errorf("the client moved: %v", w.client.changes)
			}
		})
	}
}

// What follows a move is safe at once, then as large as the path; a path that was used
// before is as it was.
func TestPathMTUFollowsMoves(t *testing.T) {
	w := connected(t, 1)
	w.run(time.Second)
	w.b.SetUp(true)
	w.client.changed()
	w.run(time.Second)
	for i, want := range [][]int{{1280, 1500}, {1500}} {
		w.client.mtus = nil
		link, other := w.a, w.b
		if i == 1 {
			link, other = w.b, w.a
		}
		other.SetUp(true)
		link.SetUp(false)
		w.client.changed()
		w.run(time.Second)
		if got := slices.Compact(w.client.mtus); !slices.Equal(got, want) {
			t.Errorf("move %d: MTU %v, want %v", i+1, got, want)
		}
		if w.server.path.MTU != 1500 {
			t.Errorf("move %d: the gateway takes the path for %d", i+1, w.server.path.MTU)
		}
	}
	w.alive(50 * time.Millisecond)
}

// A move does not wait for a probe, whenever it comes.
func TestMovesInterruptProbes(t *testing.T) {
	for offset := time.Duration(0); offset < 1500*time.Millisecond; offset += 23 * time.Millisecond {
		t.Run(fmt.Sprint(offset), func(t *testing.T) {
			w := connected(t, 1, func(w *world) {
				w.allUp = true
				w.narrow(addrA, srv1, 1310, 0)
				w.narrow(srv1, addrA, 1310, 0)
			})
			w.client.gaps, w.client.lastGood = 0, w.net.Now()
			w.narrow(addrA, srv1, 1290, 0) // probes begin
			w.run(offset)
			w.a.SetUp(false)
			w.client.changed()
			w.run(time.Second)
			w.alive(50 * time.Millisecond)
		})
	}
}

// Without fragmentation of IKE a probe that is too large could not be taken back: there
// are none, and nothing is claimed about the path.
func TestNoProbesWithoutFragmentation(t *testing.T) {
	w := connected(t, 1, func(w *world) { w.whole = true })
	w.run(time.Minute)
	if w.client.probes+w.server.probes != 0 || w.client.path.MTU != 0 {
		t.Errorf("%d and %d probes, MTU %d", w.client.probes, w.server.probes, w.client.path.MTU)
	}
	w.alive(50 * time.Millisecond)
}
