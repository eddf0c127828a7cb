package locator

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// roamer plays random events to an entry and holds it against its promises.
type roamer struct {
	*world
	rt      *rapid.T
	locals  []Local
	foreign []Foreign
	// budget is an independent account of the packets.
	tokens  float64
	counted time.Time
	paid    int
	// answered holds the remote addresses that have answered; an address that never
	// did is a potential victim.
	answered map[netip.AddrPort]bool
	role     Role
}

var allLocals = []Local{
	{Addr: ip("192.0.2.10"), Interface: 2, Name: "wlan0"},
	{Addr: ip("198.51.100.20"), Interface: 3, Name: "wwan0", Metered: true},
	{Addr: ip("10.0.0.5"), Interface: 4, Name: "eth0", Preference: 5},
	{Addr: ip("2001:db8:1::10"), Interface: 2, Name: "wlan0"},
	{Addr: ip("192.0.2.11"), Interface: 2, Name: "wlan0"},
}

var allForeigns = []netip.AddrPort{gw1, gw2, gw6, ap("203.0.113.3:4500"), ap("192.168.7.7:4500"), ap("[2001:db8:ff::2]:4500")}

func newRoamer(rt *rapid.T, role Role) *roamer {
	policy := Policy{
		Check:   rapid.SampledFrom([]Check{CheckBefore, CheckBefore, CheckBefore, CheckAfter, CheckNever}).Draw(rt, "check"),
		Standby: rapid.SampledFrom([]Standby{Hot, Cold}).Draw(rt, "standby"),
		Order:   rapid.SampledFrom([][]Criterion{nil, {}, {ByForeign}, {ByNAT, ByFamily}}).Draw(rt, "order"),
		Family:  rapid.SampledFrom([]Family{AnyFamily, PreferIPv4, PreferIPv6}).Draw(rt, "family"),
	}
	if rapid.Bool().Draw(rt, "names") {
		policy.Interfaces = []string{"eth*", "wlan*"}
	}
	if rapid.Bool().Draw(rt, "idle check") {
		policy.IdleCheck = 20 * time.Second
	}
	seed := rapid.Uint64().Draw(rt, "seed")
	random := rand.New(rand.NewPCG(seed, 1))
	first := allLocals[0]
	current := Pair{Local: netip.AddrPortFrom(first.Addr, 4500), Remote: gw1, Interface: first.Interface}
	w := newWorld(rt, policy, current, role, Jitter(random.Uint32))
	w.random = random
	w.oneAnswer = rapid.Bool().Draw(rt, "one answer")
	r := &roamer{world: w, rt: rt, role: role, locals: []Local{first}, foreign: foreigns(gw1),
		tokens: float64(w.e.policy.ProbeBurst), counted: start, answered: map[netip.AddrPort]bool{gw1: true}}
	w.check = r.checkDecision
	w.up(10*time.Millisecond, current)
	return r
}

// pairs returns every pair that addresses of the test can form.
func pairs() []Pair {
	var out []Pair
	for _, l := range allLocals {
		for _, f := range allForeigns {
			if l.Addr.Is4() == f.Addr().Is4() {
				out = append(out, Pair{Local: netip.AddrPortFrom(l.Addr, 4500), Remote: f, Interface: l.Interface})
			}
		}
	}
	return out
}

// checkDecision holds each decision against the promises.
func (r *roamer) checkDecision(d Decision) {
	switch d := d.(type) {
	case Probe:
		if len(d.Pairs) == 0 {
			r.rt.Fatal("a probe of nothing")
		}
		for _, p := range d.Pairs {
			r.spend(p)
			if d.Fresh && p.Remote != d.Pairs[0].Remote {
				r.rt.Fatalf("fresh probe to several addresses: %v", d.Pairs)
			}
		}
	case Keepalive:
		r.spend(d.Pair)
	case Switch:
		r.checkSwitch(d)
	}
}

// spend checks the budget of all packets, and that they use addresses that exist.
func (r *roamer) spend(p Pair) {
	policy := r.e.policy
	r.tokens = min(float64(policy.ProbeBurst), r.tokens+r.now.Sub(r.counted).Seconds()*float64(policy.ProbesPerSecond)) - 1
	r.counted = r.now
	if r.tokens < -0.001 {
		r.rt.Fatalf("budget exceeded at %v", r.passed())
	}
	if !r.has(p.Local) {
		r.rt.Fatalf("packet from %v, which is gone", p.Local)
	}
}

func (r *roamer) has(local netip.AddrPort) bool {
	return slices.ContainsFunc(r.locals, func(l Local) bool { return l.Addr == local.Addr() })
}

