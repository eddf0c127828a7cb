package vnet

import "encoding/binary"

// maxHeaders bounds IP and TCP headers with all their options; more cannot be cut.
const maxHeaders = 256

// Super is a frame read from a TUN device: a packet, or a super-packet to be cut
// into packets.
type Super struct {
	pkt  []byte // the IP packet; its capacity goes on behind it
	size int    // payload of one segment, zero if there is nothing to cut
	n    int

	ipLen, headers int
	udp, v6        bool
	template       [maxHeaders]byte // the headers as they were
	id             uint16           // IPv4 identification of the first segment
	seq            uint32           // TCP sequence number of the first segment
	ipSum, upper   uint64           // sums over what does not change from segment to segment
}

// Parse takes a frame, header included. The checksum that the kernel left to the
// device is completed for a packet; for a super-packet Segment does it.
func (s *Super) Parse(frame []byte) error {
	if len(frame) < HeaderLen {
		return ErrFrame
	}
	h := parseHeader(frame)
	s.pkt, s.n, s.size = frame[HeaderLen:], 1, 0
	switch h.gsoType &^ gsoECN {
	case gsoNone:
		return s.complete(&h)
	case gsoTCPv4, gsoTCPv6:
		return s.prepare(&h, false)
	case gsoUDP:
		return s.prepare(&h, true)
	}
	return ErrFrame
}

// complete computes the checksum of a packet that is not cut.
func (s *Super) complete(h *header) error {
	if h.flags&needsChecksum == 0 {
		return nil
	}
	from, at := int(h.checksumFrom), int(h.checksumFrom)+int(h.checksumAt)
	if at+2 > len(s.pkt) {
		return ErrFrame
	}
	v := sum(s.pkt[from:], 0) // the sum of the pseudo-header stands in the field
	if h.checksumAt == udpChecksum {
		putUDPChecksum(s.pkt[at:], v)
	} else {
		putChecksum(s.pkt[at:], v)
	}
	return nil
}

// prepare checks the headers of a super-packet and sums up what all segments share.
func (s *Super) prepare(h *header, udp bool) error {
	s.ipLen, s.udp = int(h.checksumFrom), udp
	if !s.measure() || h.gsoSize == 0 {
		return ErrFrame
	}
	s.size = int(h.gsoSize)
	payload := len(s.pkt) - s.headers
	s.n = max(1, (payload+s.size-1)/s.size)

	t := s.template[:s.headers]
	copy(t, s.pkt)
	upper := t[s.ipLen:]
	protocol := uint8(protoTCP)
	if udp {
		protocol = protoUDP
		clear(upper[udpChecksum : udpChecksum+2])
	} else {
		s.seq = binary.BigEndian.Uint32(upper[tcpSeq:])
		clear(upper[tcpChecksum : tcpChecksum+2])
	}
	s.upper = pseudo(t, protocol, 0)
	if !s.v6 {
		s.id = binary.BigEndian.Uint16(t[ipv4ID:])
		clear(t[ipv4TotalLen : ipv4ID+2])
		clear(t[ipv4Checksum : ipv4Checksum+2])
		s.ipSum = sum(t[:s.ipLen], 0)
	}
	return nil
}

// measure finds the length of the headers and reports whether they are whole.
func (s *Super) measure() bool {
	b := s.pkt
	if len(b) < ipv4Len || len(b) > maxIPLen || s.ipLen >= len(b) {
		return false
	}
	s.v6 = b[0]>>4 == 6
	if s.v6 && s.ipLen < ipv6Len || !s.v6 && s.ipLen != int(b[0]&0x0f)*4 {
		return false
	}
	if !s.v6 && (b[0]>>4 != 4 || s.ipLen < ipv4Len) {
		return false
	}
	upper := b[s.ipLen:]
	n := udpLen
	if !s.udp {
		if len(upper) < tcpLen {
			return false
		}
		n = int(upper[tcpOffset]>>4) * 4
		if n < tcpLen {
			return false
		}
	}
	s.headers = s.ipLen + n
	return n <= len(upper) && s.headers <= maxHeaders
}

// Segments is how many packets the frame holds.
func (s *Super) Segments() int { return s.n }

// Octets is the sum of the lengths of all segments.
func (s *Super) Octets() int { return len(s.pkt) + (s.n-1)*s.headers }

// First is the first packet as it stands in the frame: what is needed to know where
// all of them go. Its lengths and checksums are those of the whole.
func (s *Super) First() []byte { return s.pkt }

// SegmentLen is the length of the longest segment.
func (s *Super) SegmentLen() int {
	if s.size == 0 {
		return len(s.pkt)
	}
	return min(s.headers+s.size, len(s.pkt))
}

// Segment returns packet i, in the memory of the frame. Packets must be asked for
// in order, and each be done with before the next: its headers are written over the
// end of the one before. There is memory behind the packet, which may be used as
// long as it is put back as it was.
func (s *Super) Segment(i int) []byte {
	if s.size == 0 {
		return s.pkt
	}
	at := i * s.size
	end := min(at+s.headers+s.size, len(s.pkt))
	seg := s.pkt[at:end]
	copy(seg, s.template[:s.headers])
	upper := seg[s.ipLen:]
	if s.v6 {
		binary.BigEndian.PutUint16(seg[ipv6Payload:], uint16(len(seg)-ipv6Len))
	} else {
		n, id := uint16(len(seg)), s.id+uint16(i)
		binary.BigEndian.PutUint16(seg[ipv4TotalLen:], n)
		binary.BigEndian.PutUint16(seg[ipv4ID:], id)
		putChecksum(seg[ipv4Checksum:], s.ipSum+word(n)+word(id))
	}
	partial := add(s.upper, word(uint16(len(upper))))
	if s.udp {
		binary.BigEndian.PutUint16(upper[udpLength:], uint16(len(upper)))
		putUDPChecksum(upper[udpChecksum:], sum(upper, partial))
		return seg
	}
	binary.BigEndian.PutUint32(upper[tcpSeq:], s.seq+uint32(at))
	if i < s.n-1 {
		upper[tcpFlags] &^= flagFIN | flagPSH
	}
	if i > 0 {
		upper[tcpFlags] &^= flagCWR // RFC 3168 §6.1.2: told once
	}
	putChecksum(upper[tcpChecksum:], sum(upper, partial))
	return seg
}
