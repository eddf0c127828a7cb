// Package pathmtu searches for the largest packet that a path carries in one
// direction, by probing (RFC 8899, Datagram Packetization Layer Path MTU Discovery).
// Nothing depends on ICMP: a router that drops large packets without a word is found
// like one that complains.
//
// It is a pure state machine: time and outcomes in, sizes to try out. Whoever sends
// the probes is told by Begin which sizes to try, one after the other until one is
// answered, and says what came of it. All sizes are those of IP packets, headers
// included.
package pathmtu

import (
	"slices"
	"time"
)

// Timers and counts (RFC 8899 §5.1).
const (
	// Tries is how often a size is tried before it counts as too large (MAX_PROBES),
	// so that plain loss does not look like a small MTU.
	Tries = 3
	// ConfirmEvery is how often the size in use is tried again while traffic flows
	// (CONFIRMATION_TIMER), IdleEvery how often somebody looks whether it does.
	ConfirmEvery = 5 * time.Second
	IdleEvery    = time.Minute
	// RaiseEvery is how often a larger size is tried (PMTU_RAISE_TIMER).
	RaiseEvery = 10 * time.Minute
	// retryVoid is when a probe that had to give way to something else is repeated.
	retryVoid = time.Second
	// A suspicion that proved unfounded silences others for a doubling while.
	firstHold, lastHold = 2 * time.Second, time.Minute
	// granularity is how close the search comes to the truth, in octets. More would
	// gain nothing: ESP pads to four or sixteen.
	granularity = 8
)

// Min4 and Min6 are the sizes that every path carries (MIN_PLPMTU). RFC 791 promises
// less for IPv4, but no network that anybody uses has less; IPv6: RFC 8200 §5.
const (
	Min4 = 576
	Min6 = 1280
)

// common are sizes that paths have, most of them one encapsulation away from another:
// a table search (RFC 8899 §5.3.2) finds them in few steps.
var common = []int{800, 1006, 1200, 1280, 1320, 1360, 1380, 1400, 1420, 1440, 1450, 1460, 1472, 1480, 1492, 1500, 4000, 9000}

// steps are the sizes that a walk tries below the one it begins with.
var steps = []int{1400, 1280}

// phase is where the search stands (RFC 8899 §5.2).
type phase uint8

const (
	starting  phase = iota // nothing is known (BASE)
	searching              // some size works, some larger one does not (SEARCHING)
	complete               // there is nothing more to find, for now (SEARCH_COMPLETE)
)

// probe is what is tried: one size, or, to find out quickly where the path stands, a
// walk from that size down to one that surely passes.
type probe struct {
	size int
	walk bool
}

// Search is what is known about one path.
type Search struct {
	min, max int

	phase phase
	mtu   int // largest packet that was answered, zero while none was
	low   int // the size that was asked for then; the packet may have been shorter
	bad   int // smallest size that counts as too large, zero for none
	again int // a size between them that is to be tried first

	next      probe
	due       time.Time
	busy      bool
	raiseAt   time.Time
	suspected bool // the probe that is due or under way was brought on by Suspect
	hold      time.Duration
	holdUntil time.Time
}

// New begins a search between the size that every path carries and the largest one
// worth knowing. The first probe is due at the time given.
func New(at time.Time, least, most int) *Search {
	s := &Search{min: least, max: max(least, most)}
	s.want(at, probe{s.max, true})
	return s
}

// Min is the size that the path carries in any case.
func (s *Search) Min() int { return s.min }

// MTU is the largest packet that the path is known to carry, zero while nobody knows.
func (s *Search) MTU() int { return s.mtu }

// Complete says that the search has come to an end, until something changes.
func (s *Search) Complete() bool { return s.phase == complete }

// Due says when Begin has something to do; zero while a probe is under way.
func (s *Search) Due() time.Time {
	if s.busy {
		return time.Time{}
	}
	return s.due
}

// Begin returns the sizes to try, in order, until one is answered; none when there is
// nothing to do. What is sent when all have been tried must be no larger than the
// minimum. Used says whether the path has carried traffic since the last time; a path
// without is left alone.
func (s *Search) Begin(now time.Time, used bool) []int {
	if s.busy || s.due.After(now) {
		return nil
	}
	if s.phase == complete && !s.suspected {
		if !used {
			s.due = now.Add(IdleEvery)
			return nil
		}
		if s.low < s.max && !s.raiseAt.After(now) {
			s.raise(now)
		} else if s.mtu <= s.min {
			s.due = now.Add(RaiseEvery) // there is nothing below that could be confirmed
			return nil
		}
	}
	s.busy = true
	return s.sizes()
}