func (r *roamer) checkSwitch(s Switch) {
	if !r.has(s.To.Local) {
		r.rt.Fatalf("switch to %v, whose local address is gone", s.To)
	}
	if s.From == s.To && s.Cause != LocalAdded && s.Cause != ForeignAdded && r.role == Initiator && len(r.lost) == 0 {
		r.rt.Fatalf("switch to itself: %v", s)
	}
	if r.e.policy.Check != CheckBefore || s.Verified {
		return
	}
	for _, i := range r.e.Pairs() {
		if i.Pair != s.To && i.Verification == Verified && i.Reachability == Operational && !i.Expired && r.role == Initiator {
			r.rt.Fatalf("switch to the unverified %v while %v is verified and works", s.To, i.Pair)
		}
	}
}

// checkState holds the entry against its promises between events.
func (r *roamer) checkState() {
	policy := r.e.policy
	infos := r.e.Pairs()
	if len(infos) > policy.MaxPairs {
		r.rt.Fatalf("%d pairs", len(infos))
	}
	current, ok := r.e.Current()
	found := false
	for n, i := range infos {
		if n > 0 && i.Pair == infos[n-1].Pair {
			r.rt.Fatalf("pair %v twice", i.Pair)
		}
		if i.Current {
			found = true
			if !ok || i.Pair != current {
				r.rt.Fatalf("pair %v says it is current, %v is", i.Pair, current)
			}
			if policy.Check == CheckBefore && !i.ForeignProven {
				r.rt.Fatalf("traffic goes to %v, which is not proven", i.Pair)
			}
		}
	}
	if ok != found {
		r.rt.Fatalf("current pair %v is not in the list", current)
	}
	if ok && !r.has(current.Local) {
		r.rt.Fatalf("current pair %v has no local address", current)
	}
	if at, ok := r.e.Deadline(); ok && at.Before(r.now) && r.e.timeOf(r.e.now).Equal(r.now) {
		r.rt.Fatalf("deadline %v in the past", at)
	}
}

// live lets the world run and checks that there is no busy loop.
func (r *roamer) live(d time.Duration) {
	ticks := r.ticks
	r.run(d)
	if n := r.ticks - ticks; float64(n) > 50+40*d.Seconds() {
		r.rt.Fatalf("%d ticks in %v", n, d)
	}
	for _, p := range r.packets[r.paid:] {
		if l := r.links[p.pair]; l.out && l.in {
			r.answered[p.pair.Remote] = true
		}
	}
	r.paid = len(r.packets)
	r.checkState()
}

// event does one random thing.
func (r *roamer) event() {
	rt := r.rt
	pick := func() Pair { // by number, which is easier to read in a report
		return pairs()[rapid.IntRange(0, len(pairs())-1).Draw(rt, "pair")]
	}
	choose := func(n int, what string) []int {
		var all []int
		for i := range n {
			all = append(all, i)
		}
		return rapid.Permutation(all).Draw(rt, what)[:rapid.IntRange(0, n).Draw(rt, "number of "+what)]
	}
	switch rapid.IntRange(0, 11).Draw(rt, "event") {
	case 0:
		r.locals = nil
		for _, n := range choose(len(allLocals), "locals") {
			r.locals = append(r.locals, allLocals[n])
		}
		r.e.SetLocal(r.now, r.locals)
	case 1:
		r.foreign = nil
		for _, n := range choose(len(allForeigns), "foreigns") {
			f := Foreign{Addr: allForeigns[n], Origin: Learnt}
			if rapid.IntRange(0, 3).Draw(rt, "lifetime") == 0 {
				f.Lifetime.Renew = time.Minute
			}
			r.foreign = append(r.foreign, f)
		}
		r.e.SetForeign(r.now, r.foreign)
	case 2, 3, 4:
		for range rapid.IntRange(1, 6).Draw(rt, "links") {
			r.links[pick()] = link{
				out: rapid.Bool().Draw(rt, "out"), in: rapid.Bool().Draw(rt, "in"),
				rtt:  time.Duration(rapid.IntRange(1, 400).Draw(rt, "rtt")) * time.Millisecond,
				loss: float64(rapid.IntRange(0, 30).Draw(rt, "loss")) / 100,
			}
		}
	case 5:
		r.e.Heard(r.now, pick())
	case 6:
		r.e.Hint(r.now, pick(), rapid.SampledFrom([]Cause{ICMPError, PeerRetransmits, LivenessTimeout}).Draw(rt, "why"))
	case 7:
		r.e.Hint(r.now, Pair{}, Resumed)
	case 8:
		r.e.SetNAT(r.now, pick(), rapid.Bool().Draw(rt, "nat"))
	case 9:
		r.traffic = rapid.Bool().Draw(rt, "traffic")
		r.answeredAt, r.nextTraffic = r.now, r.now
	case 10:
		if p := pick(); r.role == Responder && r.has(p.Local) {
			r.e.Verify(r.now, p)
		}
	case 11:
		r.e.Unanswered(r.now, r.now.Add(-time.Duration(rapid.IntRange(0, 5000).Draw(rt, "since"))*time.Millisecond))
	}
	r.live(time.Duration(rapid.SampledFrom([]int{0, 0, 1, 30, 300, 3000, 40000}).Draw(rt, "ms")) * time.Millisecond)
}

func TestInitiatorKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRoamer(rt, Initiator)
		for range rapid.IntRange(1, 40).Draw(rt, "events") {
			r.event()
		}
		r.checkRecovery()
		r.checkVictims()
	})
}

func TestResponderKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newRoamer(rt, Responder)
		for range rapid.IntRange(1, 40).Draw(rt, "events") {
			r.event()
		}
		r.checkVictims()
		for _, s := range r.switches {
			if s.From.Remote != s.To.Remote && s.Cause != PeerMoved && s.Cause != VerificationFailing {
				rt.Fatalf("a responder moved the peer by itself: %+v", s)
			}
			if s.Cause == PeerMoved && r.e.policy.Check == CheckBefore && !s.Verified {
				rt.Fatalf("followed without a check: %+v", s)
			}
		}
	})
}

// checkRecovery breaks all pairs but one with a proven address, and expects traffic
// there within the time that the schedule implies; then it expects silence.
func (r *roamer) checkRecovery() {
	for n := range r.foreign {
		r.foreign[n].Lifetime = Lifetime{} // nothing expires meanwhile
	}
	r.e.SetForeign(r.now, r.foreign)
	r.live(0)
	var able []PairInfo
	for _, i := range r.e.Pairs() {
		if i.ForeignProven && !i.Expired {
			able = append(able, i)
		}
	}
	if len(able) == 0 {
		return
	}
	works := able[rapid.IntRange(0, len(able)-1).Draw(r.rt, "survivor")].Pair
	for _, p := range pairs() {
		r.down(p)
	}
	rtt := time.Duration(rapid.IntRange(1, 400).Draw(r.rt, "rtt")) * time.Millisecond
	r.up(rtt, works)
	r.flights = nil
	r.traffic, r.answeredAt, r.nextTraffic, r.nextReport = true, r.now, r.now, r.now
	p := r.e.policy
	bound := p.SuspectAfter + 100*time.Millisecond + newStretchMax + heardPatience*p.PatienceMax + p.Recovery(len(r.e.paths), true, rtt)
	r.live(bound)
	if got := r.current(); got != works {
		r.dump(r.now.Add(-bound))
		r.rt.Fatalf("current pair is %v, but only %v has worked for %v", got, works, bound)
	}
	// An alarm ends with the next answer.
	r.live(p.RetryIdle + time.Second)
	if h, why := r.e.Health(); h != Operational {
		r.rt.Fatalf("health of %v is %v because of %v", works, h, why)
	}
	r.checkSilence()
}

// dump reports what happened since a time.
func (r *roamer) dump(since time.Time) {
	for _, p := range r.packets {
		if !p.at.Before(since) {
			r.rt.Logf("%v %s %v", p.at.Sub(start), p.kind, p.pair)
		}
	}
	for _, s := range r.switches {
		r.rt.Logf("%v %+v", s.at.Sub(start), s.Switch)
	}
	for _, i := range r.e.Pairs() {
		r.rt.Logf("%+v", i)
	}
	r.rt.Logf("alarm %+v", r.e.alarm)
}

// checkSilence expects at most one packet per keepalive interval and pair while all
// is well.
func (r *roamer) checkSilence() {
	for _, p := range pairs() {
		r.up(20*time.Millisecond, p)
	}
	r.traffic = false
	r.live(10 * time.Minute) // failed pairs recover, better ones are preferred
	begin := r.now
	const window = 10 * time.Minute
	r.live(window)
	for _, i := range r.e.Pairs() {
		if n, limit := r.since(begin, i.Pair), int(window/r.e.policy.Keepalive)+1; n > limit {
			r.rt.Fatalf("%d packets on %v in %v of silence, at most %d are allowed", n, i.Pair, window, limit)
		}
	}
}

// checkVictims bounds the packets to addresses that never answered.
func (r *roamer) checkVictims() {
	n := 0
	for _, p := range r.packets {
		if !r.answered[p.pair.Remote] {
			n++
		}
	}
	policy := r.e.policy
	if limit := policy.UnprovenBurst + int(r.passed().Minutes()*float64(policy.UnprovenPerMinute)) + 1; n > limit {
		r.rt.Fatalf("%d packets to addresses that never answered, bound %d", n, limit)
	}
}
