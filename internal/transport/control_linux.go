package transport

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Control messages (cmsg(3)) travel beside a datagram. They are in host byte
// order and read here by hand: the library calls allocate for every packet.

const (
	pktinfo4Len = 12 // ifindex 4, address to use as source 4, destination in the header 4
	pktinfo6Len = 20 // address 16, ifindex 4
)

// recvControlLen holds all that is asked for with each packet, and some spare.
var recvControlLen = unix.CmsgSpace(pktinfo6Len) + 3*unix.CmsgSpace(4) + 32

// sendControlLen holds the source of a packet, the segment size of a train and TOS.
var sendControlLen = unix.CmsgSpace(pktinfo6Len) + unix.CmsgSpace(2) + unix.CmsgSpace(4)

// packetInfo is what the kernel tells about a received packet.
type packetInfo struct {
	local   netip.Addr // our address that it was sent to
	unicast bool       // false for multicast and broadcast
	ifindex int
	segment int // size of the datagrams in it when several came as one, else zero
	tos     uint8
	drops   uint32 // queue overruns of the socket so far
	counted bool   // drops is present
}

// parseControl reads control messages. Unknown ones are skipped, a malformed one
// ends the reading: what was understood before it stays.
func parseControl(b []byte) packetInfo {
	var info packetInfo
	for len(b) >= unix.SizeofCmsghdr {
		length, level, typ := cmsgHeader(b)
		if length < unix.SizeofCmsghdr || length > uint64(len(b)) {
			return info
		}
		info.add(level, typ, b[unix.CmsgLen(0):length])
		next := unix.CmsgSpace(int(length) - unix.CmsgLen(0))
		if next > len(b) {
			return info
		}
		b = b[next:]
	}
	return info
}

// add takes the content of one control message.
func (info *packetInfo) add(level, typ int32, data []byte) {
	switch {
	case level == unix.IPPROTO_IP && typ == unix.IP_PKTINFO && len(data) >= pktinfo4Len:
		source := netip.AddrFrom4([4]byte(data[4:8]))
		info.local = netip.AddrFrom4([4]byte(data[8:12]))
		// The two differ when the destination is a group or a broadcast address.
		info.unicast = source == info.local && !info.local.IsMulticast()
		info.ifindex = int(int32(binary.NativeEndian.Uint32(data)))
	case level == unix.IPPROTO_IPV6 && typ == unix.IPV6_PKTINFO && len(data) >= pktinfo6Len:
		info.local = netip.AddrFrom16([16]byte(data[:16]))
		info.unicast = !info.local.IsMulticast()
		info.ifindex = int(int32(binary.NativeEndian.Uint32(data[16:])))
	case level == unix.SOL_UDP && typ == unix.UDP_GRO && len(data) >= 2:
		// The kernel writes an int; its documentation says 16 bits. A value of 16
		// bits reads the same from both on little endian machines only.
		if len(data) >= 4 {
			info.segment = int(int32(binary.NativeEndian.Uint32(data)))
		} else {
			info.segment = int(binary.NativeEndian.Uint16(data))
		}
	case level == unix.IPPROTO_IP && typ == unix.IP_TOS && len(data) >= 1:
		info.tos = data[0]
	case level == unix.IPPROTO_IPV6 && typ == unix.IPV6_TCLASS && len(data) >= 4:
		info.tos = uint8(binary.NativeEndian.Uint32(data))
	case level == unix.SOL_SOCKET && typ == unix.SO_RXQ_OVFL && len(data) >= 4:
		info.drops, info.counted = binary.NativeEndian.Uint32(data), true
	}
}

func cmsgHeader(b []byte) (length uint64, level, typ int32) {
	const word = unix.SizeofCmsghdr - 8 // size_t
	if word == 8 {
		length = binary.NativeEndian.Uint64(b)
	} else {
		length = uint64(binary.NativeEndian.Uint32(b))
	}
	return length, int32(binary.NativeEndian.Uint32(b[word:])), int32(binary.NativeEndian.Uint32(b[word+4:]))
}

// appendCmsg appends a control message with n octets of zero content, and
// returns the whole and the content to fill in.
func appendCmsg(b []byte, level, typ int32, n int) (whole, content []byte) {
	start := len(b)
	whole = b[:start+unix.CmsgSpace(n)] // the caller's buffer has the capacity
	m := whole[start:]
	clear(m)
	const word = unix.SizeofCmsghdr - 8
	if word == 8 {
		binary.NativeEndian.PutUint64(m, uint64(unix.CmsgLen(n)))
	} else {
		binary.NativeEndian.PutUint32(m, uint32(unix.CmsgLen(n)))
	}
	binary.NativeEndian.PutUint32(m[word:], uint32(level))
	binary.NativeEndian.PutUint32(m[word+4:], uint32(typ))
	return whole, m[unix.CmsgLen(0):unix.CmsgLen(n)]
}

// appendSource asks for a source address, an interface, or both. The family is
// that of the socket: local may be unspecified.
func appendSource(b []byte, ipv6 bool, local netip.Addr, ifindex int) []byte {
	specified := local.IsValid() && !local.IsUnspecified()
	if !specified && ifindex == 0 {
		return b
	}
	if ipv6 {
		b, content := appendCmsg(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, pktinfo6Len)
		if specified {
			a := local.As16()
			copy(content, a[:])
		}
		binary.NativeEndian.PutUint32(content[16:], uint32(ifindex))
		return b
	}
	b, content := appendCmsg(b, unix.IPPROTO_IP, unix.IP_PKTINFO, pktinfo4Len)
	binary.NativeEndian.PutUint32(content, uint32(ifindex))
	if specified {
		a := local.As4()
		copy(content[4:8], a[:])
	}
	return b
}

// appendSegment asks the kernel to cut the message into datagrams of size.
func appendSegment(b []byte, size int) []byte {
	b, content := appendCmsg(b, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(content, uint16(size))
	return b
}

// appendTOS asks for the octet of the IP header that holds DSCP and ECN.
func appendTOS(b []byte, ipv6 bool, tos uint8) []byte {
	level, typ := int32(unix.IPPROTO_IP), int32(unix.IP_TOS)
	if ipv6 {
		level, typ = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	}
	b, content := appendCmsg(b, level, typ, 4)
	binary.NativeEndian.PutUint32(content, uint32(tos))
	return b
}
