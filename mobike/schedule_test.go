package mobike

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/simnet"
)

// schedules is how many random histories are run; WAYFARER_SCHEDULES asks for more.
func schedules(t *testing.T) int {
	if n, err := strconv.Atoi(os.Getenv("WAYFARER_SCHEDULES")); err == nil {
		return n
	}
	if testing.Short() || raceDetector {
		return 200
	}
	return 10000
}

// TestRandomMobility runs random histories: uplinks of both sides come and go, NATs
// rebind, paths go dark in one direction or both, packets are lost, SAs are rekeyed
// meanwhile. Whatever happens, the session lives, no data goes to an address that
// is not one of the two hosts', and once the network has some way through, traffic
// is back within the bound that the probing schedule implies.
func TestRandomMobility(t *testing.T) {
	for seed := range uint64(schedules(t)) {
		history(t, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func history(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 11))
	loss := []float64{0, 0, 0.05, 0.15, 0.3}[rng.IntN(5)]
	w := newWorld(t, seed)
	w.run(2 * time.Second)
	if w.client.established != 1 {
		t.Fatalf("not connected: %v", w.client.closed)
	}
	w.talk(50 * time.Millisecond)
	w.transit = simnet.Conditions{Delay: time.Duration(1+rng.IntN(40)) * time.Millisecond, Loss: loss}
	w.net.SetTransit(w.transit)
	w.net.OnStep(w.invariants)
	for range 6 + rng.IntN(6) {
		w.disturb(rng)
		w.run(time.Duration(rng.IntN(3000)) * time.Millisecond)
	}
	w.calm()
	// Back-off of a lossy path is part of the bound; without loss it is the
	// schedule's.
	bound := 3 * time.Second
	if loss > 0 {
		bound = 20 * time.Second
	}
	start := w.net.Now()
	ok := w.net.RunUntil(func() bool { return w.client.lastGood.After(start) && w.steady() }, start.Add(bound))
	if err := w.net.Err(); err != nil {
		t.Fatal(err)
	}
	if !ok || len(w.client.closed)+len(w.server.closed) != 0 {
		t.Errorf("seed %d: traffic not back %v after the last change (loss %v): client %v, server %v; closed %v %v",
			seed, bound, loss, w.client.path.Pair, w.server.path.Pair, w.client.closed, w.server.closed)
		w.net.Report(t)
	}
}

// steady says whether answers are coming in now.
func (w *world) steady() bool { return w.net.Now().Sub(w.client.lastGood) < 200*time.Millisecond }

// disturb changes one thing about the network, and tells who would notice.
func (w *world) disturb(rng *rand.Rand) {
	uplinks := []*simnet.Link{w.a, w.b, w.c}
	switch rng.IntN(10) {
	case 0, 1, 2: // a laptop's uplink comes or goes
		l := uplinks[rng.IntN(len(uplinks))]
		l.SetUp(!l.Up())
		w.client.changed()
	case 3: // one of the gateway's
		l := []*simnet.Link{w.s1, w.s2}[rng.IntN(2)]
		l.SetUp(!l.Up())
		w.server.changed()
	case 4:
		w.nat.Rebind()
	case 5:
		w.nat.SetPublic([]netip.Addr{natPub, natTwo}[rng.IntN(2)])
	case 6: // a path goes dark, one way or both
		from, to := []netip.Addr{addrA, natPub, addrC}[rng.IntN(3)], []netip.Addr{srv1, srv2, srv1v6}[rng.IntN(3)]
		w.net.Block(from, to)
		if rng.IntN(2) == 0 {
			w.net.Block(to, from)
		}
	case 7:
		_ = w.client.engine.RekeyIKE(w.net.Now(), w.client.id)
		w.client.settle()
	case 8:
		for _, s := range w.server.engine.Sessions() {
			for _, c := range s.Children {
				_ = w.server.engine.RekeyChild(w.net.Now(), s.ID, c.ID)
			}
		}
		w.server.settle()
	case 9: // the network carries less, or more again, and nobody says so
		w.transit.MTU = []int{0, 1400, 1280, 1000}[rng.IntN(4)]
		w.transit.DropFragments = rng.IntN(2) == 0
		w.net.SetTransit(w.transit)
	}
}

// calm lets everything work again.
func (w *world) calm() {
	for _, from := range []netip.Addr{addrA, natPub, addrC} {
		for _, to := range []netip.Addr{srv1, srv2, srv1v6} {
			w.net.Unblock(from, to)
			w.net.Unblock(to, from)
		}
	}
	for _, l := range []*simnet.Link{w.a, w.b, w.c, w.s1, w.s2} {
		l.SetUp(true)
	}
	w.client.changed()
	w.server.changed()
}

// invariants hold after every step.
func (w *world) invariants(*simnet.Network) error {
	for _, n := range []*node{w.client, w.server} {
		if len(n.closed) != 0 {
			return fmt.Errorf("%s lost its session: %s %s", n.name, n.closed[0].Reason, n.closed[0].Detail)
		}
	}
	switch w.server.path.Pair.Remote.Addr() {
	case addrA, natPub, natTwo, addrC:
	default:
		return fmt.Errorf("the server sends to %v", w.server.path.Pair.Remote)
	}
	return nil
}
