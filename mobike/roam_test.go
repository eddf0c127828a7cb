package mobike

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/simnet"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

func TestLinkSwitch(t *testing.T) {
	w := connected(t, 1)
	w.b.SetUp(true)
	w.client.changed()
	w.run(2 * time.Second)
	w.a.SetUp(false)
	w.client.changed()
	w.run(2 * time.Second)
	w.alive(50 * time.Millisecond)
	if w.client.path.Pair.Local.Addr() != addrB || w.server.path.Pair.Remote.Addr() != natPub {
		t.Errorf("client on %v, server sends to %v", w.client.path.Pair, w.server.path.Pair)
	}
	if !w.client.path.UDP || w.client.path.Keepalive == 0 {
		t.Errorf("behind the NAT without keepalives: %+v", w.client.path)
	}
	w.a.SetUp(true)
	w.client.changed()
	w.run(20 * time.Second)
	w.alive(50 * time.Millisecond)
	if w.client.path.Pair.Local.Addr() != addrA || w.client.path.Keepalive != 0 {
		t.Errorf("did not come back to the better uplink: %+v", w.client.path)
	}
}

func TestBreakBeforeMake(t *testing.T) {
	w := connected(t, 1)
	w.a.SetUp(false)
	w.client.changed()
	w.run(2 * time.Second)
	w.client.gaps, w.client.lastGood = 0, w.net.Now()
	w.b.SetUp(true)
	w.client.changed()
	w.run(2 * time.Second)
	w.alive(100 * time.Millisecond)
}

func TestIPv4ToIPv6(t *testing.T) {
	w := connected(t, 1)
	w.c.SetUp(true)
	w.client.changed()
	w.run(2 * time.Second)
	w.a.SetUp(false)
	w.client.changed()
	w.run(2 * time.Second)
	w.alive(50 * time.Millisecond)
	if w.client.path.Pair.Remote.Addr() != srv1v6 {
		t.Errorf("client on %v", w.client.path.Pair)
	}
}

func TestServerAddressWithdrawn(t *testing.T) {
	w := connected(t, 1)
	w.run(2 * time.Second)
	w.s1.SetUp(false)
	w.server.changed()
	w.run(3 * time.Second)
	w.alive(500 * time.Millisecond)
	if w.client.path.Pair.Remote.Addr() != srv2 {
		t.Errorf("client on %v", w.client.path.Pair)
	}
	for _, c := range w.server.changes {
		if c.Gap < 0 || c.Gap > time.Second {
			t.Errorf("a move that took %v: %+v", c.Gap, c)
		}
	}
}

func TestSilentPathFailure(t *testing.T) {
	for _, tc := range []struct {
		name     string
		from, to []netip.Addr
	}{
		{"both ways", []netip.Addr{addrA, srv1}, []netip.Addr{srv1, addrA}},
		{"there", []netip.Addr{addrA}, []netip.Addr{srv1}},
		{"back", []netip.Addr{srv1}, []netip.Addr{addrA}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := connected(t, 1)
			w.b.SetUp(true)
			w.client.changed()
			w.run(5 * time.Second)
			for i := range tc.from {
				w.net.Block(tc.from[i], tc.to[i])
			}
			w.run(5 * time.Second)
			w.alive(time.Second)
		})
	}
}

// TestGapIsMeasured compares the gap that a handover reports with the one that traffic
// had.
func TestGapIsMeasured(t *testing.T) {
	for _, tc := range []struct {
		name  string
		event func(w *world)
	}{
		{"silent failure", func(w *world) { w.net.Block(addrA, srv1) }},
		{"link lost", func(w *world) { w.a.SetUp(false); w.client.changed() }},
		{"two seconds without a link", func(w *world) {
			w.a.SetUp(false)
			w.b.SetUp(false)
			w.client.changed()
			w.run(2 * time.Second)
			w.b.SetUp(true)
			w.client.changed()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := connected(t, 1)
			w.b.SetUp(true)
			w.client.changed()
			w.run(5 * time.Second)
			w.client.gaps, w.client.lastGood = 0, w.net.Now()
			tc.event(w)
			w.run(3 * time.Second)
			if len(w.client.confirmed) != 1 {
				t.Fatalf("%d moves confirmed of %d", len(w.client.confirmed), len(w.client.changes))
			}
			if told, real := w.client.confirmed[0].Gap, w.client.gaps; (told - real).Abs() > 50*time.Millisecond {
				t.Errorf("told %v, traffic had %v", told, real)
			}
		})
	}
}

func TestSilentPathFailureWithOneUplink(t *testing.T) {
	w := connected(t, 1)
	w.run(2 * time.Second)
	w.net.Block(addrA, srv1)
	w.net.Block(srv1, addrA)
	w.run(5 * time.Second)
	w.alive(3 * time.Second)
	if w.client.path.Pair.Remote.Addr() == srv1 {
		t.Errorf("client on %v", w.client.path.Pair)
	}
}

