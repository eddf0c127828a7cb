// Package store keeps what a gateway must know again after a restart: which inner
// address belongs to whom. Behind the Store interface is one file by default; a
// cluster of gateways can keep the same in a place they share.
package store

import (
	"net/netip"
	"time"
)

// Lease is an inner address and whom it belongs to. Owner is opaque here.
type Lease struct {
	Address netip.Addr
	Owner   string
	Used    time.Time // when it was last leased or released
}

// Store keeps leases. Its methods may be called from several goroutines.
type Store interface {
	// Leases returns all leases, those used longest ago first.
	Leases() ([]Lease, error)
	// SaveLeases keeps leases, in place of what was known of their addresses: all of
	// them or, with an error, none. They are durable when it returns.
	SaveLeases([]Lease) error
	Close() error
}
