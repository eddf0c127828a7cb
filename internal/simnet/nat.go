package simnet

import (
	"fmt"
	"net/netip"
	"time"
)

// Behaviour says on what of the remote end a NAT's mapping or filter depends
// (RFC 4787 §4.1, §5).
type Behaviour int

// Behaviours of NATs.
const (
	EndpointIndependent Behaviour = iota
	AddressDependent
	AddressAndPortDependent
)

// key reduces a remote end to what the behaviour depends on.
func (b Behaviour) key(remote netip.AddrPort) netip.AddrPort {
	switch b {
	case EndpointIndependent:
		return netip.AddrPort{}
	case AddressDependent:
		return netip.AddrPortFrom(remote.Addr(), 0)
	}
	return remote
}

// NATConfig describes a NAT box. It translates UDP; protocol 50 does not pass.
type NATConfig struct {
	Name      string
	Public    netip.Addr
	Behind    *NAT // when its public side is behind another NAT
	Mapping   Behaviour
	Filtering Behaviour
	// Lifetime of a mapping since the last packet out, zero for ever. Packets in
	// prolong it only with RefreshInbound (RFC 4787 §4.3).
	Lifetime       time.Duration
	RefreshInbound bool
	// PreservePort uses the inside port outside too when it is free.
	PreservePort bool
	// Ports is how many public ports there are, zero means 32768.
	Ports int
	// Hairpin lets two hosts behind the NAT meet at its public address.
	Hairpin bool
}

// NAT is a box that translates addresses and ports.
type NAT struct {
	network *Network
	cfg     NATConfig
	name    string
	public  netip.Addr
	behind  *NAT
	inner   *realm

	mappings map[mappingKey]*mapping
	ports    map[uint16]*mapping   // by public port
	former   map[mappingKey]uint16 // public ports before the last Rebind, not used again
}

type mappingKey struct {
	inside netip.AddrPort
	remote netip.AddrPort // reduced by Behaviour.key
}

type mapping struct {
	key     mappingKey
	port    uint16
	last    time.Time
	allowed map[netip.AddrPort]bool // remotes that may send in, reduced
}

// AddNAT puts a NAT into the network.
func (n *Network) AddNAT(cfg NATConfig) *NAT {
	nat := &NAT{network: n, cfg: cfg, name: cfg.Name, behind: cfg.Behind}
	nat.inner = newRealm(nat)
	nat.forget()
	nat.former = make(map[mappingKey]uint16)
	nat.SetPublic(cfg.Public)
	return nat
}

func (t *NAT) outer() *realm {
	if t.behind == nil {
		return t.network.public
	}
	return t.behind.inner
}

// translates reports whether the NAT is for addresses of this family.
func (t *NAT) translates(a netip.Addr) bool { return a.Is4() == t.public.Is4() }

// Public returns the public address.
func (t *NAT) Public() netip.Addr { return t.public }

// SetPublic gives the NAT another public address; mappings keep their ports.
func (t *NAT) SetPublic(a netip.Addr) {
	if t.public.IsValid() && a.Is4() != t.public.Is4() {
		panic(fmt.Sprintf("simnet: %s cannot change family from %s to %s", t.name, t.public, a))
	}
	r := t.outer()
	if r.nats[t.public] == t {
		delete(r.nats, t.public)
	}
	r.claim(a, t.name)
	r.nats[a] = t
	t.public = a
	t.network.Note("%s is %s outside", t.name, a)
}

// Rebind forgets every mapping and gives other ports to the same inside ends
// from now on.
func (t *NAT) Rebind() {
	for port, m := range t.ports {
		t.former[m.key] = port
	}
	t.forget()
	t.network.Note("%s rebinds", t.name)
}

// Restart forgets every mapping. The next ones may have the same ports.
func (t *NAT) Restart() {
	t.forget()
	t.network.Note("%s restarts", t.name)
}

func (t *NAT) forget() {
	t.mappings = make(map[mappingKey]*mapping)
	t.ports = make(map[uint16]*mapping)
}

// Mappings returns the number of mappings that live.
func (t *NAT) Mappings() int {
	live := 0
	for _, m := range t.mappings {
		if !t.expired(m, t.network.now) {
			live++
		}
	}
	return live
}

func (t *NAT) expired(m *mapping, now time.Time) bool {
	return t.cfg.Lifetime > 0 && now.Sub(m.last) >= t.cfg.Lifetime
}

// outbound writes the public source into a packet and opens the way back.
func (t *NAT) outbound(now time.Time, p *packet) bool {
	if !p.udp() {
		return false
	}
	key := mappingKey{p.Src, t.cfg.Mapping.key(p.Dst)}
	m := t.mappings[key]
	if m != nil && t.expired(m, now) {
		t.remove(m)
		m = nil
	}
	if m == nil {
		if m = t.add(now, key); m == nil {
			return false
		}
	}
	m.last = now
	m.allowed[t.cfg.Filtering.key(p.Dst)] = true
	p.Src = netip.AddrPortFrom(t.public, m.port)
	return true
}

// inbound writes the inside destination into a packet, if its sender is let in.
func (t *NAT) inbound(now time.Time, p *packet) bool {
	m := t.ports[p.Dst.Port()]
	if m == nil || !p.udp() {
		return false
	}
	if t.expired(m, now) {
		t.remove(m)
		return false
	}
	hairpin := p.Src.Addr() == t.public
	if (hairpin && !t.cfg.Hairpin) || !m.allowed[t.cfg.Filtering.key(p.Src)] {
		return false
	}
	if t.cfg.RefreshInbound {
		m.last = now
	}
	p.Dst = m.key.inside
	return true
}

// add makes a mapping, or returns nil when all ports are taken.
func (t *NAT) add(now time.Time, key mappingKey) *mapping {
	port, ok := t.freePort(now, key)
	if !ok {
		return nil
	}
	m := &mapping{key: key, port: port, last: now, allowed: make(map[netip.AddrPort]bool)}
	t.mappings[key] = m
	t.ports[port] = m
	t.network.Note("%s maps %s to port %d", t.name, key.inside, port)
	return m
}

func (t *NAT) remove(m *mapping) {
	delete(t.mappings, m.key)
	delete(t.ports, m.port)
}

// freePort chooses a public port: the inside one if that is wanted, otherwise
// the next free one from a random place in the upper half.
func (t *NAT) freePort(now time.Time, key mappingKey) (uint16, bool) {
	const first = 32768
	count := first
	if t.cfg.Ports > 0 {
		count = min(count, t.cfg.Ports)
	}
	former, avoid := t.former[key]
	free := func(port uint16) bool {
		if m := t.ports[port]; m != nil {
			if !t.expired(m, now) {
				return false
			}
			t.remove(m)
		}
		return !avoid || port != former
	}
	if t.cfg.PreservePort && free(key.inside.Port()) {
		return key.inside.Port(), true
	}
	from := t.network.rng.IntN(count)
	for i := range count {
		port := uint16(first + (from+i)%count)
		if free(port) {
			return port, true
		}
	}
	return 0, false
}
