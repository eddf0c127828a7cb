package ike

import (
	"time"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Retransmission (RFC 7296 §2.1, §2.4): exponential back-off with jitter, until an
// overall time is over. The times are ours; the RFC leaves them open.
const (
	firstRetransmit = 500 * time.Millisecond
	backoff         = 1.7
	maxRetransmit   = 10 * time.Second
	sendJitter      = 0.1 // of each interval, in either direction
	// awayRetransmit is the interval after PeerTimeout, when the peer is away and will
	// be heard of before it hears of us.
	awayRetransmit = time.Minute
)

// inFlight is a request that waits for its response.
type inFlight struct {
	id       uint32
	packets  [][]byte
	sent     int
	since    time.Time // first
	sentAt   time.Time // last
	interval time.Duration
	nextAt   time.Time
	giveUpAt time.Time
}

// launch sends a request for the first time.
func (sa *ikeSA) launch(now time.Time, packets [][]byte) {
	s := sa.session
	timeout := s.patience()
	if s.state == Connecting {
		timeout = s.connectTimeout()
	}
	if _, ok := sa.current.(*deleteIKE); ok {
		timeout = min(timeout, retiredLife)
	}
	sa.out = &inFlight{id: sa.nextID, packets: packets, since: now, interval: firstRetransmit, giveUpAt: now.Add(timeout)}
	sa.send(now)
}

// send transmits the request in flight over the session's present pair.
func (sa *ikeSA) send(now time.Time) {
	if sa.tryLarge(now) {
		return
	}
	for _, pair := range sa.nextPairs(now) {
		sa.sendOver(pair)
	}
	o := sa.out
	o.sent++
	o.sentAt = now
	spread := 1 + sendJitter*(2*sa.session.engine.randomFraction()-1)
	o.nextAt = now.Add(time.Duration(float64(o.interval) * spread))
	if o.nextAt.After(o.giveUpAt) {
		o.nextAt = o.giveUpAt
	}
	most := maxRetransmit
	if sa.session.state == Up && now.Sub(o.since) >= sa.session.peerTimeout() {
		most = awayRetransmit
		sa.session.spare(true)
	}
	o.interval = min(time.Duration(float64(o.interval)*backoff), most)
}

// hurry repeats the request in flight when the peer was heard while its back-off is
// long: whatever was in the way has gone, and other requests wait behind this one.
func (sa *ikeSA) hurry(now time.Time) {
	if sa.out == nil || now.Sub(sa.out.sentAt) < firstRetransmit/2 {
		return
	}
	if p := sa.probing(); p != nil && p.left() {
		return // it waits for what it wants to know
	}
	for _, t := range sa.session.tasks {
		if v, ok := t.(PathVerifier); ok && !v.PathVerified(sa.session.path.Pair) {
			return
		}
	}
	sa.out.interval = firstRetransmit
	sa.send(now)
}

// nextPairs are the pairs for the next transmission.
func (sa *ikeSA) nextPairs(now time.Time) []locator.Pair {
	s := sa.session
	for _, t := range s.tasks {
		if r, ok := t.(Retransmitter); ok && s.state == Up {
			if pairs := r.RetransmitOver(now, sa.out.sent); len(pairs) > 0 {
				return pairs
			}
		}
	}
	return []locator.Pair{s.path.Pair}
}

// sendOver transmits the request in flight over a pair, without counting it.
func (sa *ikeSA) sendOver(pair locator.Pair) {
	s := sa.session
	if p := sa.probing(); p != nil {
		p.small()
	}
	for _, p := range sa.out.packets {
		s.Act(Send{Session: s.id, Pair: pair, Data: p})
	}
}

func (sa *ikeSA) deadline() time.Time {
	var at time.Time
	if sa.out != nil {
		at = sa.out.nextAt
	}
	at = earlier(at, sa.lingerBy)
	if sa.current == nil && len(sa.queue) > 0 {
		at = earlier(at, sa.retryAt)
	}
	return at
}

func (sa *ikeSA) tick(now time.Time) {
	if !sa.lingerBy.IsZero() && !sa.lingerBy.After(now) {
		sa.outlived(now)
		return
	}
	if !sa.retryAt.IsZero() && !sa.retryAt.After(now) {
		sa.retryAt = time.Time{}
		sa.pump(now)
	}
	if sa.out == nil || sa.out.nextAt.After(now) {
		return
	}
	if !sa.out.giveUpAt.After(now) {
		r := sa.current
		sa.current, sa.out = nil, nil
		r.unanswered(now, sa)
		return
	}
	sa.send(now)
}
