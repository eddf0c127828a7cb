package locator

import (
	"net/netip"
	"testing"
	"time"
)

func TestNewPairsAreVerified(t *testing.T) {
	for _, one := range []bool{false, true} {
		w := newWorld(t, Policy{}, onWifi(gw1))
		w.oneAnswer = one
		w.up(10*time.Millisecond, onWifi(gw1), onWifi(gw2))
		w.up(40*time.Millisecond, onLTE(gw1), onLTE(gw2))
		w.e.SetForeign(w.now, foreigns(gw1, gw2))
		w.e.SetLocal(w.now, []Local{wifiLocal(), lteLocal()})
		w.run(2 * time.Second)
		for _, i := range w.e.Pairs() {
			if i.Verification != Verified || i.Reachability != Operational {
				t.Errorf("one answer %v: %v is %v and %v", one, i.Pair, i.Verification, i.Reachability)
			}
			if want := w.links[i.Pair].rtt; i.Pair != onWifi(gw1) && i.RTT != want {
				t.Errorf("%v: round trip %v, want %v", i.Pair, i.RTT, want)
			}
		}
		w.wantSwitches()
		w.wantCurrent(onWifi(gw1))
	}
}

func TestLocalLossSwitchesAtOnce(t *testing.T) {
	w := twoUplinks(t, Policy{})
	w.down(onWifi(gw1), onWifi(gw2))
	w.e.SetLocal(w.now, []Local{lteLocal()})
	at := w.now
	w.obey()
	w.wantSwitches(Switch{From: onWifi(gw1), To: onLTE(gw1), Cause: LocalLost, Verified: true})
	if w.switches[0].at != at {
		t.Error("waited")
	}
	if w.since(at, onLTE(gw1)) != 1 || w.since(at, onLTE(gw2)) != 1 {
		t.Errorf("both remaining pairs have to be probed at the same time: %v", w.packets)
	}
	w.run(time.Second)
	if r, why := w.e.Health(); r != Operational || why != LocalLost {
		t.Errorf("health %v %v", r, why)
	}
	if len(w.e.Pairs()) != 2 {
		t.Errorf("pairs of the lost address remain: %v", w.e.Pairs())
	}
}

func TestBreakBeforeMake(t *testing.T) {
	w := newWorld(t, Policy{}, onWifi(gw1))
	w.up(10*time.Millisecond, onWifi(gw1))
	w.e.SetForeign(w.now, foreigns(gw1, gw2))
	w.e.SetLocal(w.now, []Local{wifiLocal()})
	w.run(time.Second)
	w.e.SetLocal(w.now, nil)
	w.obey()
	w.wantNone()
	if len(w.lost) != 1 || w.lost[0].Cause != NoLocal {
		t.Fatalf("lost: %v", w.lost)
	}
	if at, ok := w.e.Deadline(); ok {
		t.Fatalf("nothing can happen without an address, but there is a deadline %v", at)
	}
	w.run(time.Hour)
	w.up(10*time.Millisecond, onLTE(gw1))
	w.e.SetLocal(w.now, []Local{lteLocal()})
	at := w.now
	w.obey()
	// The peer's address is proven, so the pair may be used before it answers.
	w.wantSwitches(Switch{From: onWifi(gw1), To: onLTE(gw1), Cause: LocalAdded, Verified: false})
	if w.since(at, onLTE(gw1)) != 1 {
		t.Error("the new pair is not probed at once")
	}
	w.run(100 * time.Millisecond)
	if i := w.info(onLTE(gw1)); i.Verification != Verified || i.Reachability != Operational || i.Chosen != LocalAdded {
		t.Errorf("%+v", i)
	}
}

