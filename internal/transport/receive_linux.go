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
	// After a call that brought so many octets the next one asks for fewer messages:
	// what is worked on should stay in the processor's cache.
	manyOctets   = 128 << 10
	fullMessages = 4
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
	batch    []ESPTrain

	asked    int // messages to ask for
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
	r.asked = n
	r.received = n // all of them need their lengths set
	return r
}

// run receives until the socket is closed. It waits in the system call rather than in
// the runtime's poller: a packet then wakes this thread and no other, which halves
// what the tunnel adds to a round trip.
func (r *reader) run() {
	_ = r.s.raw.Control(r.loop) // an error means that the socket is closed already
}

func (r *reader) loop(fd uintptr) {
	failed := 0
	for {
		r.receive(fd)
		if r.t.isClosed() {
			return
		}
		if r.errno == 0 {
			failed = 0
			r.deliver()
			continue
		}
		if r.t.readErrorQueue(r.s, fd) > 0 {
			failed = 0
			continue
		}
		failed++
		if !r.recover(failed) {
			return
		}
	}
}

// receive makes one system call, which waits for the first message.
func (r *reader) receive(fd uintptr) {
	for i := range r.received { // the kernel has overwritten the lengths of these
		h := &r.msgs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(recvControlLen)
		h.Flags = 0
	}
	r.received = 0
	for {
		n, errno := recvmmsg(fd, r.msgs[:r.asked])
		if errno == unix.EINTR {
			continue
		}
		r.received, r.errno = n, errno
		return
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
	octets := 0
	for i := range r.received {
		m := &r.msgs[i]
		octets += int(m.n)
		r.deliverMessage(m, r.data[i*datagramMax:][:m.n], &r.names[i],
			r.controls[i*recvControlLen:][:m.hdr.Controllen])
	}
	r.flush()
	r.asked = len(r.msgs)
	if octets >= manyOctets {
		r.asked = min(fullMessages, r.asked)
	}
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
		r.deliverRaw(r.pair(info, remote.Addr(), 0, 0), data, info.tos)
		return
	}
	if remote.Port() == 0 { // nobody can be answered there
		c.malformed.Add(1)
		return
	}
	r.deliverUDP(r.pair(info, remote.Addr(), r.s.bound.Port(), remote.Port()), data, info.segment, info.tos)
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

// deliverUDP takes one message apart: receive offload joins datagrams of the same
// pair and size, of which the last may be shorter. Mostly all of them are ESP; IKE
// messages and keepalives among them are taken out.
func (r *reader) deliverUDP(pair locator.Pair, data []byte, segment int, tos uint8) {
	if segment <= 0 || segment > len(data) {
		segment = len(data)
	}
	run := 0 // where the datagrams begin that are ESP and not handed over yet
	for at := 0; at < len(data); at += segment {
		datagram := data[at:min(at+segment, len(data))]
		k, content := classify(r.s.port, datagram)
		if k == kindESP {
			continue
		}
		r.add(ESPTrain{Pair: pair, UDP: true, Train: Train{data[run:at], segment, tos}})
		run = at + segment
		if k != kindIKE {
			r.t.counters.count(k)
			continue
		}
		r.flush() // ESP that came before a message (a delete, say) is handled before it
		r.t.handler.HandleIKE(pair, slices.Clone(content))
	}
	if len(data) == 0 {
		r.t.counters.count(kindShort)
	}
	if run < len(data) {
		r.add(ESPTrain{Pair: pair, UDP: true, Train: Train{data[run:], segment, tos}})
	}
}

func (r *reader) deliverRaw(pair locator.Pair, packet []byte, tos uint8) {
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
	r.add(ESPTrain{Pair: pair, Train: Train{packet, len(packet), tos}})
}

// add puts a train into the batch. Its capacity ends where its data does, so that
// nobody appends into what comes next.
func (r *reader) add(t ESPTrain) {
	if len(t.Data) == 0 {
		return
	}
	t.Data = t.Data[:len(t.Data):len(t.Data)]
	r.batch = append(r.batch, t)
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
