package ike

import (
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// INFORMATIONAL (RFC 7296 §1.4): what the tasks ask for, and how the peer's requests are
// answered. Deletes and liveness checks have files of their own.

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
