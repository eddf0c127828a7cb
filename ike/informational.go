package ike

import (
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// INFORMATIONAL (RFC 7296 §1.4): Deletes, liveness checks, and what the tasks do.

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

// livenessRequest is an empty request: does the peer live (RFC 7296 §2.4)?
type livenessRequest struct{}

func (*livenessRequest) exchange() message.ExchangeType { return message.Informational }

func (*livenessRequest) prepare(now time.Time, sa *ikeSA) {
	s := sa.session
	x := s.newExchange(now, message.Informational, s.path.Pair, nil)
	if err := s.each(x, Task.Request); err != nil {
		s.engine.log.Warn("liveness check", "session", s.id, "error", err)
	}
	sa.transmit(now, x.Out)
}

func (*livenessRequest) response(now time.Time, sa *ikeSA, x *Exchange) {
	s := sa.session
	if err := s.each(x, Task.HandleResponse); err != nil {
		s.finish(now, reason.ProtocolError, 0, err.Error())
	}
}

func (*livenessRequest) unanswered(now time.Time, sa *ikeSA) { sa.peerSilent(now) }

// livenessAt says when silence has lasted long enough to ask, zero for never.
func (s *Session) livenessAt() time.Time {
	if s.policy.LivenessDelay <= 0 || s.sa == nil || s.sa.current != nil || len(s.sa.queue) > 0 {
		return time.Time{} // what is under way, or waits for its turn, shows as much
	}
	from := s.livenessFrom
	if s.pathIn.After(from) {
		from = s.pathIn
	}
	return from.Add(s.livenessDelay())
}

// livenessDelay is the policy's. Behind a NAT a check takes the place of a keepalive, so
// that idle sessions send no more than these: there it waits for the next one.
func (s *Session) livenessDelay() time.Duration {
	delay, keepalive := s.policy.LivenessDelay, s.keepalive()
	if !s.nat.local && !s.nat.peer || delay <= keepalive {
		return delay
	}
	return (delay + keepalive - 1) / keepalive * keepalive
}

// checkLiveness asks, unless ESP has arrived meanwhile: that is proof enough.
func (s *Session) checkLiveness(now time.Time) {
	if f := s.engine.cfg.LastInbound; f != nil {
		if t := f(s.id); t.After(s.livenessFrom) {
			s.livenessFrom = t
			if now.Sub(t) < s.livenessDelay() {
				return
			}
		}
	}
	if s.sa.current == nil && len(s.sa.queue) == 0 {
		s.sa.enqueue(now, &livenessRequest{})
	}
}

// Request sends an INFORMATIONAL request when it is its turn, before others that
// wait. Only then build adds its payloads, so that they tell the state of that
// moment; false gives the request up. then gets the response.
func (s *Session) Request(now time.Time, build func(x *Exchange) bool, then func(x *Exchange)) {
	s.sa.urgent(now, &taskRequest{build, then})
}

// taskRequest is an INFORMATIONAL request of a task.
type taskRequest struct {
	build func(x *Exchange) bool
	then  func(x *Exchange)
}

func (*taskRequest) exchange() message.ExchangeType { return message.Informational }

func (r *taskRequest) prepare(now time.Time, sa *ikeSA) {
	x := sa.session.newExchange(now, message.Informational, sa.session.path.Pair, nil)
	if !r.build(x) {
		sa.withdraw(now)
		return
	}
	sa.transmit(now, x.Out)
}

func (r *taskRequest) response(_ time.Time, _ *ikeSA, x *Exchange) { r.then(x) }
func (r *taskRequest) unanswered(now time.Time, sa *ikeSA)         { sa.peerSilent(now) }

// serveInformational answers an INFORMATIONAL request.
func (sa *ikeSA) serveInformational(now time.Time, rq *peerRequest) {
	s, x := sa.session, rq.x
	if x.Notify(message.AuthenticationFailed) != nil && s.role == Responder && sa == s.sa {
		// The initiator did not accept our AUTH (RFC 7296 §2.21.2).
		rq.respond(now, nil)
		s.finishLingering(now, reason.AuthFailed, message.AuthenticationFailed, "the peer did not accept our authentication")
		return
	}
	sa.keepToken(x.In)
	s.mtu.hinted(now, x)
	answer := &message.Delete{Protocol: message.ProtoESP}
	closed := false
	for _, d := range message.All[*message.Delete](x.In) {
		switch d.Protocol {
		case message.ProtoIKE:
			closed = true
		case message.ProtoESP:
			for _, spi := range d.SPIs {
				if own, ok := s.deleteByPeer(now, spi); ok {
					answer.SPIs = append(answer.SPIs, own)
				}
			}
		}
	}
	if closed {
		rq.respond(now, nil)
		sa.deletedByPeer(now)
		return
	}
	if err := s.each(x, Task.HandleRequest); err != nil {
		rq.refuse(now, notifyFor(err))
		return
	}
	if len(answer.SPIs) > 0 {
		x.Add(answer)
	}
	if err := s.each(x, Task.Respond); err != nil {
		rq.refuse(now, notifyFor(err))
		return
	}
	rq.respond(now, x.Out)
	s.checkChildless(now)
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
