package locator

import (
	"net/netip"
	"time"
)

// Lifetimes of the Host Cache draft, "Protocol Parameters" (the second section 3.2).
const (
	// DefaultLifetime is how long an address that nobody vouched for is kept
	// without being used (DEFAULT-LIFETIME).
	DefaultLifetime = 600 * time.Second
	// MaxExpiredLifetime is how long an expired address is remembered, so that it
	// revives when the peer still uses it (MAXIMUM-EXPIRED-LIFETIME).
	MaxExpiredLifetime = 1800 * time.Second
)

// Scope is how far an address is valid. Addresses pair up within a scope.
type Scope uint8

// Scopes, narrow to wide.
const (
	ScopeNone     Scope = iota // unspecified: the kernel chooses
	ScopeLoopback              // this machine
	ScopeLink                  // this link
	ScopePrivate               // RFC 1918, RFC 4193, RFC 6598
	ScopeGlobal
)

// String returns the scope's name.
func (s Scope) String() string {
	return name(int(s), "none", "loopback", "link-local", "private", "global")
}

// sharedNAT is the address block between a provider's NAT and its customers,
// RFC 6598.
var sharedNAT = netip.MustParsePrefix("100.64.0.0/10")

// ScopeOf returns the scope of an address.
func ScopeOf(a netip.Addr) Scope {
	switch a = a.Unmap(); {
	case !a.IsValid() || a.IsUnspecified():
		return ScopeNone
	case a.IsLoopback():
		return ScopeLoopback
	case a.IsLinkLocalUnicast():
		return ScopeLink
	case a.IsPrivate() || sharedNAT.Contains(a):
		return ScopePrivate
	}
	return ScopeGlobal
}

// Origin says where a foreign locator comes from, and so what it is worth.
type Origin uint8

// Origins.
const (
	// Learnt: the authenticated peer told it (RFC 4555 §3.6).
	Learnt Origin = iota
	// Configured: our own configuration names it.
	Configured
	// Certified: the peer's certificate lists it (RFC 3779), so it is authorised
	// without a check (RFC 4621 §5.5).
	Certified
	// Observed: it was the source of an authenticated packet, an indication that
	// anybody on the path can forge (RFC 4621 §7).
	Observed
)

// String returns the origin's name.
func (o Origin) String() string { return name(int(o), "learnt", "configured", "certified", "observed") }

// authorised says whether the origin vouches for the address.
func (o Origin) authorised() bool { return o == Configured || o == Certified }

// Lifetime says how long a locator is good (Host Cache draft §2.1.3). The zero
// Lifetime lasts for ever.
type Lifetime struct {
	// Until is an absolute end, whether the address is in use or not.
	Until time.Time
	// Renew, if not zero, ends the lifetime that long after the last activity.
	Renew time.Duration
}

// Local describes one address of this machine.
type Local struct {
	Addr      netip.Addr
	Interface int    // index, zero when the kernel may choose
	Name      string // of the interface, for policy and people
	Metered   bool
	// Preference orders local addresses; higher is preferred. Routes of the
	// operating system are a good source, with the sign of their metric reversed.
	Preference int
	// Port is the local UDP port; zero means the port of the current pair.
	Port uint16
}

// Foreign describes one address of the peer. Its place in the list is the peer's
// order of preference.
type Foreign struct {
	Addr     netip.AddrPort
	Origin   Origin
	Lifetime Lifetime
}

// Locator is a snapshot of one locator of an entry.
type Locator struct {
	Addr       netip.AddrPort
	Interface  int
	Name       string
	Scope      Scope
	Origin     Origin
	Metered    bool
	Preference int
	Lifetime   Lifetime
	Expired    bool
	Proven     time.Time // last proof of return routability; zero if there was none
}

// local is a local locator as an entry keeps it.
type local struct {
	addr  netip.AddrPort
	iface int
	name  string
	// scope and metered are used on every ranking.
	scope      Scope
	metered    bool
	preference int
	returns    int // how often it came back after a short absence
}

// foreign is a foreign locator as an entry keeps it.
type foreign struct {
	addr     netip.AddrPort
	scope    Scope
	origin   Origin
	unlisted bool // it was seen in a header, and no list names it
	expired  bool
	until    instant       // absolute end, or never
	renew    time.Duration // or renewed by activity
	activeAt instant
	endedAt  instant // when it expired
	provenAt instant // last proof of return routability
	spent    int     // packets sent to it while it was unproven
}

// expiry returns when the locator expires, or never.
func (f *foreign) expiry() instant {
	end := f.until
	if f.renew > 0 {
		end = earlier(end, f.activeAt.add(f.renew))
	}
	return end
}

// acceptable says whether a peer's address can be the destination of unicast
// packets at all. A peer must not make us send to groups.
func acceptable(a netip.AddrPort) bool {
	ip := a.Addr()
	return a.IsValid() && a.Port() != 0 && !ip.IsUnspecified() && !ip.IsMulticast() && ip != broadcast
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// pairable says whether packets can go between two addresses: of one family and
// of scopes that can meet (Host Cache draft §1.4; RFC 4621 §5.1.2 on families).
// Private and global addresses may meet, through a NAT.
func pairable(l *local, f *foreign) bool {
	if l.addr.Addr().Is4() != f.addr.Addr().Is4() {
		return false
	}
	if l.scope == ScopeNone {
		return true
	}
	if l.scope == ScopeLink && f.scope == ScopeLink {
		zone := f.addr.Addr().Zone()
		return zone == "" || zone == l.addr.Addr().Zone() || zone == l.name
	}
	narrow := func(s Scope) bool { return s == ScopeLoopback || s == ScopeLink }
	return l.scope == f.scope || !narrow(l.scope) && !narrow(f.scope)
}

// plain returns an address as locators are compared: IPv4 is never in its
// IPv6-mapped form.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
