package transport

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// SendProbe sends an IKE message as SendIKE does, but whole or not at all: with the
// don't fragment bit, whatever the kernel has learnt about the path. An error
// (EMSGSIZE) means that not even the first link carries it.
//
// The bit is a property of the socket, not of a packet. It is set around the one call:
// a second socket for the port would take packets from the first, and sending past
// the sockets would take more privileges. An ESP packet that leaves in these
// microseconds gets the bit too, which matters only if it is larger than the path.
func (t *Transport) SendProbe(pair locator.Pair, data []byte) error {
	s, err := t.socketFor(pair, false)
	if err == nil {
		s.probing.Lock()
		defer s.probing.Unlock()
		err = s.dontFragment(true)
	}
	if err == nil {
		err = errors.Join(t.SendIKE(pair, data), s.dontFragment(false))
	}
	return explainSend("path MTU probe", pair, err)
}

// dontFragment chooses between the don't fragment bit, without regard to a learnt path
// MTU, and what setOptions set.
func (s *socket) dontFragment(on bool) error {
	level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT
	if s.ipv6 {
		level, option, value = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT
	}
	if on {
		value = unix.IP_PMTUDISC_PROBE // the same number in both families
	}
	var errno error
	err := s.raw.Control(func(fd uintptr) { errno = unix.SetsockoptInt(int(fd), level, option, value) })
	if err == nil && errno != nil {
		err = os.NewSyscallError("setsockopt MTU_DISCOVER", errno)
	}
	return err
}
