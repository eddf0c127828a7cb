package transport

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// IPv4 sends by the interface that IP_PKTINFO names. IPv6 does not: with a source
// address given, Linux takes the interface of IPV6_PKTINFO for a mere wish, and follows
// the default route of lowest metric (ip6_route_output_flags). A machine with two
// uplinks would so test the second one by sending on the first. Only a socket bound to
// an interface insists on it, so there is one for each interface in use, to send with.

// maxDevices bounds the sockets of one kind that are bound to an interface. Machines
// have a few uplinks; whoever plugs in the ninth loses the first, which comes back
// when it is used.
const maxDevices = 8

// devices are the sockets bound to interfaces that stand beside one socket.
type devices struct {
	mu   sync.Mutex
	list atomic.Pointer[[]deviceSocket] // read without the lock
}

type deviceSocket struct {
	ifindex int
	*socket
}

// discard is where nothing comes from (RFC 6666): sockets connected to it receive
// nothing, and leave all packets to the socket that is read.
var discard = netip.AddrPortFrom(netip.MustParseAddr("100::1"), 9)

// onDevice returns the socket to send with from an interface in place of s, which is s
// itself where the kernel needs no other.
func (t *Transport) onDevice(s *socket, ifindex int, remote netip.Addr) *socket {
	if !s.ipv6 || ifindex == 0 || remote.IsLinkLocalUnicast() {
		return s
	}
	if list := s.devices.list.Load(); list != nil {
		for _, d := range *list {
			if d.ifindex == ifindex {
				return d.socket
			}
		}
	}
	d, err := t.openDevice(s, ifindex)
	if err != nil {
		t.log.Debug("packets follow the default route", "socket", s.file.Name(), "interface", ifindex, "error", err)
		return s
	}
	return d
}

// openDevice opens the socket of an interface, unless another goroutine was faster.
func (t *Transport) openDevice(s *socket, ifindex int) (*socket, error) {
	s.devices.mu.Lock()
	defer s.devices.mu.Unlock()
	var list []deviceSocket
	if known := s.devices.list.Load(); known != nil {
		list = *known
	}
	for _, d := range list {
		if d.ifindex == ifindex {
			return d.socket, nil
		}
	}
	select {
	case <-t.closed:
		return nil, os.ErrClosed
	default:
	}
	d, err := s.besideOn(ifindex, t.cfg.Mark)
	if err != nil {
		return nil, err
	}
	kept := append([]deviceSocket{{ifindex, d}}, list...)
	if len(kept) > maxDevices {
		kept[maxDevices].file.Close()
		kept = kept[:maxDevices]
	}
	s.devices.list.Store(&kept)
	return d, nil
}

// besideOn opens a socket with the port of s that is bound to an interface. The port is
// shared only for that moment, so that two daemons still notice that they want the
// same one.
func (s *socket) besideOn(ifindex int, mark uint32) (*socket, error) {
	if !s.esp {
		if err := s.share(1); err != nil {
			return nil, err
		}
		defer func() { _ = s.share(0) }()
	}
	return openSocket(socketSpec{port: s.port, esp: s.esp, bind: s.bound, mark: mark, reuse: !s.esp, device: ifindex, kernelESP: s.kernelESP})
}

// share lets other sockets of this user bind the same port, or not.
func (s *socket) share(on int) error {
	var err error
	if e := s.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, on)
	}); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt SO_REUSEPORT", err)
}

// closeDevices closes all of them.
func (s *socket) closeDevices() {
	s.devices.mu.Lock()
	defer s.devices.mu.Unlock()
	if list := s.devices.list.Load(); list != nil {
		for _, d := range *list {
			d.file.Close()
		}
		s.devices.list.Store(nil)
	}
}

// bindDevice binds a socket to an interface.
func bindDevice(fd, ifindex int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, ifindex); err != nil {
		return fmt.Errorf("bind to interface %d: %w", ifindex, os.NewSyscallError("setsockopt SO_BINDTOIFINDEX", err))
	}
	return nil
}

// deafen connects a socket to where nothing comes from. Destinations given with each
// packet are used all the same.
func deafen(fd int) error {
	to := &unix.SockaddrInet6{Port: int(discard.Port()), Addr: discard.Addr().As16()}
	if err := unix.Connect(fd, to); err != nil {
		return os.NewSyscallError("connect", err)
	}
	return nil
}
