package tun

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/esp/tun/vnet"
)

const (
	// maxReplies bounds the answers to one read: a train of packets that are all too
	// big needs one.
	maxReplies = 4

	icmpHeaderLen = 8
	icmpTTL       = 64
	// An ICMP error quotes as much as fits into what every network carries: 576
	// octets (RFC 1812 §4.3.2.3), 1280 for IPv6 (RFC 4443 §2.4 (c)).
	maxICMPv4 = 576
	maxICMPv6 = 1280

	icmpUnreachable = 3 // RFC 792
	icmpFragNeeded  = 4 // code, RFC 1191 §4
	icmpv6TooBig    = 2 // RFC 4443 §3.2
	icmpv6FirstInfo = 128
	icmpv6Redirect  = 137
	minIPv4PathMTU  = 68
)

// tooBigReplies collects ICMP errors until the packets of a read are done.
type tooBigReplies struct {
	bufs [][]byte
	out  [][]byte
}

// add prepares an error for a packet that does not fit. Errors are sent at a
// limited rate, and not at all where RFC 1122 §3.2.2 and RFC 4443 §2.4 (e) forbid
// it: about ICMP errors, later fragments, and packets without a single sender.
func (r *tooBigReplies) add(d *DataPath, pkt []byte, in *esp.Inner, mtu int, now time.Time) {
	if len(r.out) == maxReplies || !answerable(pkt, in) || !d.tooBig.Allow(now) {
		return
	}
	if len(r.bufs) <= len(r.out) {
		r.bufs = append(r.bufs, make([]byte, maxICMPv6))
	}
	buf := r.bufs[len(r.out)]
	r.out = append(r.out, buf[:writeTooBig(buf, pkt, in, mtu)])
}

// write delivers the errors through the TUN device.
func (r *tooBigReplies) write(d *DataPath, q Queue) {
	if len(r.out) == 0 {
		return
	}
	var header [vnet.HeaderLen]byte // nothing left for the kernel to do
	for _, message := range r.out {
		if err := q.Write([][]byte{header[:], message}); err != nil && !d.isClosing() {
			d.warn("ICMP errors could not be written to the TUN device", "error", err)
		}
	}
	r.out = r.out[:0]
}

func answerable(pkt []byte, in *esp.Inner) bool {
	if in.LaterPart || !oneHost(in.Src()) || !oneHost(in.Dst()) {
		return false
	}
	if !in.PortsKnown {
		return in.Protocol != esp.ProtoICMP && in.Protocol != esp.ProtoICMPv6
	}
	switch kind := in.SrcPort >> 8; in.Protocol {
	case esp.ProtoICMP:
		return kind != 3 && kind != 4 && kind != 5 && kind != 11 && kind != 12
	case esp.ProtoICMPv6:
		return kind >= icmpv6FirstInfo && kind != icmpv6Redirect
	}
	return true
}

func oneHost(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// writeTooBig writes "fragmentation needed" (RFC 1191 §4) or "packet too big"
// (RFC 4443 §3.2) to the sender of pkt and returns its length. It comes from the
// address the packet was for: that one is routed into the tunnel, so reverse path
// checks accept it, and the tunnel may have no address of its own.
func writeTooBig(b, pkt []byte, in *esp.Inner, mtu int) int {
	if in.V6 {
		return writeTooBigV6(b, pkt[:in.Length], max(mtu, esp.MinIPv6MTU))
	}
	return writeTooBigV4(b, pkt[:in.Length], max(mtu, minIPv4PathMTU))
}

func writeTooBigV4(b, pkt []byte, mtu int) int {
	quoted := min(len(pkt), maxICMPv4-ipv4Header-icmpHeaderLen)
	n := ipv4Header + icmpHeaderLen + quoted
	b = b[:n]
	clear(b[:ipv4Header+icmpHeaderLen])
	b[0] = 4<<4 | ipv4Header/4
	b[1] = 6 << 5 // internetwork control, RFC 1812 §4.3.2.5
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	b[8], b[9] = icmpTTL, esp.ProtoICMP
	copy(b[12:16], pkt[16:20])
	copy(b[16:20], pkt[12:16])
	binary.BigEndian.PutUint16(b[10:], checksum(b[:ipv4Header], 0))

	icmp := b[ipv4Header:]
	icmp[0], icmp[1] = icmpUnreachable, icmpFragNeeded
	binary.BigEndian.PutUint16(icmp[6:], uint16(mtu))
	copy(icmp[icmpHeaderLen:], pkt[:quoted])
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp, 0))
	return n
}

func writeTooBigV6(b, pkt []byte, mtu int) int {
	quoted := min(len(pkt), maxICMPv6-ipv6Header-icmpHeaderLen)
	n := ipv6Header + icmpHeaderLen + quoted
	b = b[:n]
	clear(b[:ipv6Header+icmpHeaderLen])
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(icmpHeaderLen+quoted))
	b[6], b[7] = esp.ProtoICMPv6, icmpTTL
	copy(b[8:24], pkt[24:40])
	copy(b[24:40], pkt[8:24])

	icmp := b[ipv6Header:]
	icmp[0] = icmpv6TooBig
	binary.BigEndian.PutUint32(icmp[4:], uint32(mtu))
	copy(icmp[icmpHeaderLen:], pkt[:quoted])
	// Pseudo-header (RFC 8200 §8.1): addresses, upper-layer length, next header.
	pseudo := sumWords(b[8:40], uint32(len(icmp))+esp.ProtoICMPv6)
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp, pseudo))
	return n
}

// checksum is the Internet checksum (RFC 1071) of b on top of a partial sum.
func checksum(b []byte, partial uint32) uint16 {
	v := sumWords(b, partial)
	v = v&0xffff + v>>16
	v = v&0xffff + v>>16
	return ^uint16(v)
}

// sumWords adds up 16-bit words; for the short messages here 32 bits suffice.
func sumWords(b []byte, v uint32) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		v += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		v += uint32(b[0]) << 8
	}
	return v
}
