// Package vnet cuts super-packets into packets and joins packets into
// super-packets, as the virtio-net header in front of every frame of a TUN device
// describes them (virtio 1.2 §5.1.6). The kernel's TCP and UDP then see one large
// packet where the tunnel carries dozens, which is most of what makes a userspace
// tunnel fast.
//
// Nothing is copied: a super-packet is cut where it lies, each packet's headers
// written over what has been used up before it, and joined packets leave as a list
// of pieces for one writev.
package vnet

import (
	"encoding/binary"
	"errors"
)

// HeaderLen is the length of a virtio-net header without the number of buffers,
// which is what a TUN device uses.
const HeaderLen = 10

// Values of the header's fields.
const (
	needsChecksum = 1

	gsoNone  = 0
	gsoTCPv4 = 1
	gsoTCPv6 = 4
	gsoUDP   = 5 // one UDP datagram per segment
	gsoECN   = 0x80
)

// ErrFrame is returned for a frame whose header does not fit its packet.
var ErrFrame = errors.New("virtio-net header and packet do not fit together")

// header is a virtio-net header. Its fields are in the machine's own byte order.
type header struct {
	flags, gsoType           uint8
	headersLen               uint16 // of IP and TCP or UDP
	gsoSize                  uint16 // payload of one segment
	checksumFrom, checksumAt uint16 // where the sum begins; where it goes, from there
}

func parseHeader(b []byte) header {
	order := binary.NativeEndian
	return header{
		flags: b[0], gsoType: b[1],
		headersLen: order.Uint16(b[2:]), gsoSize: order.Uint16(b[4:]),
		checksumFrom: order.Uint16(b[6:]), checksumAt: order.Uint16(b[8:]),
	}
}

func (h *header) put(b []byte) {
	order := binary.NativeEndian
	b[0], b[1] = h.flags, h.gsoType
	order.PutUint16(b[2:], h.headersLen)
	order.PutUint16(b[4:], h.gsoSize)
	order.PutUint16(b[6:], h.checksumFrom)
	order.PutUint16(b[8:], h.checksumAt)
}

// What is needed of the headers inside (RFC 791, RFC 8200, RFC 9293, RFC 768).
const (
	ipv4Len       = 20
	ipv4TOS       = 1
	ipv4TotalLen  = 2
	ipv4ID        = 4
	ipv4Fragment  = 6
	ipv4TTL       = 8
	ipv4Protocol  = 9
	ipv4Checksum  = 10
	ipv4Addresses = 12
	ipv4DontFrag  = 0x40
	ipv6Len       = 40
	ipv6Payload   = 4
	ipv6Next      = 6
	ipv6Addresses = 8

	tcpLen      = 20
	tcpSeq      = 4
	tcpAck      = 8
	tcpOffset   = 12
	tcpFlags    = 13
	tcpWindow   = 14
	tcpChecksum = 16
	flagFIN     = 0x01
	flagPSH     = 0x08
	flagACK     = 0x10
	flagCWR     = 0x80

	udpLen      = 8
	udpLength   = 4
	udpChecksum = 6

	protoTCP = 6
	protoUDP = 17

	maxIPLen = 65535
)