func TestWrongGuessIsCorrected(t *testing.T) {
	w := newWorld(t, Policy{}, onWifi(gw1))
	w.up(10*time.Millisecond, onWifi(gw1), onWifi(gw2))
	w.e.SetForeign(w.now, foreigns(gw1, gw2))
	w.e.SetLocal(w.now, []Local{wifiLocal()})
	w.run(time.Second)
	// From LTE only the second gateway can be reached.
	w.up(20*time.Millisecond, onLTE(gw2))
	w.e.SetLocal(w.now, []Local{lteLocal()})
	at := w.now
	w.run(time.Second)
	w.wantSwitches(
		Switch{From: onWifi(gw1), To: onLTE(gw1), Cause: LocalLost, Verified: false},
		Switch{From: onLTE(gw1), To: onLTE(gw2), Cause: LocalLost, Verified: true})
	if took := w.switches[1].at.Sub(at); took > 250*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

func TestUnprovenAddressGetsNoTraffic(t *testing.T) {
	// From IPv4 to IPv6 towards an address of the peer that never answered: traffic
	// waits for the answer.
	w := newWorld(t, Policy{}, onWifi(gw1))
	w.e.SetForeign(w.now, foreigns(gw1, gw6))
	w.e.SetLocal(w.now, []Local{wifiLocal()})
	w.run(time.Second)
	w.up(10*time.Millisecond, onWifi6(gw6))
	w.e.SetLocal(w.now, []Local{wifi6Local()})
	w.obey()
	w.wantNone()
	w.run(10 * time.Millisecond)
	w.wantSwitches(Switch{From: onWifi(gw1), To: onWifi6(gw6), Cause: LocalLost, Verified: true})

	for _, f := range []Foreign{{Addr: gw6, Origin: Configured}, {Addr: gw6, Origin: Certified}} {
		w := newWorld(t, Policy{}, onWifi(gw1))
		w.e.SetForeign(w.now, append(foreigns(gw1), f))
		w.e.SetLocal(w.now, []Local{wifi6Local()})
		w.obey()
		w.wantCurrent(onWifi6(gw6)) // somebody vouches for it
	}
	after := newWorld(t, Policy{Check: CheckAfter}, onWifi(gw1))
	after.e.SetForeign(after.now, foreigns(gw1, gw6))
	after.e.SetLocal(after.now, []Local{wifi6Local()})
	after.obey()
	after.wantCurrent(onWifi6(gw6))
	after.run(10 * time.Second) // but not if nobody answers there
	after.wantNone()
	if len(after.unproven) != 1 || len(after.lost) != 1 || after.lost[0].Cause != VerificationFailing {
		t.Errorf("unproven %v, lost %v", after.unproven, after.lost)
	}
	after.up(10*time.Millisecond, onWifi6(gw6))
	after.run(2 * time.Minute)
	after.wantCurrent(onWifi6(gw6))
}

func TestPathFailure(t *testing.T) {
	oneWayOut := link{in: true, rtt: 10 * time.Millisecond}
	oneWayIn := link{out: true, rtt: 10 * time.Millisecond}
	cases := []struct {
		name   string
		broken link
		policy Policy
		within time.Duration
	}{
		{"both ways", link{}, Policy{}, 700 * time.Millisecond},
		{"only out works", oneWayIn, Policy{}, 700 * time.Millisecond},
		{"only in works", oneWayOut, Policy{}, 700 * time.Millisecond},
		{"cold standby", link{}, Policy{Standby: Cold}, 700 * time.Millisecond},
		{"eager", link{}, Policy{SuspectAfter: 100 * time.Millisecond, Patience: 100 * time.Millisecond}, 300 * time.Millisecond},
	}
	for _, c := range cases {
		for _, one := range []bool{false, true} {
			t.Run(c.name, func(t *testing.T) {
				w := twoUplinks(t, c.policy)
				w.oneAnswer = one
				w.traffic = true
				w.run(5 * time.Second)
				broken := w.now
				w.links[onWifi(gw1)] = c.broken
				w.run(3 * time.Second)
				if len(w.switches) != 1 {
					t.Fatalf("switches: %v", w.switches)
				}
				s := w.switches[0]
				if gap := s.at.Sub(broken); gap > c.within {
					t.Errorf("took %v, want at most %v", gap, c.within)
				}
				if s.To == onWifi(gw1) || s.Cause != TrafficUnanswered || !s.Verified {
					t.Errorf("%+v", s)
				}
				if i := w.info(onWifi(gw1)); i.Reachability != Failed || i.Failures != 1 {
					t.Errorf("%+v", i)
				}
			})
		}
	}
}

func TestFormerGloryDoesNotCount(t *testing.T) {
	// All pairs were verified and worked. One cause breaks three of them.
	w := twoUplinks(t, Policy{})
	w.traffic = true
	w.run(5 * time.Second)
	w.down(onWifi(gw1), onWifi(gw2), onLTE(gw1))
	w.run(3 * time.Second)
	w.wantSwitches(Switch{From: onWifi(gw1), To: onLTE(gw2), Cause: TrafficUnanswered, Verified: true})
}

func TestPacketsWithoutAnswersBuyTimeOnce(t *testing.T) {
	// The way out is broken. The peer goes on sending, and hears nothing.
	w := twoUplinks(t, Policy{})
	w.links[onWifi(gw1)] = link{in: true}
	at := w.now
	w.e.Hint(w.now, onWifi(gw1), PeerRetransmits)
	for range 200 {
		w.e.Heard(w.now, w.current())
		w.run(10 * time.Millisecond)
	}
	if len(w.switches) != 1 || w.switches[0].Cause != PeerRetransmits {
		t.Fatalf("switches: %v", w.switches)
	}
	if took, once := w.switches[0].at.Sub(at), w.e.policy.Patience; took < 2*once || took > 3*once {
		t.Errorf("took %v", took)
	}
}

func TestPathFailureSecondServerAddressOnly(t *testing.T) {
	w := newWorld(t, Policy{}, onWifi(gw1))
	w.oneAnswer = true
	w.up(30*time.Millisecond, onWifi(gw1), onWifi(gw2))
	w.e.SetForeign(w.now, foreigns(gw1, gw2))
	w.e.SetLocal(w.now, []Local{wifiLocal()})
	w.traffic = true
	w.run(time.Minute)
	w.down(onWifi(gw1))
	w.run(time.Second)
	w.wantSwitches(Switch{From: onWifi(gw1), To: onWifi(gw2), Cause: TrafficUnanswered, Verified: true})
}

func TestOneWayStreamCausesNoStorm(t *testing.T) {
	w := twoUplinks(t, Policy{})
	w.oneWay = true
	before := w.now
	w.run(10 * time.Minute)
	w.wantSwitches()
	// Each check is one round over the pairs; they come 10 s apart in the end.
	if n := w.since(before, onWifi(gw1)); n > 70 {
		t.Errorf("%d packets on the current pair in ten minutes", n)
	}
	if len(w.lost) != 0 {
		t.Errorf("lost: %v", w.lost)
	}
	if n := len(w.announced); n == 0 || n > 70 {
		t.Errorf("announced %d times", n)
	}
	// A real failure is noticed within the suppression.
	broken := w.now
	w.down(onWifi(gw1))
	w.run(15 * time.Second)
	if len(w.switches) != 1 || w.switches[0].at.Sub(broken) > 11*time.Second {
		t.Errorf("switches: %v", w.switches)
	}
}

func TestPeerOutOfStepIsToldAgain(t *testing.T) {
	// The peer answers probes on the pair, but sends its traffic elsewhere, since an
	// update was lost on it or its check failed (RFC 4621 §5.5.2).
	w := twoUplinks(t, Policy{})
	w.traffic = true
	w.run(5 * time.Second)
	if len(w.announced) != 0 {
		t.Fatal("announced without need")
	}
	w.traffic, w.oneWay, w.answeredAt = false, true, w.now
	begin := w.now
	w.run(3 * time.Second)
	if len(w.announced) == 0 || w.announced[0].Sub(begin) > 2*time.Second {
		t.Errorf("announced %v", w.announced)
	}
	w.wantSwitches()
}

func TestSlowAnswersDoNotMoveTraffic(t *testing.T) {
	// A satellite link answers after 700 ms, the alternative after 40.
	w := newWorld(t, Policy{}, onWifi(gw1))
	w.up(700*time.Millisecond, onWifi(gw1))
	w.up(40*time.Millisecond, onLTE(gw1))
	w.e.Answered(w.now, onWifi(gw1), 700*time.Millisecond)
	w.e.SetLocal(w.now, []Local{wifiLocal(), lteLocal()})
	w.run(5 * time.Second)
	w.e.Unanswered(w.now, w.now.Add(-400*time.Millisecond))
	w.run(5 * time.Second)
	w.wantSwitches()
}

func TestMeteredAlternativesWaitARound(t *testing.T) {
	w := newWorld(t, Policy{}, onWifi(gw1))
	w.up(10*time.Millisecond, onWifi(gw1), onWifi(gw2))
	w.up(40*time.Millisecond, onLTE(gw1), onLTE(gw2))
	w.e.SetForeign(w.now, foreigns(gw1, gw2))
	metered := lteLocal()
	metered.Metered = true
	w.e.SetLocal(w.now, []Local{wifiLocal(), metered})
	w.run(time.Second)
	at := w.now
	w.e.Unanswered(w.now, w.now.Add(-time.Second))
	w.run(time.Second)
	if w.since(at, onWifi(gw1)) != 1 || w.since(at, onLTE(gw1)) != 0 {
		t.Errorf("a false suspicion used the metered link: %v", w.packets)
	}
	w.run(20 * time.Second)
	w.down(onWifi(gw1), onWifi(gw2))
	w.e.Unanswered(w.now, w.now.Add(-time.Second))
	w.run(time.Second)
	w.wantCurrent(onLTE(gw1))
}

func TestOutage(t *testing.T) {
	for _, c := range []struct {
		name    string
		outage  time.Duration
		traffic bool
		within  time.Duration
	}{
		{"30 s with traffic", 30 * time.Second, true, 450 * time.Millisecond},
		{"60 s with traffic", 60 * time.Second, true, 450 * time.Millisecond},
		{"30 min with traffic", 30 * time.Minute, true, 450 * time.Millisecond},
		{"30 min idle", 30 * time.Minute, false, 5100 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := twoUplinks(t, Policy{})
			w.traffic = true
			w.run(time.Second)
			all := []Pair{onWifi(gw1), onWifi(gw2), onLTE(gw1), onLTE(gw2)}
			w.down(all...)
			w.run(5 * time.Second)
			if len(w.lost) != 1 || w.lost[0].Cause != ProbeTimeout {
				t.Fatalf("lost: %v", w.lost)
			}
			w.traffic = c.traffic
			begin := w.now
			w.run(c.outage)
			w.wantSwitches()
			rate := float64(w.since(begin, Pair{})) / c.outage.Seconds()
			if limit := map[bool]float64{true: 16, false: 1.2}[c.traffic]; rate > limit {
				t.Errorf("%.1f packets/s during the outage, want at most %v", rate, limit)
			}
			// Only the last of them comes back.
			w.up(10*time.Millisecond, onLTE(gw2))
			back := w.now
			w.run(c.within)
			w.wantCurrent(onLTE(gw2))
			if r, _ := w.e.Health(); r != Operational {
				t.Errorf("health is %v after %v", r, w.now.Sub(back))
			}
			if bound := w.e.policy.Recovery(len(all), c.traffic, 10*time.Millisecond); w.switches[0].at.Sub(back) > bound {
				t.Errorf("took %v, more than the stated bound %v", w.switches[0].at.Sub(back), bound)
			}
		})
	}
}

