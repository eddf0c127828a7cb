package locator

import (
	"cmp"
	"slices"
	"time"
)

const (
	// burst is how many probes a pair gets in quick succession before it counts as
	// failed: with the default interval six within three seconds.
	burst = 6
	// missed is how many proofs in a row a standby pair may owe.
	missed = 3
	// coalesce is how early a probe may go to share a request with another.
	coalesce = 10 * time.Millisecond
	// proofSpacing keeps proofs of standby pairs apart: they are requests of their
	// own, and IKEv2 has one in flight (RFC 7296 §2.3).
	proofSpacing = 500 * time.Millisecond
	// standbyGrace is the share by which the keepalives of standby pairs come later, so
	// that with the answers to the peer's checks they stay below the interval on average.
	standbyGrace = 10
	// unprovenRetryMax is the longest distance between probes of an address that has
	// never answered.
	unprovenRetryMax = time.Minute
	// Responders take their time (RFC 4555 §3.11): the initiator is to find the
	// failure first.
	responderBase, responderMax = time.Second, time.Minute
	// verifyBase is the first distance between probes of a responder's check.
	verifyBase = 250 * time.Millisecond
	// jitterShare is the share of an interval (one tenth) that jitter may change.
	jitterShare = 10
)

// dueAt returns when a pair is due for its next packet, or never. It depends on the
// state of the pair and the entry only, so there are no timers to keep in step.
func (e *Entry) dueAt(p *path) instant {
	switch {
	case !p.usable():
		return never
	case p.askedAt != never:
		return max(p.askedAt, p.probedAt.add(e.policy.ProbeInterval))
	case p == e.wanted:
		return cond(p.attempts == 0, e.wantedAt, p.probedAt.add(doubled(verifyBase, int(p.attempts)-1, responderMax)))
	case e.role == Responder && p != e.current && !e.searching():
		return never
	case e.alarm.on || e.current == nil:
		return e.alarmDue(p)
	case p == e.current:
		return e.idleDue(p)
	}
	return e.standbyDue(p)
}

// alarmDue is the schedule of an alarm: at 0, 100, 200, 400, 800 ms and so on, up
// to a bound that depends on whether traffic waits.
func (e *Entry) alarmDue(p *path) instant {
	if p.attempts > 0 {
		return p.probedAt.add(e.jittered(p, e.alarmGap(p)))
	}
	if p.answeredAt != never && p.answeredAt >= e.alarm.kick {
		return max(p.answeredAt, p.probedAt).add(e.policy.RetryActive)
	}
	if p != e.current && p.local.metered && e.alarm.cause == TrafficUnanswered {
		// Most suspicions are unfounded and over by then.
		return e.alarm.kick.add(e.policy.ProbeInterval)
	}
	return e.alarm.kick
}

func (e *Entry) alarmGap(p *path) time.Duration {
	n := int(p.attempts)
	if e.role == Responder && !e.alarm.adrift {
		return doubled(responderBase, n-1, responderMax)
	}
	top := e.policy.RetryIdle
	if e.waiting() {
		top = e.policy.RetryActive
	}
	if p != e.current {
		top = max(top, e.policy.spread(len(e.paths)))
		if !e.proven(p.foreign) && n >= burst {
			return doubled(e.policy.RetryIdle, n-burst, unprovenRetryMax)
		}
	}
	return doubled(e.firstGap(p), n-2, top)
}

// waiting says whether traffic waits for a working pair.
func (e *Entry) waiting() bool {
	return e.trafficAt != never && e.now.since(e.trafficAt) < trafficHold
}

// firstGap is the distance between the first two probes of a pair. Long round
// trips and many pairs make it longer.
func (e *Entry) firstGap(p *path) time.Duration {
	gap := min(max(e.policy.ProbeInterval, p.srtt/2), e.policy.RetryActive)
	if crowd := len(e.paths) - 4; crowd > 0 && p != e.current {
		gap = max(gap, e.policy.spread(crowd))
	}
	return gap
}

// idleDue is the schedule of a current pair that is not in doubt.
func (e *Entry) idleDue(p *path) instant {
	if p.attempts > 0 {
		return p.probedAt.add(max(e.policy.PatienceMax, p.timeout()))
	}
	if e.policy.IdleCheck == 0 || e.role == Responder {
		return never
	}
	return max(p.heardAt, p.probedAt).add(e.policy.IdleCheck)
}

