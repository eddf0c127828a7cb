package locator

import "time"

// alarm is the state in which the current pair is in doubt or missing and all
// pairs are probed.
type alarm struct {
	on     bool
	heard  bool // something came over the current pair since; see patienceEnd
	adrift bool // the current pair had ceased to exist
	again  bool // the traffic of the last check is unanswered still
	cause  Cause
	at     instant // begin; answers since then count
	kick   instant // begin of the probing schedule, anew after each change
}

// suspicion is about traffic without answers on a pair that may be all right.
type suspicion struct {
	since     instant       // unanswered since, never if answered
	checkedAt instant       // the last check that found the pair working
	backoff   time.Duration // how long it is believed after that
}

const (
	// trafficHold is how long one report of unanswered traffic counts as traffic
	// that waits. Data paths repeat the report at least once a second.
	trafficHold = 3 * time.Second
	// Suspicions that prove unfounded are suppressed for a doubling while.
	firstBackoff, lastBackoff = time.Second, 10 * time.Second
	// backoffMemory is the time without suspicion after which that starts anew.
	backoffMemory = 30 * time.Second
	// newStretchMax bounds the suppression if traffic was answered in between: then
	// it is no one-way stream, and a failure matters.
	newStretchMax = time.Second
	// hintInterval bounds how often hints that anybody can forge have an effect.
	hintInterval = time.Second
	// deadAttempts is how many probes of one alarm stay unanswered before a pair
	// counts as failed.
	deadAttempts = 4
	// heardPatience multiplies the patience with a pair that delivers packets but
	// no answers.
	heardPatience = 2
)

// Unanswered reports that the data path has been sending since then and that
// nothing valid has come back on the current pair. It is to be repeated, about once
// a second, while that goes on: probing is faster while traffic waits.
func (e *Entry) Unanswered(now, since time.Time) {
	t := e.advance(now)
	e.trafficAt = t
	e.suspicion.since = min(e.instantOf(since), t)
	e.settle(t)
}

// suspect raises the alarm when traffic has been unanswered for too long.
func (e *Entry) suspect(t instant) {
	if at := e.suspectAt(); at != never && at <= t {
		again := e.suspicion.checkedAt != never && e.suspicion.since <= e.suspicion.checkedAt
		e.doubt(t, TrafficUnanswered)
		e.alarm.again = again
	}
}

// suspectAt returns when unanswered traffic raises the alarm, or never.
func (e *Entry) suspectAt() instant {
	s := &e.suspicion
	if e.alarm.on || e.current == nil || s.since == never {
		return never
	}
	at := max(s.since, e.current.heardAt, e.movedAt).add(e.policy.SuspectAfter)
	if s.checkedAt != never {
		pause := s.backoff
		if s.since > s.checkedAt {
			pause = min(pause/4, newStretchMax)
		}
		at = max(at, s.checkedAt.add(pause))
	}
	if at > e.trafficAt.add(trafficHold) {
		return never // it will have to be reported again
	}
	return at
}

// Hint reports something that may mean trouble on a pair, or on all of them if the
// pair is zero. It only ever makes the entry probe: an ICMP error can be forged
// (RFC 4621 §7).
func (e *Entry) Hint(now time.Time, pair Pair, why Cause) {
	t := e.advance(now)
	e.hint(t, pair, why)
	e.settle(t)
}

func (e *Entry) hint(t instant, pair Pair, why Cause) {
	if why == ICMPError {
		if e.hintAt != never && t.since(e.hintAt) < max(hintInterval, e.suspicion.backoff) {
			return
		}
		e.hintAt = t
	}
	if why == Resumed || why == NetworkChanged || pair == (Pair{}) {
		e.suspicion = suspicion{}
		e.trafficAt = t // somebody has just opened the lid
		e.doubt(t, why)
		return
	}
	switch p := e.find(pair); {
	case p == nil:
	case p == e.current:
		e.doubt(t, why)
	case p.probedAt == never || t.since(p.probedAt) >= hintInterval:
		e.ask(t, p)
	}
}

// ask wants a probe of one pair.
func (e *Entry) ask(t instant, p *path) {
	if p.askedAt == never {
		p.askedAt = t
	}
}

// doubt calls the current pair into question.
func (e *Entry) doubt(t instant, why Cause) {
	if c := e.current; c != nil && c.reach == Operational {
		c.become(t, Failing, why)
	}
	e.raise(t, why)
}

// raise starts an alarm, or the schedule of the one that is on.
func (e *Entry) raise(t instant, why Cause) {
	if !e.alarm.on {
		e.alarm = alarm{on: true, cause: why, at: t}
	}
	if e.current == nil {
		e.alarm.adrift, e.alarm.cause = true, why
	}
	e.restart(t)
}

// restart begins the probing schedule anew.
func (e *Entry) restart(t instant) {
	e.alarm.kick = t
	for _, p := range e.paths {
		p.attempts = 0
	}
}

// stir reacts to new addresses: whatever is being waited for may work now.
func (e *Entry) stir(t instant, why Cause) {
	e.suspicion = suspicion{since: e.suspicion.since}
	if e.current == nil {
		e.alarm.cause = why
	}
	if e.alarm.on {
		e.restart(t)
	}
}

// reassured ends the alarm after the current pair has answered. If it was a false
// one, the next of its kind is put off for longer.
func (e *Entry) reassured(t instant) {
	e.lost = false
	if !e.alarm.on {
		return
	}
	if e.alarm.cause == TrafficUnanswered || e.alarm.cause == ICMPError {
		s := &e.suspicion
		if s.checkedAt == never || t.since(s.checkedAt) > backoffMemory {
			s.backoff = 0
		}
		s.backoff = min(max(firstBackoff, 2*s.backoff), lastBackoff)
		s.checkedAt = t
		if e.alarm.again && e.role == Initiator {
			e.emit(Announce{Pair: e.current.pair})
		}
	}
	e.calm()
}

// calm ends the alarm. What was probed without answer gets the benefit of the
// doubt unless it had failed: the peer answers a shared request only once.
func (e *Entry) calm() {
	e.alarm = alarm{}
	for _, p := range e.paths {
		p.attempts = 0
		if p.reach == Failed {
			p.attempts = burst
		}
	}
	if e.role == Responder {
		e.prune()
	}
}

// patienceEnd returns until when the current pair has time to answer. The time is
// three round trips and the variance, in other words one timeout of RFC 6298 and
// two trips for the answer to a second probe. Packets that arrive meanwhile show
// that the peer lives and is in step, so answers may just have been lost; but not
// for ever, for the way out may be broken.
func (e *Entry) patienceEnd() instant {
	c := e.current
	wait := e.policy.Patience
	if c.samples > 0 {
		wait = min(max(wait, 2*c.srtt+c.timeout()), e.policy.PatienceMax)
	}
	if e.alarm.heard {
		wait *= heardPatience
	}
	return max(e.alarm.at, e.movedAt).add(wait)
}
