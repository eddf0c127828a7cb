package locator

import (
	"net/netip"
	"time"
)

// Entry is a host entry: where one peer can be reached, what is known about each
// pair, and which pair is current. Its methods take the time as an argument, which
// must not run backwards; after each call, Decisions holds what is to be done and
// Deadline says when to call Tick. An Entry belongs to one goroutine.
type Entry struct {
	policy *Policy
	role   Role
	random func() uint32
	// vouched is nil when the peer has no certificate that lists addresses.
	vouched Vouch
	epoch   time.Time
	now     instant

	locals   []*local
	foreigns []*foreign
	paths    []*path
	current  *path
	last     Pair // the last current pair, also when it is gone
	lastAddr *foreign
	out      []Decision

	alarm     alarm
	suspicion suspicion
	trafficAt instant // traffic was last reported unanswered
	movedAt   instant // the current pair became it
	chosen    Cause   // why
	lost      bool    // Lost was said and is not over
	refused   int     // addresses of the peer left out by limits or because they are absurd

	wanted   *path // the responder's check under way
	wantedAt instant
	unmet    *path // whose check failed last; the peer still wants to be there
	previous *path // where traffic goes back to if a CheckAfter fails

	probes, unproven bucket
	batch            uint32
	proofAt          instant // last proof asked of a standby pair
	hintAt           instant // last hint that anybody could have caused
	absent           []absence
}

// Option changes how an entry works.
type Option interface{ apply(*Entry) }

func (r Role) apply(e *Entry) { e.role = r }

// Jitter is a source of random numbers that spreads the long intervals of many
// entries. Without it intervals are exact.
type Jitter func() uint32

func (j Jitter) apply(e *Entry) { e.random = j }

// Vouch says which addresses the peer's certificate lists (RFC 3779). They are
// Certified, however they came to be known, and need no check of return routability
// (RFC 4621 §5.5).
type Vouch func(netip.Addr) bool

func (v Vouch) apply(e *Entry) { e.vouched = v }

// originOf is the origin of an address of the peer: what the certificate says counts
// for more than how the address was learnt.
func (e *Entry) originOf(a netip.AddrPort, learnt Origin) Origin {
	if learnt != Configured && e.vouched != nil && e.vouched(a.Addr()) {
		return Certified
	}
	return learnt
}

// NewEntry returns the entry of an association that was just made over the current
// pair, which therefore counts as verified and operational: the exchange that made
// it did not complete without the peer receiving there. It has one locator a side
// until SetLocal and SetForeign tell more. Zero fields of the policy have their
// defaults; see Policy.Validate. The default Role is Initiator.
func NewEntry(p Policy, now time.Time, current Pair, options ...Option) *Entry {
	p = p.withDefaults()
	e := &Entry{policy: &p, epoch: now, now: 1}
	for _, o := range options {
		o.apply(e)
	}
	current = plainPair(current)
	l := &local{addr: current.Local, iface: current.Interface, scope: ScopeOf(current.Local.Addr())}
	f := &foreign{addr: current.Remote, scope: ScopeOf(current.Remote.Addr()), origin: e.originOf(current.Remote, Learnt), activeAt: 1}
	e.locals, e.foreigns = []*local{l}, []*foreign{f}
	c := e.newPath(1, l, f)
	c.heardAt, c.answeredAt, c.attempts = 1, 1, 0
	c.become(1, Operational, Connected)
	e.prove(1, c)
	e.paths = []*path{c}
	e.setCurrent(c)
	e.chosen = Connected
	e.rerank()
	return e
}

// newPath makes the record of a pair.
func (e *Entry) newPath(t instant, l *local, f *foreign) *path {
	p := &path{pair: Pair{Local: l.addr, Remote: f.addr, Interface: l.iface}, local: l, foreign: f, bornAt: t, sinceAt: t}
	if l.returns > 1 { // the first return is free: make before break needs it
		p.failures, p.failedAt = uint8(min(l.returns-1, 8)), t
	}
	return p
}

// setCurrent makes a path the current one; nil for none.
func (e *Entry) setCurrent(p *path) {
	e.current = p
	if p != nil {
		e.last, e.lastAddr = p.pair, p.foreign
	}
}

// find returns the record of a pair, or nil.
func (e *Entry) find(pair Pair) *path {
	pair = plainPair(pair)
	for _, p := range e.paths {
		if p.pair == pair {
			return p
		}
	}
	for _, p := range e.paths {
		if p.pair.same(pair) {
			return p
		}
	}
	return nil
}

