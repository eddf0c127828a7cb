package mobike

import (
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// setLocal takes the complete list of this host's addresses, and tells the peer
// what has changed about those it cannot see (RFC 4555 §3.6).
func (t *Task) setLocal(now time.Time, addrs []locator.Local) {
	t.locals = slices.Clone(addrs)
	if !t.active {
		return
	}
	t.entry.SetLocal(now, t.locals)
	t.run(now)
	if !slices.Equal(t.additionalTo(t.session.Path().Pair), t.announced) {
		t.tellAddresses(now)
	}
}

// tellAddresses sends the list when it is its turn.
func (t *Task) tellAddresses(now time.Time) {
	if t.announce {
		return
	}
	t.announce = true
	t.session.Request(now, func(x *ike.Exchange) bool {
		t.announce = false
		t.addAdditional(x, x.Pair, true)
		addNoNATs(x)
		return true
	}, func(x *ike.Exchange) {
		if x.Notify(message.UnexpectedNATDetected) != nil && t.noNATs.again() {
			t.tellAddresses(x.Now)
		}
	})
}

// handleInformational reads a request of the peer: its address list, its update.
func (t *Task) handleInformational(x *ike.Exchange) error {
	update := x.Notify(message.UpdateSAAddresses) != nil && t.session.Role() == ike.Responder
	list := x.Notify(message.NoAdditionalAddresses) != nil ||
		x.Notify(message.AdditionalIP4Address) != nil || x.Notify(message.AdditionalIP6Address) != nil
	if update || list {
		if err := checkNoNATs(x); err != nil {
			return err
		}
	}
	if list {
		t.setForeign(x)
	}
	switch {
	case update:
		t.peerMoved(x)
	case x.Pair != t.session.Path().Pair:
		t.entry.Sighted(x.Now, x.Pair)
	}
	t.run(x.Now)
	return nil
}