func TestDataRevivesThePairAtOnce(t *testing.T) {
	w := twoUplinks(t, Policy{})
	w.down(onWifi(gw1), onWifi(gw2), onLTE(gw1), onLTE(gw2))
	w.e.Unanswered(w.now, w.now.Add(-time.Second))
	w.run(time.Minute)
	if i := w.info(onWifi(gw1)); i.Reachability != Failed {
		t.Fatalf("%+v", i)
	}
	w.e.Heard(w.now, onWifi(gw1))
	if i := w.info(onWifi(gw1)); i.Reachability != Operational || i.Why != PacketHeard {
		t.Errorf("%+v", i)
	}
	if r, _ := w.e.Health(); r != Failing {
		t.Errorf("health is %v: one direction is shown, the check goes on", r)
	}
}

func TestPacketsElsewhereAreNoProofOfLife(t *testing.T) {
	w := twoUplinks(t, Policy{})
	w.down(onWifi(gw1))
	// The peer goes on sending over LTE (RFC 4621 §5.5.2).
	for range 100 {
		w.e.Heard(w.now, onLTE(gw1))
		w.e.Unanswered(w.now, start.Add(2*time.Second))
		w.run(20 * time.Millisecond)
	}
	if w.current() == onWifi(gw1) {
		t.Error("packets on another pair kept a dead one alive")
	}
}

