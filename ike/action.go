package ike

import (
	"crypto/x509"
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// SessionID names a session. It is unique within a process, never reused, and
// serves the data path as the host's name too (esp.HostID).
type SessionID uint64

// WorkID names one piece of Work.
type WorkID uint64

// Action is something the engine wants done: Send, Work, AuthorizeRequest,
// AddHost, MoveHost, RemoveHost, AddChild, ActivateChild, RemoveChild,
// Established, Rekeyed, ChildUp, ChildDown, Closed or Refused.
type Action interface{ action() }

// Send asks for an IKE message to be sent. Data has no non-ESP marker; the
// transport adds it by the local port (RFC 3948 §2.2). DontFragment is a probe of the
// path MTU: it is sent whole or not at all, whatever is known about the path.
type Send struct {
	Session      SessionID // zero for answers outside of any session
	Pair         locator.Pair
	Data         []byte
	DontFragment bool
}

// Work asks for a computation to be run, on any goroutine, and its result to be
// handed to Complete. Run touches nothing that the engine owns.
type Work struct {
	ID      WorkID
	Session SessionID
	Run     func() any
}

// AuthorizeRequest tells that a peer has proved who it is, and asks whether it may
// come in and with which configuration. The answer goes to Authorize, at once or
// later; until then the IKE_AUTH response waits.
type AuthorizeRequest struct {
	Session     SessionID
	Peer        auth.Identity
	Certificate *x509.Certificate // nil with a shared key
	// SharedKey names the shared key that the peer has proved to know, zero with a
	// certificate. The receiver's own keys may have changed since the session began.
	SharedKey auth.KeyFingerprint
	Pair      locator.Pair
	// WantIPv4 and WantIPv6 say which inner addresses the peer asks for in its
	// CFG_REQUEST; Requested holds the ones it would like to have again.
	WantIPv4, WantIPv6 bool
	Requested          []netip.Addr
	// InitialContact: the peer says that it has no other session with us
	// (RFC 7296 §2.4).
	InitialContact bool
}

// Grant is the answer to an AuthorizeRequest. A non-empty Refuse refuses the peer,
// with AUTHENTICATION_FAILED or, for reason.PoolExhausted, with
// INTERNAL_ADDRESS_FAILURE.
type Grant struct {
	Refuse reason.Code
	Detail string
	Config Configuration
	// LocalSelectors overrides the policy's networks for this peer when not nil.
	LocalSelectors []esp.Selector
}

// Configuration is what a gateway assigns to a client through the Configuration
// payload (RFC 7296 §3.15).
type Configuration struct {
	Addresses []netip.Addr // at most one of each family
	DNS       []netip.Addr
	Domains   []string       // INTERNAL_DNS_DOMAIN, RFC 8598
	Subnets   []netip.Prefix // INTERNAL_IP4_SUBNET, INTERNAL_IP6_SUBNET
}

// AddHost makes a peer known to the data path: esp.DataPath.AddHost. It comes
// before the first AddChild of a session.
type AddHost struct {
	Session SessionID
	Path    esp.Path
}

// MoveHost sends the session's ESP over another path: esp.DataPath.MoveHost.
type MoveHost struct {
	Session SessionID
	Path    esp.Path
}

// RemoveHost forgets the peer: esp.DataPath.RemoveHost.
type RemoveHost struct {
	Session SessionID
}

// AddChild installs a Child SA: esp.DataPath.AddChild. If that fails, report it
// with ChildFailed. The keys belong to the receiver, who zeroes them.
type AddChild struct {
	Session SessionID
	Child   esp.Child
}

// ActivateChild starts to send on a Child SA: esp.DataPath.ActivateChild.
type ActivateChild struct {
	Session SessionID
	Child   esp.ChildID
}

// RemoveChild removes a Child SA: esp.DataPath.RemoveChild.
type RemoveChild struct {
	Session SessionID
	Child   esp.ChildID
}

// Established tells that the session is up: the peer is authenticated and, unless
// the session is childless, the first Child SA is installed.
type Established struct {
	Session SessionID
	Info    SessionInfo
}

// Rekeyed tells that a session goes on with a new IKE SA or Child SA.
type Rekeyed struct {
	Session            SessionID
	IKE                bool
	OldSPIi, OldSPIr   message.SPI // IKE
	NewSPIi, NewSPIr   message.SPI
	OldChild, NewChild esp.ChildID // Child SA
}

// PathChanged tells that a session goes on over another path. On an initiator it is
// followed by PathConfirmed, unless the path changes again before.
type PathChanged struct {
	Session  SessionID
	From, To locator.Pair
	Cause    string
	Verified bool // the new pair had been verified before
	// Gap is the time until the move: on an initiator since the old path was seen not to
	// work any more, on a responder since the peer asked for it.
	Gap time.Duration
}

// PathConfirmed tells that the peer has taken part in the last PathChanged.
type PathConfirmed struct {
	Session SessionID
	Pair    locator.Pair
	// Gap is the time until the confirmation since the old path was seen not to work
	// any more: the first packet that went unanswered, the loss of the address. If it
	// worked until the move, it is the time of the move itself.
	Gap time.Duration
}

// PathMTUFound tells what the path in use carries towards the peer, when that has
// changed. MTU is the largest IP packet, before is zero if nothing was known.
type PathMTUFound struct {
	Session     SessionID
	Pair        locator.Pair
	Before, MTU int
}

// PathLost tells that no usable path is left. The session goes on looking for one;
// PathChanged or traffic on the old path ends it.
type PathLost struct {
	Session SessionID
	Cause   string
}

// Keepalive asks for one NAT keepalive over a pair (RFC 3948 §2.3).
type Keepalive struct {
	Session SessionID
	Pair    locator.Pair
}

// ChildDown tells that a Child SA is gone without a successor while the session
// lives.
type ChildDown struct {
	Session SessionID
	Child   esp.ChildID
	Reason  reason.Code
}

// Closed tells that a session is over, and why. It is the last action of a
// session. A session that never came up ends with Closed too.
type Closed struct {
	Session SessionID
	Info    SessionInfo // as it was last
	Reason  reason.Code
	// Notify is the error notify that was received or sent, zero if none.
	Notify message.NotifyType
	Detail string // for the log; holds nothing secret
}

// Refused tells of a request that was turned away before there was a session.
// It is raised at a limited rate.
type Refused struct {
	Pair   locator.Pair
	Reason reason.Code
	Notify message.NotifyType
	Detail string
}

func (Send) action()             {}
func (Work) action()             {}
func (AuthorizeRequest) action() {}
func (AddHost) action()          {}
func (MoveHost) action()         {}
func (RemoveHost) action()       {}
func (AddChild) action()         {}
func (ActivateChild) action()    {}
func (RemoveChild) action()      {}
func (Established) action()      {}
func (Rekeyed) action()          {}
func (ChildDown) action()        {}
func (PathChanged) action()      {}
func (PathConfirmed) action()    {}
func (PathMTUFound) action()     {}
func (PathLost) action()         {}
func (Keepalive) action()        {}
func (Closed) action()           {}
func (Refused) action()          {}

// Role says which side of the IKE SA this is: who sent the IKE_SA_INIT request of
// the session.
type Role uint8

// Roles.
const (
	Initiator Role = iota + 1
	Responder
)

// State is the state of a session.
type State uint8

// States of a session.
const (
	// Connecting: IKE_SA_INIT or IKE_AUTH is under way.
	Connecting State = iota + 1
	// Up: authenticated.
	Up
	// Closing: a Delete is on its way.
	Closing
	// Gone: over.
	Gone
)

// SessionInfo is a snapshot of a session, for status and logs.
type SessionInfo struct {
	ID             SessionID
	Role           Role
	State          State
	SPIi, SPIr     message.SPI
	Local, Peer    auth.Identity
	AuthMethod     message.AuthMethod // how the peer proved itself
	Path           esp.Path
	NATLocal       bool // a NAT stands before us
	NATPeer        bool // a NAT stands before the peer (or it says so, to get UDP encapsulation)
	Algorithms     suite.IKEAlgorithms
	Fragmentation  bool
	Extensions     []string // names of negotiated extensions, e.g. "mobike"
	Config         Configuration
	Started        time.Time // first message
	Established    time.Time
	IKERekeyAt     time.Time // zero: never
	LastIKEInbound time.Time // last authenticated IKE message of the peer
	Unanswered     int       // transmissions of the outstanding request so far
	// AwaySince is when it was sent first, if the peer has not answered for so long that
	// it must be out of reach; zero otherwise.
	AwaySince time.Time
	// TellsCrash says that the peer has handed out a token, with which it would tell that
	// it has lost the session (RFC 6290).
	TellsCrash bool
	Children   []ChildInfo
}

// ChildInfo is a snapshot of a Child SA.
type ChildInfo struct {
	ID            esp.ChildID
	SPIIn, SPIOut uint32
	Algorithms    suite.ESPAlgorithms
	Local, Remote []esp.Selector
	Established   time.Time
	RekeyAt       time.Time
	Active        bool // we send on it
}