// Heard reports an authenticated packet of the peer, ESP or IKE, that came over
// the pair. On the current pair it is proof of life; on another one it is not
// (RFC 4621 §5.5.2), but shows that the pair carries packets towards us. A packet
// over an unknown pair changes nothing: the source in a header is an indication
// only (RFC 4621 §7).
func (e *Entry) Heard(now time.Time, pair Pair) {
	t := e.advance(now)
	if p := e.find(pair); p != nil {
		e.heard(t, p)
	}
	e.settle(t)
}

// Sighted reports a fresh request of the peer that came over a pair that is not in
// use: on a responder the peer is testing a path that it may move to one day. The
// address is checked now, so that traffic can follow at once then; like any address
// that a header shows it gets probes, no more. An address checked lately is left alone.
func (e *Entry) Sighted(now time.Time, pair Pair) {
	t := e.advance(now)
	p := e.find(pair)
	if p == nil && e.role == Responder {
		p = e.ensure(t, pair, Observed)
	}
	if p == nil {
		e.settle(t)
		return
	}
	e.heard(t, p)
	if p != e.current {
		p.beatAt = t // our answer goes over it, and keeps its NAT binding
	}
	due := p.provenAt() == never || t.since(p.provenAt()) >= e.policy.ProofLifetime/2
	rested := p.probedAt == never || t.since(p.probedAt) >= e.policy.RetryIdle
	if e.role == Responder && p != e.current && p != e.wanted && due && rested && !p.foreign.origin.authorised() {
		e.ask(t, p)
	}
	e.settle(t)
}

// NATOf says what is known of NATs on a pair.
func (e *Entry) NATOf(pair Pair) NAT {
	if p := e.find(pair); p != nil {
		return p.nat
	}
	return NATUnknown
}

func (e *Entry) heard(t instant, p *path) {
	p.heardAt = t
	p.heardCount++
	e.revive(t, p.foreign)
	if p != e.current {
		e.heardAside(t, p)
		return
	}
	p.become(t, Operational, PacketHeard)
	e.suspicion.since = never
	e.alarm.heard = e.alarm.on
	e.lost = false
}

// heardAside takes note of a packet on a pair that is not current. It shows one
// direction only. So a pair whose probes are going unanswered stays failed: a path
// that is broken on the way out delivers packets all the time.
func (e *Entry) heardAside(t instant, p *path) {
	rested := p.probedAt == never || t.since(p.probedAt) >= e.policy.Keepalive
	if p.reach == ReachUnknown || p.reach == Failed && rested {
		p.attempts = 0
		p.become(t, Operational, PacketHeard)
	}
	if p == e.unmet && t.since(p.probedAt) >= e.policy.RetryIdle {
		e.verify(t, p)
		return
	}
	searching := e.alarm.on || e.current == nil
	if searching && p.verification != Verified && (p.probedAt == never || t.since(p.probedAt) >= e.policy.RetryActive) {
		e.ask(t, p)
	}
}

// revive renews a lifetime that activity renews (Host Cache draft §2.1.3), also of
// an address that has expired but is still remembered.
func (e *Entry) revive(t instant, f *foreign) {
	f.activeAt = t
	if f.expired && (f.until == never || f.until > t) {
		f.expired = false
		e.rerank()
	}
}

// Answered reports that the answer to a probe came back over the pair, after rtt,
// and that it proves return routability: it carried our nonce, and the request had
// gone to no other address (RFC 4555 §3.7). The round trip is zero if the request
// had been sent over this pair more than once.
func (e *Entry) Answered(now time.Time, pair Pair, rtt time.Duration) {
	t := e.advance(now)
	if p := e.find(pair); p != nil {
		e.prove(t, p)
		e.answered(t, p, rtt)
	}
	e.settle(t)
}

// Reached reports an answer that came over the pair but does not show at which
// address the request was received, because it had gone to several (RFC 4555
// §3.7). The pair works in both directions; its address is verified only if it
// had been before, and else gets a Fresh probe.
func (e *Entry) Reached(now time.Time, pair Pair, rtt time.Duration) {
	t := e.advance(now)
	if p := e.find(pair); p != nil {
		if e.proven(p.foreign) {
			p.verification, p.verifiedAt = Verified, t
		} else {
			e.ask(t, p)
		}
		e.answered(t, p, rtt)
	}
	e.settle(t)
}

func (e *Entry) answered(t instant, p *path, rtt time.Duration) {
	p.answeredAt, p.heardAt = t, t
	p.answers++
	p.attempts = 0
	p.measure(t, rtt)
	e.revive(t, p.foreign)
	failed := p.reach == Failed
	p.become(t, Operational, ProbeAnswered)
	e.credit(p)
	if failed {
		e.rerank()
	}
	if p == e.current {
		e.reassured(t)
	}
	if p == e.wanted && p.verification == Verified {
		e.verified(t)
	}
}