// standbyDue is the schedule of the other pairs while all is well.
func (e *Entry) standbyDue(p *path) instant {
	if !p.hot && !e.better(p) {
		return never // cold
	}
	switch {
	case p.reach == Failed:
		retry := doubled(e.interval(p), int(p.attempts)-burst, e.policy.FailedMax)
		return p.probedAt.add(e.jittered(p, retry))
	case e.untested(p):
		if p.attempts == 0 {
			return max(p.bornAt, p.probedAt.add(e.policy.ProbeInterval))
		}
		return p.probedAt.add(doubled(e.firstGap(p), int(p.attempts)-2, e.policy.Keepalive))
	}
	if p.nat == NATUnknown && p.beats == 0 {
		// One request of its own shows whether there is a NAT, and lets the peer check
		// our address (see Sighted).
		return max(p.answeredAt, e.proofAt.add(proofSpacing))
	}
	gap := e.interval(p)
	gap += gap / standbyGrace
	if p.nat == NATAbsent {
		gap *= time.Duration(e.policy.ProofEvery) // there is no binding to keep
	}
	due := max(p.lastOut(), p.answeredAt).add(gap)
	if e.proofNext(p) && e.proofAt != never {
		due = max(due, e.proofAt.add(proofSpacing))
	}
	return due
}

// untested says whether a pair has yet to show what it is worth.
func (e *Entry) untested(p *path) bool {
	return p.answeredAt == never || p.verification != Verified
}

// interval is the distance of keepalives on a pair.
func (e *Entry) interval(p *path) time.Duration {
	return cond(p.keepalive > 0, p.keepalive, e.policy.Keepalive)
}

// proofNext says whether the next keepalive on a pair has to be answered.
func (e *Entry) proofNext(p *path) bool {
	return p.nat == NATAbsent || p.attempts > 0 || int(p.beats)%e.policy.ProofEvery == 0
}

// jittered changes a long interval by the path's share of randomness.
func (e *Entry) jittered(p *path, d time.Duration) time.Duration {
	if d < time.Second {
		return d
	}
	return d + d/jitterShare*time.Duration(p.jitter)/128
}

// judge draws the conclusions from probes that stayed unanswered until the next
// one was due.
func (e *Entry) judge(t instant) {
	changed := false
	for _, p := range e.paths {
		if due := e.dueAt(p); due == never || due > t || p.attempts == 0 || p.askedAt != never {
			continue
		}
		before := p.reach
		switch {
		case p == e.wanted:
			if p.attempts >= burst {
				e.unverified(t)
			}
		case e.alarm.on:
			e.judgeInAlarm(t, p)
		case p == e.current:
			e.doubt(t, LivenessTimeout)
		default:
			judgeStandby(t, p, e.untested(p))
		}
		if p.reach == Failed && p.verification == VerificationPending {
			p.verification = VerificationFailed
			if p == e.current && !e.mayCarry(p) {
				e.abandon(t)
			}
		}
		changed = changed || p.reach != before
	}
	if changed {
		e.rerank()
	}
}

func (e *Entry) judgeInAlarm(t instant, p *path) {
	switch {
	case p.attempts >= deadAttempts && p != e.current,
		p.attempts >= deadAttempts && p.heardAt < p.probedAt && e.patienceEnd() <= t:
		p.become(t, Failed, ProbeTimeout)
	case p.attempts >= 2 && p.reach == Operational && p.answeredAt < e.alarm.at && p.heardAt < e.alarm.at:
		p.become(t, Failing, ProbeTimeout)
	}
}

func judgeStandby(t instant, p *path, untested bool) {
	switch {
	case p.reach == Failed:
	case untested:
		if p.attempts >= burst {
			p.become(t, Failed, ProbeTimeout)
		}
	case p.attempts >= missed:
		p.become(t, Failed, ProbeTimeout)
		p.attempts = burst
	default:
		p.become(t, Failing, ProbeTimeout)
	}
}

