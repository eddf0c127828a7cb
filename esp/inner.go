package esp

import (
	"encoding/binary"
	"net/netip"
)

// Protocol numbers the inner parser knows by name.
const (
	ProtoHopByHop   = 0
	ProtoICMP       = 1
	ProtoTCP        = 6
	ProtoUDP        = 17
	ProtoRouting    = 43
	ProtoFragment   = 44
	ProtoICMPv6     = 58
	ProtoDstOpts    = 60
	ProtoSCTP       = 132
	ProtoMobility   = 135
	ProtoUDPLite    = 136
	protoDCCP       = 33
	ipv4HeaderLen   = 20
	ipv6HeaderLen   = 40
	fragmentExtLen  = 8
	maxExtensions   = 8 // a longer IPv6 header chain has no honest use
	ipv4FlagDF      = 0x4000
	ipv4FlagMF      = 0x2000
	fragmentOffMask = 0x1fff
)

// Inner is what selectors and path MTU need to know of a packet in the tunnel
// (RFC 4301 §4.4.1.1). Parse fills it; nothing in it points into the packet.
type Inner struct {
	src, dst wideAddr

	Length       int    // of the packet by its own header; the rest of the buffer is TFC padding
	IPLen        int    // of the IP header with its extension headers
	FragmentAt   int    // where the IPv6 fragment header starts, zero when there is none
	SrcPort      uint16 // for ICMP and the Mobility Header both ports hold type<<8 | code
	DstPort      uint16
	Protocol     uint8
	TOS          uint8 // DSCP and ECN: IPv4's TOS, IPv6's traffic class
	V6           bool
	ProtoKnown   bool // false in a later IPv6 fragment that hides its upper layer
	PortsKnown   bool // false: OPAQUE in the words of RFC 4301
	LaterPart    bool // a fragment other than the first
	MoreParts    bool // a fragment other than the last
	DontFragment bool // always true for IPv6
}

// wideAddr is an address of either family as two numbers, which compare faster
// than netip.Addr does. An IPv4 address stands in the low half.
type wideAddr struct{ hi, lo uint64 }

func (a wideAddr) less(b wideAddr) bool {
	return a.hi < b.hi || a.hi == b.hi && a.lo < b.lo
}

// Src returns the source address.
func (p *Inner) Src() netip.Addr { return p.src.addr(p.V6) }

// Dst returns the destination address.
func (p *Inner) Dst() netip.Addr { return p.dst.addr(p.V6) }

// SameFlow reports whether two packets look alike to every selector, so that they
// belong to the same Child SA.
func (p *Inner) SameFlow(q *Inner) bool {
	return p.src == q.src && p.dst == q.dst && p.SrcPort == q.SrcPort && p.DstPort == q.DstPort &&
		p.Protocol == q.Protocol && p.V6 == q.V6 && p.ProtoKnown == q.ProtoKnown && p.PortsKnown == q.PortsKnown
}

// NextHeader is the ESP next header for the packet (RFC 4303 §2.6).
func (p *Inner) NextHeader() uint8 {
	if p.V6 {
		return NextHeaderIPv6
	}
	return NextHeaderIPv4
}

