package ike

import (
	"net/netip"
	"slices"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// anySelectors cover all of IPv4 and IPv6.
func anySelectors() []esp.Selector {
	return []esp.Selector{
		esp.PrefixSelector(netip.PrefixFrom(netip.IPv4Unspecified(), 0)),
		esp.PrefixSelector(netip.PrefixFrom(netip.IPv6Unspecified(), 0)),
	}
}

// SelectAddress is the selector for everything to or from one address.
func SelectAddress(a netip.Addr) esp.Selector {
	return esp.Selector{EndPort: 65535, Start: a, End: a}
}

// toWire and fromWire convert between the two shapes of a selector.
func toWire(in []esp.Selector, responder bool) *message.TS {
	ts := &message.TS{Responder: responder}
	for _, s := range in {
		ts.Selectors = append(ts.Selectors, message.TrafficSelector(s))
	}
	return ts
}

func fromWire(in []message.TrafficSelector) []esp.Selector {
	out := make([]esp.Selector, len(in))
	for i, s := range in {
		out[i] = esp.Selector(s)
	}
	return out
}

// narrow is the intersection of what is offered and what we allow, in the order of
// the offer (RFC 7296 §2.9), as far as one payload can tell it: ranges that overlap
// crosswise have as many intersections as pairs.
func narrow(offered, allowed []esp.Selector) []esp.Selector {
	var out []esp.Selector
	seen := map[esp.Selector]bool{}
	for _, o := range offered {
		for _, a := range allowed {
			x, ok := intersect(o, a)
			if !ok || seen[x] {
				continue
			}
			if len(out) == message.MaxSelectors {
				return out
			}
			seen[x] = true
			out = append(out, x)
		}
	}
	return out
}

func intersect(a, b esp.Selector) (esp.Selector, bool) {
	if a.Start.Is4() != b.Start.Is4() {
		return esp.Selector{}, false
	}
	x := esp.Selector{
		Protocol: a.Protocol, StartPort: max(a.StartPort, b.StartPort), EndPort: min(a.EndPort, b.EndPort),
		Start: maxAddr(a.Start, b.Start), End: minAddr(a.End, b.End),
	}
	switch {
	case a.Protocol == 0:
		x.Protocol = b.Protocol
	case b.Protocol != 0 && b.Protocol != a.Protocol:
		return esp.Selector{}, false
	}
	opaque := func(s esp.Selector) bool { return s.StartPort == 65535 && s.EndPort == 0 }
	anyPort := func(s esp.Selector) bool { return s.StartPort == 0 && s.EndPort == 65535 }
	switch {
	case opaque(a) && (opaque(b) || anyPort(b)), opaque(b) && anyPort(a):
		x.StartPort, x.EndPort = 65535, 0
	case x.StartPort > x.EndPort:
		return esp.Selector{}, false
	}
	if x.End.Less(x.Start) {
		return esp.Selector{}, false
	}
	return x, true
}

func maxAddr(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return b
	}
	return a
}

func minAddr(a, b netip.Addr) netip.Addr {
	if b.Less(a) {
		return b
	}
	return a
}

// within says whether every selector lies inside one of the offered ones.
func within(chosen, offered []esp.Selector) bool {
	for _, c := range chosen {
		inside := slices.ContainsFunc(offered, func(o esp.Selector) bool {
			x, ok := intersect(c, o)
			return ok && x == c
		})
		if !inside {
			return false
		}
	}
	return len(chosen) > 0
}

// addressSelectors select the assigned inner addresses.
func addressSelectors(addrs []netip.Addr) []esp.Selector {
	out := make([]esp.Selector, len(addrs))
	for i, a := range addrs {
		out[i] = SelectAddress(a)
	}
	return out
}
