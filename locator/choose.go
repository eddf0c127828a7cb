package locator

import (
	"cmp"
	"time"
)

const (
	// freshAnswer is how recent an answer has to be to move traffic without asking
	// again.
	freshAnswer = time.Second
	// sampleLifetime is how long a measured round trip is comparable, minSamples how
	// many it takes.
	sampleLifetime = 5 * time.Minute
	minSamples     = 3
	// failureMemory is the time after which a failure of a pair is forgiven.
	failureMemory = 10 * time.Minute
	// firstAttempts is how many probes a new pair has before others are preferred:
	// with the default interval 300 to 700 ms.
	firstAttempts = 3
)

// choose picks the current pair.
func (e *Entry) choose(t instant) {
	switch {
	case e.current == nil:
		e.pick(t)
	case e.alarm.on:
		e.rescue(t)
	case e.role == Initiator:
		e.improve(t)
	}
}

// pick chooses when there is no current pair: the best one that is verified and
// works; else, if the policy allows traffic to its foreign address, the best one
// that might. A host may always send from its own new address, the peer checks
// it before it answers there (RFC 4555 §3.5). All others are probed at the same
// time, and rescue corrects a wrong guess.
func (e *Entry) pick(t instant) {
	var best *path
	for _, p := range e.paths {
		if e.mayCarry(p) && e.mayPick(p) && (best == nil || e.comparePick(p, best) < 0) {
			best = p
		}
	}
	if best == nil {
		e.sayLost(cond(len(e.locals) == 0, NoLocal, e.alarm.cause))
		return
	}
	e.switchTo(t, best, e.alarm.cause)
}

// mayPick keeps a responder to the address that the initiator chose (RFC 4555
// §3.5, last paragraph).
func (e *Entry) mayPick(p *path) bool { return e.role == Initiator || p.foreign == e.lastAddr }

// abandon gives up a current pair whose address was used unproven, as the policy
// allows, and did not answer.
func (e *Entry) abandon(t instant) {
	e.emit(Unproven{Pair: e.current.pair})
	e.current = nil
	e.raise(t, VerificationFailing)
}

// comparePick orders candidates: certainty first, then policy, then what is known
// of the peer's address.
func (e *Entry) comparePick(a, b *path) int {
	return cmp.Or(
		cmp.Compare(certainty(a), certainty(b)),
		cmp.Compare(a.rank, b.rank),
		cmp.Compare(worse(a.foreign != e.lastAddr), worse(b.foreign != e.lastAddr)),
		cmp.Compare(b.foreign.provenAt, a.foreign.provenAt),
	)
}

func certainty(p *path) int {
	switch {
	case p.ready():
		return 0
	case p.reach != Failed:
		return 1
	}
	return 2
}

// rescue moves traffic to the best pair that has answered in this alarm, once the
// current pair had its time. Only an answer counts, not former glory: what broke
// the current pair may have broken others.
func (e *Entry) rescue(t instant) {
	if best := e.rescuer(); best != nil {
		if e.patienceEnd() <= t {
			e.switchTo(t, best, e.alarm.cause)
		}
		return
	}
	for _, p := range e.paths {
		if p.usable() && p.reach != Failed && (e.role == Initiator || e.alarm.adrift || p == e.current) {
			return
		}
	}
	e.sayLost(ProbeTimeout)
}

func (e *Entry) rescuer() *path {
	if e.role == Responder && !e.alarm.adrift {
		return nil
	}
	var best *path
	for _, p := range e.paths {
		if p == e.current || p.answeredAt < e.alarm.at || !p.ready() || !e.mayCarry(p) || !e.mayPick(p) {
			continue
		}
		if best == nil || e.comparePick(p, best) < 0 {
			best = p
		}
	}
	return best
}

// improve moves traffic to a better pair while the current one works: make before
// break. The better pair has to answer right before.
func (e *Entry) improve(t instant) {
	var best *path
	var why Cause
	for _, p := range e.paths {
		c := e.improvement(t, p)
		if c == CauseNone || e.heldUntil(p) > t {
			continue
		}
		if best == nil || e.comparePick(p, best) < 0 {
			best, why = p, c
		}
	}
	if best == nil || e.expectsBetter(best) {
		return
	}
	if t.since(best.answeredAt) <= freshAnswer {
		e.switchTo(t, best, why)
		return
	}
	if best.attempts == 0 {
		e.ask(t, best)
	}
}

