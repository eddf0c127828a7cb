package locator

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// Addresses as the gateway sees them.
var (
	here  = netip.AddrPortFrom(gw1.Addr(), 4500)
	here2 = netip.AddrPortFrom(gw2.Addr(), 4500)
)

func peerAt(s string) Pair { return Pair{Local: here, Remote: ap(s)} }

func gateway(t *testing.T, p Policy) *world {
	w := newWorld(t, p, peerAt("192.0.2.10:4500"), Responder)
	w.up(10*time.Millisecond, peerAt("192.0.2.10:4500"))
	return w
}

func TestResponderIsIdle(t *testing.T) {
	w := gateway(t, Policy{})
	w.e.SetForeign(w.now, foreigns(ap("192.0.2.10:4500"), ap("198.51.100.20:4500")))
	w.run(24 * time.Hour)
	if len(w.packets) != 0 {
		t.Errorf("%d packets", len(w.packets))
	}
	if at, ok := w.e.Deadline(); ok {
		t.Errorf("deadline %v", at)
	}
	if n := len(w.e.Pairs()); n != 1 {
		t.Errorf("%d pairs kept", n)
	}
}

func TestResponderVerifiesBeforeItFollows(t *testing.T) {
	w := gateway(t, Policy{})
	from, to := peerAt("192.0.2.10:4500"), peerAt("198.51.100.20:61000")
	w.up(30*time.Millisecond, to)
	if !w.e.Verify(w.now, to) {
		t.Fatal("refused")
	}
	w.obey()
	w.wantSwitches()
	if got := w.e.Verification(to); got != VerificationPending {
		t.Errorf("verification is %v", got)
	}
	if len(w.packets) != 1 || !w.packets[0].fresh || w.packets[0].pair != to {
		t.Errorf("packets %v, want one fresh probe", w.packets)
	}
	w.run(29 * time.Millisecond)
	w.wantCurrent(from)
	w.run(time.Millisecond)
	w.wantSwitches(Switch{From: from, To: to, Cause: PeerMoved, Verified: true})
	w.e.Moved(w.now, to, PeerMoved) // confirmed by the dialect
	// Back to where it was: proven lately, so no check.
	w.run(time.Minute)
	w.e.Verify(w.now, from)
	w.obey()
	w.wantCurrent(from)
	// Long after, the address may be somebody else's.
	w.run(w.e.policy.ProofLifetime)
	w.e.Verify(w.now, to)
	w.obey()
	w.wantCurrent(from)
}

func TestCertifiedAddressesNeedNoCheck(t *testing.T) {
	vouch := Vouch(func(a netip.Addr) bool { return a == lte })
	w := newWorld(t, Policy{}, peerAt("192.0.2.10:4500"), Responder, vouch)
	from, listed, other := peerAt("192.0.2.10:4500"), peerAt("198.51.100.20:61000"), peerAt("198.51.100.21:61000")
	w.e.Verify(w.now, listed)
	w.obey()
	w.wantSwitches(Switch{From: from, To: listed, Cause: PeerMoved, Verified: true})
	if len(w.packets) != 0 {
		t.Errorf("packets %v, want none", w.packets)
	}
	w.e.Verify(w.now, other)
	w.obey()
	w.wantCurrent(listed)
	if len(w.packets) != 1 || w.packets[0].pair != other {
		t.Errorf("packets %v, want one check of the address that is not listed", w.packets)
	}
	// A certificate may list many addresses; the peer's whims still cost little.
	all := newWorld(t, Policy{}, from, Responder, Vouch(func(netip.Addr) bool { return true }))
	for i := range 1000 {
		all.e.Verify(all.now, peerAt(fmt.Sprintf("198.51.100.20:%d", 1024+i)))
	}
	if _, fs := all.e.Locators(); len(fs) > 16+maxObserved {
		t.Errorf("%d locators", len(fs))
	}
}

// TestResponderChecksWhatItSees has the peer test a path before it moves there: then
// traffic follows at once.
func TestResponderChecksWhatItSees(t *testing.T) {
	w := gateway(t, Policy{})
	from, to := peerAt("192.0.2.10:4500"), peerAt("198.51.100.20:61000")
	w.up(30*time.Millisecond, to)
	w.e.Sighted(w.now, to)
	w.run(time.Second)
	w.wantSwitches()
	w.wantCurrent(from)
	for range 10 { // proven now, nothing more is sent
		w.e.Sighted(w.now, to)
		w.run(10 * time.Second)
	}
	if n := w.since(start, to); n != 1 {
		t.Errorf("%d probes, want one", n)
	}
	w.e.Verify(w.now, to)
	w.obey()
	w.wantSwitches(Switch{From: from, To: to, Cause: PeerMoved, Verified: true})
	// Proof ages: it is renewed in time, but not often.
	w = gateway(t, Policy{})
	w.up(30*time.Millisecond, to)
	for range 60 {
		w.e.Sighted(w.now, to)
		w.run(time.Minute)
	}
	if n := w.since(start, to); n < 6 || n > 12 {
		t.Errorf("%d probes in an hour", n)
	}
}