func (s *Search) sizes() []int {
	list := slices.Repeat([]int{s.next.size}, Tries)
	if !s.next.walk {
		return list
	}
	for _, size := range steps {
		if size < s.next.size && size >= s.min {
			list = append(list, size)
		}
	}
	return list
}

// Answered tells that of the sizes tried the one sent last, or an earlier one, was
// answered. The packet was no larger than asked for, but may have been smaller.
func (s *Search) Answered(now time.Time, asked, packet int) {
	s.busy = false
	first := s.next
	switch {
	case !first.walk:
		s.reached(asked, packet)
	case asked >= first.size:
		s.unfounded(now)
		s.reached(asked, packet)
	default:
		s.shrink(asked, packet)
	}
	s.proceed(now)
}

// TooLarge tells that none of the sizes was answered, but what was sent last.
func (s *Search) TooLarge(now time.Time) {
	s.busy = false
	if s.next.walk {
		s.shrink(s.min, s.min)
	} else {
		s.bad = s.next.size
	}
	s.proceed(now)
}

// Void tells that nothing can be said about the sizes: something more urgent came in
// between, or nothing at all was answered.
func (s *Search) Void(now time.Time) {
	s.busy = false
	s.want(now.Add(retryVoid), s.next)
}

// Suspect tells that traffic seems to vanish: that may be a black hole for large
// packets. What is in use is tried at once, unless that was unfounded lately. It
// reports whether it is.
func (s *Search) Suspect(now time.Time) bool {
	if s.phase != complete || s.busy || s.mtu <= s.min || s.holdUntil.After(now) {
		return false
	}
	s.suspected = true
	s.want(now, probe{s.low, true})
	return true
}

// Recheck has what is known tried again: the path was out of use.
func (s *Search) Recheck(now time.Time) {
	s.hold, s.holdUntil = 0, time.Time{}
	s.Suspect(now)
}

// reached takes a size that works.
func (s *Search) reached(asked, packet int) {
	s.low, s.mtu = max(s.low, asked), max(s.mtu, packet)
	if s.bad <= s.low {
		s.bad = 0
	}
}

// shrink takes the end of a walk: less works than was asked for. The size between was
// tried once only, and may have been lost.
func (s *Search) shrink(asked, packet int) {
	s.hold, s.holdUntil = 0, time.Time{}
	s.low, s.mtu, s.bad, s.again = asked, packet, s.next.size, 0
	for _, size := range steps {
		if size > s.low && size < s.bad {
			s.again = size
		}
	}
	s.phase = searching
}

// unfounded ends a suspicion: large packets get through.
func (s *Search) unfounded(now time.Time) {
	if s.suspected {
		s.hold = min(max(firstHold, 2*s.hold), lastHold)
		s.holdUntil = now.Add(s.hold)
	}
}

// raise begins to look for more than what is known.
func (s *Search) raise(now time.Time) {
	s.phase, s.bad = searching, 0
	if i, _ := slices.BinarySearch(common, s.low+granularity+1); i < len(common) {
		s.again = common[i]
	}
	s.want(now, probe{s.max, false})
}

// proceed chooses what to try next.
func (s *Search) proceed(now time.Time) {
	s.suspected = false
	if size := s.candidate(); size != 0 {
		s.phase = searching
		s.want(now, probe{size, false})
		return
	}
	if s.phase != complete {
		s.raiseAt = now.Add(RaiseEvery)
	}
	s.phase = complete
	s.want(now.Add(ConfirmEvery), probe{s.low, true})
}

// candidate is a size between what works and what does not, zero if there is none.
// Sizes that are common come first; if only the largest is known not to work, the
// next smaller one: little is lost on most paths.
func (s *Search) candidate() int {
	again := s.again
	switch {
	case s.bad == 0 && s.low < s.max && s.phase != complete:
		return s.max
	case s.bad == 0:
		return 0
	case again > s.low && again < s.bad:
		s.again = 0
		return again
	case s.bad-s.low <= granularity:
		return 0
	}
	from, _ := slices.BinarySearch(common, s.low+1)
	to, _ := slices.BinarySearch(common, s.bad)
	between := common[from:to]
	switch {
	case len(between) == 0:
		return (s.low + s.bad) / 2 &^ 3
	case s.bad == s.max:
		return between[len(between)-1]
	}
	return between[len(between)/2]
}

func (s *Search) want(at time.Time, p probe) { s.due, s.next = at, p }