func TestNATRebinds(t *testing.T) {
	for _, early := range []bool{false, true} {
		w := connected(t, 1)
		w.b.SetUp(true)
		w.a.SetUp(false)
		w.client.changed()
		if !early {
			w.run(15 * time.Second)
		} else {
			w.run(300 * time.Millisecond)
		}
		w.client.gaps, w.client.lastGood = 0, w.net.Now()
		w.nat.Rebind()
		w.run(3 * time.Second)
		w.alive(500 * time.Millisecond)
		w.nat.SetPublic(natTwo)
		w.run(3 * time.Second)
		w.alive(500 * time.Millisecond)
		if w.server.path.Pair.Remote.Addr() != natTwo {
			t.Errorf("server sends to %v", w.server.path.Pair)
		}
		for _, c := range w.server.changes {
			if c.Gap < 0 || c.Gap > time.Second {
				t.Errorf("early %v: a move that took %v: %+v", early, c.Gap, c)
			}
		}
	}
}

// TestMappingOfAnotherPath: an answer that the gateway made for another path, and repeated
// on the one in use, says nothing about the NAT there.
func TestMappingOfAnotherPath(t *testing.T) {
	w := connected(t, 1)
	w.b.SetUp(true)
	w.client.changed()
	w.run(30 * time.Second)
	moves := len(w.client.changes)
	other := locator.Pair{Local: netip.AddrPortFrom(addrB, 4500), Remote: netip.AddrPortFrom(srv1, 4500)}
	for range 3 {
		w.run(10 * time.Second)
		w.net.SetFilter(func(p simnet.Packet) bool { return p.Src.Addr() == srv1 && p.Dst.Addr() != addrA }) // the answer there is lost
		_ = w.client.engine.WithSession(w.net.Now(), w.client.id, func(now time.Time, x *ike.Session) {
			HintOn(now, x, other, locator.ICMPError)
		})
		w.client.settle()
		w.run(3 * time.Second)
		w.net.SetFilter(nil)
	}
	w.alive(100 * time.Millisecond)
	if n := len(w.client.changes) - moves; n != 0 {
		t.Errorf("%d moves: %+v", n, w.client.changes[moves:])
	}
}

func TestOutage(t *testing.T) {
	for _, d := range []time.Duration{30 * time.Second, time.Minute} {
		w := connected(t, 1)
		w.net.SetFilter(func(simnet.Packet) bool { return true })
		w.run(d)
		w.net.SetFilter(nil)
		w.client.gaps, w.client.lastGood = 0, w.net.Now()
		w.run(3 * time.Second)
		w.alive(500 * time.Millisecond)
	}
}

// TestIdleCost counts what a client with two uplinks, one of them behind a NAT, sends while
// nothing happens: at most a packet each 20 seconds on a pair, with default settings.
func TestIdleCost(t *testing.T) {
	for _, onNAT := range []bool{false, true} {
		w := connected(t, 1, func(w *world) {
			w.tune = func(client, server *ike.Policy) {
				client.LivenessDelay, server.LivenessDelay = 30*time.Second, 30*time.Second
			}
		})
		w.traffic = 0
		w.b.SetUp(true)
		if onNAT {
			w.a.SetUp(false)
		}
		w.client.changed()
		w.run(time.Second)
		w.a.SetUp(true)
		if onNAT { // the user prefers it
			w.client.engine.EachSession(w.net.Now(), func(now time.Time, s *ike.Session) {
				locals := w.client.locals()
				for i := range locals {
					if locals[i].Addr == addrB {
						locals[i].Preference = 0
					}
				}
				SetLocal(now, s, locals)
			})
			w.client.settle()
		}
		w.run(30 * time.Second)
		if got := w.client.path.Pair.Local.Addr() == addrB; got != onNAT {
			t.Fatalf("client on %v", w.client.path.Pair)
		}
		sent := map[[2]netip.Addr]int{}
		w.net.SetFilter(func(p simnet.Packet) bool {
			if a := p.Src.Addr(); a == addrA || a == addrB {
				sent[[2]netip.Addr{a, p.Dst.Addr()}]++
			}
			return false
		})
		const idle = 20 * time.Minute
		w.run(idle)
		t.Logf("on the NAT %v: datagrams of the client in %v by pair: %v", onNAT, idle, sent)
		if len(sent) != 4 {
			t.Errorf("%d pairs in use or standby, want 4", len(sent))
		}
		for pair, n := range sent {
			if n > int(idle/(20*time.Second)) {
				t.Errorf("%v: %d datagrams in %v", pair, n, idle)
			}
		}
		// Standby is worth it: the other uplink takes over at once.
		w.net.SetFilter(nil)
		w.talk(10 * time.Millisecond)
		w.run(time.Second)
		w.alive(200 * time.Millisecond)
	}
}

