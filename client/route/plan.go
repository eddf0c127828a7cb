// Package route sends the right packets through the tunnel, and none past it.
//
// Everything is done with policy routing in tables of our own; the main table is
// never touched, so there is nothing in it to restore. Two tables are used:
//
//	TunnelTable  the networks that belong into the tunnel: through the interface
//	             as far as the gateway carries them, "unreachable" otherwise
//	GuardTable   one blackhole
//
// and these rules, in this order, before every rule that other software makes:
//
//	from INNER                            lookup TunnelTable
//	from INNER                            lookup GuardTable
//	UDP from our own ports, ESP           go to the end of this list
//	to LAN (full tunnel only)             lookup main, without its default route
//	everything not marked as our own      lookup TunnelTable
//	(end)
//
// Why so:
//
//   - A packet with an inner source address finds the tunnel or the blackhole, and
//     never an uplink, whatever else is configured. Rules and blackhole live in the
//     kernel: they hold when the interface is gone after a crash, and for sockets
//     that still use an address which is gone (IPv6 sends from such addresses).
//   - "unreachable" stands behind each tunnel route with a worse metric. It takes
//     over when the interface disappears, and catches a family that the tunnel
//     does not carry: IPv6 does not leak out of an IPv4-only full tunnel.
//   - Our own packets carry a mark and pass by all this, to whatever rules and
//     tables the machine has for its uplinks.
//   - The rules for our own ports are for what comes in: with strict reverse path
//     filtering (rp_filter = 1) the kernel asks for the way back to the gateway
//     without our mark, and would find the tunnel. It does so with the packet's
//     ports swapped, and nobody else can send from ports that we hold. Setting
//     src_valid_mark does not help, the mark of a received packet is zero; changing
//     rp_filter would mean changing the machine's protection, and restoring it after
//     a crash. (Package guard does the same for filters in netfilter.)
//   - A full tunnel leaves the local network reachable by its attached prefixes
//     only, if they are private, and never by other routes of the main table: a
//     DHCP server can push routes (option 121) or absurdly wide prefixes to divert
//     traffic from a tunnel (CVE-2024-3661, CVE-2023-36672). Networks that a split
//     tunnel names go into the tunnel even where the local network claims them.
//
// Plan is pure: settings in, desired state out. Kernel.Apply makes the machine match
// a plan, from whatever state it is in, in an order that leaves no gap.
package route

