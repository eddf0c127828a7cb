package ratelimit

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Table limits many keys with a fixed number of buckets. Keys that fall into the
// same bucket share it: a flood of keys can make the table stricter, never larger.
// Which keys share is secret and differs between processes. It is safe for use by
// several goroutines.
type Table[K comparable] struct {
	mu        sync.Mutex
	seed      maphash.Seed
	buckets   []bucketState
	perSecond float64
	burst     float64
}

// NewTable makes a table of size buckets, each of which allows perSecond events a
// second in the long run and burst at once.
func NewTable[K comparable](size int, perSecond float64, burst int) *Table[K] {
	return &Table[K]{
		seed:      maphash.MakeSeed(),
		buckets:   make([]bucketState, max(1, size)),
		perSecond: perSecond,
		burst:     float64(burst),
	}
}

// Allow reports whether an event of key may happen now, and takes a token if so.
func (t *Table[K]) Allow(key K, now time.Time) bool {
	i := maphash.Comparable(t.seed, key) % uint64(len(t.buckets))
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buckets[i].allow(now, t.perSecond, t.burst)
}

// Source returns the key that a source address is limited by: the address
// itself for IPv4, the /64 for IPv6, since one host has all of that.
func Source(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil { // only the zero Addr
		return netip.Prefix{}
	}
	return p
}