func TestResponderCheckFails(t *testing.T) {
	w := gateway(t, Policy{})
	from, to := peerAt("192.0.2.10:4500"), peerAt("198.51.100.20:61000")
	w.e.Verify(w.now, to)
	w.run(20 * time.Second)
	w.wantSwitches()
	w.wantCurrent(from)
	if len(w.unproven) != 1 || w.unproven[0].Pair != to {
		t.Errorf("unproven: %v", w.unproven)
	}
	if n := w.since(start, to); n != burst {
		t.Errorf("%d probes", n)
	}
	if got := w.e.Verification(to); got != VerificationFailed {
		t.Errorf("verification is %v", got)
	}
	// Temporary (RFC 4621 §5.5.2): the next update is checked again.
	w.up(30*time.Millisecond, to)
	w.e.Verify(w.now, to)
	w.run(time.Second)
	w.wantCurrent(to)
}

func TestResponderRepeatsACheckWhileThePeerIsThere(t *testing.T) {
	w := gateway(t, Policy{})
	to := peerAt("198.51.100.20:61000")
	w.e.Verify(w.now, to)
	for range 1200 { // two minutes in which only the peer's packets get through
		w.e.Heard(w.now, to)
		w.run(100 * time.Millisecond)
	}
	w.wantSwitches()
	if n := w.since(start, to); n < 2*burst || n > w.e.policy.UnprovenBurst+2*w.e.policy.UnprovenPerMinute+1 {
		t.Errorf("%d probes", n)
	}
	w.up(30*time.Millisecond, to)
	for range 200 {
		w.e.Heard(w.now, to)
		w.run(100 * time.Millisecond)
	}
	w.wantCurrent(to)
	// An update to elsewhere ends it.
	other := peerAt("198.51.100.30:61000")
	w.e.Verify(w.now, other)
	w.run(20 * time.Second)
	w.e.Verify(w.now, to)
	at := w.now
	for range 200 {
		w.e.Heard(w.now, other)
		w.run(100 * time.Millisecond)
	}
	if n := w.since(at, other); n != 0 {
		t.Errorf("%d probes to where the peer does not want to be", n)
	}
}

func TestResponderNewerUpdateWins(t *testing.T) {
	w := gateway(t, Policy{})
	first, second := peerAt("198.51.100.20:61000"), peerAt("198.51.100.30:61000")
	w.up(500*time.Millisecond, first)
	w.up(100*time.Millisecond, second)
	w.e.Verify(w.now, first)
	w.run(20 * time.Millisecond)
	w.e.Verify(w.now, second)
	w.run(3 * time.Second)
	w.wantSwitches(Switch{From: peerAt("192.0.2.10:4500"), To: second, Cause: PeerMoved, Verified: true})
}

func TestResponderChecksAfterOrNever(t *testing.T) {
	from, to := peerAt("192.0.2.10:4500"), peerAt("198.51.100.20:61000")
	after := gateway(t, Policy{Check: CheckAfter})
	after.e.Verify(after.now, to)
	after.obey()
	after.wantSwitches(Switch{From: from, To: to, Cause: PeerMoved})
	after.run(20 * time.Second) // nobody answers there
	after.wantSwitches(Switch{From: from, To: to, Cause: PeerMoved},
		Switch{From: to, To: from, Cause: VerificationFailing, Verified: true})

	never := gateway(t, Policy{Check: CheckNever})
	never.e.Verify(never.now, to)
	never.run(time.Minute)
	never.wantSwitches(Switch{From: from, To: to, Cause: PeerMoved})
	if len(never.packets) != 0 {
		t.Errorf("packets: %v", never.packets)
	}
}

