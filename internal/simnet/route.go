package simnet

import (
	"fmt"
	"net/netip"
)

// path is a direction between two addresses.
type path struct{ from, to netip.Addr }

// realm is a space of addresses: the public network, or what is behind a NAT.
type realm struct {
	nat   *NAT // nil for the public network
	links map[netip.Addr]*Link
	nats  map[netip.Addr]*NAT // by public address
}

func newRealm(nat *NAT) *realm {
	return &realm{nat: nat, links: make(map[netip.Addr]*Link), nats: make(map[netip.Addr]*NAT)}
}

// claim panics when somebody has the address: two hosts with one address are a
// mistake in the test.
func (r *realm) claim(a netip.Addr, who string) {
	if !a.IsValid() || a.IsUnspecified() {
		panic(fmt.Sprintf("simnet: %s cannot have address %q", who, a))
	}
	if l := r.links[a]; l != nil {
		panic(fmt.Sprintf("simnet: %s cannot have %s, %s has it", who, a, l.where()))
	}
	if nat := r.nats[a]; nat != nil {
		panic(fmt.Sprintf("simnet: %s cannot have %s, %s has it", who, a, nat.name))
	}
}

// route takes a packet from inside a realm: to a neighbour, or outwards through
// NATs and then across the public network.
func (n *Network) route(r *realm, p *packet) {
	for r.nat != nil {
		if r.has(p.Dst.Addr()) {
			n.land(r, p)
			return
		}
		if !r.nat.outbound(n.now, p) {
			n.drop(p, NATRefused, r.nat.name)
			return
		}
		r = r.nat.outer()
	}
	if n.isBlocked(p) {
		n.drop(p, Blocked, "transit")
		return
	}
	n.pass(n.direction(p), p, "transit", func(p *packet) { n.land(n.public, p) })
}

func (r *realm) has(a netip.Addr) bool { return r.links[a] != nil || r.nats[a] != nil }

// land takes a packet to whoever has its destination in a realm, inwards through
// NATs.
func (n *Network) land(r *realm, p *packet) {
	for {
		if l := r.links[p.Dst.Addr()]; l != nil {
			n.pass(&l.ways[In], p, l.where(), l.arrive)
			return
		}
		nat := r.nats[p.Dst.Addr()]
		if nat == nil {
			n.drop(p, NoSuchAddress, "transit")
			return
		}
		if !nat.inbound(n.now, p) {
			n.drop(p, NATRefused, nat.name)
			return
		}
		r = nat.inner
	}
}

// direction returns the state of a path, with the conditions it has now.
func (n *Network) direction(p *packet) *direction {
	key := path{p.Src.Addr(), p.Dst.Addr()}
	d := n.paths[key]
	if d == nil {
		d = new(direction)
		n.paths[key] = d
	}
	d.Conditions = n.transit
	if c, ok := n.overrides[key]; ok {
		d.Conditions = c
	}
	return d
}

func (n *Network) isBlocked(p *packet) bool {
	if len(n.blocked) == 0 {
		return false
	}
	from, to := p.Src.Addr(), p.Dst.Addr()
	var any netip.Addr
	return n.blocked[path{from, to}] || n.blocked[path{from, any}] ||
		n.blocked[path{any, to}] || n.blocked[path{any, any}]
}