func TestBetterPathIsVerifiedFirst(t *testing.T) {
	w := newWorld(t, Policy{Interfaces: []string{"eth*", "wlan*"}}, onLTE(gw1))
	w.up(40*time.Millisecond, onLTE(gw1))
	w.e.SetLocal(w.now, []Local{lteLocal()})
	w.run(time.Minute)
	w.up(10*time.Millisecond, onWifi(gw1))
	w.e.SetLocal(w.now, []Local{lteLocal(), wifiLocal()})
	at := w.now
	w.obey()
	w.wantSwitches() // make before break
	w.run(time.Second)
	w.wantSwitches(Switch{From: onLTE(gw1), To: onWifi(gw1), Cause: BetterPath, Verified: true})
	if took := w.switches[0].at.Sub(at); took != 10*time.Millisecond {
		t.Errorf("took %v, want one round trip", took)
	}
	if i := w.info(onLTE(gw1)); !i.Standby || i.Reachability != Operational {
		t.Errorf("the old pair is standby now: %+v", i)
	}
}

func TestOneMoveInsteadOfTwo(t *testing.T) {
	// Two better addresses come together; the best one answers later.
	p := Policy{Interfaces: []string{"eth*", "wlan*"}}
	wired := Local{Addr: ip("192.0.2.11"), Interface: 5, Name: "eth0"}
	onWired := Pair{Local: netip.AddrPortFrom(wired.Addr, 4500), Remote: gw1, Interface: 5}
	w := newWorld(t, p, onLTE(gw1))
	w.up(40*time.Millisecond, onLTE(gw1), onWired)
	w.up(10*time.Millisecond, onWifi(gw1))
	w.e.SetLocal(w.now, []Local{lteLocal(), wifiLocal(), wired})
	w.run(time.Minute)
	w.wantSwitches(Switch{From: onLTE(gw1), To: onWired, Cause: BetterPath, Verified: true})

	// If it does not answer at all, nobody waits long.
	w = newWorld(t, p, onLTE(gw1))
	w.up(10*time.Millisecond, onLTE(gw1), onWifi(gw1))
	w.e.SetLocal(w.now, []Local{lteLocal(), wifiLocal(), wired})
	w.run(time.Second)
	w.wantSwitches(Switch{From: onLTE(gw1), To: onWifi(gw1), Cause: BetterPath, Verified: true})
}

