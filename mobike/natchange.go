package mobike

import (
	"bytes"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// natMapping remembers how the responder saw us last: the hash of our address and
// port in its NAT_DETECTION_DESTINATION_IP (RFC 4555 §3.8). The hash covers the
// SPIs too and so holds for one IKE SA and one pair.
type natMapping struct {
	pair locator.Pair
	spi  message.SPI
	hash []byte
}

// noteNAT tells the entry whether NAT detection has found a NAT on the pair of a
// message. What a standard responder says of itself is not believed: it may only want
// ESP in UDP.
func (t *Task) noteNAT(x *ike.Exchange) {
	local, peer := t.session.NAT()
	if t.session.Role() == ike.Initiator && !t.session.OpenNAT() {
		peer = false
	}
	if t.session.NATTraversal() {
		t.entry.SetNAT(x.Now, x.Pair, local || peer)
	}
}

// rememberMapping takes the answer to UPDATE_SA_ADDRESSES as the state that counts. If
// it may be about another pair, the responder is asked again, on this one alone.
func (t *Task) rememberMapping(x *ike.Exchange) {
	n := x.Notify(message.NATDetectionDestinationIP)
	switch {
	case n == nil:
	case t.ambiguous():
		t.nat = natMapping{}
		if t.mappingUnknown() {
			t.nat = natMapping{pair: x.Pair, spi: t.session.SPI()}
			t.probe.fresh = append(t.probe.fresh, x.Pair)
		}
	default:
		t.nat = natMapping{pair: x.Pair, spi: t.session.SPI(), hash: n.Data}
	}
}

// ambiguous says whether the hashes of an answer may be about another pair than the one
// it came on: the responder makes one answer, for the copy of the request that arrives
// first, and repeats it to the others.
func (t *Task) ambiguous() bool { return len(t.flight.sent) > 1 }

// checkMapping compares the answer to a check with what the responder saw before.
// Another hash on the current pair means that the NAT has given us another address
// or port, and that the responder's packets go to the old one: tell it.
func (t *Task) checkMapping(x *ike.Exchange) {
	n := x.Notify(message.NATDetectionDestinationIP)
	if n == nil || t.session.Role() != ike.Initiator || !t.active || x.Pair != t.session.Path().Pair {
		return
	}
	before := t.nat
	known := before.spi == t.session.SPI() && before.pair == x.Pair
	same := bytes.Equal(before.hash, n.Data)
	if t.ambiguous() && known && !same {
		t.probe.fresh = append(t.probe.fresh, x.Pair) // ask again, there alone
		return
	}
	t.rememberMapping(x)
	switch {
	case !known:
		// The first look since IKE_SA_INIT, a rekey or a move: all there is to
		// compare with is whether a NAT was seen at all; the cautious answer to
		// "has it changed?" is a harmless update.
		if t.mappingUnknown() {
			t.tellMove(x.Now)
		}
	case before.hash != nil && !same:
		t.entry.MappingLost(x.Now, x.Pair, 0)
		t.outage.move(x.Now)
		t.follow = follow{}
		t.session.Act(ike.PathChanged{Session: t.session.ID(), From: x.Pair, To: x.Pair, Cause: locator.NATChanged.String(),
			Verified: true, Gap: t.outage.lasted(x.Now)})
		t.tellMove(x.Now)
	}
}

// mappingUnknown says whether a NAT stands before us.
func (t *Task) mappingUnknown() bool {
	local, _ := t.session.NAT()
	return local
}

// sourceChanged is valid ESP from another source than the session's: a NAT before
// the peer has changed its mapping, and the peer does not know. RFC 4555 §3.8 lets
// us follow for ESP; we ask first whether the peer is really there.
func (t *Task) sourceChanged(now time.Time, seen locator.Pair) {
	t.seen, t.seenAt = seen.Remote, now
	if t.session.Role() != ike.Responder {
		return
	}
	if _, peer := t.session.NAT(); !peer {
		// No mapping that could have changed: the peer has moved, and will say so.
		t.entry.Sighted(now, seen)
		return
	}
	t.askedAt = now
	t.entry.Verify(now, seen)
}