func (a wideAddr) addr(v6 bool) netip.Addr {
	if !v6 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(a.lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	return netip.AddrFrom16(b)
}

func wide(a netip.Addr) wideAddr {
	if a.Is4() {
		b := a.As4()
		return wideAddr{lo: uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return wideAddr{hi: binary.BigEndian.Uint64(b[:]), lo: binary.BigEndian.Uint64(b[8:])}
}

// Parse reads the headers of an IPv4 or IPv6 packet and checks every length in
// them against the buffer. Checksums are left to the stack that gets the packet.
func (p *Inner) Parse(b []byte) error {
	*p = Inner{}
	if len(b) == 0 {
		return ErrInnerPacket
	}
	switch b[0] >> 4 {
	case 4:
		return p.parseIPv4(b)
	case 6:
		return p.parseIPv6(b)
	}
	return ErrInnerPacket
}

func (p *Inner) parseIPv4(b []byte) error {
	if len(b) < ipv4HeaderLen {
		return ErrInnerPacket
	}
	p.IPLen = int(b[0]&0x0f) * 4
	p.Length = int(binary.BigEndian.Uint16(b[2:]))
	if p.IPLen < ipv4HeaderLen || p.Length < p.IPLen || p.Length > len(b) {
		return ErrInnerPacket
	}
	p.src.lo = uint64(binary.BigEndian.Uint32(b[12:]))
	p.dst.lo = uint64(binary.BigEndian.Uint32(b[16:]))
	frag := binary.BigEndian.Uint16(b[6:])
	p.DontFragment = frag&ipv4FlagDF != 0
	p.MoreParts = frag&ipv4FlagMF != 0
	p.LaterPart = frag&fragmentOffMask != 0
	p.TOS = b[1]
	p.Protocol, p.ProtoKnown = b[9], true
	p.parsePorts(b[p.IPLen:p.Length])
	return nil
}

func (p *Inner) parseIPv6(b []byte) error {
	if len(b) < ipv6HeaderLen {
		return ErrInnerPacket
	}
	p.V6, p.DontFragment = true, true
	p.TOS = b[0]<<4 | b[1]>>4
	p.Length = ipv6HeaderLen + int(binary.BigEndian.Uint16(b[4:]))
	if p.Length > len(b) {
		return ErrInnerPacket
	}
	p.src = wideAddr{binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}
	p.dst = wideAddr{binary.BigEndian.Uint64(b[24:]), binary.BigEndian.Uint64(b[32:])}
	return p.walkExtensions(b[:p.Length])
}

// walkExtensions finds the upper layer behind the IPv6 extension headers
// (RFC 4301 §4.4.1.1, "Next Layer Protocol").
func (p *Inner) walkExtensions(b []byte) error {
	next, at := b[6], ipv6HeaderLen
	for range maxExtensions {
		switch next {
		case ProtoHopByHop, ProtoRouting, ProtoDstOpts:
			if len(b)-at < 8 {
				return ErrInnerPacket
			}
			n := (int(b[at+1]) + 1) * 8
			if n > len(b)-at {
				return ErrInnerPacket
			}
			next, at = b[at], at+n
		case ProtoFragment:
			if len(b)-at < fragmentExtLen || p.FragmentAt != 0 {
				return ErrInnerPacket
			}
			p.FragmentAt = at
			frag := binary.BigEndian.Uint16(b[at+2:])
			p.LaterPart, p.MoreParts = frag>>3 != 0, frag&1 != 0
			next, at = b[at], at+fragmentExtLen
			if p.LaterPart {
				// What follows is the middle of something; its first header is known only
				// when it is no extension header.
				p.IPLen, p.Protocol, p.ProtoKnown = at, next, !isExtension(next)
				return nil
			}
		default:
			p.IPLen, p.Protocol, p.ProtoKnown = at, next, true
			p.parsePorts(b[at:])
			return nil
		}
	}
	return ErrInnerPacket
}

func isExtension(next uint8) bool {
	switch next {
	case ProtoHopByHop, ProtoRouting, ProtoDstOpts, ProtoFragment:
		return true
	}
	return false
}

// parsePorts reads ports, or type and code, out of the upper layer. A fragment
// that is too short to hold them leaves them unknown, so that only selectors for
// any or OPAQUE ports let it through.
func (p *Inner) parsePorts(upper []byte) {
	if p.LaterPart {
		return
	}
	switch p.Protocol {
	case ProtoTCP, ProtoUDP, ProtoSCTP, ProtoUDPLite, protoDCCP:
		if len(upper) >= 4 {
			p.SrcPort, p.DstPort = binary.BigEndian.Uint16(upper), binary.BigEndian.Uint16(upper[2:])
			p.PortsKnown = true
		}
	case ProtoICMP, ProtoICMPv6:
		if len(upper) >= 2 {
			p.setBothPorts(binary.BigEndian.Uint16(upper))
		}
	case ProtoMobility:
		if len(upper) >= 3 {
			p.setBothPorts(uint16(upper[2]) << 8)
		}
	}
}

func (p *Inner) setBothPorts(v uint16) {
	p.SrcPort, p.DstPort, p.PortsKnown = v, v, true
}
