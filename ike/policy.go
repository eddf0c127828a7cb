package ike

import (
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// Childless says what to do about IKE SAs without a first Child SA (RFC 6023).
type Childless uint8

// Childless modes.
const (
	ChildlessAllow Childless = iota // as responder accept, as initiator do not ask
	ChildlessNever
	ChildlessForce // as initiator ask, as responder refuse a Child SA in IKE_AUTH
)

// Policy says how sessions with a kind of peer are negotiated and kept. It is not
// changed once in use; make a new one to change.
type Policy struct {
	Local  auth.Local
	Remote auth.Remote

	IKE []suite.IKEProposal
	ESP []suite.ESPProposal

	// LocalSelectors are the networks on our side. As initiator that asks for an
	// inner address, leave it nil: everything is offered and the responder narrows
	// it to the address it assigns.
	LocalSelectors []esp.Selector
	// RemoteSelectors are the networks on the peer's side. As responder that
	// assigns addresses, leave it nil: it is the assigned address.
	RemoteSelectors []esp.Selector

	// AssignAddresses refuses clients that do not ask for an inner address
	// (FAILED_CP_REQUIRED).
	AssignAddresses bool
	// RequestIPv4 and RequestIPv6 ask the gateway for inner addresses and DNS.
	RequestIPv4, RequestIPv6 bool

	// RekeyIKE and RekeyChild are the ages at which SAs are rekeyed; zero never.
	// Jitter is the largest fraction by which a rekey comes earlier, at random
	// (RFC 7296 §2.8), for instance 0.1.
	RekeyIKE, RekeyChild time.Duration
	Jitter               float64

	// Lifetime limits each Child SA by volume.
	Lifetime     esp.Lifetime
	ReplayWindow int // packets, 0: esp.DefaultReplayWindow

	// LivenessDelay is the silence, of IKE and ESP together, after which an empty
	// INFORMATIONAL request asks whether the peer lives (RFC 7296 §2.4); zero never.
	LivenessDelay time.Duration
	// ConnectTimeout bounds IKE_SA_INIT and IKE_AUTH, each; PeerTimeout is how long
	// an unanswered request of an established session is repeated before the
	// session is given up. Zero means DefaultConnectTimeout, DefaultPeerTimeout.
	ConnectTimeout, PeerTimeout time.Duration
	// AwayTimeout takes the place of PeerTimeout, if it is longer, with a peer that can
	// move (see Mover): it may be out of reach for hours, with the lid closed or in a
	// plane, and go on where it was. Its silence costs little: after PeerTimeout what
	// is unanswered is repeated once a minute. Zero leaves it at PeerTimeout.
	AwayTimeout time.Duration

	// KeepaliveInterval of NAT keepalives; zero means DefaultKeepalive.
	KeepaliveInterval time.Duration

	// UnansweredAfter is how long an initiator's traffic may go unanswered before
	// the path is looked at; zero leaves it to liveness checks.
	UnansweredAfter time.Duration

	// Fragmentation offers and accepts IKE fragmentation (RFC 7383).
	// FragmentSize is the largest IP datagram to make, zero for 1280.
	Fragmentation bool
	FragmentSize  int

	// DiscoverPathMTU finds out by probes what the path carries towards the peer
	// (RFC 8899); it takes Fragmentation, so that a probe that is too large delays an
	// exchange and no more. MaxPathMTU is the largest packet worth finding, zero for
	// DefaultMaxPathMTU. Without discovery PathMTU is taken for every path, zero
	// leaves it open.
	DiscoverPathMTU     bool
	MaxPathMTU, PathMTU int

	// NativeESP uses IP protocol 50 where no NAT is in the way. Otherwise ESP is
	// always carried in UDP, since not every path passes protocol 50: peers of our
	// kind are told so, standard ones are made to see a NAT.
	NativeESP bool
	// ProhibitNAT switches NAT traversal off: no UDP encapsulation, and whoever changes
	// addresses on the way is an attacker (RFC 4555 §3.9).
	ProhibitNAT bool

	Childless Childless

	// SendCertificates sends our chain even when the peer did not ask.
	SendCertificates bool

	// Extensions take part in the session's exchanges, MOBIKE for instance.
	Extensions []Extension
}

// MaxPathMTUFor is the largest packet worth finding for an inner MTU, zero for one that
// fits Ethernet anyway: then Ethernet's is.
func MaxPathMTUFor(inner int) int {
	const mostOverhead = 120 // IPv6, UDP, ESP with the longest IV, padding and ICV
	if inner < DefaultMaxPathMTU {
		return DefaultMaxPathMTU
	}
	return min(inner+mostOverhead, 65535)
}

// Defaults of a Policy.
const (
	DefaultConnectTimeout = 30 * time.Second
	DefaultPeerTimeout    = 5 * time.Minute
	DefaultAwayTimeout    = 24 * time.Hour   // what daemons set
	DefaultKeepalive      = 20 * time.Second // RFC 3948 §4
	DefaultFragmentSize   = 1280
	DefaultMaxPathMTU     = 1500
)

// AwayTimeout returns the AwayTimeout that follows from what a user has set: who sets a
// timeout for unanswered requests only means that one for all peers.
func AwayTimeout(away, peer time.Duration) time.Duration {
	switch {
	case away > 0:
		return away
	case peer > 0:
		return peer
	}
	return DefaultAwayTimeout
}
