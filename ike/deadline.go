package ike

import (
	"container/heap"
	"time"
)

// deadlineHeap holds the sessions that have something to do, the soonest first.
type deadlineHeap []*Session

func (h deadlineHeap) Len() int           { return len(h) }
func (h deadlineHeap) Less(i, j int) bool { return h[i].dueAt.Before(h[j].dueAt) }
func (h deadlineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapIndex, h[j].heapIndex = i, j
}

// Push and Pop serve container/heap.
func (h *deadlineHeap) Push(x any) {
	s := x.(*Session)
	s.heapIndex = len(*h)
	*h = append(*h, s)
}

func (h *deadlineHeap) Pop() any {
	old := *h
	s := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	s.heapIndex = -1
	return s
}

// due returns a session whose deadline has passed, or nil.
func (h deadlineHeap) due(now time.Time) *Session {
	if len(h) == 0 || h[0].dueAt.After(now) {
		return nil
	}
	return h[0]
}

func (h deadlineHeap) next() (time.Time, bool) {
	if len(h) == 0 {
		return time.Time{}, false
	}
	return h[0].dueAt, true
}

// set puts the session at its new deadline; zero takes it out.
func (h *deadlineHeap) set(s *Session, at time.Time) {
	switch {
	case at.IsZero() && s.heapIndex < 0:
	case at.IsZero():
		heap.Remove(h, s.heapIndex)
	case s.heapIndex < 0:
		s.dueAt = at
		heap.Push(h, s)
	case !s.dueAt.Equal(at):
		s.dueAt = at
		heap.Fix(h, s.heapIndex)
	}
}

// reschedule brings the session's place among the deadlines up to date.
func (e *Engine) reschedule(s *Session) { e.timers.set(s, s.deadline()) }

const (
	// maxSpins is how often a session may have something to do at one and the same
	// time: what ends one thing may begin the next, but not for ever.
	maxSpins  = 16
	spinPause = time.Second
)

// spins counts how often a session is due again right after its tick, and says when
// that is too often. It should never happen; if it does, one session must not take
// the engine's time from all others.
func (s *Session) spins(now time.Time) bool {
	if s.heapIndex < 0 || s.dueAt.After(now) {
		return false
	}
	if !s.spinAt.Equal(now) {
		s.spinAt, s.spun = now, 0
	}
	s.spun++
	return s.spun >= maxSpins
}

// earlier returns the earlier of two times, where zero stands for never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
