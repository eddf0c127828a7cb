package mobike

import (
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// follow watches whether what the responder sends in its Child SAs comes to the pair
// that it has confirmed. Some data paths cannot change the addresses of an SA: such a
// responder moves its IKE SA (RFC 4555 §3.5), and replaces its Child SAs by itself; but
// that request of its own waits behind others that were lost with the old path. A Child
// SA that we renew begins at the new addresses at once.
type follow struct {
	pair  locator.Pair // the one watched; none since the move that is not confirmed yet
	since time.Time    // when it was confirmed; zero: all has come, or has been renewed
	at    time.Time    // when to look; zero: when traffic is reported to go unanswered
	sent  uint64       // octets that had left at since
}

const (
	// followWithin is the time in which an answer must be here, at least; twice the
	// time that the confirmation took, if that is longer.
	followWithin = 100 * time.Millisecond
	// stragglers is how long packets still come that left for the old pair.
	stragglers = 50 * time.Millisecond
)

// watchFollowing begins the watch at the confirmation of a move. Gateways of our kind
// move all their SAs, once the new address is verified.
func (t *Task) watchFollowing(x *ike.Exchange) {
	if t.session.OpenNAT() || t.follow.pair == x.Pair {
		return // an update repeated is no other move
	}
	wait := max(followWithin, 2*x.Now.Sub(t.update.toldAt))
	t.follow = follow{pair: x.Pair, since: x.Now, at: x.Now.Add(wait), sent: t.session.ESPSent()}
}

// checkFollowing looks whether anything has come since, and renews what stayed behind.
func (t *Task) checkFollowing(now time.Time) {
	f := &t.follow
	f.at = time.Time{}
	switch {
	case f.since.IsZero():
	case t.session.ESPHeard().After(f.since.Add(stragglers)):
		f.since = time.Time{}
	case t.session.ESPSent() != f.sent:
		f.since = time.Time{}
		if t.session.Outstanding() {
			t.repeatOver(now, f.pair) // until it is answered nothing else can be asked
		}
		t.session.RenewChildren(now)
	}
}