// expectsBetter says whether a pair that is preferred even more is just being
// probed for the first time. Then there is no hurry: several addresses often come
// together, and one move is better than two.
func (e *Entry) expectsBetter(best *path) bool {
	for _, p := range e.paths {
		if p.rank < best.rank && p.reach == ReachUnknown && p.attempts <= firstAttempts && e.mayCarry(p) && p.usable() {
			return true
		}
	}
	return false
}

// improvement says why a pair would be better than the current one, if it would.
func (e *Entry) improvement(t instant, p *path) Cause {
	c := e.current
	if p == c || !p.ready() || !e.mayCarry(p) || p.rank > c.rank {
		return CauseNone
	}
	if e.better(p) {
		return BetterPath
	}
	if !e.shorter(t, p) {
		p.shorterAt = never
		return CauseNone
	}
	if p.shorterAt == never {
		p.shorterAt = t
	}
	return cond(t.since(p.shorterAt) >= e.policy.RTTFor, ShorterRTT, CauseNone)
}

// shorter says whether the round trip of a pair is shorter than that of the
// current one by the margins of the policy.
func (e *Entry) shorter(t instant, p *path) bool {
	c := e.current
	comparable := func(p *path) bool { return p.samples >= minSamples && t.since(p.measuredAt) <= sampleLifetime }
	return e.policy.RTTGain >= 0 && comparable(p) && comparable(c) &&
		c.srtt-p.srtt >= e.policy.RTTMargin && p.srtt*100 <= c.srtt*time.Duration(100-e.policy.RTTGain)
}

// heldUntil returns when a pair that failed before may be preferred again.
func (e *Entry) heldUntil(p *path) instant {
	if p.failures == 0 {
		return never
	}
	return p.sinceAt.add(doubled(e.policy.HoldDown, int(p.failures)-1, e.policy.HoldDownMax))
}

// switchTo makes a path the current one.
func (e *Entry) switchTo(t instant, p *path, why Cause) {
	old := e.current
	e.emit(Switch{From: e.last, To: p.pair, Cause: why, Verified: p.verification == Verified})
	answered := p.answeredAt != never && (t.since(p.answeredAt) <= freshAnswer || e.alarm.on && p.answeredAt >= e.alarm.at)
	if old != nil && e.alarm.on {
		e.condemn(t, old)
	}
	e.setCurrent(p)
	e.chosen = why
	e.lost = false
	e.moved(t, old)
	if answered {
		e.calm()
		return
	}
	if !e.alarm.on {
		e.alarm = alarm{on: true, cause: why, at: t}
	}
	e.restart(t)
}

// Rejected tells that the peer does not take the pair (UNACCEPTABLE_ADDRESSES,
// UNEXPECTED_NAT_DETECTED), whether packets get through or not. Another one is chosen.
func (e *Entry) Rejected(now time.Time, pair Pair) {
	t := e.advance(now)
	if p := e.find(pair); p != nil && p == e.current {
		e.condemn(t, p)
		p.why, p.rejectedAt = PeerRejected, t
		e.current = nil
		e.raise(t, PeerRejected)
	}
	e.settle(t)
}

// condemn marks a current pair as failed.
func (e *Entry) condemn(t instant, p *path) {
	p.become(t, Failed, cond(e.alarm.cause == CauseNone, ProbeTimeout, e.alarm.cause))
	if p.failedAt != never && t.since(p.failedAt) > failureMemory {
		p.failures = 0
	}
	p.failures = min(p.failures+1, 8)
	p.failedAt = t
}

// sayLost says once that nothing works.
func (e *Entry) sayLost(why Cause) {
	if !e.lost {
		e.lost = true
		e.emit(Lost{Cause: why})
	}
}

// chooseAt returns when choose may come to another result by the mere passage of
// time, or never.
func (e *Entry) chooseAt() instant {
	if e.current == nil {
		return never
	}
	if e.alarm.on {
		if e.rescuer() != nil {
			return e.patienceEnd()
		}
		return never
	}
	at := never
	if e.role == Responder {
		return at
	}
	for _, p := range e.paths {
		if p == e.current || !p.ready() || p.rank > e.current.rank {
			continue
		}
		if held := e.heldUntil(p); held > e.now {
			at = earlier(at, held)
		}
		if p.shorterAt != never && !e.better(p) {
			if end := p.shorterAt.add(e.policy.RTTFor); end > e.now {
				at = earlier(at, end)
			}
		}
	}
	return at
}

// doubled returns d doubled n times, at most limit.
func doubled(d time.Duration, n int, limit time.Duration) time.Duration {
	for ; n > 0 && d < limit; n-- {
		d *= 2
	}
	return min(d, limit)
}

func cond[T any](yes bool, a, b T) T {
	if yes {
		return a
	}
	return b
}
