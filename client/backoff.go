package client

import "time"

// How long to wait before trying again. What will not heal by itself is tried
// rarely: each attempt costs the gateway a public-key operation, and may lock an
// account.
const (
	retryFirst         = time.Second
	retryMost          = time.Minute
	permanentFirst     = time.Minute
	permanentMost      = 10 * time.Minute
	retryJitter        = 0.2
	uplinkPause        = 300 * time.Millisecond // the least, when a new uplink ends the wait
	steadyAfter        = 30 * time.Second       // a session that lasted so long was a success
	degradedPatience   = 15 * time.Second       // traffic out without traffic in
	degradedUnanswered = 2                      // transmissions of one request
)

// backoff counts failures in a row.
type backoff struct {
	failures int
	random   func() float64 // in [0, 1)
}

// next returns how long to wait after another failure.
func (b *backoff) next(isPermanent bool) time.Duration {
	d, most := retryFirst, retryMost
	if isPermanent {
		d, most = permanentFirst, permanentMost
	}
	for range min(b.failures, 16) {
		d = min(2*d, most)
	}
	b.failures++
	// Jitter in both directions keeps the clients of a restarted gateway apart.
	return time.Duration(float64(d) * (1 + retryJitter*(2*b.random()-1)))
}

func (b *backoff) reset() { b.failures = 0 }
