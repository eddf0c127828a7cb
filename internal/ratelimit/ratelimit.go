// Package ratelimit bounds how often something happens that strangers can
// provoke: log lines about bad packets, answers to unauthenticated messages. A
// Bucket limits one thing, a Table limits many keys (addresses) in a fixed amount
// of memory. Time is an argument; there is no clock inside.
package ratelimit

import (
	"sync"
	"time"
)

// Bucket is a token bucket. It is safe for use by several goroutines.
type Bucket struct {
	mu         sync.Mutex
	state      bucketState
	perSecond  float64
	burst      float64
	suppressed uint64
}

// NewBucket allows perSecond events a second in the long run and burst at once.
func NewBucket(perSecond float64, burst int) *Bucket {
	return &Bucket{perSecond: perSecond, burst: float64(burst)}
}

// Allow reports whether an event may happen now, and takes a token if so.
func (b *Bucket) Allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.allow(now, b.perSecond, b.burst) {
		return true
	}
	b.suppressed++
	return false
}

// Suppressed returns how many events were refused since it was last called, for
// a log line that says what it leaves out.
func (b *Bucket) Suppressed() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.suppressed
	b.suppressed = 0
	return n
}

// bucketState is what changes of a bucket. The zero value is a full bucket.
type bucketState struct {
	used float64 // tokens taken and not yet grown again
	last time.Time
}

func (s *bucketState) allow(now time.Time, perSecond, burst float64) bool {
	if passed := now.Sub(s.last); passed > 0 { // a clock set back gives nothing
		s.used = max(0, s.used-passed.Seconds()*perSecond)
		s.last = now
	}
	if s.used+1 > burst {
		return false
	}
	s.used++
	return true
}
