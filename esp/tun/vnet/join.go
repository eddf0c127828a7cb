package vnet

import (
	"bytes"
	"encoding/binary"
)

const (
	// maxFlows are joined side by side; the packets of one sender seldom mix more.
	maxFlows = 8
	// maxJoined bounds the pieces of one super-packet, as the kernel does for UDP.
	maxJoined = 64
)

// Joiner joins packets of one flow that follow each other into super-packets, under
// the rules by which the kernel does it for a network card (GRO): everything that a
// receiver could tell apart must be alike, and every checksum right. What the kernel
// gets can be cut into the very packets that came in.
//
// The order of packets within a flow is kept; flows may overtake each other.
type Joiner struct {
	write func(pieces [][]byte)
	udp   bool

	flows [maxFlows]*flow
	used  int // flows[:used] hold packets, the oldest first
	lone  [2][]byte
	plain [HeaderLen]byte // the header of a packet that stands alone
}

// NewJoiner makes a joiner. Write gets a frame in pieces, which are only valid during
// the call: a header for the device first, then what makes up the packet. With udp
// also UDP datagrams are joined, which not every kernel takes.
func NewJoiner(write func(pieces [][]byte), udp bool) *Joiner {
	j := &Joiner{write: write, udp: udp}
	for i := range j.flows {
		j.flows[i] = new(flow)
	}
	return j
}

// flow is a super-packet under way.
type flow struct {
	shape
	pieces  [][]byte // without header: the first packet, and payloads that follow it
	store   [maxJoined + 1][]byte
	header  [HeaderLen]byte
	octets  int // of the packet
	size    int // payload of the first packet
	nextSeq uint32
	nextID  uint16
	checked bool // the first packet's checksum has been found right
	full    bool // nothing may follow
}

// shape is what a packet's headers say.
type shape struct {
	ipLen, headers int
	v6, udp        bool
}

// Add takes the next packet, which must stay as it is until Flush returns. It is a
// whole IP packet with lengths that have been checked.
func (j *Joiner) Add(pkt []byte) {
	sh, known, joinable := shapeOf(pkt, j.udp)
	if !known {
		j.alone(pkt)
		return
	}
	at := j.find(pkt, &sh)
	if at >= 0 {
		f := j.flows[at]
		if joinable && !f.full && f.continues(pkt, &sh) && f.verify() && validChecksum(pkt, &sh) {
			f.append(pkt, &sh)
			return
		}
		j.finish(at)
	}
	if !joinable {
		j.alone(pkt)
		return
	}
	if j.used == maxFlows {
		j.finish(0)
	}
	j.flows[j.used].begin(pkt, sh)
	j.used++
}

// Flush writes what is under way.
func (j *Joiner) Flush() {
	for i := range j.used {
		j.emit(j.flows[i])
	}
	j.used = 0
}

// find returns the flow of a packet, -1 when there is none.
func (j *Joiner) find(pkt []byte, sh *shape) int {
	for i := j.used - 1; i >= 0; i-- {
		f := j.flows[i]
		if f.v6 == sh.v6 && f.udp == sh.udp && f.ipLen == sh.ipLen && sameEnds(f.pieces[0], pkt, sh) {
			return i
		}
	}
	return -1
}

// finish writes one flow and gives its place away.
func (j *Joiner) finish(at int) {
	done := j.flows[at]
	j.emit(done)
	copy(j.flows[at:j.used], j.flows[at+1:j.used])
	j.used--
	j.flows[j.used] = done
}

func (j *Joiner) emit(f *flow) {
	if len(f.pieces) == 1 {
		j.alone(f.pieces[0])
		return
	}
	f.seal()
	f.store[0] = f.header[:]
	j.write(f.store[:1+len(f.pieces)])
}

func (j *Joiner) alone(pkt []byte) {
	j.lone[0], j.lone[1] = j.plain[:], pkt
	j.write(j.lone[:])
	j.lone[1] = nil
}

