package ike

import (
	"fmt"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// What a session has to do by itself, and when. Each kind of timer has its deadline and its
// tick here; tick does what is due in the order in which it matters.

// deadline says when tick has something to do, zero for never.
func (s *Session) deadline() time.Time {
	if s.state == Gone {
		return s.lingerBy
	}
	at := s.endDeadline()
	if s.sa != nil {
		at = earlier(at, s.sa.deadline())
	}
	for _, sa := range s.retired {
		at = earlier(at, sa.deadline())
	}
	if s.state != Up {
		return at
	}
	at = earlier(at, s.rekeyAt)
	for _, c := range s.children {
		at = earlier(at, c.deadline())
	}
	at = earlier(at, s.taskDeadline())
	at = earlier(at, s.livenessAt())
	return earlier(at, s.mtu.deadline())
}

// tick does what has become due.
func (s *Session) tick(now time.Time) {
	if s.tickEnd(now) {
		return
	}
	for _, sa := range append([]*ikeSA{s.sa}, s.retired...) {
		if sa != nil && s.state != Gone {
			sa.tick(now)
		}
	}
	if s.state != Up {
		return
	}
	if due(now, s.rekeyAt) {
		s.startRekeyIKE(now)
	}
	for _, c := range slices.Clone(s.children) {
		s.tickChild(now, c)
	}
	s.tickTasks(now)
	if due(now, s.livenessAt()) {
		s.checkLiveness(now)
	}
	if due(now, s.mtu.deadline()) { // last: only when nothing else is to be done
		s.mtu.tick(now)
	}
}

// due says whether a deadline has come; zero never does.
func due(now, at time.Time) bool { return !at.IsZero() && !at.After(now) }

// endDeadline says when a session that is not over ends if nothing else happens.
func (s *Session) endDeadline() time.Time {
	return earlier(earlier(s.connectBy, s.closing.by), s.childlessBy)
}

// tickEnd ends what has lasted too long, and says whether the session is over.
func (s *Session) tickEnd(now time.Time) bool {
	switch {
	case due(now, s.lingerBy):
		s.lingerBy = time.Time{}
		s.sa.drop()
	case s.state == Gone:
	case due(now, s.closing.by):
		s.finishClosing(now)
	case due(now, s.connectBy):
		s.finish(now, reason.NoAnswer, 0, fmt.Sprintf("not connected after %v", now.Sub(s.started).Round(time.Millisecond)))
	case due(now, s.childlessBy):
		s.childlessBy = time.Time{}
		s.close(now, reason.NoChildSA)
		return false
	default:
		return false
	}
	return true
}

// deadline says when the session has something to do for a Child SA, zero for never. One
// that is on its way out only waits for its end.
func (c *childSA) deadline() time.Time {
	if c.deletion != undeleted {
		return c.removeAt
	}
	return earlier(c.rekeyAt, c.expireAt)
}

func (s *Session) tickChild(now time.Time, c *childSA) {
	switch {
	case !due(now, c.deadline()):
	case c.deletion != undeleted:
		s.removeNow(c)
	case due(now, c.expireAt) && !s.awaySince(now).IsZero():
		// Nobody uses it; its renewal comes first when the peer is back.
		c.expireAt = now.Add(awayAfter)
	case due(now, c.expireAt):
		s.startDeleteChild(now, c, reason.LifetimeExpired)
	default:
		s.startRekeyChild(now, c)
	}
}

func (s *Session) taskDeadline() time.Time {
	var at time.Time
	for _, t := range s.tasks {
		if t, ok := t.(Timed); ok {
			at = earlier(at, t.Deadline())
		}
	}
	return at
}

func (s *Session) tickTasks(now time.Time) {
	for _, t := range s.tasks {
		if t, ok := t.(Timed); ok && due(now, t.Deadline()) {
			t.Tick(now)
		}
	}
}