func TestBetterPathThatDoesNotWork(t *testing.T) {
	w := newWorld(t, Policy{Interfaces: []string{"wlan*"}}, onLTE(gw1))
	w.up(40*time.Millisecond, onLTE(gw1))
	w.e.SetLocal(w.now, []Local{lteLocal(), wifiLocal()})
	w.run(time.Hour)
	w.wantSwitches()
	if i := w.info(onWifi(gw1)); i.Reachability != Failed || i.Verification != VerificationFailed || i.Why != ProbeTimeout {
		t.Errorf("%+v", i)
	}
	// A burst, then 20 s, 40 s ... 5 min.
	if n := w.since(start, onWifi(gw1)); n > 6+5+12 {
		t.Errorf("%d probes in an hour", n)
	}
	w.up(10*time.Millisecond, onWifi(gw1))
	w.run(6 * time.Minute)
	w.wantCurrent(onWifi(gw1))
}

func TestHoldDown(t *testing.T) {
	w := newWorld(t, Policy{Interfaces: []string{"wlan*"}}, onWifi(gw1))
	w.up(10*time.Millisecond, onWifi(gw1))
	w.up(40*time.Millisecond, onLTE(gw1))
	w.e.SetLocal(w.now, []Local{lteLocal(), wifiLocal()})
	w.traffic = true
	w.run(5 * time.Second)
	w.down(onWifi(gw1))
	w.run(2 * time.Second)
	w.wantCurrent(onLTE(gw1))
	w.up(10*time.Millisecond, onWifi(gw1))
	back := w.now
	w.run(40 * time.Second)
	w.wantCurrent(onWifi(gw1))
	if took := w.switches[1].at.Sub(back); took < w.e.policy.HoldDown {
		t.Errorf("preferred again after %v, hold-down is %v", took, w.e.policy.HoldDown)
	}
}