func (f *flow) begin(pkt []byte, sh shape) {
	f.shape = sh
	f.store[1] = pkt
	f.pieces = f.store[1:2]
	f.octets, f.size = len(pkt), len(pkt)-sh.headers
	f.checked = false
	f.full = !sh.udp && pkt[sh.ipLen+tcpFlags]&(flagFIN|flagPSH) != 0
	if !sh.udp {
		f.nextSeq = binary.BigEndian.Uint32(pkt[sh.ipLen+tcpSeq:]) + uint32(f.size)
	}
	if !sh.v6 {
		f.nextID = binary.BigEndian.Uint16(pkt[ipv4ID:]) + 1
	}
}

// continues reports whether a packet of the same flow may be joined to it.
func (f *flow) continues(pkt []byte, sh *shape) bool {
	first := f.pieces[0]
	payload := len(pkt) - sh.headers
	if sh.headers != f.headers || payload > f.size || f.octets+payload > maxIPLen || len(f.pieces) == maxJoined {
		return false
	}
	if !f.sameIP(first, pkt) {
		return false
	}
	if f.udp {
		return true
	}
	a, b := first[f.ipLen:f.headers], pkt[f.ipLen:f.headers]
	return binary.BigEndian.Uint32(b[tcpSeq:]) == f.nextSeq &&
		binary.BigEndian.Uint32(a[tcpAck:]) == binary.BigEndian.Uint32(b[tcpAck:]) &&
		a[tcpFlags] == b[tcpFlags]&^(flagFIN|flagPSH) &&
		binary.BigEndian.Uint16(a[tcpWindow:]) == binary.BigEndian.Uint16(b[tcpWindow:]) &&
		bytes.Equal(a[tcpLen:], b[tcpLen:])
}

// sameIP compares what IP headers hold beside lengths, checksum and identification.
// The identification counts up, or, where fragments are ruled out, means nothing
// (RFC 6864).
func (f *flow) sameIP(a, b []byte) bool {
	if f.v6 {
		return binary.BigEndian.Uint32(a) == binary.BigEndian.Uint32(b) && a[7] == b[7]
	}
	if a[ipv4TOS] != b[ipv4TOS] || a[ipv4TTL] != b[ipv4TTL] || a[ipv4Fragment] != b[ipv4Fragment] {
		return false
	}
	return a[ipv4Fragment]&ipv4DontFrag != 0 || binary.BigEndian.Uint16(b[ipv4ID:]) == f.nextID
}

// verify checks the first packet's checksum, once something wants to be joined to it.
func (f *flow) verify() bool {
	f.checked = f.checked || validChecksum(f.pieces[0], &f.shape)
	return f.checked
}

func (f *flow) append(pkt []byte, sh *shape) {
	payload := pkt[sh.headers:]
	f.pieces = f.store[1 : 2+len(f.pieces)]
	f.pieces[len(f.pieces)-1] = payload
	f.octets += len(payload)
	f.nextID++
	f.full = len(payload) < f.size
	if f.udp {
		return
	}
	f.nextSeq += uint32(len(payload))
	if last := pkt[sh.ipLen+tcpFlags] & (flagFIN | flagPSH); last != 0 {
		f.pieces[0][f.ipLen+tcpFlags] |= last
		f.full = true
	}
}

// seal writes the headers of the super-packet over those of its first packet, and
// the header for the device. The checksum is left to the kernel, which will have to
// cut the packet again or be content that it was right.
func (f *flow) seal() {
	pkt := f.pieces[0]
	h := header{
		flags: needsChecksum, headersLen: uint16(f.headers), gsoSize: uint16(f.size),
		checksumFrom: uint16(f.ipLen), checksumAt: tcpChecksum, gsoType: gsoTCPv4,
	}
	protocol := uint8(protoTCP)
	upper := pkt[f.ipLen:]
	n := f.octets - f.ipLen
	switch {
	case f.udp:
		protocol = protoUDP
		h.gsoType, h.checksumAt = gsoUDP, udpChecksum
		binary.BigEndian.PutUint16(upper[udpLength:], uint16(n))
	case f.v6:
		h.gsoType = gsoTCPv6
	}
	if f.v6 {
		binary.BigEndian.PutUint16(pkt[ipv6Payload:], uint16(f.octets-ipv6Len))
	} else {
		binary.BigEndian.PutUint16(pkt[ipv4TotalLen:], uint16(f.octets))
		clear(pkt[ipv4Checksum : ipv4Checksum+2])
		putChecksum(pkt[ipv4Checksum:], sum(pkt[:f.ipLen], 0))
	}
	binary.LittleEndian.PutUint16(upper[h.checksumAt:], fold(pseudo(pkt, protocol, n)))
	h.put(f.header[:])
}