// send asks for the packets that are due, as far as the buckets allow.
func (e *Entry) send(t instant) {
	var room [16]*path
	due := room[:0]
	urgent := false
	for _, p := range e.paths {
		if at := e.dueAt(p); at != never && at <= t.add(coalesce) {
			due = append(due, p)
			urgent = urgent || at <= t
		}
	}
	if !urgent {
		return
	}
	// The current pair first, then those that had the least attention.
	slices.SortStableFunc(due, func(a, b *path) int {
		return cmp.Or(cmp.Compare(worse(a != e.current), worse(b != e.current)),
			cmp.Compare(a.attempts, b.attempts), cmp.Compare(a.rank, b.rank))
	})
	e.batch++
	var shared []Pair
	fresh := map[*foreign][]Pair(nil)
	for _, p := range due {
		switch {
		case e.leisurely(p):
			e.sendKeepalive(t, p)
		case !e.pay(t, p):
		case e.wantsFresh(p):
			if fresh == nil {
				fresh = map[*foreign][]Pair{}
			}
			fresh[p.foreign] = append(fresh[p.foreign], p.pair)
			e.sent(t, p)
		default:
			shared = append(shared, p.pair)
			e.sent(t, p)
		}
	}
	if len(shared) > 0 {
		e.emit(Probe{Pairs: shared})
	}
	for _, f := range e.foreigns { // in a stable order
		if pairs := fresh[f]; pairs != nil {
			e.emit(Probe{Pairs: pairs, Fresh: true})
		}
	}
}

// leisurely says whether the next packet of a pair is a keepalive: nothing hangs
// on it.
func (e *Entry) leisurely(p *path) bool {
	if e.alarm.on || p.askedAt != never || p == e.wanted {
		return false
	}
	return p == e.current || p.reach == Failed || !e.untested(p)
}

// wantsFresh says whether an answer has to prove the foreign address (RFC 4555
// §3.7). While the current pair is in doubt speed matters more: one request goes
// everywhere, and Reached asks for the proof afterwards.
func (e *Entry) wantsFresh(p *path) bool {
	if p.askedAt != never || p == e.wanted {
		return p.verification != Verified || e.role == Responder && p != e.current
	}
	return !e.alarm.on && !e.proven(p.foreign)
}

func (e *Entry) sendKeepalive(t instant, p *path) {
	if at := e.dueAt(p); at > t || !e.pay(t, p) {
		return // keepalives do not hurry
	}
	proof := p == e.current || p.reach == Failed || e.proofNext(p)
	p.beats++
	p.keepalives++
	p.beatAt = t
	if proof {
		e.proofAt = t
		e.sent(t, p)
	}
	e.emit(Keepalive{Pair: p.pair, Proof: proof})
}

// sent notes a probe.
func (e *Entry) sent(t instant, p *path) {
	p.probedAt = t
	p.askedAt = never
	p.batch = e.batch
	p.probes++
	if p.attempts < 1<<15 {
		p.attempts++
	}
	if p.verification == Unverified {
		p.verification = VerificationPending
	}
	if e.random != nil {
		p.jitter = int8(e.random())
	}
}

// pay takes the tokens for one packet.
func (e *Entry) pay(t instant, p *path) bool {
	if e.affordableAt(t, p) > t {
		return false
	}
	e.probes.take(t, e.policy.probeQuota())
	if !e.proven(p.foreign) {
		e.unproven.take(t, e.policy.unprovenQuota())
		p.foreign.spent++
	}
	return true
}

// affordableAt returns when the buckets allow a packet on the pair.
func (e *Entry) affordableAt(t instant, p *path) instant {
	at := e.probes.ready(t, e.policy.probeQuota())
	if !e.proven(p.foreign) {
		at = max(at, e.unproven.ready(t, e.policy.unprovenQuota()))
	}
	return at
}

// Deadline returns when Tick has to be called; false if only an event can change
// anything.
func (e *Entry) Deadline() (time.Time, bool) {
	at := earlier(e.chooseAt(), e.suspectAt())
	for _, p := range e.paths {
		if due := e.dueAt(p); due != never {
			at = earlier(at, max(due, e.affordableAt(e.now, p)))
		}
	}
	for _, f := range e.foreigns {
		at = earlier(at, e.endOf(f))
	}
	if at == never {
		return time.Time{}, false
	}
	return e.timeOf(max(at, e.now+1)), true
}