import (
	"cmp"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// What marks rules and routes as ours. The protocol number is in the range that
// rtnetlink(7) leaves to users.
const (
	TunnelTable = 22342
	GuardTable  = 22343
	Protocol    = 87

	// The rules' priorities. They come right after "local" (0), so that rules of
	// other software cannot take traffic away from the tunnel.
	prioInner  = 70
	prioGuard  = 71
	prioOwn    = 72
	prioLAN    = 73
	prioTunnel = 74
	prioEnd    = 79

	metricTunnel      = 100
	metricUnreachable = 10000
)

// Settings say what is wanted.
type Settings struct {
	// Interface is the name of the TUN device.
	Interface string
	// Addresses are the inner addresses.
	Addresses []netip.Addr
	// Networks belong into the tunnel, Carried is what the gateway agreed to carry.
	// What is in Networks but not carried is unreachable.
	Networks, Carried []netip.Prefix
	// Attached are the prefixes of the local networks. The private ones stay
	// reachable beside a full tunnel.
	Attached []netip.Prefix
	// Ports are our own UDP ports; NativeESP says that we use IP protocol 50 too.
	Ports     []uint16
	NativeESP bool
	// Mark is on our own packets.
	Mark uint32
	// Guarded are inner addresses of before that sockets still use.
	Guarded []netip.Addr
}

// Rule is a policy routing rule. Zero fields do not restrict.
type Rule struct {
	Family   int
	Priority int
	From, To netip.Prefix
	Protocol int    // of IP
	FromPort uint16 // source port
	NotMark  uint32 // matches what does not carry this mark
	Table    int    // zero: see Goto
	Specific bool   // ignore default routes in Table
	Goto     int    // priority to go on at; zero with Table zero: do nothing
}

// Kind is what a route does.
type Kind uint8

// Kinds of routes.
const (
	Via         Kind = unix.RTN_UNICAST // through the interface
	Blackhole   Kind = unix.RTN_BLACKHOLE
	Unreachable Kind = unix.RTN_UNREACHABLE
)

// Route is a route in one of our tables.
type Route struct {
	Table  int
	To     netip.Prefix
	Kind   Kind
	Source netip.Addr // preferred source, for Via
	Metric int
}

// Plan is the desired state.
type Plan struct {
	Interface string
	Addresses []netip.Addr
	Rules     []Rule // in order of priority
	Routes    []Route
}

// families are the two address families with their "everything".
var families = []struct {
	family int
	all    netip.Prefix
}{
	{unix.AF_INET, netip.PrefixFrom(netip.IPv4Unspecified(), 0)},
	{unix.AF_INET6, netip.PrefixFrom(netip.IPv6Unspecified(), 0)},
}

// linkLocal6 is needed for neighbours, routers and DHCPv6 servers.
var linkLocal6 = netip.MustParsePrefix("fe80::/10")

// Build returns the desired state for settings.
func Build(s Settings) Plan {
	p := Plan{Interface: s.Interface, Addresses: slices.Clone(s.Addresses)}
	for _, f := range families {
		p.family(s, f.family, f.all)
	}
	slices.SortFunc(p.Rules, compareRules)
	p.Rules = slices.Compact(p.Rules)
	slices.SortFunc(p.Routes, compareRoutes)
	p.Routes = slices.Compact(p.Routes)
	return p
}

// family plans one address family.
func (p *Plan) family(s Settings, family int, all netip.Prefix) {
	addresses := ofFamily(s.Addresses, family)
	networks := prefixesOfFamily(s.Networks, family)
	guarded := append(slices.Clone(addresses), ofFamily(s.Guarded, family)...)
	for _, a := range addresses {
		p.rule(Rule{Family: family, Priority: prioInner, From: single(a), Table: TunnelTable})
	}
	for _, a := range guarded {
		p.rule(Rule{Family: family, Priority: prioGuard, From: single(a), Table: GuardTable})
	}
	if len(guarded) > 0 {
		p.route(Route{Table: GuardTable, To: all, Kind: Blackhole, Metric: metricTunnel})
	}
	if len(networks) == 0 {
		return
	}
	p.tunnelRoutes(networks, prefixesOfFamily(s.Carried, family), addresses)
	p.ownRules(family, s)
	for _, lan := range reachableLANs(networks, prefixesOfFamily(s.Attached, family), family) {
		p.rule(Rule{Family: family, Priority: prioLAN, To: lan, Table: unix.RT_TABLE_MAIN, Specific: true})
	}
	p.rule(Rule{Family: family, Priority: prioTunnel, NotMark: s.Mark, Table: TunnelTable})
}

// tunnelRoutes fills the tunnel's table for one family.
func (p *Plan) tunnelRoutes(networks, carried []netip.Prefix, addresses []netip.Addr) {
	for _, n := range networks {
		p.route(Route{Table: TunnelTable, To: n, Kind: Unreachable, Metric: metricUnreachable})
	}
	if len(addresses) == 0 {
		return // there is no source address to send from
	}
	for _, n := range networks {
		for _, c := range carried {
			if both, ok := intersect(n, c); ok {
				p.route(Route{Table: TunnelTable, To: both, Kind: Via, Source: addresses[0], Metric: metricTunnel})
			}
		}
	}
}

// ownRules let our own packets pass by, see the package comment.
func (p *Plan) ownRules(family int, s Settings) {
	for _, port := range s.Ports {
		p.rule(Rule{Family: family, Priority: prioOwn, Protocol: unix.IPPROTO_UDP, FromPort: port, Goto: prioEnd})
	}
	if s.NativeESP {
		p.rule(Rule{Family: family, Priority: prioOwn, Protocol: unix.IPPROTO_ESP, Goto: prioEnd})
	}
	if len(s.Ports) > 0 || s.NativeESP {
		p.rule(Rule{Family: family, Priority: prioEnd})
	}
}

func (p *Plan) rule(r Rule)   { p.Rules = append(p.Rules, r) }
func (p *Plan) route(r Route) { p.Routes = append(p.Routes, r) }

// reachableLANs returns the attached prefixes that stay reachable beside a full
// tunnel: the private ones that no network of the tunnel names.
func reachableLANs(networks, attached []netip.Prefix, family int) []netip.Prefix {
	full := slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Bits() == 0 })
	if !full {
		return nil
	}
	var lans []netip.Prefix
	if family == unix.AF_INET6 {
		lans = append(lans, linkLocal6)
	}
	for _, a := range attached {
		if isPrivate(a) && !slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Bits() > 0 && n.Overlaps(a) }) {
			lans = append(lans, a.Masked())
		}
	}
	return lans
}

// privateNetworks are what an attached prefix must lie in to be believed: RFC 1918,
// RFC 3927, RFC 4193, and RFC 4291 §2.5.6. Shared address space (RFC 6598) is left
// out: it belongs to providers, not to homes.
var privateNetworks = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("fc00::/7"),
	linkLocal6,
}

func isPrivate(p netip.Prefix) bool {
	return slices.ContainsFunc(privateNetworks, func(n netip.Prefix) bool {
		return n.Bits() <= p.Bits() && n.Contains(p.Addr())
	})
}

func compareRules(a, b Rule) int {
	return cmp.Or(
		cmp.Compare(a.Family, b.Family), cmp.Compare(a.Priority, b.Priority),
		comparePrefixes(a.From, b.From), comparePrefixes(a.To, b.To),
		cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.FromPort, b.FromPort),
		cmp.Compare(a.Table, b.Table),
	)
}

func compareRoutes(a, b Route) int {
	return cmp.Or(
		cmp.Compare(a.Table, b.Table), comparePrefixes(a.To, b.To),
		cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Kind, b.Kind), a.Source.Compare(b.Source),
	)
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
