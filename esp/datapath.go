// Package esp is the Encapsulating Security Payload (RFC 4303): the description
// of a security association, sealing and opening of packets in place, the
// anti-replay window, lifetimes, and the interface that every data path offers.
//
// It knows nothing of IKE or HIP: both hand it the same description of an SA.
package esp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// What every data path keeps to.
const (
	// DefaultReplayWindow is the size of the anti-replay window in packets.
	DefaultReplayWindow = 2048
	// DefaultMTU is that of the tunnel's interface. It fits a path of 1500 octets with any
	// algorithm, also when the outer packet is IPv6 in UDP, and leaves some for a tunnel
	// or PPPoE underneath.
	DefaultMTU = 1380
	// WatchRest is for how long after the last traffic a data path goes on watching for
	// answers.
	WatchRest = time.Second
	// SourceReportInterval limits SourceChanged events of one host. A NAT may change its
	// mapping twice in a row, and each change waits so long at most.
	SourceReportInterval = 200 * time.Millisecond
)

// Errors of a data path's methods.
var (
	ErrUnknownHost    = errors.New("host is not known to the data path")
	ErrUnknownChild   = errors.New("child sa is not known to the data path")
	ErrDataPathClosed = errors.New("data path is closed")
)

// HostID names the peer that SAs belong to. Moving a host moves all its SAs.
type HostID uint64

// ChildID names a Child SA pair, one inbound and one outbound SA. It is unique
// within a process and never reused.
type ChildID uint64

// SA describes one direction of a Child SA: all that a data path needs, however
// the keys were agreed. EncrKey holds the cipher key followed by the salt for
// ciphers that have one (RFC 4106 §8.1, RFC 7634 §2).
type SA struct {
	SPI      uint32
	Encr     suite.Encr
	Integ    suite.IntegID
	EncrKey  []byte
	IntegKey []byte
	ESN      bool
}

// Zero overwrites the keys.
func (sa *SA) Zero() {
	clear(sa.EncrKey)
	clear(sa.IntegKey)
}

// Selector is one traffic selector (RFC 7296 §3.13.1): a range of addresses of
// one family, an IP protocol (0 for any) and a range of ports (0 to 65535 for
// any; 65535 to 0 for OPAQUE).
type Selector struct {
	Protocol           uint8
	StartPort, EndPort uint16
	Start, End         netip.Addr
}

// Lifetime limits what one SA may carry, in either direction. Zero means
// unlimited. The first direction to reach a soft limit raises SoftLimit, once for
// the Child SA; a hard limit stops the SA and raises HardLimit. Time limits are kept by whoever negotiated the SA.
type Lifetime struct {
	SoftBytes, HardBytes     uint64
	SoftPackets, HardPackets uint64
}

// Child describes a Child SA pair in tunnel mode (RFC 4301 §4.1). Local and
// Remote are the traffic selectors as this machine sees them: packets from Local
// to Remote are sealed with Out, packets opened with In must go from Remote to
// Local.
type Child struct {
	ID            ChildID
	Host          HostID
	In, Out       SA
	Local, Remote []Selector
	ReplayWindow  int // packets; 0 means DefaultReplayWindow
	// TFC says that the peer takes packets with traffic flow confidentiality padding
	// (RFC 4303 §2.7). Whether they are padded is the data path's to decide.
	TFC      bool
	Lifetime Lifetime
}

// Path is where a host's ESP packets go: the address pair, and whether ESP is
// carried in UDP (RFC 3948) or as IP protocol 50. Keepalive is the interval of
// NAT keepalives sent while nothing else is, zero for none (RFC 3948 §4). MTU is
// the largest outer packet the path is known to carry, IP header included; zero
// means that nobody has found out.
type Path struct {
	Pair      locator.Pair
	UDP       bool
	Keepalive time.Duration
	MTU       int
	// UnansweredAfter is how long packets may be sent without a valid one coming
	// back over the path before Unanswered is raised; zero does not watch.
	UnansweredAfter time.Duration
	// Sparing says that the host has been silent for long, and may not be there any more:
	// until a valid packet comes from it or it moves, it is sent one packet a second at
	// most, or none.
	Sparing bool
}

// Check reports what no data path can work with.
func (p Path) Check() error {
	switch {
	case !p.Pair.Remote.IsValid():
		return errors.New("path has no remote address")
	case p.UDP && p.Pair.Remote.Port() == 0:
		return fmt.Errorf("path to %s in UDP has no port", p.Pair.Remote.Addr())
	case p.Keepalive < 0 || p.MTU < 0:
		return errors.New("path has a negative keepalive or MTU")
	}
	return nil
}

// Stats are the counters of a Child SA.
type Stats struct {
	InPackets, InBytes   uint64
	OutPackets, OutBytes uint64
	Replayed, AuthFailed uint64    // inbound packets dropped by the window, by the ICV
	SelectorMismatch     uint64    // opened but outside the traffic selectors
	LastIn, LastOut      time.Time // zero when there was none; LastIn is proof that the peer lives
}

// DataPath carries ESP. The userspace (esp/tun) and the kernel implementation
// (esp/xfrm) behave alike. Methods may be called from several goroutines and do
// not wait for the network.
//
// A Child SA is added before it is used: AddChild lets In accept packets at once;
// Out is used for its selectors only after ActivateChild. That is what a rekey
// without loss needs (RFC 7296 §2.8): the responder of the rekey adds the new
// pair, goes on sending on the old one, and activates when it sees the first
// packet on the new SA (event FirstInbound) or the old one being deleted. When
// several active children of a host cover a packet, the one activated last wins.
type DataPath interface {
	// AddHost makes a host known and says where it is.
	AddHost(HostID, Path) error
	// MoveHost sends all of the host's SAs over another path from now on.
	// Packets arriving from the old path stay valid.
	MoveHost(HostID, Path) error
	// RemoveHost removes the host and every Child SA it still has.
	RemoveHost(HostID) error
	// AddChild installs a Child SA; the data path takes its own copy of the keys.
	AddChild(Child) error
	// ActivateChild starts to send on a Child SA.
	ActivateChild(ChildID) error
	// RemoveChild removes a Child SA and zeroes its keys.
	RemoveChild(ChildID) error
	// QueryChild returns counters.
	QueryChild(ChildID) (Stats, error)
	// QueryHost returns the sum over the host's present and former Child SAs.
	QueryHost(HostID) (Stats, error)
	// Close stops the data path and removes what it installed.
	Close() error
}

// EventKind says what a data path noticed.
type EventKind int

// Events of a data path.
const (
	// FirstInbound: the first valid packet arrived on an inbound SA.
	FirstInbound EventKind = iota + 1
	// SoftLimit: a soft lifetime, or 3/4 of the sequence numbers, is used up: rekey.
	SoftLimit
	// HardLimit: a hard lifetime or the last sequence number is used up; the SA
	// carries nothing any more.
	HardLimit
	// SourceChanged: a valid packet, newest in the window, arrived from another
	// source than the host's path; Observed holds it. Raised at limited rate.
	SourceChanged
	// Unanswered: packets have been sent to the host since Since, and none that is
	// valid has come back over its path. Raised while it lasts, at a limited rate;
	// see Path.UnansweredAfter.
	Unanswered
	// UnknownSPI: an ESP packet for no known SA arrived; SPI and Observed say
	// which and whence. Raised at a limited rate.
	UnknownSPI
)

// Event is something a data path noticed. It is delivered through the function
// given when the data path was made, which must not block.
type Event struct {
	Kind     EventKind
	Host     HostID
	Child    ChildID
	SPI      uint32
	Observed locator.Pair
	Since    time.Time // Unanswered
}
