package locator

import (
	"fmt"
	"net/netip"
)

// Pair is an address pair: the two ends of a path in UDP, as one side sees them.
// Interface is the index of the interface that Local is bound to, or zero when
// the route lookup may choose. An unspecified Local address means that the
// kernel chooses the source.
type Pair struct {
	Local     netip.AddrPort
	Remote    netip.AddrPort
	Interface int
}

// String returns "local > remote".
func (p Pair) String() string { return fmt.Sprintf("%s > %s", p.Local, p.Remote) }

// Reverse returns the pair as the other side would write it, without interface.
func (p Pair) Reverse() Pair { return Pair{Local: p.Remote, Remote: p.Local} }

// same says whether two records mean the same path. A record without interface
// (a socket that follows the routing table) matches one with it.
func (p Pair) same(q Pair) bool {
	return p.Local == q.Local && p.Remote == q.Remote &&
		(p.Interface == q.Interface || p.Interface == 0 || q.Interface == 0)
}
