// Package xfrm is the kernel's data path: ESP sealed and opened by Linux, told what
// to do through netlink (states and policies of XFRM, RFC 4301's SAD and SPD).
//
// Where the kernel has XFRM interfaces, the tunnel is one: what is routed to it is
// sealed, what is opened comes out of it, so addresses, routes and packet filters
// see the same as with a TUN device. Other kernels get a dummy interface that holds
// addresses and routes: what is routed to it meets the policies, and what no policy
// takes vanishes in it, so nothing leaves in clear there either.
//
// The rules of esp.DataPath in the kernel's terms:
//
//   - A Child SA that is added has its two states, and policies that accept what the
//     inbound one opens. Outbound policies name the SPI to send on, so the outbound
//     state lies idle until ActivateChild makes policies point to it: one atomic
//     replacement for each traffic selector.
//   - Inbound policies name the host (its reqid), not the SPI: while a Child SA is
//     being replaced, packets of both are accepted.
//   - A host moves by XFRM_MSG_MIGRATE, or where that is missing by deleting the
//     states and adding them again. The kernel's notice of a deletion holds the last
//     sequence number and the anti-replay window, so the new state goes on exactly
//     where the old one ended.
//
// What differs from esp/tun is said in docs/architecture.md.
package xfrm

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Owner says whose states, policies and interface these are. Each owner has numbers of
// its own in the kernel (reqid, if_id), by which the next run finds what a crashed one
// has left. There may be one data path of an owner in a network namespace.
type Owner uint8

// Owners.
const (
	Gateway Owner = 1
	Laptop  Owner = 2
)

// Numbers in the kernel: the upper octet is ours, the next the owner's, and the rest
// counts.
const (
	numberBase  = 0x57000000
	numberShift = 20
	numberCount = 1 << numberShift
)

func (o Owner) base() uint32 { return numberBase | uint32(o)<<numberShift }

// owns says whether a reqid is one of this owner's.
func (o Owner) owns(reqid uint32) bool { return reqid&^(numberCount-1) == o.base() }

// interfaceID is the if_id of the owner's XFRM interface.
func (o Owner) interfaceID() uint32 { return o.base() | 1 }

// Sender sends what the kernel does not.
type Sender interface {
	// SendKeepalive sends a NAT keepalive (RFC 3948 §2.3).
	SendKeepalive(pair locator.Pair) error
}

// Config says what a data path is made of.
type Config struct {
	Owner Owner
	// Name is that of the interface to make, MTU its MTU, zero for DefaultMTU.
	Name string
	MTU  int
	// TFC pads packets to the size of the largest where the peer takes that.
	TFC bool
	// CopyDSCP gives outer packets the DSCP of those inside; without it they have none.
	// The kernel knows nothing else. Of ECN it does what RFC 6040 says.
	CopyDSCP bool
	// PolicyBased makes do without an XFRM interface.
	PolicyBased bool
	// NoMigrate moves hosts by deleting and adding states also where the kernel could
	// migrate them.
	NoMigrate bool
	// Mark is set on the packets that the kernel seals, so that policy routing can
	// keep them out of the tunnel. Zero sets none.
	Mark uint32
	// Send may be left out when it is set with SetSender.
	Send Sender
	// Events receives what the data path notices. It must not block, and must not
	// call Close; the other methods are fine.
	Events func(esp.Event)
	// Now and Log default to the clock and silence.
	Now func() time.Time
	Log *slog.Logger
}

func (c *Config) complete() error {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Events == nil {
		c.Events = func(esp.Event) {}
	}
	if c.MTU == 0 {
		c.MTU = esp.DefaultMTU
	}
	if c.Name == "" {
		return errors.New("the tunnel's interface needs a name")
	}
	if c.Owner != Gateway && c.Owner != Laptop {
		return fmt.Errorf("owner %d is neither the gateway nor the laptop", c.Owner)
	}
	return nil
}