// credit gives the other pairs of a shared probe their attempt back. The peer
// answers each request once, so the fastest pair may hide that slower ones work.
// At least one pair of the batch leaves it each time, so this ends.
func (e *Entry) credit(p *path) {
	if e.alarm.on || p.batch == 0 {
		return
	}
	for _, q := range e.paths {
		if q != p && q.batch == p.batch && q.attempts > 0 && q.attempts <= burst {
			q.attempts--
		}
	}
}

// prove notes that the peer receives at the foreign address of the path. What was
// spent on the address while it was unproven is given back: it was no victim.
func (e *Entry) prove(t instant, p *path) {
	e.unproven.refund(p.foreign.spent, e.policy.unprovenQuota())
	p.foreign.spent = 0
	p.foreign.provenAt = t
	p.verification, p.verifiedAt = Verified, t
}

// proven says whether the peer may have traffic sent to the address.
func (e *Entry) proven(f *foreign) bool {
	switch {
	case f.origin.authorised():
		return true
	case f.provenAt == never:
		return false
	case e.role == Initiator || e.current != nil && e.current.foreign == f:
		return true
	}
	return e.now.since(f.provenAt) < e.policy.ProofLifetime
}

// mayCarry says whether traffic may move to the path by the policy's check.
func (e *Entry) mayCarry(p *path) bool {
	switch {
	case !p.usable(), p.rejectedAt != never && e.now.since(p.rejectedAt) < e.policy.HoldDown:
		return false
	case e.policy.Check == CheckNever || e.proven(p.foreign):
		return true
	}
	return e.policy.Check == CheckAfter && p.verification != VerificationFailed
}

// Moved reports that the dialect uses this pair now: it moved by itself, or it has
// carried out a Switch, which changes nothing any more. On a responder it is the peer's UPDATE_SA_ADDRESSES (RFC 4555 §3.5)
// where that needs no check; see Verify.
func (e *Entry) Moved(now time.Time, pair Pair, why Cause) {
	t := e.advance(now)
	p := e.ensure(t, pair, Observed)
	if p == nil {
		e.settle(t)
		return
	}
	if p != e.current {
		old := e.current
		e.setCurrent(p)
		e.chosen = why
		e.moved(t, old)
		e.checkLater(t, p, old)
	}
	e.settle(t)
}

// moved brings the rest in line after the current pair has changed.
func (e *Entry) moved(t instant, old *path) {
	e.suspicion = suspicion{}
	for _, p := range e.paths {
		p.shorterAt = never
	}
	e.movedAt = t
	if e.wanted == e.current {
		e.wanted = nil
	}
	e.rerank()
	if e.role == Responder {
		e.prune()
	}
}

// SetNAT tells whether a NAT stands on the pair, as far as NAT detection showed
// (RFC 7296 §2.23).
func (e *Entry) SetNAT(now time.Time, pair Pair, present bool) {
	t := e.advance(now)
	if p := e.find(pair); p != nil {
		seen := NATAbsent
		if present {
			seen = NATPresent
		}
		if p.nat != seen {
			p.nat = seen
			e.rerank()
		}
	}
	e.settle(t)
}

// MappingLost tells that a NAT on the pair had forgotten or changed its mapping
// after the pair was idle for that long (RFC 4555 §3.8). Keepalives on the pair
// come more often from now on, within the policy's limit; if nobody knows how long
// it was idle (zero), they do not: NATs also forget because they restart.
func (e *Entry) MappingLost(now time.Time, pair Pair, idle time.Duration) {
	t := e.advance(now)
	if p := e.find(pair); p != nil {
		p.mappingLost++
		p.nat = NATPresent
		if interval := idle * 3 / 4; idle > 0 && interval < e.interval(p) {
			p.keepalive = max(interval, e.policy.KeepaliveMin)
		}
		e.rerank()
	}
	e.settle(t)
}

// Current returns the pair to send on. There is none while no local address could
// reach any of the peer's, or while none may carry traffic yet.
func (e *Entry) Current() (Pair, bool) {
	if e.current == nil {
		return Pair{}, false
	}
	return e.current.pair, true
}

// Decisions returns what is to be done since the last call, in order.
func (e *Entry) Decisions() []Decision {
	out := e.out
	e.out = nil
	return out
}

func (e *Entry) emit(d Decision) { e.out = append(e.out, d) }

// Tick lets time pass. Call it when the Deadline has come.
func (e *Entry) Tick(now time.Time) { e.settle(e.advance(now)) }

// settle draws the conclusions from whatever has changed.
func (e *Entry) settle(t instant) {
	e.expire(t)
	e.suspect(t)
	e.judge(t)
	e.choose(t)
	e.send(t)
}

func plainPair(p Pair) Pair {
	p.Local, p.Remote = plain(p.Local), plain(p.Remote)
	return p
}
