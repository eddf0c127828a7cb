// Package udprate finds the highest rate of UDP packets that a path between two
// network namespaces carries with almost no loss.
package udprate

// Trial is what came of sending at some rate.
type Trial struct {
	Sent, Received float64 // packets per second
}

// Loss is the share that was lost.
func (t Trial) Loss() float64 {
	if t.Sent <= 0 {
		return 1
	}
	return max(1-t.Received/t.Sent, 0)
}

// Limits of a search.
type Limits struct {
	Loss  float64 // the share that still counts as none
	Steps int     // trials after the first
}

// Search finds the highest rate that try carries with no more loss than allowed, in
// packets per second. Try sends at a rate, zero for as fast as it can; what it has
// sent counts, not what it was asked for. A trial that fails is repeated once, so
// that a single hiccup of the machine does not decide. Overload is the outcome of
// sending without a limit.
func Search(l Limits, try func(rate float64) Trial) (best float64, overload Trial) {
	overload = try(0)
	if overload.Loss() <= l.Loss {
		return overload.Sent, overload
	}
	// Under overload a path may deliver less than at the rate it can carry.
	low, high := 0.0, min(overload.Sent, overload.Received*1.6)
	rate := overload.Received * 0.9
	for range l.Steps {
		t := try(rate)
		if t.Loss() > l.Loss {
			t = try(rate)
		}
		if t.Loss() <= l.Loss {
			low, best = rate, max(best, t.Sent)
		} else {
			high = rate
		}
		rate = (low + high) / 2
	}
	return best, overload
}
