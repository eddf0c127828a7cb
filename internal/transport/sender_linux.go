package transport

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

const (
	// sendMessages bound one system call; a message has at most two parts.
	sendMessages = 64
	sendIovecs   = 2 * sendMessages
	// trainPackets is the kernel's limit for one segmented message
	// (UDP_MAX_SEGMENTS before Linux 6.10), trainBytes what fits an IPv4 packet.
	trainPackets = 64
	trainBytes   = 65535 - 20 - 8
	// roomPatience bounds one wait for room in a socket, in ms; then it is tried again.
	roomPatience = 100
)

var marker = []byte{0, 0, 0, 0}

// sender is what one call to the kernel needs. Senders are pooled, so that
// sending allocates nothing.
type sender struct {
	t    *Transport
	s    *socket
	pair locator.Pair

	msgs     [sendMessages]mmsghdr
	trains   [sendMessages]Train // what each message carries, to repeat it one by one
	iovecs   [sendIovecs]unix.Iovec
	controls []byte
	source   int // octets of control data that all messages share
	to       sockaddr
	toLen    uint32

	filled, usedIovecs int // in msgs, in iovecs
	sent               int // of filled
	errno              unix.Errno

	// try and wait are the calls below as function values: a method value
	// allocates each time it is made.
	try  func(fd uintptr)
	wait func(fd uintptr)
}

var senders = sync.Pool{New: func() any {
	sd := &sender{controls: make([]byte, sendMessages*sendControlLen)}
	sd.try = func(fd uintptr) { sd.sendSome(fd) }
	sd.wait = func(fd uintptr) { awaitRoom(fd); sd.sendSome(fd) }
	return sd
}}

// release gives the sender back; reset has let go of the caller's packets.
func (sd *sender) release() {
	sd.t, sd.s = nil, nil
	senders.Put(sd)
}

// newSender takes a sender from the pool and sets what all messages to one pair
// share.
func newSender(t *Transport, s *socket, pair locator.Pair) *sender {
	sd := senders.Get().(*sender)
	sd.t, sd.s, sd.pair = t, s, pair
	remote := netip.AddrPortFrom(pair.Remote.Addr().Unmap(), pair.Remote.Port())
	if s.esp {
		remote = netip.AddrPortFrom(remote.Addr(), 0) // raw sockets know no ports
	}
	ifindex := scope(pair)
	sd.toLen = fillSockaddr(&sd.to, remote, ifindex)
	sd.source = len(appendSource(sd.control(0), s.ipv6, pair.Local.Addr().Unmap(), ifindex))
	return sd
}

// scope returns the interface that a link-local remote is on. A zone in the
// address is honoured when the pair names no interface.
func scope(pair locator.Pair) int {
	zone := pair.Remote.Addr().Zone()
	if pair.Interface != 0 || zone == "" {
		return pair.Interface
	}
	index, err := zoneIndex(zone)
	if err != nil {
		return 0 // the kernel then refuses a link-local address
	}
	return index
}

func (sd *sender) reset() {
	clear(sd.trains[:sd.filled])
	clear(sd.iovecs[:sd.usedIovecs])
	sd.filled, sd.usedIovecs, sd.sent = 0, 0, 0
}

// room reports whether another message fits.
func (sd *sender) room() bool { return sd.filled < sendMessages }

func (sd *sender) control(i int) []byte {
	return sd.controls[i*sendControlLen : i*sendControlLen : (i+1)*sendControlLen]
}

// addTrain adds a message that carries a train, cut by the kernel when it has more
// than one packet.
func (sd *sender) addTrain(train Train) {
	i := sd.add(1)
	sd.addIovec(train.Data)
	sd.trains[i] = train
	if len(train.Data) <= train.Size && train.TOS == 0 {
		return
	}
	control := sd.control(i)[:sd.source]
	if len(train.Data) > train.Size {
		control = appendSegment(control, train.Size)
	}
	if train.TOS != 0 {
		control = appendTOS(control, sd.s.ipv6, train.TOS)
	}
	h := &sd.msgs[i].hdr
	h.Control = &control[0]
	h.SetControllen(len(control))
}

// addMarked adds an IKE message behind the non-ESP marker.
func (sd *sender) addMarked(data []byte) {
	i := sd.add(2)
	sd.addIovec(marker)
	sd.addIovec(data)
	sd.trains[i] = Train{}
}

