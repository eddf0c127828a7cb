package ike

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// Rekeying a Child SA (RFC 7296 §1.3.3, §2.8). The side that asks installs the new
// SA, sends on it and deletes the old one. The side that is asked accepts on the
// new SA at once but goes on sending on the old one until it sees a packet on the
// new one, or the Delete of the old: only then is it known that the asker is
// ready.
//
// Both may ask at once (§2.8.1). Then two successors exist for a moment, and the
// one whose exchange had the lowest of the four nonces is deleted by its creator.

// rekeyChildRequest is our rekey of a Child SA.
type rekeyChildRequest struct {
	old   *childSA
	offer *childOffer
	share keyShare
}

func (s *Session) startRekeyChild(now time.Time, c *childSA) {
	c.rekeyAt = time.Time{}
	if c.ours != nil || !c.mayBeRekeyed() {
		return
	}
	if c.use != active || c.unconfirmed {
		c.rekeyAt = now.Add(time.Second)
		return
	}
	c.ours = &rekeyChildRequest{old: c, share: keyShare{method: espMethod(s.policy.ESP)}}
	s.sa.enqueue(now, c.ours)
}

func (r *rekeyChildRequest) exchange() message.ExchangeType { return message.CreateChildSA }

func (r *rekeyChildRequest) prepare(now time.Time, sa *ikeSA) {
	s := sa.session
	if r.overtaken(s) {
		r.withdraw(now, sa)
		return
	}
	r.share.make(now, s, func(now time.Time) {
		if !sa.resumes(now, r) {
			return
		}
		if r.overtaken(s) { // while the key share was made
			r.withdraw(now, sa)
			return
		}
		if r.offer == nil {
			r.offer = s.newOffer(r.old.local, r.old.remote)
			r.offer.ni = s.engine.random(nonceLen)
		}
		sa.transmitOffer(now, r.offer, &r.share,
			&message.Notify{Kind: message.RekeySA, Protocol: message.ProtoESP, SPI: appendSPI(nil, r.old.spiIn)})
	})
}

// overtaken says whether there is nothing to rekey any more.
func (r *rekeyChildRequest) overtaken(s *Session) bool {
	return s.state != Up || s.child(r.old.id) == nil || r.old.unready() != nil
}

// withdraw gives the rekey up before it was sent.
func (r *rekeyChildRequest) withdraw(now time.Time, sa *ikeSA) {
	r.share.zero()
	r.old.ours = nil
	sa.withdraw(now)
	sa.session.checkChildless(now)
}

func (r *rekeyChildRequest) unanswered(now time.Time, sa *ikeSA) { sa.peerSilent(now) }

func (r *rekeyChildRequest) response(now time.Time, sa *ikeSA, x *Exchange) {
	s := sa.session
	if n := message.FindErrorNotify(x.In); n != nil {
		r.refused(now, sa, n)
		return
	}
	sa.current = r
	r.share.finish(now, s, x, r.offer.chosenKE(x), func(now time.Time, secret []byte, err error) {
		sa.current = nil
		defer sa.pump(now)
		defer clear(secret)
		r.old.ours = nil
		var c *childSA
		if err == nil {
			c, err = r.offer.accept(now, sa, x, secret)
		}
		if err != nil {
			s.rekeyFailed(now, r.old, err)
			s.checkChildless(now) // the old one may be gone
			return
		}
		nr, _ := message.Find[*message.Nonce](x.In)
		r.succeed(now, sa, c, nonces{r.offer.ni, nr.Data})
	})
}

// succeed puts the new Child SA in the old one's place, unless the peer's own
// rekey beats it.
func (r *rekeyChildRequest) succeed(now time.Time, sa *ikeSA, c *childSA, n nonces) {
	s, old := sa.session, r.old
	if rival := old.successor; rival != nil {
		if n.lower(old.successorNonces) {
			// Ours had the lowest nonce: it is redundant and ours to delete.
			c.use = redundant
			s.install(now, c, false)
			s.deleteChild(now, c)
			return
		}
		rival.use = redundant
		old.successor = nil
	}
	if s.child(old.id) == nil {
		// The peer deleted the old one meanwhile, without a successor of its own.
		s.install(now, c, true)
		return
	}
	s.install(now, c, true)
	old.use = replaced
	s.Act(Rekeyed{Session: s.id, OldChild: old.id, NewChild: c.id})
	s.deleteChild(now, old)
}

// refused handles an error answer to our rekey (RFC 7296 §2.25.1).
func (r *rekeyChildRequest) refused(now time.Time, sa *ikeSA, n *message.Notify) {
	s, old := sa.session, r.old
	gone := s.child(old.id) == nil || old.successor != nil
	switch {
	case gone:
		old.ours = nil // the peer's rekey or Delete overtook ours
		s.checkChildless(now)
	case n.Kind == message.InvalidKEPayload && r.share.retry(n, espOffers(s.policy.ESP)):
		sa.current = r
		r.prepare(now, sa)
	case n.Kind == message.TemporaryFailure:
		s.retryLater(now, r)
	case n.Kind == message.ChildSANotFound:
		old.ours = nil
		s.childLost(now, old)
	default:
		old.ours = nil
		s.rekeyFailed(now, old, &NotifyError{Kind: n.Kind, Reason: reasonFor(n.Kind)})
	}
}

// childLost replaces a Child SA that the peer does not have (any more).
func (s *Session) childLost(now time.Time, c *childSA) {
	local, remote := c.local, c.remote
	s.removeNow(c)
	s.Act(ChildDown{Session: s.id, Child: c.id, Reason: reason.ChildNotFound})
	s.startCreateChild(now, local, remote)
}

// rekeyFailed tries again after a while; expireAt ends the SA if it never works.
func (s *Session) rekeyFailed(now time.Time, c *childSA, err error) {
	var n *NotifyError
	s.engine.log.Warn("rekeying a Child SA failed", "session", s.id, "child", c.id, "error", err, "refused", errors.As(err, &n))
	if s.child(c.id) != nil {
		c.rekeyAt = now.Add(s.engine.pause(failedChildPause, failedChildPause))
	}
}

// rekeyTarget finds the Child SA that the peer wants to rekey, or says why not
// (RFC 7296 §2.25.1).
func (s *Session) rekeyTarget(n *message.Notify) (*childSA, *message.Notify) {
	if n.Protocol != message.ProtoESP || len(n.SPI) != 4 {
		return nil, &message.Notify{Kind: message.InvalidSyntax}
	}
	spi := binary.BigEndian.Uint32(n.SPI)
	c := s.childByOutbound(spi)
	if c == nil {
		return nil, childNotFound(spi)
	}
	if n := c.unready(); n != nil {
		return nil, n
	}
	return c, nil
}

// unready says how to refuse the rekey of a Child SA that is on its way out
// (RFC 7296 §2.25.1); nil when it may be rekeyed.
func (c *childSA) unready() *message.Notify {
	if !c.mayBeRekeyed() {
		return &message.Notify{Kind: message.TemporaryFailure}
	}
	return nil
}

func childNotFound(spi uint32) *message.Notify {
	return &message.Notify{Kind: message.ChildSANotFound, Protocol: message.ProtoESP, SPI: appendSPI(nil, spi)}
}
