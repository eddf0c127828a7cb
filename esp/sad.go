package esp

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
)

// sadShards bounds what adding an SA copies: a shard is replaced as a whole.
const sadShards = 256

// SAD is the inbound half of the security association database (RFC 4301 §4.4.2):
// it finds an SA by its SPI. Lookups take no lock. SPIs are chosen at random by
// their receiver, so their low bits spread SAs over the shards evenly.
type SAD[V any] struct {
	mu     sync.Mutex // serialises changes
	shards [sadShards]atomic.Pointer[map[uint32]V]
}

// Lookup finds an SA.
func (d *SAD[V]) Lookup(spi uint32) (v V, ok bool) {
	m := d.shards[spi%sadShards].Load()
	if m == nil {
		return v, false
	}
	v, ok = (*m)[spi]
	return v, ok
}

// Insert adds an SA; the SPI must be free.
func (d *SAD[V]) Insert(spi uint32, v V) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, taken := d.Lookup(spi); taken {
		return fmt.Errorf("inbound spi %#x is in use by another sa", spi)
	}
	d.change(spi, func(m map[uint32]V) { m[spi] = v })
	return nil
}

// Remove takes an SA out.
func (d *SAD[V]) Remove(spi uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.change(spi, func(m map[uint32]V) { delete(m, spi) })
}

func (d *SAD[V]) change(spi uint32, edit func(map[uint32]V)) {
	shard := &d.shards[spi%sadShards]
	next := map[uint32]V{}
	if old := shard.Load(); old != nil {
		next = maps.Clone(*old)
	}
	edit(next)
	shard.Store(&next)
}
