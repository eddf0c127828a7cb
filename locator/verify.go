package locator

import (
	"slices"
	"time"
)

// Verify tells a responder that the peer wants to move to the pair, the source and
// destination of its UPDATE_SA_ADDRESSES request (RFC 4555 §3.5). By policy the
// entry switches when the check has succeeded (the default), at once with a check
// following, or at once without. An address that is authorised or has been proven
// lately is not checked again. A newer Verify replaces an older one, whose result
// no longer moves anything (RFC 4621 §5.5.2). It reports whether the pair can be.
func (e *Entry) Verify(now time.Time, pair Pair) bool {
	t := e.advance(now)
	p := e.ensure(t, pair, Observed)
	if p != nil {
		e.heard(t, p)
		e.verify(t, p)
	}
	e.settle(t)
	return p != nil
}

func (e *Entry) verify(t instant, p *path) {
	e.unmet = nil
	if e.wanted != nil && e.wanted != p {
		e.wanted.verification = Unverified
		e.wanted = nil
	}
	switch {
	case e.proven(p.foreign):
		p.verification, p.verifiedAt = Verified, t
		e.follow(t, p)
	case e.policy.Check == CheckNever:
		e.follow(t, p)
	case p == e.wanted:
		// A repeated request starts no second check.
	default:
		p.verification = VerificationPending
		p.attempts = 0
		if e.policy.Check == CheckAfter {
			e.previous = e.current
			e.follow(t, p)
		}
		e.wanted, e.wantedAt = p, t
	}
}

// checkLater starts the check of a pair that the dialect moved to by itself. On a
// responder no traffic stays at an address without one, unless policy says so.
func (e *Entry) checkLater(t instant, p, old *path) {
	if e.role != Responder || e.policy.Check == CheckNever || e.proven(p.foreign) {
		return
	}
	p.verification, p.attempts = VerificationPending, 0
	e.wanted, e.wantedAt, e.previous = p, t, old
}

// follow moves to where the peer is.
func (e *Entry) follow(t instant, p *path) {
	if p == e.current {
		e.chosen = PeerMoved
		return
	}
	old := e.current
	e.emit(Switch{From: e.last, To: p.pair, Cause: PeerMoved, Verified: p.verification == Verified})
	e.setCurrent(p)
	e.chosen = PeerMoved
	e.lost = false
	e.calm()
	e.moved(t, old)
}

// verified ends a check that succeeded.
func (e *Entry) verified(t instant) {
	p := e.wanted
	e.wanted, e.previous = nil, nil
	e.follow(t, p)
}

// unverified ends a check without an answer. That is no attack (RFC 4621 §5.5.2):
// the pair may have stopped working, and the initiator will notice and choose
// another. But traffic does not stay at an address that nobody has shown to be the
// peer's. The peer's wish stands: when something is heard from there later, the
// check is repeated.
func (e *Entry) unverified(t instant) {
	p, back := e.wanted, e.previous
	e.wanted, e.previous = nil, nil
	p.verification = VerificationFailed
	p.become(t, Failed, VerificationFailing)
	p.attempts = burst
	e.unmet = p
	e.emit(Unproven{Pair: p.pair})
	if p != e.current {
		return
	}
	if back != nil && back.usable() {
		e.emit(Switch{From: p.pair, To: back.pair, Cause: VerificationFailing, Verified: back.verification == Verified})
		e.setCurrent(back)
		e.chosen = VerificationFailing
		e.moved(t, p)
		return
	}
	e.current = nil
	e.raise(t, VerificationFailing)
}

// prune forgets pairs that a responder keeps no state for: it follows, and a
// gateway has many peers. What has answered is remembered, since peers come back.
func (e *Entry) prune() {
	if e.searching() {
		return
	}
	e.adopt(slices.DeleteFunc(slices.Clone(e.paths), func(p *path) bool {
		return p != e.current && p != e.wanted && p != e.unmet && p != e.previous && p.answeredAt == never
	}))
}
