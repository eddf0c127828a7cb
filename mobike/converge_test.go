package mobike

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/simnet"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// converged is how soon after the last of several changes traffic has to be back.
const converged = 2 * time.Second

// back checks that traffic resumes within a time from now on, in the same session.
func (w *world) back(limit time.Duration) {
	w.t.Helper()
	start := w.net.Now()
	ok := w.net.RunUntil(func() bool { return w.client.lastGood.After(start) && w.steady() }, start.Add(limit))
	if err := w.net.Err(); err != nil {
		w.t.Fatal(err)
	}
	if len(w.client.closed)+len(w.server.closed) != 0 {
		w.t.Fatalf("sessions closed: %v %v", w.client.closed, w.server.closed)
	}
	if !ok {
		w.t.Errorf("no traffic %v after the last change; client on %v, server sends to %v", limit, w.client.path.Pair, w.server.path.Pair)
	}
}

// TestFlappingUplink has an uplink come and go faster than anybody can use it.
func TestFlappingUplink(t *testing.T) {
	for _, every := range []time.Duration{50 * time.Millisecond, 300 * time.Millisecond, time.Second} {
		t.Run(every.String(), func(t *testing.T) {
			w := connected(t, 1)
			w.b.SetUp(true)
			w.client.changed()
			w.run(2 * time.Second)
			for i := range 21 { // it ends with the better uplink gone
				w.a.SetUp(i%2 == 1)
				w.client.changed()
				w.run(every)
			}
			w.back(converged)
			// It was tried less and less often: flapping does not take the traffic along.
			if n := len(w.client.changes); n > 12 {
				t.Errorf("%d moves for 21 changes", n)
			}
		})
	}
}

// TestBothMove has client and gateway change addresses in the same second, in either
// order and with gaps between that matter. One of the gateway's addresses stays, or the
// two would have no way to find each other.
func TestBothMove(t *testing.T) {
	for _, gap := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 12 * time.Millisecond, 50 * time.Millisecond, 300 * time.Millisecond, time.Second} {
		for _, clientFirst := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v apart, client first %v", gap, clientFirst), func(t *testing.T) {
				w := connected(t, 1)
				w.run(2 * time.Second)
				client := func() { w.b.SetUp(true); w.a.SetUp(false); w.client.changed() }
				server := func() { w.s1.SetUp(false); w.server.changed() }
				first, second := client, server
				if !clientFirst {
					first, second = server, client
				}
				first()
				w.run(gap)
				second()
				w.back(converged)
				if w.client.path.Pair.Local.Addr() != addrB || w.client.path.Pair.Remote.Addr() != srv2 {
					t.Errorf("client on %v", w.client.path.Pair)
				}
			})
		}
	}
}

// TestMoveDuringRekey moves at every moment of a rekeying, of the IKE SA and of the Child
// SA, begun by either side.
func TestMoveDuringRekey(t *testing.T) {
	rekey := map[string]func(w *world){
		"IKE SA by the client": func(w *world) { _ = w.client.engine.RekeyIKE(w.net.Now(), w.client.id); w.client.settle() },
		"IKE SA by the gateway": func(w *world) {
			_ = w.server.engine.RekeyIKE(w.net.Now(), w.server.id)
			w.server.settle()
		},
		"Child SA by the client":  func(w *world) { w.client.rekeyChildren() },
		"Child SA by the gateway": func(w *world) { w.server.rekeyChildren() },
		"everything at once": func(w *world) {
			_ = w.client.engine.RekeyIKE(w.net.Now(), w.client.id)
			_ = w.server.engine.RekeyIKE(w.net.Now(), w.server.id)
			w.client.rekeyChildren()
			w.server.rekeyChildren()
		},
	}
	for name, begin := range rekey {
		for at := time.Duration(0); at <= 40*time.Millisecond; at += 4 * time.Millisecond {
			t.Run(fmt.Sprintf("%s, %v later", name, at), func(t *testing.T) {
				w := connected(t, 1)
				w.b.SetUp(true)
				w.client.changed()
				w.run(2 * time.Second)
				begin(w)
				w.run(at)
				w.a.SetUp(false)
				w.client.changed()
				w.back(converged)
			})
		}
	}
}

