package locator

import "time"

// bucket is a token bucket with its size and rate kept outside, since thousands of
// entries share them. Debt is the time until the bucket is full again; the zero
// bucket is full.
type bucket struct {
	debt time.Duration
	at   instant
}

// quota is the shape of a bucket: burst packets at once, then one per interval.
type quota struct {
	burst    int
	interval time.Duration
}

// settle forgets the debt that time has paid.
func (b *bucket) settle(t instant) {
	b.debt = max(0, b.debt-t.since(b.at))
	b.at = t
}

// take takes one token if there is one.
func (b *bucket) take(t instant, q quota) bool {
	if b.ready(t, q) > t {
		return false
	}
	b.debt += q.interval
	return true
}

// ready returns when there is a token: t itself or later.
func (b *bucket) ready(t instant, q quota) instant {
	b.settle(t)
	full := time.Duration(q.burst) * q.interval
	return t.add(max(0, b.debt+q.interval-full))
}

// refund gives n tokens back.
func (b *bucket) refund(n int, q quota) {
	b.debt = max(0, b.debt-time.Duration(n)*q.interval)
}
