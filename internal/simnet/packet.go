package simnet

import (
	"net/netip"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Sizes of headers in octets: IPv4 (RFC 791 §3.1), IPv6 (RFC 8200 §3) and its
// fragment header (§4.5), UDP (RFC 768).
const (
	ipv4Header     = 20
	ipv6Header     = 40
	fragmentHeader = 8
	udpHeader      = 8
)

// Packet is a datagram on its way. Ports of zero mean that it is no UDP, but IP
// protocol 50.
type Packet struct {
	ID        uint64 // counts from 1; duplicates share it
	Src, Dst  netip.AddrPort
	Data      []byte
	Fragments int // 1 when it is whole
}

// packet is a Packet with what the network must know of its origin.
type packet struct {
	Packet
	from *Link
	pair locator.Pair // as the sender wrote it
	// largest is the size of the largest IP packet that carries it: its own, or
	// that of its fragments.
	largest int
	whole   bool // must not be fragmented
}

func (p *Packet) udp() bool { return p.Src.Port() != 0 || p.Dst.Port() != 0 }

// transport is the length of what follows the IP header.
func (p *Packet) transport() int {
	if p.udp() {
		return udpHeader + len(p.Data)
	}
	return len(p.Data)
}

// size is the length of the IP packet.
func (p *Packet) size() int {
	if p.Dst.Addr().Is6() {
		return ipv6Header + p.transport()
	}
	return ipv4Header + p.transport()
}

// pieces is the number of fragments for an MTU; all but the last carry a
// multiple of eight octets.
func (p *Packet) pieces(mtu int) int {
	room := mtu - ipv4Header
	if p.Dst.Addr().Is6() {
		room = mtu - ipv6Header - fragmentHeader
	}
	room = max(8, room&^7)
	return (p.transport() + room - 1) / room
}