// add begins a message of n iovecs and returns its place.
func (sd *sender) add(n int) int {
	i := sd.filled
	sd.filled++
	h := &sd.msgs[i].hdr
	*h = unix.Msghdr{Name: namePointer(&sd.to), Namelen: sd.toLen, Iov: &sd.iovecs[sd.usedIovecs]}
	h.SetIovlen(n)
	if sd.source > 0 {
		control := sd.control(i)[:sd.source]
		copy(control, sd.controls[:sd.source])
		h.Control = &control[0]
		h.SetControllen(sd.source)
	}
	return i
}

func (sd *sender) addIovec(p []byte) {
	v := &sd.iovecs[sd.usedIovecs]
	sd.usedIovecs++
	v.Base = nil
	if len(p) > 0 {
		v.Base = &p[0]
	}
	v.SetLen(len(p))
}

// sendSome makes one system call for what is left.
func (sd *sender) sendSome(fd uintptr) {
	for {
		n, errno := sd.s.sendmmsg(fd, sd.msgs[sd.sent:sd.filled])
		if errno == unix.EINTR {
			continue
		}
		sd.sent += n
		sd.errno = errno
		return
	}
}

// call makes one system call and waits for room when there is none.
func (sd *sender) call() error {
	err := sd.s.raw.Control(sd.try)
	for err == nil && sd.errno == unix.EAGAIN {
		sd.lookAtErrors() // a queue of errors makes the socket look ready
		err = sd.s.raw.Control(sd.wait)
	}
	if err == nil {
		return nil
	}
	select {
	case <-sd.t.closed: // the error itself is not one that callers could test for
		return net.ErrClosed
	default:
		return err
	}
}

// awaitRoom waits until the socket takes more, or is closed.
func awaitRoom(fd uintptr) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	_, _ = unix.Poll(fds[:], roomPatience)
}

// flush sends the messages that were added and returns the first error. After an
// error that concerns one message alone the others are still sent; done is false
// when the error concerns every packet to this pair, so that more would be in vain.
func (sd *sender) flush() (first error, done bool) {
	defer sd.reset()
	retried := 0
	for sd.sent < sd.filled {
		if err := sd.call(); err != nil {
			return err, false
		}
		if sd.errno == 0 {
			continue
		}
		if sd.earlierError(retried) {
			retried++
			continue
		}
		err, alone := sd.failed()
		if first == nil {
			first = err
		}
		if !alone {
			sd.t.counters.sendErrors.Add(sd.unsent())
			return first, false
		}
		sd.sent++
	}
	return first, true
}

// failed deals with the message that the kernel did not take. A train may have
// been refused for being one: then its packets are sent singly, with no error to
// report when that works. alone is whether other messages may fare better.
func (sd *sender) failed() (err error, alone bool) {
	train := sd.trains[sd.sent]
	if train.Packets() > 1 && segmentationRefused(sd.errno) {
		sd.t.counters.trainsRefused.Add(1)
		if sd.errno == unix.EIO || sd.errno == unix.EOPNOTSUPP {
			sd.s.gsoPause.Store(gsoPauseBatches)
		}
		err, done := sd.t.send(sd.s, sd.pair, []Train{train}, false)
		if !done {
			sd.sent++ // counted by send
		}
		return err, done
	}
	switch sd.errno {
	case unix.EMSGSIZE, unix.ENOBUFS, unix.ENOMEM:
		sd.t.counters.sendErrors.Add(uint64(max(1, train.Packets())))
		return sd.errno, true
	}
	return sd.errno, false
}

// unsent returns how many packets are left in the messages not sent.
func (sd *sender) unsent() uint64 {
	var n int
	for _, train := range sd.trains[sd.sent:sd.filled] {
		n += max(1, train.Packets())
	}
	return uint64(n)
}

// pending reports whether an error may come from an ICMP message about an
// earlier packet, in which case the present one was not tried.
func pending(errno unix.Errno) bool {
	return errno == unix.ECONNREFUSED || errno == unix.EHOSTUNREACH || errno == unix.EPROTO
}

// segmentationRefused reports whether a train may have failed for being one. EIO:
// the device computes no checksums. EINVAL, EMSGSIZE: its packets are larger than
// the MTU of the device or the path, where single ones can be fragmented (which of the
// two depends on the kernel). The packets are then tried alone, which tells for sure.
func segmentationRefused(errno unix.Errno) bool {
	switch errno {
	case unix.EIO, unix.EINVAL, unix.EMSGSIZE, unix.EOPNOTSUPP:
		return true
	}
	return false
}
