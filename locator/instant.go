package locator

import "time"

// instant is a time of an entry: nanoseconds since the entry was made, plus one.
// Many instants are kept per pair, and this takes a third of a time.Time. The zero
// instant is never.
type instant int64

const never instant = 0

// add returns the instant d later; never stays never.
func (t instant) add(d time.Duration) instant {
	if t == never {
		return never
	}
	return t + instant(d)
}

// since returns the time from u to t.
func (t instant) since(u instant) time.Duration { return time.Duration(t - u) }

// earlier returns the earlier of two instants, where never is the latest.
func earlier(t, u instant) instant {
	if t == never || u != never && u < t {
		return u
	}
	return t
}

// advance takes the time of an event. Entries do not go back in time: an event
// that is older than the last one counts as simultaneous with it.
func (e *Entry) advance(now time.Time) instant {
	e.now = max(e.now, e.instantOf(now))
	return e.now
}

// instantOf converts a time, which may lie in the past; before the entry was made
// is its beginning.
func (e *Entry) instantOf(t time.Time) instant {
	return max(1, instant(t.Sub(e.epoch))+1)
}

// timeOf converts an instant; never is the zero Time.
func (e *Entry) timeOf(t instant) time.Time {
	if t == never {
		return time.Time{}
	}
	return e.epoch.Add(time.Duration(t - 1))
}
