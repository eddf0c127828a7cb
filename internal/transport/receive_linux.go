package transport

import (
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

const (
	// datagramMax is the largest message: one datagram, or several joined by
	// receive offload. Only pages that were once written to take memory.
	datagramMax = 1 << 16
	// dataMessages and ikeMessages are received per system call.
	dataMessages = 32
	ikeMessages  = 8
	// batchMax bounds a batch: joined datagrams can be as short as an octet.
	batchMax = 1024
	// errorsInARow is how many failed reads are taken as ICMP errors and the
	// like before the reader begins to pause between them.
	errorsInARow = 64
	errorPause   = 10 * time.Millisecond
)

// reader receives from one socket. Its buffers are made once.
type reader struct {
	t *Transport
	s *socket

	msgs     []mmsghdr
	iovecs   []unix.Iovec
	names    []sockaddr
	controls []byte
	data     []byte
	batch    []ESPPacket

	received int
	errno    unix.Errno
	drops    uint32 // last overrun count told by the kernel
}

func newReader(t *Transport, s *socket) *reader {
	n := dataMessages
	if !s.esp && s.port == IKE {
		n = ikeMessages
	}
	r := &reader{
		t: t, s: s,
		msgs:     make([]mmsghdr, n),
		iovecs:   make([]unix.Iovec, n),
		names:    make([]sockaddr, n),
		controls: make([]byte, n*recvControlLen),
		data:     make([]byte, n*datagramMax),
	}
	for i := range r.msgs {
		r.iovecs[i].Base = &r.data[i*datagramMax]
		r.iovecs[i].SetLen(datagramMax)
		h := &r.msgs[i].hdr
		h.Name = namePointer(&r.names[i])
		h.Iov = &r.iovecs[i]
		h.SetIovlen(1)
		h.Control = &r.controls[i*recvControlLen]
	}
	r.received = n // all of them need their lengths set
	return r
}

// run receives until the socket is closed.
func (r *reader) run() {
	receive := r.receive // made once: a method value allocates
	failed := 0
	for {
		if err := r.s.raw.Read(receive); err != nil {
			return // closed
		}
		if r.errno == 0 {
			failed = 0
			r.deliver()
			continue
		}
		failed++
		if !r.recover(failed) {
			return
		}
	}
}

// receive makes one system call; it returns false to be called again when the
// socket is readable.
func (r *reader) receive(fd uintptr) bool {
	for i := range r.received { // the kernel has overwritten the lengths of these
		h := &r.msgs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(recvControlLen)
		h.Flags = 0
	}
	r.received = 0
	for {
		n, errno := recvmmsg(fd, r.msgs)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		r.received, r.errno = n, errno
		return true
	}
}

// recover decides whether to go on after a failed receive. Errors reported for
// an earlier send (ICMP) end with the call that returns them.
func (r *reader) recover(inARow int) bool {
	r.t.counters.readErrors.Add(1)
	if r.t.readErrors.Allow(time.Now()) {
		r.t.log.Warn("receive failed", "socket", r.s.file.Name(), "err", r.errno,
			"not_logged", r.t.readErrors.Suppressed())
	}
	if r.errno == unix.EBADF || r.errno == unix.ENOTSOCK {
		return false
	}
	if inARow < errorsInARow {
		return true
	}
	select {
	case <-r.t.closed:
		return false
	case <-time.After(errorPause):
		return true
	}
}

// deliver hands over what one call received, in order. A batch holds packets of
// one call; its packets point into the buffers, which are reused afterwards.
func (r *reader) deliver() {
	for i := range r.received {
		m := &r.msgs[i]
		r.deliverMessage(m, r.data[i*datagramMax:][:m.n], &r.names[i],
			r.controls[i*recvControlLen:][:m.hdr.Controllen])
	}
	r.flush()
}

func (r *reader) deliverMessage(m *mmsghdr, data []byte, name *sockaddr, control []byte) {
	c := &r.t.counters
	info := parseControl(control)
	r.countDrops(info)
	if m.hdr.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || !info.local.IsValid() {
		c.truncated.Add(1)
		return
	}
	if !info.unicast {
		c.notUnicast.Add(1)
		return
	}
	remote, ok := readSockaddr(name, m.hdr.Namelen)
	if !ok {
		c.malformed.Add(1)
		return
	}
	if r.s.esp {
		r.deliverRaw(r.pair(info, remote.Addr(), 0, 0), data)
		return
	}
	if remote.Port() == 0 { // nobody can be answered there
		c.malformed.Add(1)
		return
	}
	r.deliverUDP(r.pair(info, remote.Addr(), r.s.bound.Port(), remote.Port()), data, info.segment)
}

// pair is the address pair of a packet as this side sees it.
func (r *reader) pair(info packetInfo, remote netip.Addr, localPort, remotePort uint16) locator.Pair {
	p := locator.Pair{
		Local:     netip.AddrPortFrom(info.local, localPort),
		Remote:    netip.AddrPortFrom(remote, remotePort),
		Interface: info.ifindex,
	}
	if r.t.cfg.FollowRoutes && !remote.IsLinkLocalUnicast() {
		p.Interface = 0
	}
	return p
}

// deliverUDP takes one message apart: receive offload joins datagrams of the
// same pair and size, of which the last may be shorter.
func (r *reader) deliverUDP(pair locator.Pair, data []byte, segment int) {
	if segment <= 0 || segment >= len(data) {
		r.deliverDatagram(pair, data)
		return
	}
	for datagram := range slices.Chunk(data, segment) {
		r.deliverDatagram(pair, datagram)
	}
}

func (r *reader) deliverDatagram(pair locator.Pair, datagram []byte) {
	k, content := classify(r.s.port, datagram)
	switch k {
	case kindESP:
		r.add(ESPPacket{Pair: pair, UDP: true, Data: content})
	case kindIKE:
		r.flush() // ESP that came before a message (a delete, say) is handled before it
		r.t.handler.HandleIKE(pair, slices.Clone(content))
	default:
		r.t.counters.count(k)
	}
}

func (r *reader) deliverRaw(pair locator.Pair, packet []byte) {
	if !r.s.ipv6 {
		var ok bool
		if packet, ok = stripIPv4(packet); !ok {
			r.t.counters.malformed.Add(1)
			return
		}
	}
	if !rawESP(packet) {
		r.t.counters.malformed.Add(1)
		return
	}
	r.add(ESPPacket{Pair: pair, Data: packet})
}

// add puts a packet into the batch. Its capacity ends where the next packet
// begins, so that nobody appends into that.
func (r *reader) add(p ESPPacket) {
	p.Data = p.Data[:len(p.Data):len(p.Data)]
	r.batch = append(r.batch, p)
	if len(r.batch) >= batchMax {
		r.flush()
	}
}

func (r *reader) flush() {
	if len(r.batch) == 0 {
		return
	}
	r.t.handler.HandleESP(r.batch)
	r.batch = r.batch[:0]
}

// countDrops adds what the kernel dropped since the last packet; its own count
// wraps.
func (r *reader) countDrops(info packetInfo) {
	if !info.counted || info.drops == r.drops {
		return
	}
	r.t.counters.kernelDrops.Add(uint64(info.drops - r.drops))
	r.drops = info.drops
}