func TestResponderWithoutWayBackStops(t *testing.T) {
	w := gateway(t, Policy{Check: CheckAfter})
	to := peerAt("198.51.100.20:61000")
	w.e.Moved(w.now, to, PeerMoved)
	w.wantCurrent(to)
	w.e.SetForeign(w.now, foreigns(to.Remote)) // the old address is withdrawn
	w.run(20 * time.Second)
	w.wantNone()
	if len(w.lost) != 1 || w.lost[0].Cause != VerificationFailing {
		t.Errorf("lost: %v", w.lost)
	}
	// The address works after all: authenticated packets come, and it answers.
	w.up(10*time.Millisecond, to)
	w.e.Heard(w.now, to)
	w.run(time.Second)
	w.wantCurrent(to)
}

func TestResponderKeepsTheSourceThatListsLeaveOut(t *testing.T) {
	w := gateway(t, Policy{})
	behindNAT := peerAt("198.51.100.20:61000")
	w.up(10*time.Millisecond, behindNAT)
	w.e.Verify(w.now, behindNAT)
	w.run(time.Second)
	w.e.SetForeign(w.now, foreigns(ap("10.0.0.5:4500"))) // its own view
	w.obey()
	w.wantCurrent(behindNAT)
	// Also while the check is still under way.
	other := peerAt("198.51.100.30:61000")
	w.up(10*time.Millisecond, other)
	w.e.Verify(w.now, other)
	w.e.SetForeign(w.now, foreigns(ap("10.0.0.6:4500")))
	w.run(time.Second)
	w.wantCurrent(other)
}

func TestResponderLosesItsOwnAddress(t *testing.T) {
	// RFC 4555 §3.5: then, and only then, it changes the pair by itself, and only
	// its own end of it.
	w := gateway(t, Policy{})
	peer, elsewhere := ap("192.0.2.10:4500"), ap("198.51.100.20:4500")
	w.e.SetForeign(w.now, foreigns(peer, elsewhere))
	w.e.SetLocal(w.now, []Local{{Addr: here.Addr()}, {Addr: here2.Addr()}})
	w.run(time.Second)
	if len(w.packets) != 0 {
		t.Errorf("a responder probes: %v", w.packets)
	}
	next := Pair{Local: here2, Remote: peer}
	w.up(10*time.Millisecond, next)
	w.up(time.Millisecond, Pair{Local: here2, Remote: elsewhere})
	w.e.SetLocal(w.now, []Local{{Addr: here2.Addr()}})
	w.run(time.Second)
	w.wantSwitches(Switch{From: peerAt("192.0.2.10:4500"), To: next, Cause: LocalLost, Verified: false})
	if w.since(start, Pair{Local: here2, Remote: elsewhere}) == 0 {
		t.Error("the peer's other addresses are not tried for telling it")
	}
	before := w.now
	w.run(time.Hour)
	if n := w.since(before, Pair{}); n != 0 {
		t.Errorf("%d packets afterwards", n)
	}
}

func TestResponderDoesNotMoveTrafficByItself(t *testing.T) {
	w := gateway(t, Policy{})
	w.e.SetForeign(w.now, foreigns(ap("192.0.2.10:4500"), ap("198.51.100.20:4500")))
	w.down(peerAt("192.0.2.10:4500"))
	w.up(10*time.Millisecond, peerAt("198.51.100.20:4500"))
	for range 600 {
		w.e.Unanswered(w.now, start)
		w.e.Heard(w.now, peerAt("198.51.100.20:4500"))
		w.run(100 * time.Millisecond)
	}
	w.wantSwitches()
	// 1, 2, 4 ... 60 s between checks (RFC 4555 §3.11).
	if n := w.since(start, peerAt("192.0.2.10:4500")); n < 5 || n > 8 {
		t.Errorf("%d checks in a minute", n)
	}
	if r, _ := w.e.Health(); r != Failed {
		t.Errorf("health is %v", r)
	}
	if len(w.lost) != 1 {
		t.Errorf("lost: %v", w.lost)
	}
}

