package ike

import (
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// Deletes of IKE SAs and Child SAs (RFC 7296 §1.4.1), ours and the peer's.

// deleteIKE is our Delete of an IKE SA (RFC 7296 §1.4.1).
type deleteIKE struct{ closing bool }

func (*deleteIKE) exchange() message.ExchangeType { return message.Informational }

func (*deleteIKE) prepare(now time.Time, sa *ikeSA) {
	sa.transmit(now, []message.Payload{&message.Delete{Protocol: message.ProtoIKE}})
}

func (d *deleteIKE) response(now time.Time, sa *ikeSA, _ *Exchange) { d.done(now, sa) }
func (d *deleteIKE) unanswered(now time.Time, sa *ikeSA)            { d.done(now, sa) }

func (d *deleteIKE) done(now time.Time, sa *ikeSA) {
	if d.closing {
		sa.session.finishClosing(now)
		return
	}
	sa.session.dropRetired(now, sa)
}

// deletedByPeer ends the session, or the retired IKE SA, that the peer deleted. It
// lingers to repeat its answer.
func (sa *ikeSA) deletedByPeer(now time.Time) {
	s := sa.session
	if sa == s.sa {
		if sa.settleForRival(now) {
			sa.heir = nil
			sa.lingerBy = now.Add(lingerTime)
			return
		}
		s.finishLingering(now, reason.PeerDeleted, 0, "")
		return
	}
	sa.requeueOnSuccessor(now)
	sa.state = saDying
	sa.heir = nil
	sa.lingerBy = now.Add(lingerTime)
}

// requeueOnSuccessor moves a request that was in flight on a deleted IKE SA to the
// one in use; nobody will answer it on the old one.
func (sa *ikeSA) requeueOnSuccessor(now time.Time) {
	r, sent := sa.current, sa.out != nil
	sa.current, sa.out = nil, nil
	switch r.(type) {
	case *deleteChildRequest, *taskRequest:
		sa.session.sa.enqueue(now, r)
	case *createChildRequest, *rekeyChildRequest:
		if sent { // what is computed for it goes on by itself, see resumes
			sa.session.sa.enqueue(now, r)
		}
	case *mtuProbe:
		sa.session.mtu.void(now)
	}
}

// deleteChildRequest is our Delete of a Child SA (RFC 7296 §1.4.1).
type deleteChildRequest struct{ child *childSA }

// startDeleteChild deletes a Child SA for good.
func (s *Session) startDeleteChild(now time.Time, c *childSA, why reason.Code) {
	if c.deletion != undeleted {
		return
	}
	s.Act(ChildDown{Session: s.id, Child: c.id, Reason: why})
	s.deleteChild(now, c)
}

func (s *Session) deleteChild(now time.Time, c *childSA) {
	c.deletion = deleting
	s.sa.enqueue(now, &deleteChildRequest{c})
}

func (r *deleteChildRequest) exchange() message.ExchangeType { return message.Informational }

func (r *deleteChildRequest) prepare(now time.Time, sa *ikeSA) {
	if sa.session.child(r.child.id) == nil || r.child.deletion == deleted {
		sa.withdraw(now) // the peer was quicker
		return
	}
	sa.transmit(now, []message.Payload{&message.Delete{Protocol: message.ProtoESP, SPIs: []uint32{r.child.spiIn}}})
}

func (r *deleteChildRequest) response(now time.Time, sa *ikeSA, _ *Exchange) {
	s := sa.session
	if s.child(r.child.id) != nil {
		s.remove(now, r.child)
	}
	s.checkChildless(now)
}

func (r *deleteChildRequest) unanswered(now time.Time, sa *ikeSA) { sa.peerSilent(now) }

// deleteByPeer removes the Child SA with that outbound SPI and returns the SPI to
// name in the response; none if our own Delete is on its way (RFC 7296 §1.4.1).
func (s *Session) deleteByPeer(now time.Time, spi uint32) (uint32, bool) {
	c := s.childByOutbound(spi)
	if c == nil {
		s.noteEarlyDelete(spi)
		return 0, false
	}
	ours := c.deletion == deleting
	if next := c.successor; next != nil && s.child(next.id) != nil && !ours {
		c.use = replaced
		s.activate(next)
		s.Act(Rekeyed{Session: s.id, OldChild: c.id, NewChild: next.id})
	}
	lost := c.inUse() && !s.withdrawSuccessor(c)
	s.remove(now, c)
	if lost {
		s.Act(ChildDown{Session: s.id, Child: c.id, Reason: reason.PeerDeleted})
	}
	return c.spiIn, !ours
}

// noteEarlyDelete remembers the Delete of a Child SA that may be the one we have
// just asked for: until its answer is worked off, we do not know its SPI.
func (s *Session) noteEarlyDelete(spi uint32) {
	switch s.sa.current.(type) {
	case *createChildRequest, *rekeyChildRequest:
		if len(s.deletedEarly) < maxChildren {
			s.deletedEarly = append(s.deletedEarly, spi)
		}
	}
}

// withdrawSuccessor handles that the peer deletes the successor it made in a
// collision, because it knows already that ours has won.
func (s *Session) withdrawSuccessor(c *childSA) bool {
	for _, old := range s.children {
		if old.successor == c && old.use != replaced {
			old.successor = nil
			return true
		}
	}
	return false
}

// checkChildless ends a session that has lost its last Child SA: for a VPN client
// it is of no use, and connecting anew is the cure.
func (s *Session) checkChildless(now time.Time) {
	if s.role != Initiator || s.state != Up || s.live() > 0 || s.policy.Childless == ChildlessForce {
		return
	}
	for _, r := range append([]request{s.sa.current}, s.sa.queue...) {
		if _, creating := r.(*createChildRequest); creating {
			return
		}
		if _, rekeying := r.(*rekeyChildRequest); rekeying {
			return
		}
	}
	s.close(now, reason.NoChildSA)
}
