package esp

import (
	"fmt"
	"sync"
)

// SAD is the inbound half of the security association database (RFC 4301 §4.4.2):
// it finds an SA by its SPI. Lookups take no lock. SPIs are chosen at random by
// their receiver, so their low bits spread SAs over the shards evenly.
type SAD[V any] struct {
	mu  sync.Mutex // serialises changes
	sas shards[uint32, V]
}

// Lookup finds an SA.
func (d *SAD[V]) Lookup(spi uint32) (V, bool) { return d.sas.lookup(uint8(spi), spi) }

// Insert adds an SA; the SPI must be free.
func (d *SAD[V]) Insert(spi uint32, v V) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, taken := d.Lookup(spi); taken {
		return fmt.Errorf("inbound spi %#x is in use by another sa", spi)
	}
	d.sas.change(uint8(spi), func(m map[uint32]V) { m[spi] = v })
	return nil
}

// Remove takes an SA out.
func (d *SAD[V]) Remove(spi uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sas.change(uint8(spi), func(m map[uint32]V) { delete(m, spi) })
}
