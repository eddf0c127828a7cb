package route

import (
	"math"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/wayfarer-vpn/wayfarer/internal/rtnl"
)

// rawRule puts a rule into the terms of the netlink library.
func rawRule(r Rule) *netlink.Rule {
	raw := netlink.NewRule()
	raw.Family, raw.Priority, raw.Table, raw.Protocol = r.Family, r.Priority, r.Table, Protocol
	raw.IPProto = r.Protocol
	if r.From.IsValid() {
		raw.Src = rtnl.IPNet(r.From)
	}
	if r.To.IsValid() {
		raw.Dst = rtnl.IPNet(r.To)
	}
	if r.FromPort != 0 {
		raw.Sport = netlink.NewRulePortRange(r.FromPort, r.FromPort)
	}
	if r.NotMark != 0 {
		mask := uint32(math.MaxUint32)
		raw.Mark, raw.Mask, raw.Invert = r.NotMark, &mask, true
	}
	if r.Specific {
		raw.SuppressPrefixlen = 0
	}
	if r.Goto != 0 {
		raw.Goto = r.Goto
	} else if r.Table == 0 {
		raw.Type = actionNop
	}
	return raw
}

// actionNop is FR_ACT_NOP of linux/fib_rules.h: a rule that does nothing, here to be
// jumped to.
const actionNop = 3

// ruleOf is the opposite of rawRule.
func ruleOf(raw netlink.Rule) Rule {
	r := Rule{
		Family: raw.Family, Priority: raw.Priority, From: rtnl.PrefixOf(raw.Src), To: rtnl.PrefixOf(raw.Dst),
		Protocol: raw.IPProto & math.MaxUint8, Specific: raw.SuppressPrefixlen == 0,
	}
	if raw.Table > 0 && raw.Goto <= 0 {
		r.Table = raw.Table
	}
	if raw.Sport != nil {
		r.FromPort = raw.Sport.Start
	}
	if raw.Invert {
		r.NotMark = raw.Mark
	}
	if raw.Goto > 0 {
		r.Goto = raw.Goto
	}
	return r
}

// rawRoute puts a route into the terms of the netlink library.
func rawRoute(r Route, link netlink.Link) *netlink.Route {
	raw := &netlink.Route{
		Family: rtnl.Family(r.To.Addr()), Table: r.Table, Dst: rtnl.IPNet(r.To), Type: int(r.Kind),
		Priority: r.Metric, Protocol: Protocol,
	}
	if r.Kind == Via && link != nil {
		raw.LinkIndex = link.Attrs().Index
		raw.Scope = netlink.SCOPE_LINK
		raw.Src = r.Source.AsSlice()
	}
	return raw
}

func routeOf(raw netlink.Route) Route {
	r := Route{Table: raw.Table, To: rtnl.PrefixOf(raw.Dst), Kind: Kind(raw.Type), Metric: raw.Priority}
	if !r.To.IsValid() { // the library leaves out default destinations
		for _, f := range families {
			if f.family == raw.Family {
				r.To = f.all
			}
		}
	}
	if a, ok := netip.AddrFromSlice(raw.Src); ok && r.Kind == Via {
		r.Source = a.Unmap()
	}
	return r
}
