package client

import (
	"net/netip"
	"slices"

	"github.com/wayfarer-vpn/wayfarer/client/route"
	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
)

// prefixesOf returns the networks of a selector.
func prefixesOf(s esp.Selector) []netip.Prefix { return route.Prefixes(s.Start, s.End) }

// carriedBy returns the networks that the Child SAs of a session carry. Selectors
// for one protocol or some ports count in full: the data path drops the rest, which
// then at least does not leave in clear.
func carriedBy(info ike.SessionInfo) []netip.Prefix {
	var out []netip.Prefix
	for _, c := range info.Children {
		for _, s := range c.Remote {
			for _, p := range prefixesOf(s) {
				if !slices.Contains(out, p) {
					out = append(out, p)
				}
			}
		}
	}
	return out
}

// networkFor is what the machine should look like for a session.
func networkFor(p *profile.Profile, info ike.SessionInfo, device string, ports []uint16) Network {
	n := Network{
		Interface: device, Addresses: info.Config.Addresses, Carried: carriedBy(info), Ports: ports, NativeESP: p.Tunnel.NativeESP,
		LAN: p.Tunnel.LAN == profile.LANPrivate,
	}
	n.Networks = p.Tunnel.Routes.Networks()
	if p.Tunnel.Routes.FromServer {
		n.Networks = n.Carried
	}
	n.Full = slices.ContainsFunc(n.Networks, func(p netip.Prefix) bool { return p.Bits() == 0 })
	if p.Tunnel.DNS {
		n.DNS, n.Domains = info.Config.DNS, info.Config.Domains
	}
	return n
}

// blocked returns the wanted networks of which nothing is carried.
func (n Network) blocked() []netip.Prefix {
	var out []netip.Prefix
	for _, want := range n.Networks {
		reachable := slices.ContainsFunc(n.Carried, func(c netip.Prefix) bool { return c.Overlaps(want) })
		sendable := slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool { return a.Is4() == want.Addr().Is4() })
		if !reachable || !sendable {
			out = append(out, want)
		}
	}
	return out
}

// routes returns what goes through the tunnel.
func (n Network) routes() []netip.Prefix {
	out := []netip.Prefix{}
	for _, want := range n.Networks {
		for _, c := range n.Carried {
			if !c.Overlaps(want) {
				continue
			}
			narrow := want
			if c.Bits() > want.Bits() {
				narrow = c
			}
			if !slices.Contains(out, narrow) {
				out = append(out, narrow)
			}
		}
	}
	return out
}
