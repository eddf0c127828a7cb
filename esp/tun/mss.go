package tun

import (
	"encoding/binary"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

// TCP header (RFC 9293 §3.1).
const (
	tcpHeaderLen  = 20
	tcpDataOffset = 12
	tcpFlags      = 13
	tcpChecksum   = 16
	tcpFlagSYN    = 0x02
	tcpOptEnd     = 0
	tcpOptNop     = 1
	tcpOptMSS     = 2
	tcpOptMSSLen  = 4
	ipv4Header    = 20
	ipv6Header    = 40
	minClampedMSS = 64 // a smaller segment would be no use to anyone
)

// opensTCP reports whether a packet is a SYN segment.
func opensTCP(pkt []byte, in *esp.Inner) bool {
	return in.Protocol == esp.ProtoTCP && !in.LaterPart && in.Length-in.IPLen >= tcpHeaderLen &&
		pkt[in.IPLen+tcpFlags]&tcpFlagSYN != 0
}

// clampMSS lowers the MSS option of a SYN segment to what fits the inner MTU, and
// reports whether it did. Segments may be shorter than IPv6's smallest MTU allows
// packets to be; on a narrow path that is what keeps the outer packets whole. The
// checksum is updated, not computed anew, so a broken one stays broken.
func clampMSS(pkt []byte, in *esp.Inner, mtu int) bool {
	if !opensTCP(pkt, in) {
		return false
	}
	tcp := pkt[in.IPLen:in.Length]
	limit := mtu - ipv4Header - tcpHeaderLen
	if in.V6 {
		limit = mtu - ipv6Header - tcpHeaderLen
	}
	if limit < minClampedMSS {
		return false
	}
	at := findMSS(tcp)
	if at == 0 {
		return false
	}
	old := binary.BigEndian.Uint16(tcp[at:])
	if int(old) <= limit {
		return false
	}
	binary.BigEndian.PutUint16(tcp[at:], uint16(limit))
	updateChecksum(tcp[tcpChecksum:], old, uint16(limit), at%2 != 0)
	return true
}

// findMSS returns where the value of the MSS option stands, zero when there is
// none or the options are malformed.
func findMSS(tcp []byte) int {
	end := int(tcp[tcpDataOffset]>>4) * 4
	if end < tcpHeaderLen || end > len(tcp) {
		return 0
	}
	for at := tcpHeaderLen; at < end; {
		switch tcp[at] {
		case tcpOptEnd:
			return 0
		case tcpOptNop:
			at++
			continue
		}
		if at+2 > end {
			return 0
		}
		n := int(tcp[at+1])
		if n < 2 || at+n > end {
			return 0
		}
		if tcp[at] == tcpOptMSS {
			if n != tcpOptMSSLen {
				return 0
			}
			return at + 2
		}
		at += n
	}
	return 0
}

// updateChecksum replaces one 16-bit value in an Internet checksum (RFC 1624 eqn.
// 3). A value at an odd place counts with its octets swapped.
func updateChecksum(sum []byte, old, new uint16, odd bool) {
	if odd {
		old, new = old<<8|old>>8, new<<8|new>>8
	}
	v := uint32(^binary.BigEndian.Uint16(sum)) + uint32(^old) + uint32(new)
	v = v&0xffff + v>>16
	v = v&0xffff + v>>16
	binary.BigEndian.PutUint16(sum, ^uint16(v))
}