func (n *node) rekeyChildren() {
	for _, s := range n.engine.Sessions() {
		for _, c := range s.Children {
			_ = n.engine.RekeyChild(n.w.net.Now(), s.ID, c.ID)
		}
	}
	n.settle()
}

// TestMoveDuringConnect loses the uplink at every moment of the first exchanges. Either
// the session survives it, or the client knows soon that it has to begin anew: before
// MOBIKE is agreed nothing can move.
func TestMoveDuringConnect(t *testing.T) {
	survived := 0
	for at := time.Duration(0); at <= 40*time.Millisecond; at += 2 * time.Millisecond {
		t.Run(at.String(), func(t *testing.T) {
			w := newWorld(t, 1, func(w *world) { w.allUp = true })
			t.Cleanup(func() { w.net.Report(t) })
			w.run(at)
			w.a.SetUp(false)
			w.client.changed()
			if w.client.established == 0 {
				// As the daemon does: the address is gone, the attempt with it.
				w.client.engine.Abort(w.net.Now(), w.client.id, "address-gone")
				w.client.settle()
				if len(w.client.closed) != 1 {
					t.Error("the attempt goes on without an address")
				}
				return
			}
			survived++
			w.talk(10 * time.Millisecond)
			w.back(converged)
		})
	}
	if survived == 0 {
		t.Error("no session was up in time to survive")
	}
}

// TestLongOutages waits for the network, for up to half an hour, and is back at once.
func TestLongOutages(t *testing.T) {
	for _, outage := range []time.Duration{30 * time.Second, time.Minute, 30 * time.Minute} {
		for name, cut := range map[string]func(w *world) func(){
			"nothing gets through": func(w *world) func() {
				w.net.SetFilter(func(simnet.Packet) bool { return true })
				return func() { w.net.SetFilter(nil) }
			},
			"no uplink, then another one": func(w *world) func() {
				w.a.SetUp(false)
				w.client.changed()
				return func() { w.b.SetUp(true); w.client.changed() }
			},
		} {
			t.Run(fmt.Sprintf("%s for %v", name, outage), func(t *testing.T) {
				w := connected(t, 1, func(w *world) {
					w.tune = func(client, server *ike.Policy) {
						// What the daemons ask for, whose sessions outlive long silence.
						client.PeerTimeout, server.PeerTimeout = time.Hour, time.Hour
					}
				})
				restore := cut(w)
				w.run(outage)
				restore()
				w.back(500 * time.Millisecond)
				if w.client.established != 1 {
					t.Errorf("%d sessions were made", w.client.established)
				}
			})
		}
	}
}

// TestHostileGateway has an authenticated gateway name addresses of victims as its own,
// again and again. The client sends each packet out of one small budget, and no data.
func TestHostileGateway(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	w := connected(t, 1)
	home := map[netip.Addr]bool{srv1: true, srv2: true, srv1v6: true}
	probes, data := 0, 0
	w.net.SetFilter(func(p simnet.Packet) bool {
		if a := p.Src.Addr(); a != addrA && a != natPub || home[p.Dst.Addr()] {
			return false
		}
		if p.Data[0] == 0xd0 {
			data++
		}
		probes++
		return true
	})
	const minutes = 10
	name := func() {
		list := w.server.locals()
		for range 16 {
			v := netip.AddrFrom4([4]byte{100, 70, byte(rng.IntN(256)), byte(rng.IntN(256))})
			list = append(list, locator.Local{Addr: v, Interface: w.s1.Index()})
		}
		rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		w.server.engine.EachSession(w.net.Now(), func(now time.Time, s *ike.Session) { SetLocal(now, s, list) })
		w.server.settle()
	}
	for i := range minutes * 12 {
		name()
		if i == 60 { // the true path dies: still nobody else gets the traffic
			w.net.Block(addrA, srv1)
		}
		w.run(5 * time.Second)
	}
	t.Logf("%d packets to victims in %d minutes", probes, minutes)
	if data != 0 {
		t.Errorf("%d data packets went to victims", data)
	}
	if limit := w.policy.UnprovenBurst + w.policy.UnprovenPerMinute*minutes; probes == 0 || probes > limit {
		t.Errorf("%d packets went to victims, want some, and at most %d", probes, limit)
	}
	if len(w.client.closed) != 0 {
		t.Errorf("session closed: %v", w.client.closed)
	}
}
