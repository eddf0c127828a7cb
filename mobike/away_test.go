package mobike

import (
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/simnet"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// asShipped are the timers that both programs have by default.
func asShipped(w *world) {
	w.tune = func(client, server *ike.Policy) {
		for _, p := range []*ike.Policy{client, server} {
			p.LivenessDelay, p.PeerTimeout, p.AwayTimeout = 30*time.Second, 0, ike.DefaultAwayTimeout
			p.RekeyIKE, p.RekeyChild, p.Jitter = 4*time.Hour, time.Hour, 0.1
		}
	}
}

// TestLongAway: nothing gets through for a long time, and there is no event when it
// does again. The IKE SA is the same afterwards.
func TestLongAway(t *testing.T) {
	for _, tt := range []struct {
		name string
		d    time.Duration
		same bool // no timer renews the IKE SA meanwhile
	}{
		{"half an hour", 30 * time.Minute, true},
		{"two hours: the Child SA is due", 2 * time.Hour, true},
		{"a working day: the IKE SA is due too", 9 * time.Hour, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() && tt.d > time.Hour {
				t.Skip("short")
			}
			w := connected(t, 1, asShipped)
			spi := w.clientSPI()
			w.net.SetFilter(func(simnet.Packet) bool { return true })
			w.traffic = time.Second // as TCP does it, and kinder to the time of tests
			w.run(tt.d)
			w.traffic = 10 * time.Millisecond
			w.client.next = w.net.Now()
			w.net.SetFilter(nil)
			w.client.gaps, w.client.lastGood = 0, w.net.Now()
			w.run(3 * time.Second)
			w.alive(500 * time.Millisecond)
			w.run(10 * time.Second)
			w.alive(500 * time.Millisecond)
			if tt.same && w.clientSPI() != spi {
				t.Error("the IKE SA is another one")
			}
			w.oneChild()
		})
	}
}

// TestAwayIsBounded: a peer that never comes back is given up, by both sides.
func TestAwayIsBounded(t *testing.T) {
	w := connected(t, 1, func(w *world) {
		w.tune = func(client, server *ike.Policy) {
			client.AwayTimeout, server.AwayTimeout = 20*time.Minute, 20*time.Minute
		}
	})
	w.traffic = 0
	w.net.SetFilter(func(simnet.Packet) bool { return true })
	w.run(15 * time.Minute)
	if len(w.client.closed)+len(w.server.closed) != 0 {
		t.Fatalf("given up early: %v %v", w.client.closed, w.server.closed)
	}
	w.run(6 * time.Minute)
	if len(w.client.closed) != 1 || len(w.server.closed) != 1 {
		t.Fatalf("not given up: %v %v", w.client.closed, w.server.closed)
	}
}

// TestAwayIsCheap counts how often a gateway sends to a client that sleeps. What it
// repeats may be a few fragments.
func TestAwayIsCheap(t *testing.T) {
	w := connected(t, 1, asShipped)
	w.traffic, w.client.next = 0, time.Time{}
	w.run(30 * time.Second)
	n, last := 0, time.Time{}
	w.net.SetFilter(func(p simnet.Packet) bool {
		if now := w.net.Now(); p.Dst.Addr() == addrA && now != last {
			n, last = n+1, now
		}
		return false
	})
	w.sleep(6 * time.Minute)
	n = 0
	w.sleep(10 * time.Hour)
	t.Logf("sent %d times to a sleeping client in ten hours", n)
	if n > 10*60+60 {
		t.Errorf("sent %d times", n)
	}
}

// TestAwayIsSpared: a gateway stops sending to a client that has been silent for
// long, and goes on when it hears of it, wherever it is then.
func TestAwayIsSpared(t *testing.T) {
	for _, moved := range []bool{false, true} {
		w := connected(t, 1, asShipped)
		w.traffic, w.client.next = 0, time.Time{}
		w.sleep(ike.DefaultPeerTimeout / 2)
		if w.server.path.Sparing {
			t.Fatal("spared early")
		}
		w.sleep(ike.DefaultPeerTimeout)
		if !w.server.path.Sparing {
			t.Fatal("not spared")
		}
		if moved {
			w.a.SetUp(false)
			w.b.SetUp(true)
			w.client.changed()
		}
		w.hint(locator.Resumed)
		w.run(100 * time.Millisecond)
		if w.server.path.Sparing {
			t.Errorf("still spared after it is back (moved: %v)", moved)
		}
	}
}

// TestSleep closes the lid, at home or behind a NAT that forgets, and opens it there or
// elsewhere. The client notices by its clock or is told, the session goes on.
func TestSleep(t *testing.T) {
	for _, tt := range []struct {
		name  string
		d     time.Duration
		nat   bool
		moved bool
		same  bool
	}{
		{"a nap", time.Minute, false, false, true},
		{"an hour", time.Hour, false, false, true},
		{"an hour behind a NAT", time.Hour, true, false, true},
		{"an hour, and elsewhere", time.Hour, false, true, true},
		{"a night", 10 * time.Hour, false, false, false},
		{"a night behind a NAT", 10 * time.Hour, true, false, false},
		{"a night, and elsewhere", 10 * time.Hour, false, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := connected(t, 1, asShipped)
			if tt.nat {
				w.b.SetUp(true)
				w.a.SetUp(false)
				w.client.changed()
				w.run(5 * time.Second)
			}
			spi := w.clientSPI()
			w.sleep(tt.d)
			if tt.nat {
				w.nat.Rebind()
				w.nat.SetPublic(natTwo)
			}
			if tt.moved {
				w.a.SetUp(false)
				w.b.SetUp(true)
			}
			w.client.gaps, w.client.lastGood = 0, w.net.Now()
			w.client.changed()
			w.hint(locator.Resumed)
			w.run(3 * time.Second)
			w.alive(200 * time.Millisecond)
			w.run(10 * time.Second)
			w.alive(200 * time.Millisecond)
			if tt.same && w.clientSPI() != spi {
				t.Error("the IKE SA is another one")
			}
			w.oneChild()
		})
	}
}

func (w *world) clientSPI() (spi uint64) {
	for _, i := range w.client.engine.Sessions() {
		spi = uint64(i.SPIi)
	}
	return spi
}

// oneChild checks that both sides have come to rest with one Child SA.
func (w *world) oneChild() {
	w.t.Helper()
	for _, n := range []*node{w.client, w.server} {
		for _, i := range n.engine.Sessions() {
			if len(i.Children) != 1 {
				w.t.Errorf("%s has %d Child SAs", n.name, len(i.Children))
			}
		}
	}
}

// TestUplinkComesDuringAuth: what changes while IKE_AUTH is under way is not forgotten.
func TestUplinkComesDuringAuth(t *testing.T) {
	w := newWorld(t, 1)
	t.Cleanup(func() { w.net.Report(t) })
	w.run(12 * time.Millisecond) // IKE_SA_INIT is over, the answer to IKE_AUTH is not here
	if w.client.established != 0 {
		t.Fatal("up too early for this test")
	}
	w.b.SetUp(true)
	w.client.changed()
	w.run(time.Second)
	found := false
	w.client.engine.EachSession(w.client.clock(), func(_ time.Time, s *ike.Session) {
		pairs, _ := Paths(s)
		for _, p := range pairs {
			found = found || p.Pair.Local.Addr() == addrB
		}
	})
	if !found {
		t.Error("the second uplink is not known to the session")
	}
}
