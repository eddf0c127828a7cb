package xfrm

import (
	"errors"
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

// kernel is what the logic of this package asks of Linux. The real one speaks
// netlink; tests put a model in its place.
type kernel interface {
	// AddState installs one direction of a Child SA.
	AddState(*state) error
	// UpdatePorts gives a state other ports of ESP in UDP.
	UpdatePorts(*state) error
	// State reads counters and anti-replay state; errGone when there is no such state.
	State(stateID) (snapshot, error)
	// RemoveState removes a state and returns what it was when it stopped.
	RemoveState(stateID) (snapshot, error)
	// Migrate moves one state, see migration.
	Migrate(migration) error
	// SetPolicy installs a policy, in place of the one with the same key.
	SetPolicy(policy) error
	// RemovePolicy removes a policy; that there is none is no error.
	RemovePolicy(policyKey) error
	// Pin makes sealed packets over a path leave by its interface, Unpin ends that.
	Pin(esp.Path) error
	Unpin(esp.Path) error
	// SetMTU changes the MTU of the tunnel's interface.
	SetMTU(mtu int) error
	// SetRouteMTU gives an address behind the interface a route with an MTU of its own;
	// zero takes it away.
	SetRouteMTU(to netip.Prefix, mtu int) error
	// Close removes the interface and what is left of ours.
	Close() error
}

var (
	// errGone: the kernel has no such state any more.
	errGone = errors.New("the kernel has no such state")
	// errCannotMigrate: this move has to be done by deleting and adding.
	errCannotMigrate = errors.New("the kernel cannot migrate this state")
)

// stateID is how the kernel finds a state for a packet. The protocol is ESP.
type stateID struct {
	dst netip.Addr
	spi uint32
}

// encap is ESP in UDP (RFC 3948); ports as in the packet's header.
type encap struct{ sport, dport uint16 }

// state is one direction of a Child SA as the kernel takes it.
type state struct {
	stateID
	src      netip.Addr
	sa       *esp.SA
	reqid    uint32
	encap    *encap // nil: protocol 50
	outbound bool
	tfc      bool // packets are padded to the path's MTU
	window   int
	limits   esp.Lifetime
	// replay and used continue a state that was removed.
	replay *replayState
	used   *usage
}

// replayState is the kernel's anti-replay state: sequence numbers of both directions,
// of which a state uses one, and the bitmap of the window.
type replayState struct {
	out, in uint64
	window  uint32
	bitmap  []uint32
}

// usage is what a state has carried.
type usage struct{ octets, packets uint64 }

// snapshot is what the kernel tells of a state.
type snapshot struct {
	src               netip.Addr
	encap             *encap
	replay            replayState
	used              usage
	replayed, outside uint64    // dropped: seen before, left of the window
	failed            uint64    // dropped: the ICV does not match
	lastUsed          time.Time // to the second; zero when the kernel does not tell

}

// direction of a policy.
type direction uint8

const (
	dirIn direction = iota
	dirOut
	dirForward
)

// selector is a traffic selector as the kernel has it: prefixes, and ports under a
// mask. src and dst are those of the packets that the policy is for.
type selector struct {
	src, dst         netip.Prefix
	protocol         uint8
	sport, sportMask uint16
	dport, dportMask uint16
}

// reversed is the selector of the other direction.
func (s selector) reversed() selector {
	return selector{
		src: s.dst, dst: s.src, protocol: s.protocol,
		sport: s.dport, sportMask: s.dportMask, dport: s.sport, dportMask: s.sportMask,
	}
}

// policyKey is how the kernel finds a policy.
type policyKey struct {
	dir direction
	sel selector
}

// policy says that packets of a selector are sealed with, or must have been opened
// with, a certain state. Without addresses any will do.
type policy struct {
	policyKey
	priority uint32
	src, dst netip.Addr // of the tunnel
	spi      uint32     // zero: any of the reqid
	reqid    uint32
	block    bool // nothing is sent
}

// migration moves one state to other addresses (XFRM_MSG_MIGRATE). The kernel finds
// it by addresses and reqid and does not say which one it took when several fit.
type migration struct {
	oldSrc, oldDst, newSrc, newDst netip.Addr
	reqid                          uint32
	encap                          *encap // nil keeps what there is
	// via is the outbound policy that uses the state, and that moves with it. Nil moves
	// the state alone.
	via *policy
}

// kernelEvent is what the kernel told by itself.
type kernelEvent struct {
	kind   kernelEventKind
	id     stateID
	source netip.AddrPort // mapping
	hard   bool           // expiry
	used   usage          // expiry
}

type kernelEventKind uint8

const (
	// stateExpired: a limit was reached.
	stateExpired kernelEventKind = iota + 1
	// mappingChanged: a valid packet came from another source.
	mappingChanged
)