// TestColdStandby sends nothing over other pairs while all is well, and finds one when
// it is needed.
func TestColdStandby(t *testing.T) {
	w := connected(t, 1, func(w *world) { w.policy.Standby = locator.Cold })
	w.b.SetUp(true)
	w.client.changed()
	w.run(5 * time.Second)
	aside := 0
	w.net.SetFilter(func(p simnet.Packet) bool {
		if p.Src.Addr() == addrB || p.Src.Addr() == addrA && p.Dst.Addr() != srv1 {
			aside++
		}
		return false
	})
	w.run(10 * time.Minute)
	if aside != 0 {
		t.Errorf("%d datagrams on pairs that are not in use", aside)
	}
	w.client.gaps, w.client.lastGood = 0, w.net.Now()
	w.net.Block(addrA, srv1)
	w.run(5 * time.Second)
	w.alive(time.Second)
}

// TestDetectionIsSettable has a path die under traffic with other times of patience. A
// path that still delivers packets, but no answers, has a little more.
func TestDetectionIsSettable(t *testing.T) {
	for _, limit := range []time.Duration{300 * time.Millisecond, 500 * time.Millisecond, 3 * time.Second} {
		for _, oneWay := range []bool{false, true} {
			w := connected(t, 1, func(w *world) {
				w.policy = w.policy.Detecting(limit)
				w.unanswered = w.policy.SuspectAfter
			})
			w.b.SetUp(true)
			w.client.changed()
			w.run(5 * time.Second)
			w.client.gaps, w.client.lastGood = 0, w.net.Now()
			w.net.Block(addrA, srv1)
			most := limit + limit*2/5
			if !oneWay {
				w.net.Block(srv1, addrA)
				most = limit
			}
			w.run(10 * time.Second)
			w.alive(most + 50*time.Millisecond) // two round trips, two intervals of traffic
			if w.client.gaps < limit/2 {
				t.Errorf("%v: moved after %v already", limit, w.client.gaps)
			}
		}
	}
}

// TestFamilyIsKept has a choice of families after the gateway's address is gone, and
// stays with the one it came up with.
func TestFamilyIsKept(t *testing.T) {
	w := connected(t, 1)
	w.a.AddAddr(netip.MustParseAddr("2001:db8:a::10"))
	w.client.changed()
	w.run(2 * time.Second)
	w.s1.RemoveAddr(srv1)
	w.server.changed()
	w.run(3 * time.Second)
	w.alive(500 * time.Millisecond)
	if w.client.path.Pair.Remote.Addr() != srv2 {
		t.Errorf("client on %v, want the gateway's other IPv4 address", w.client.path.Pair)
	}
}

// TestNoRedirectToVictim has an authenticated client claim a victim's address.
func TestNoRedirectToVictim(t *testing.T) {
	victim := netip.MustParseAddr("192.0.2.99")
	w := connected(t, 1)
	requests, data := 0, 0
	w.net.SetFilter(func(p simnet.Packet) bool {
		if p.Dst.Addr() == victim {
			// An answer follows a packet of the attacker's own making, which it could
			// have sent to the victim itself; what counts is what we begin.
			switch {
			case p.Data[0] == 0xd0:
				data++
			case message.Flags(bytes.TrimPrefix(p.Data, marker)[19])&message.FlagResponse == 0:
				requests++
			}
		}
		return false
	})
	// The laptop sends with the victim's source address: as if from there.
	w.a.AddAddr(victim)
	w.net.Block(netip.Addr{}, victim)
	w.client.engine.EachSession(w.net.Now(), func(now time.Time, s *ike.Session) {
		SetLocal(now, s, []locator.Local{{Addr: victim, Interface: w.a.Index(), Name: "if1"}})
	})
	w.client.settle()
	w.run(30 * time.Second)
	if data != 0 {
		t.Errorf("%d data packets went to an address that never answered", data)
	}
	if p := w.policy; requests > p.UnprovenBurst+p.UnprovenPerMinute {
		t.Errorf("%d requests went to the victim", requests)
	}
}

// TestSeveralPairsFromTheStart connects with all uplinks there and the gateway's
// addresses told in IKE_AUTH: there is a lot to probe before the session is up.
func TestSeveralPairsFromTheStart(t *testing.T) {
	w := newWorld(t, 1, func(w *world) { w.allUp = true })
	t.Cleanup(func() { w.net.Report(t) })
	early := 0
	w.net.SetFilter(func(p simnet.Packet) bool {
		h, err := message.ParseHeader(p.Data)
		if err == nil && h.Exchange == message.Informational && w.client.established == 0 {
			early++
		}
		return false
	})
	w.run(5 * time.Second)
	if w.client.established != 1 || early != 0 {
		t.Fatalf("established %d, %d requests before the session was up", w.client.established, early)
	}
	w.talk(10 * time.Millisecond)
	w.run(time.Second)
	w.alive(50 * time.Millisecond)
	verified := 0
	w.client.engine.EachSession(w.net.Now(), func(_ time.Time, s *ike.Session) {
		pairs, _ := Paths(s)
		for _, p := range pairs {
			if p.Verification == locator.Verified && p.Reachability == locator.Operational {
				verified++
			}
		}
	})
	if verified < 4 {
		t.Errorf("%d pairs verified", verified)
	}
}