func TestFlappingLinkIsHeldDown(t *testing.T) {
	w := newWorld(t, Policy{Interfaces: []string{"wlan*"}}, onWifi(gw1))
	w.up(10*time.Millisecond, onWifi(gw1))
	w.up(40*time.Millisecond, onLTE(gw1))
	both, one := []Local{lteLocal(), wifiLocal()}, []Local{lteLocal()}
	w.e.SetLocal(w.now, both)
	w.run(time.Second)
	for range 20 {
		w.e.SetLocal(w.now, one)
		w.run(time.Second)
		w.e.SetLocal(w.now, both)
		w.run(time.Second)
	}
	if n := len(w.switches); n > 4 {
		t.Errorf("%d switches while a link flapped 20 times", n)
	}
	last := w.now
	w.run(2 * time.Minute)
	w.wantCurrent(onWifi(gw1))
	if r, _ := w.e.Health(); r != Operational {
		t.Errorf("health is %v after %v", r, w.now.Sub(last))
	}
}

func TestShorterRoundTrip(t *testing.T) {
	p := Policy{IdleCheck: 20 * time.Second}
	w := newWorld(t, p, onWifi(gw1))
	w.up(100*time.Millisecond, onWifi(gw1))
	w.up(30*time.Millisecond, onLTE(gw1))
	w.e.SetLocal(w.now, []Local{wifiLocal(), lteLocal()})
	w.run(20 * time.Second)
	w.wantSwitches()
	w.run(10 * time.Minute)
	w.wantSwitches(Switch{From: onWifi(gw1), To: onLTE(gw1), Cause: ShorterRTT, Verified: true})

	// Not if the gain is small, nor if it is switched off.
	for _, c := range []struct {
		policy Policy
		rtt    time.Duration
	}{{p, 80 * time.Millisecond}, {Policy{IdleCheck: p.IdleCheck, RTTGain: -1}, 10 * time.Millisecond},
		{Policy{IdleCheck: p.IdleCheck, RTTMargin: 80 * time.Millisecond}, 30 * time.Millisecond}} {
		w := newWorld(t, c.policy, onWifi(gw1))
		w.up(100*time.Millisecond, onWifi(gw1))
		w.up(c.rtt, onLTE(gw1))
		w.e.SetLocal(w.now, []Local{wifiLocal(), lteLocal()})
		w.run(20 * time.Minute)
		w.wantSwitches()
	}
}

func TestIdleCheck(t *testing.T) {
	w := newWorld(t, Policy{IdleCheck: 30 * time.Second}, onWifi(gw1))
	w.up(10*time.Millisecond, onWifi(gw1), onLTE(gw1))
	w.e.SetLocal(w.now, []Local{wifiLocal(), lteLocal()})
	w.run(time.Minute)
	w.down(onWifi(gw1))
	w.run(33 * time.Second)
	w.wantSwitches(Switch{From: onWifi(gw1), To: onLTE(gw1), Cause: LivenessTimeout, Verified: true})
}

func TestForeignWithdrawn(t *testing.T) {
	w := twoUplinks(t, Policy{})
	w.down(onWifi(gw1), onLTE(gw1))
	w.e.SetForeign(w.now, foreigns(gw2))
	w.obey()
	w.wantSwitches(Switch{From: onWifi(gw1), To: onWifi(gw2), Cause: ForeignWithdrawn, Verified: true})
	if len(w.e.Pairs()) != 2 {
		t.Errorf("the full list replaces the former one: %v", w.e.Pairs())
	}
}