// TestVictimGetsOnlyProbes plays an authenticated peer that wants others to be
// bombed: it names their addresses in lists and updates as often as it likes.
func TestVictimGetsOnlyProbes(t *testing.T) {
	const minutes = 10
	bound := func(p Policy) int {
		p = p.withDefaults()
		return p.UnprovenBurst + minutes*p.UnprovenPerMinute + 1
	}
	for _, check := range []Check{CheckBefore, CheckAfter} {
		w := gateway(t, Policy{Check: check})
		for i := range minutes * 60 * 10 {
			victim := fmt.Sprintf("203.0.113.%d:%d", 100+i%100, 1+i%60000)
			w.e.Verify(w.now, peerAt(victim))
			w.e.SetForeign(w.now, foreigns(ap("192.0.2.10:4500"), ap(victim)))
			w.run(100 * time.Millisecond)
		}
		n := w.since(start, Pair{}) - w.since(start, peerAt("192.0.2.10:4500"))
		if limit := bound(Policy{}); n > limit || n < limit/2 {
			t.Errorf("check %v, responder: %d packets to victims in %d minutes, bound %d", check, n, minutes, limit)
		}
	}
	w := newWorld(t, Policy{}, onWifi(gw1))
	w.up(10*time.Millisecond, onWifi(gw1), onLTE(gw1))
	w.e.SetLocal(w.now, []Local{wifiLocal(), lteLocal()})
	w.run(time.Second)
	begin := w.now
	for i := range minutes * 60 * 10 {
		var list []Foreign
		for j := range 40 {
			list = append(list, Foreign{Addr: ap(fmt.Sprintf("203.0.113.%d:%d", 100+j, 1+i%60000))})
		}
		w.e.SetForeign(w.now, append(list, Foreign{Addr: gw1}))
		w.e.Heard(w.now, onLTE(gw1))
		if i%3 == 0 {
			w.e.Unanswered(w.now, w.now.Add(-time.Second))
		}
		w.run(100 * time.Millisecond)
	}
	n := w.since(begin, Pair{}) - w.since(begin, onWifi(gw1)) - w.since(begin, onLTE(gw1))
	if limit := bound(Policy{}); n > limit || n < limit/2 {
		t.Errorf("initiator: %d packets to victims in %d minutes, bound %d", n, minutes, limit)
	}
	w.wantCurrent(onWifi(gw1))
}

func TestHonestPeersDoNotUseUpTheBudget(t *testing.T) {
	w := gateway(t, Policy{})
	for i := range 500 { // a train ride: a new address every second
		to := peerAt(fmt.Sprintf("198.51.100.%d:%d", i%200, 1024+i))
		w.up(30*time.Millisecond, to)
		w.e.Verify(w.now, to)
		w.run(time.Second)
		w.wantCurrent(to)
	}
}

func TestLimits(t *testing.T) {
	var many []Foreign
	for i := range 300 {
		many = append(many, Foreign{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 4500)})
	}
	w := newWorld(t, Policy{}, onWifi(gw1))
	var locals []Local
	for i := range 40 {
		locals = append(locals, Local{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}), Interface: 5, Preference: i})
	}
	w.e.SetLocal(w.now, append(locals, wifiLocal()))
	w.e.SetForeign(w.now, append(many, Foreign{Addr: gw1})) // in use, though last
	ls, fs := w.e.Locators()
	if len(ls) != 16 || len(fs) != 16 || len(w.e.Pairs()) != 64 {
		t.Errorf("%d local and %d foreign locators, %d pairs", len(ls), len(fs), len(w.e.Pairs()))
	}
	w.wantCurrent(onWifi(gw1))
	if w.e.Ignored() == 0 {
		t.Error("not counted")
	}

	// Absurd addresses are no locators.
	w = newWorld(t, Policy{}, onWifi(gw1))
	w.e.SetForeign(w.now, foreigns(gw1, ap("224.0.0.1:4500"), ap("255.255.255.255:4500"), ap("0.0.0.0:4500"),
		ap("[ff02::1]:4500"), ap("[::]:4500"), ap("203.0.113.9:0"), netip.AddrPort{}, gw1))
	if _, fs := w.e.Locators(); len(fs) != 1 || w.e.Ignored() != 7 {
		t.Errorf("locators %v, %d ignored", fs, w.e.Ignored())
	}

	// A responder admits few observed sources at a time, and forgets the oldest.
	g := gateway(t, Policy{})
	g.e.SetForeign(g.now, append(foreigns(ap("192.0.2.10:4500")), many...))
	for i := range 1000 {
		if !g.e.Verify(g.now, peerAt(fmt.Sprintf("198.51.100.20:%d", 1024+i))) {
			t.Fatal("a peer with many addresses cannot move behind a NAT")
		}
		if _, fs := g.e.Locators(); len(fs) > 16+maxObserved || len(g.e.Pairs()) > 64 {
			t.Fatalf("%d locators, %d pairs", len(fs), len(g.e.Pairs()))
		}
	}
	if g.e.Verify(g.now, peerAt("224.0.0.1:4500")) || g.e.Verify(g.now, Pair{Local: here, Remote: gw6}) {
		t.Error("an impossible pair was accepted")
	}
}
