package transport

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// ICMP errors reach a socket that asks for them (IP_RECVERR in ip(7)) twice: as an error
// of some later call, which says nothing, and in its error queue, which says to whom
// the packet went and what is wrong. They are told as they are. Anybody who can guess
// addresses and ports can forge them, so they are hints to look, never reasons to act
// (RFC 4621 §7), and so many a second.

const (
	pathErrorsPerSecond = 10
	pathErrorsBurst     = 20
	// errorsAtOnce bounds what one look at the queue takes from it.
	errorsAtOnce = 64
	// pendingMax is how often a send is repeated because of errors of earlier ones.
	pendingMax = 4
)

// PathErrorKind is what an ICMP error says.
type PathErrorKind int

// Kinds of errors.
const (
	// Unreachable: a router knows no way there, or a filter does not let us through.
	Unreachable PathErrorKind = iota + 1
	// PortUnreachable: the host is there, and nobody listens.
	PortUnreachable
	// TooBig: a packet does not fit a link of the path.
	TooBig
)

// String returns the words of logs and messages.
func (k PathErrorKind) String() string {
	switch k {
	case PortUnreachable:
		return "port unreachable"
	case TooBig:
		return "packet too big"
	}
	return "unreachable"
}

// PathError is what the network says of a packet that was sent before.
type PathError struct {
	Pair locator.Pair // that it went over; without interface where that is not known
	Kind PathErrorKind
	MTU  int        // TooBig: what would fit, zero if not told
	From netip.Addr // who says so
}

func (e PathError) String() string {
	s := fmt.Sprintf("%s: %s, says %s", e.Pair, e.Kind, e.From)
	if e.MTU > 0 {
		s += fmt.Sprintf(", MTU %d", e.MTU)
	}
	return s
}

// askForErrors makes the kernel keep ICMP errors for the socket.
func (s *socket) askForErrors() error {
	level, option := unix.IPPROTO_IP, unix.IP_RECVERR
	if s.ipv6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	var err error
	if e := s.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); e != nil {
		return e
	}
	return err
}

// watchErrors asks for errors on all UDP sockets, if somebody wants to know them.
func (t *Transport) watchErrors() {
	if t.cfg.PathErrors == nil {
		return
	}
	for _, s := range t.sockets {
		if s.esp {
			continue
		}
		if err := s.askForErrors(); err != nil {
			t.log.Debug("no ICMP errors from this socket", "socket", s.file.Name(), "error", err)
		}
	}
}

// readErrorQueue tells the errors that a socket has kept. It returns how many there
// were: then an error that a call just returned was about an earlier packet.
func (t *Transport) readErrorQueue(s *socket, fd uintptr) (n int) {
	if t.cfg.PathErrors == nil || s.esp {
		return 0
	}
	var quoted [128]byte // of our packet, as far as it is quoted
	var control [512]byte
	for range errorsAtOnce {
		_, length, _, to, err := unix.Recvmsg(int(fd), quoted[:], control[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil || to == nil {
			return n
		}
		e, ok := parsePathError(control[:length], fromSockaddr(to))
		if !ok {
			continue
		}
		n++
		e.Pair.Local = netip.AddrPortFrom(e.Pair.Local.Addr(), s.bound.Port())
		if t.cfg.FollowRoutes && !e.Pair.Remote.Addr().IsLinkLocalUnicast() {
			e.Pair.Interface = 0
		}
		t.counters.pathErrors.Add(1)
		if t.pathErrors.Allow(time.Now()) {
			t.cfg.PathErrors(e)
		}
	}
	return n
}

// parsePathError reads the control data of an error about a packet to an address. What
// is not from the network is none: the caller of send has been told those.
func parsePathError(control []byte, to netip.AddrPort) (e PathError, ok bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return e, false
	}
	e.Pair.Remote = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR,
			m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR:
			ok = e.readExtended(m.Data)
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			e.Pair.Interface = int(binary.NativeEndian.Uint32(m.Data))
			e.Pair.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte(m.Data[8:12])), 0)
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			e.Pair.Interface = int(binary.NativeEndian.Uint32(m.Data[16:]))
			e.Pair.Local = netip.AddrPortFrom(netip.AddrFrom16([16]byte(m.Data[:16])), 0)
		}
	}
	return e, ok && e.Pair.Remote.IsValid()
}

// sizeofExtended is struct sock_extended_err of linux/errqueue.h; the address of who
// says so follows.
const sizeofExtended = 16

func (e *PathError) readExtended(b []byte) bool {
	if len(b) < sizeofExtended {
		return false
	}
	errno, origin := unix.Errno(binary.NativeEndian.Uint32(b)), b[4]
	if origin != unix.SO_EE_ORIGIN_ICMP && origin != unix.SO_EE_ORIGIN_ICMP6 {
		return false
	}
	switch errno {
	case unix.ECONNREFUSED:
		e.Kind = PortUnreachable
	case unix.EMSGSIZE:
		e.Kind, e.MTU = TooBig, int(binary.NativeEndian.Uint32(b[8:]))
	default:
		e.Kind = Unreachable
	}
	switch from := b[sizeofExtended:]; {
	case len(from) >= unix.SizeofSockaddrInet6 && binary.NativeEndian.Uint16(from) == unix.AF_INET6:
		e.From = netip.AddrFrom16([16]byte(from[8:24]))
	case len(from) >= unix.SizeofSockaddrInet4 && binary.NativeEndian.Uint16(from) == unix.AF_INET:
		e.From = netip.AddrFrom4([4]byte(from[4:8]))
	}
	return true
}

// earlierError says whether the error of a send was one of earlier packets, so that
// this one has not been tried.
func (sd *sender) earlierError(retried int) bool {
	if retried >= pendingMax {
		return false
	}
	if sd.lookAtErrors() > 0 {
		return true
	}
	// The reader may have been faster at the queue.
	return retried == 0 && (pending(sd.errno) || sd.t.cfg.PathErrors != nil && fromICMP(sd.errno))
}

// fromICMP says whether an error may come from an ICMP message where those are asked
// for (icmp_err_convert, icmpv6_err_convert in the kernel).
func fromICMP(errno unix.Errno) bool {
	switch errno {
	case unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENONET, unix.ENOPROTOOPT, unix.EACCES, unix.EMSGSIZE:
		return true
	}
	return false
}

// lookAtErrors reads the error queue of the sender's socket.
func (sd *sender) lookAtErrors() (n int) {
	if sd.t.cfg.PathErrors != nil {
		_ = sd.s.raw.Control(func(fd uintptr) { n = sd.t.readErrorQueue(sd.s, fd) })
	}
	return n
}