func TestSameListsChangeNothing(t *testing.T) {
	w := twoUplinks(t, Policy{})
	w.run(time.Minute)
	at := w.now
	for range 100 {
		w.e.SetLocal(w.now, []Local{wifiLocal(), lteLocal()})
		w.e.SetForeign(w.now, foreigns(gw1, gw2))
		w.run(time.Millisecond)
	}
	if n := w.since(at, Pair{}); n != 0 {
		t.Errorf("%d packets", n)
	}
	w.wantSwitches()
}

func TestHints(t *testing.T) {
	w := twoUplinks(t, Policy{})
	at := w.now
	for range 200 { // a storm of forged errors
		w.e.Hint(w.now, onWifi(gw1), ICMPError)
		w.run(10 * time.Millisecond)
	}
	w.wantSwitches()
	if n := w.since(at, onWifi(gw1)); n > 2 {
		t.Errorf("%d probes in two seconds", n)
	}
	w.run(time.Minute)
	at = w.now
	w.e.Hint(w.now, Pair{}, Resumed)
	w.obey()
	if n := w.since(at, Pair{}); n != 4 {
		t.Errorf("%d probes after a resume, want all four pairs", n)
	}
	if r, why := w.e.Health(); r != Failing || why != Resumed {
		t.Errorf("health is %v, %v", r, why)
	}
	w.run(time.Second)
	if r, _ := w.e.Health(); r != Operational {
		t.Errorf("health is %v", r)
	}
	at = w.now
	w.e.Hint(w.now, onLTE(gw2), ICMPError)
	w.run(500 * time.Millisecond)
	w.e.Hint(w.now, onLTE(gw2), ICMPError)
	w.run(time.Second)
	if n, m := w.since(at, onLTE(gw2)), w.since(at, onWifi(gw1)); n != 1 || m != 0 {
		t.Errorf("a hint on a standby pair sent %d probes there and %d on the current one", n, m)
	}
	w.e.Hint(w.now, Pair{Local: gw1, Remote: gw2}, ICMPError) // unknown: no effect
}

func TestIdleCost(t *testing.T) {
	for _, nat := range []NAT{NATUnknown, NATPresent, NATAbsent} {
		w := twoUplinks(t, Policy{})
		for _, i := range w.e.Pairs() {
			if nat != NATUnknown {
				w.e.SetNAT(w.now, i.Pair, nat == NATPresent)
			}
		}
		w.run(time.Minute)
		at := w.now
		w.run(time.Hour)
		limit, least := 180, 160 // one in 20 s, and enough for a NAT that forgets after 23
		if nat == NATAbsent {
			limit, least = 60, 50
		}
		for _, i := range w.e.Pairs() {
			n := w.since(at, i.Pair)
			if i.Current && n != 0 {
				t.Errorf("nat %v: %d packets on the current pair, which is the data path's", nat, n)
			}
			if !i.Current && (n > limit || n < least) {
				t.Errorf("nat %v: %d packets in an hour on %v, want %d", nat, n, i.Pair, limit)
			}
			if i.Verification != Verified || i.Reachability != Operational {
				t.Errorf("%v is %v and %v", i.Pair, i.Verification, i.Reachability)
			}
		}
	}
	w := twoUplinks(t, Policy{Standby: Cold})
	w.run(time.Hour)
	if n := len(w.packets); n != 0 {
		t.Errorf("cold standby sent %d packets", n)
	}
}