// shapeOf looks at a packet's headers: known when it belongs to a flow of TCP or UDP
// that this package can tell, joinable when it may be part of a super-packet.
func shapeOf(b []byte, udp bool) (sh shape, known, joinable bool) {
	protocol := uint8(0)
	switch {
	case len(b) >= ipv4Len && b[0] == 4<<4|ipv4Len/4: // options are not joined
		if binary.BigEndian.Uint16(b[ipv4Fragment:])&^(ipv4DontFrag<<8) != 0 {
			return sh, false, false
		}
		sh.ipLen, protocol = ipv4Len, b[ipv4Protocol]
	case len(b) >= ipv6Len && b[0]>>4 == 6:
		sh.v6, sh.ipLen, protocol = true, ipv6Len, b[ipv6Next]
	}
	upper := b[sh.ipLen:]
	switch {
	case protocol == protoTCP && len(upper) >= tcpLen:
		n := int(upper[tcpOffset]>>4) * 4
		if n < tcpLen || n > len(upper) {
			return sh, false, false
		}
		sh.headers = sh.ipLen + n
		return sh, true, len(upper) > n && upper[tcpFlags]&^(flagPSH|flagFIN) == flagACK
	case protocol == protoUDP && udp && len(upper) >= udpLen:
		sh.udp, sh.headers = true, sh.ipLen+udpLen
		whole := int(binary.BigEndian.Uint16(upper[udpLength:])) == len(upper)
		return sh, true, whole && len(upper) > udpLen && (upper[udpChecksum] != 0 || upper[udpChecksum+1] != 0)
	}
	return sh, false, false
}

// sameEnds compares addresses and ports.
func sameEnds(a, b []byte, sh *shape) bool {
	le := binary.LittleEndian
	if le.Uint32(a[sh.ipLen:]) != le.Uint32(b[sh.ipLen:]) {
		return false
	}
	if !sh.v6 {
		return le.Uint64(a[ipv4Addresses:]) == le.Uint64(b[ipv4Addresses:])
	}
	return bytes.Equal(a[ipv6Addresses:ipv6Len], b[ipv6Addresses:ipv6Len])
}

func validChecksum(pkt []byte, sh *shape) bool {
	upper := pkt[sh.ipLen:]
	protocol := uint8(protoTCP)
	if sh.udp {
		protocol = protoUDP
	}
	if !sh.v6 && fold(sum(pkt[:ipv4Len], 0)) != 0xffff {
		return false
	}
	return fold(sum(upper, pseudo(pkt, protocol, len(upper)))) == 0xffff
}

// FlowHash returns the same number for all packets of a flow, as far as this package
// tells flows, and for all packets between two addresses otherwise.
func FlowHash(pkt []byte) uint32 {
	sh, known, _ := shapeOf(pkt, true)
	v := uint64(0)
	switch {
	case len(pkt) >= ipv4Len && pkt[0]>>4 == 4:
		v = binary.LittleEndian.Uint64(pkt[ipv4Addresses:])
	case len(pkt) >= ipv6Len:
		for at := ipv6Addresses; at < ipv6Len; at += 8 {
			v = v*31 + binary.LittleEndian.Uint64(pkt[at:])
		}
	}
	if known {
		v ^= uint64(binary.LittleEndian.Uint32(pkt[sh.ipLen:])) << 16
	}
	return uint32(v * 0x9e3779b97f4a7c15 >> 32)
}
