package ike

import (
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

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
