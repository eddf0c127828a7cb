package mobike

import (
	"crypto/subtle"
	"net/netip"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// cookieLen is the length of our COOKIE2 (RFC 4555 §4.2.5: 8 to 64 octets).
const cookieLen = 16

// flight is where copies of the outstanding request have gone.
type flight struct {
	sent map[locator.Pair]transmission
}

type transmission struct {
	at       time.Time
	count    int
	answered bool
}

// begin forgets the request before.
func (f *flight) begin() { f.sent = make(map[locator.Pair]transmission, 2) }

func (f *flight) note(now time.Time, pairs []locator.Pair) {
	if f.sent == nil {
		f.begin()
	}
	for _, p := range pairs {
		s := f.sent[p]
		f.sent[p] = transmission{now, s.count + 1, s.answered}
	}
}

// answered notes that a copy of the response came over the pair; false if none can
// have been expected there, or if it is not the first.
func (f *flight) answered(pair locator.Pair) bool {
	s, ok := f.sent[pair]
	if !ok || s.answered {
		return false
	}
	s.answered = true
	f.sent[pair] = s
	return true
}

// roundTrip is the time since the request left over the pair; zero if it left more
// than once, or elsewhere.
func (f *flight) roundTrip(now time.Time, pair locator.Pair) time.Duration {
	if s, ok := f.sent[pair]; ok && s.count == 1 {
		return now.Sub(s.at)
	}
	return 0
}

// only says whether every copy went to one address: only then does the answer show
// return routability (RFC 4555 §3.7).
func (f *flight) only(remote netip.AddrPort) bool {
	for p := range f.sent {
		if p.Remote != remote {
			return false
		}
	}
	return len(f.sent) > 0
}

// probe is the request that tests paths, waiting for its turn or in flight.
type probe struct {
	waiting bool
	pairs   []locator.Pair // where its first copies go
	fresh   []locator.Pair // pairs that want a request of their own
	sole    bool           // the one waiting goes to one pair only
}

// run carries out what the host entry has decided.
func (t *Task) run(now time.Time) {
	for range 64 { // decisions may lead to others, but not for ever
		decisions := t.entry.Decisions()
		if len(decisions) == 0 {
			break
		}
		for _, d := range decisions {
			t.carryOut(now, d)
		}
	}
	t.nextFresh(now)
}

func (t *Task) carryOut(now time.Time, d locator.Decision) {
	switch d := d.(type) {
	case locator.Probe:
		t.carryOutProbe(now, d)
	case locator.Keepalive:
		if d.Proof {
			t.probe.fresh = append(t.probe.fresh, d.Pair)
			return
		}
		t.session.Act(ike.Keepalive{Session: t.session.ID(), Pair: d.Pair})
	case locator.Switch:
		t.carryOutSwitch(now, d)
	case locator.Announce:
		t.tellMove(now)
	case locator.Lost:
		t.outage.begin(now)
		t.session.Act(ike.PathLost{Session: t.session.ID(), Cause: d.Cause.String()})
	}
}

// carryOutProbe tests paths. A fresh probe is a request of its own, and waits while another
// one is outstanding; but one that has gone nowhere else than to that address proves as
// much. One probe is one packet: addresses that have never answered get few.
func (t *Task) carryOutProbe(now time.Time, d locator.Probe) {
	if !d.Fresh {
		t.sendProbe(now, d.Pairs)
		return
	}
	if t.session.Outstanding() && t.flight.only(d.Pairs[0].Remote) {
		t.sendProbe(now, d.Pairs)
		return
	}
	t.probe.fresh = append(t.probe.fresh, d.Pairs...)
}

// sendProbe sends the outstanding request over these pairs, or a new one.
func (t *Task) sendProbe(now time.Time, pairs []locator.Pair) {
	switch {
	case t.session.Outstanding():
		t.flight.note(now, pairs)
		t.session.SendOutstanding(pairs)
	case t.probe.waiting:
		for _, p := range pairs {
			if !slices.Contains(t.probe.pairs, p) && !t.probe.sole {
				t.probe.pairs = append(t.probe.pairs, p)
			}
		}
	default:
		t.ask(now, pairs, false)
	}
}

// nextFresh sends a request to one pair alone, when nothing else is under way or waits.
func (t *Task) nextFresh(now time.Time) {
	if len(t.probe.fresh) == 0 || t.probe.waiting || t.session.Outstanding() || t.session.Waiting() {
		return
	}
	p := t.probe.fresh[0]
	t.probe.fresh = slices.DeleteFunc(t.probe.fresh[1:], func(q locator.Pair) bool { return q == p })
	t.ask(now, []locator.Pair{p}, true)
}

// ask begins an INFORMATIONAL exchange that tests these pairs: with a cookie, so
// that its answer proves that it was received (RFC 4555 §3.7), and as initiator
// with NAT detection, so that it shows a changed mapping (§3.8).
func (t *Task) ask(now time.Time, pairs []locator.Pair, sole bool) {
	t.probe.waiting, t.probe.pairs, t.probe.sole = true, slices.Clone(pairs), sole
	cookie := t.session.Random(cookieLen)
	t.session.Request(now, func(x *ike.Exchange) bool {
		t.probe.waiting = false
		x.Add(&message.Notify{Kind: message.Cookie2, Data: cookie})
		if t.session.Role() == ike.Initiator {
			if len(t.probe.pairs) > 0 {
				x.Pair = t.probe.pairs[0]
			}
			x.AddNATDetection()
		}
		return true
	}, func(x *ike.Exchange) { t.answered(x, cookie) })
}

// answered takes the answer to a probe. Heard has told the entry already that the
// pair works.
func (t *Task) answered(x *ike.Exchange, cookie []byte) {
	c := x.Notify(message.Cookie2)
	if c == nil || subtle.ConstantTimeCompare(c.Data, cookie) != 1 {
		// The peer could not have seen our request (RFC 4555 §3.7): close.
		t.session.Fail(x.Now, "COOKIE2 of the answer differs from that of the request")
		return
	}
	if t.flight.only(x.Pair.Remote) {
		t.entry.Answered(x.Now, x.Pair, 0)
	}
	if local, known := x.Translated(); known && len(t.flight.sent) == 1 {
		t.entry.SetNAT(x.Now, x.Pair, local) // hashes are good for one pair
	}
	t.checkMapping(x)
	t.run(x.Now)
}

// RetransmitOver implements ike.Retransmitter: the first copies of a probe go over
// the pairs it tests, everything else over the current pair. A request that goes
// unanswered makes the entry look for another way.
func (t *Task) RetransmitOver(now time.Time, sent int) []locator.Pair {
	if !t.active {
		return nil
	}
	pairs := []locator.Pair{t.session.Path().Pair}
	if sent == 0 {
		t.flight.begin()
		if len(t.probe.pairs) > 0 && !t.probe.waiting {
			pairs, t.probe.pairs = t.probe.pairs, nil
		}
	}
	t.flight.note(now, pairs)
	return pairs
}

// PathVerified implements ike.PathVerifier.
func (t *Task) PathVerified(pair locator.Pair) bool {
	return !t.active || t.session.Role() == ike.Initiator || t.entry.Verification(pair) == locator.Verified
}

// ProvesPath implements ike.PathJudge.
func (t *Task) ProvesPath(pair locator.Pair) bool {
	current := t.session.Path().Pair
	return !t.active || pair.Local == current.Local && pair.Remote == current.Remote
}

// Heard implements ike.PathObserver. Copies of the last response count once for each
// pair that the request was sent over; anything else that is not fresh may be a
// replay, from whatever source.
func (t *Task) Heard(now time.Time, pair locator.Pair, response, fresh bool) {
	if !t.active {
		return
	}
	copyHere := response && t.flight.answered(pair)
	switch {
	case response && (fresh || copyHere):
		t.entry.Reached(now, pair, t.flight.roundTrip(now, pair))
	case fresh:
		t.entry.Heard(now, pair)
	default:
		return
	}
	if pair == t.session.Path().Pair {
		t.outage.heard()
	}
	if !response {
		t.run(now)
	}
}

// DataPathEvent implements ike.DataPathObserver.
func (t *Task) DataPathEvent(now time.Time, ev esp.Event) {
	if !t.active {
		return
	}
	switch ev.Kind {
	case esp.Unanswered:
		if t.session.Role() == ike.Responder {
			return // the initiator decides
		}
		if t.follow.at.IsZero() {
			t.checkFollowing(now)
		}
		t.outage.begin(ev.Since)
		t.entry.Unanswered(now, ev.Since)
	case esp.SourceChanged:
		t.sourceChanged(now, ev.Observed)
	}
	t.run(now)
}

// Deadline implements ike.Timed.
func (t *Task) Deadline() time.Time {
	if !t.active {
		return time.Time{}
	}
	if !t.begunAt.IsZero() {
		return t.begunAt
	}
	at, _ := t.entry.Deadline()
	for _, own := range []time.Time{t.hurry.at, t.follow.at} {
		if at.IsZero() || !own.IsZero() && own.Before(at) {
			at = own
		}
	}
	return at
}

// Tick implements ike.Timed.
func (t *Task) Tick(now time.Time) {
	if !t.begunAt.IsZero() && t.session.Role() == ike.Initiator {
		t.setLocal(now, t.cfg.Local()) // they may have changed since IKE_AUTH began
	}
	t.begunAt = time.Time{}
	t.hurryOn(now)
	if at := t.follow.at; !at.IsZero() && !now.Before(at) {
		t.checkFollowing(now)
	}
	t.entry.Tick(now)
	t.run(now)
}