func TestKeepaliveFollowsTheNAT(t *testing.T) {
	w := twoUplinks(t, Policy{})
	w.e.MappingLost(w.now, onLTE(gw1), 16*time.Second)
	if i := w.info(onLTE(gw1)); i.Keepalive != 12*time.Second || i.NAT != NATPresent || i.LostMappings != 1 {
		t.Errorf("%+v", i)
	}
	w.e.MappingLost(w.now, onLTE(gw2), 0)
	if i := w.info(onLTE(gw2)); i.Keepalive != w.e.policy.Keepalive || i.LostMappings != 1 {
		t.Errorf("%+v", i)
	}
	w.e.MappingLost(w.now, onLTE(gw1), 2*time.Second)
	if i := w.info(onLTE(gw1)); i.Keepalive != w.e.policy.KeepaliveMin {
		t.Errorf("%+v", i)
	}
}

func TestDeadStandbyIsNoticed(t *testing.T) {
	w := twoUplinks(t, Policy{})
	w.down(onLTE(gw1))
	w.run(150 * time.Second)
	if i := w.info(onLTE(gw1)); i.Reachability != Failed || i.Verification != Verified {
		t.Errorf("verified and dead are two things: %+v", i)
	}
	w.up(40*time.Millisecond, onLTE(gw1))
	w.run(6 * time.Minute)
	if i := w.info(onLTE(gw1)); i.Reachability != Operational {
		t.Errorf("%+v", i)
	}
	w.wantSwitches()
}

func TestMovedByTheDialect(t *testing.T) {
	w := twoUplinks(t, Policy{})
	w.e.Moved(w.now, onLTE(gw2), UserRequest)
	w.wantCurrent(onLTE(gw2))
	w.wantSwitches()
	if i := w.info(onLTE(gw2)); i.Chosen != UserRequest || !i.Moved.Equal(w.now) {
		t.Errorf("%+v", i)
	}
	w.e.Moved(w.now, onLTE(gw2), NATChanged) // the same pair
	w.wantCurrent(onLTE(gw2))
	// Confirming what is current already does not make a suspicion fresh again.
	at := w.now
	w.oneWay = true
	for range 300 {
		w.e.Moved(w.now, w.current(), PeerMoved)
		w.run(100 * time.Millisecond)
	}
	if n := w.since(at, onLTE(gw2)); n > 10 {
		t.Errorf("%d probes in half a minute", n)
	}
}

func TestLifetimes(t *testing.T) {
	w := newWorld(t, Policy{}, onWifi(gw1))
	w.up(10*time.Millisecond, onWifi(gw1), onWifi(gw2))
	w.e.SetLocal(w.now, []Local{wifiLocal()})
	third := ap("203.0.113.3:4500")
	w.e.SetForeign(w.now, []Foreign{
		{Addr: gw1, Lifetime: Lifetime{Until: start.Add(10 * time.Minute)}},
		{Addr: gw2, Lifetime: Lifetime{Renew: DefaultLifetime}},
		{Addr: third, Lifetime: Lifetime{Until: start.Add(time.Minute)}},
	})
	w.run(2 * time.Minute)
	if !w.info(onWifi(third)).Expired {
		t.Error("not expired")
	}
	w.run(8 * time.Minute) // the current pair's address ends; the other's is renewed by use
	w.wantSwitches(Switch{From: onWifi(gw1), To: onWifi(gw2), Cause: Expired, Verified: true})
	w.run(40 * time.Minute)
	w.wantCurrent(onWifi(gw2))
	if n := len(w.e.Pairs()); n != 1 {
		t.Errorf("%d pairs left, expired addresses have to be forgotten", n)
	}
}

func TestExpiredAddressRevives(t *testing.T) {
	w := newWorld(t, Policy{Standby: Cold}, onWifi(gw1))
	w.e.SetLocal(w.now, []Local{wifiLocal()})
	w.e.SetForeign(w.now, []Foreign{{Addr: gw1}, {Addr: gw2, Lifetime: Lifetime{Renew: time.Minute}}})
	w.run(2 * time.Minute)
	if !w.info(onWifi(gw2)).Expired {
		t.Fatal("not expired")
	}
	w.e.Heard(w.now, onWifi(gw2))
	if w.info(onWifi(gw2)).Expired {
		t.Error("still expired")
	}
	w.run(2 * time.Minute)
	if !w.info(onWifi(gw2)).Expired {
		t.Error("lives for ever")
	}
}
