package mobike

import (
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
)

// outage measures what a move costs: from the moment the old path was seen not to work
// until the responder has confirmed the new one.
type outage struct {
	since time.Time // zero: the path in use works, as far as we know
	moved bool      // a move is not confirmed yet
}

// begin notes that the path in use has not worked since then.
func (o *outage) begin(since time.Time) {
	if o.since.IsZero() {
		o.since = since
	}
}

// move notes a move; if the old path worked until then, it starts the clock.
func (o *outage) move(now time.Time) {
	o.begin(now)
	o.moved = true
}

// heard notes a packet on the path in use: it works, unless it is the new one and the
// responder has yet to follow.
func (o *outage) heard() {
	if !o.moved {
		o.since = time.Time{}
	}
}

func (o *outage) lasted(now time.Time) time.Duration { return max(0, now.Sub(o.since)) }

// confirmed tells of the end of a move.
func (t *Task) confirmed(now time.Time) {
	if !t.outage.moved {
		return
	}
	t.session.Act(ike.PathConfirmed{Session: t.session.ID(), Pair: t.session.Path().Pair, Gap: t.outage.lasted(now)})
	t.outage = outage{}
}
