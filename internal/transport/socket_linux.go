package transport

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sizes of socket buffers. ESP comes in bursts of many flows; IKE does not, and
// its queue is open to everybody, so it stays small.
const (
	dataBuffer = 8 << 20
	ikeBuffer  = 1 << 20
)

// socket is one open socket. Sending is safe from several goroutines: the system
// calls run side by side, only waiting for room in the buffer is serialised.
type socket struct {
	file *os.File
	raw  syscall.RawConn
	port Port // meaningless for protocol 50
	esp  bool // protocol 50 instead of UDP
	// kernelESP: see Config.KernelESP.
	kernelESP bool
	ipv6      bool
	// bound is the address and port it is bound to; the address of a wildcard
	// socket is unspecified.
	bound netip.AddrPort

	// devices are the sockets that send in place of this one from a certain interface.
	devices devices
	probing sync.Mutex // while a path MTU probe is being sent

	offload  bool         // the kernel knows UDP_SEGMENT
	gsoPause atomic.Int32 // batches to send without offload after a device refused

	// sendmmsg is the system call; tests put a refusing kernel in its place.
	sendmmsg func(fd uintptr, msgs []mmsghdr) (int, unix.Errno)
}

// socketSpec says what socket to open.
type socketSpec struct {
	port  Port
	esp   bool
	bind  netip.AddrPort
	zone  int // interface of a link-local address
	mark  uint32
	reuse bool // SO_REUSEPORT: several sockets share the port, one per reader
	// device is the interface that packets leave by; the socket receives nothing.
	device int
	// kernelESP: see Config.KernelESP.
	kernelESP bool
}

func (s socketSpec) what() string {
	if s.esp {
		return fmt.Sprintf("ESP on %s", s.bind.Addr())
	}
	return fmt.Sprintf("UDP on %s", s.bind)
}

// openSocket opens, sets up and binds one socket.
func openSocket(spec socketSpec) (*socket, error) {
	family, typ, proto := unix.AF_INET, unix.SOCK_DGRAM, 0
	if spec.bind.Addr().Is6() {
		family = unix.AF_INET6
	}
	if spec.esp {
		typ, proto = unix.SOCK_RAW, unix.IPPROTO_ESP
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, explainOpen(spec, os.NewSyscallError("socket", err))
	}
	s := &socket{port: spec.port, esp: spec.esp, kernelESP: spec.kernelESP, ipv6: family == unix.AF_INET6, sendmmsg: sendmmsg}
	if err := s.setUp(fd, spec); err != nil {
		unix.Close(fd)
		return nil, explainOpen(spec, err)
	}
	s.file = os.NewFile(uintptr(fd), spec.what())
	if s.raw, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, explainOpen(spec, err)
	}
	return s, nil
}

func (s *socket) setUp(fd int, spec socketSpec) error {
	if err := s.setOptions(fd, spec); err != nil {
		return err
	}
	if spec.mark != 0 {
		if err := setMark(fd, spec.mark); err != nil {
			return err
		}
	}
	if spec.device != 0 {
		if err := bindDevice(fd, spec.device); err != nil {
			return err
		}
	}
	if spec.kernelESP {
		if err := s.leaveESP(fd); err != nil {
			return err
		}
	}
	s.setBuffers(fd)
	if err := unix.Bind(fd, bindAddress(spec)); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if spec.device != 0 {
		if err := deafen(fd); err != nil {
			return err
		}
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	s.bound = fromSockaddr(local)
	return nil
}

// setOptions asks for what each packet must tell, and sets how packets leave.
//
// Path MTU. The sockets carry IKE and ESP. IKE messages may be larger than the
// path (certificates before fragmentation by RFC 7383 is agreed), so they must be
// allowed to fragment. ESP is kept below the path MTU by the data path, which
// clamps TCP's segment size and tells the inner sender; an ESP packet that is too
// large all the same should arrive slowly rather than never. So the don't fragment bit
// stays clear, but for probes of the path MTU (SendProbe). No send then fails with EMSGSIZE because of a learnt path MTU, be it
// stale or forged: on IPv4 PMTUDISC_OMIT does not even look at it (routers fragment),
// on IPv6, where only the sender can fragment, PMTUDISC_DONT follows it by fragmenting.
//
// The UDP checksum is left on, though RFC 3948 §2.1 would like it zero on IPv4:
// the kernel has no segmentation without it, and hardware computes it.
func (s *socket) setOptions(fd int, spec socketSpec) error {
	type option struct {
		name       string
		level, opt int
		value      int
	}
	options := []option{
		{"IP_PKTINFO", unix.IPPROTO_IP, unix.IP_PKTINFO, 1},
		{"IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT},
	}
	if s.ipv6 {
		options = []option{
			{"IPV6_RECVPKTINFO", unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
			{"IPV6_MTU_DISCOVER", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT},
		}
	}
	if s.ipv6 && !s.esp { // raw sockets are of one family anyway, and refuse this
		options = append(options, option{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1})
	}
	if spec.reuse {
		options = append(options, option{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			return os.NewSyscallError("setsockopt "+o.name, err)
		}
	}
	// What follows makes things faster or better known; without it they still work.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	if s.ipv6 { // congestion marks of outer headers (RFC 6040)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
	} else {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
	}
	if !s.esp && s.port == NATT && !spec.kernelESP { // the kernel's ESP takes single packets
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		s.offload = err == nil
	}
	return nil
}

// setBuffers asks for large buffers, beyond the system's limit where that is
// allowed. The kernel cuts what it does not grant.
func (s *socket) setBuffers(fd int) {
	size := dataBuffer
	if !s.esp && s.port == IKE {
		size = ikeBuffer
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, size)
	}
}

// wake lets a reader that waits in the kernel return. The call reports that the socket
// is not connected, and does it all the same.
func (s *socket) wake() {
	_ = s.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RD) })
}

func setMark(fd int, mark uint32) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark))
	if err != nil {
		return fmt.Errorf("set mark %#x: %w", mark, os.NewSyscallError("setsockopt SO_MARK", err))
	}
	return nil
}

func bindAddress(spec socketSpec) unix.Sockaddr {
	addr, port := spec.bind.Addr(), int(spec.bind.Port())
	if spec.esp {
		port = 0
	}
	if addr.Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: addr.As4()}
	}
	return &unix.SockaddrInet6{Port: port, Addr: addr.As16(), ZoneId: uint32(spec.zone)}
}

func fromSockaddr(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// explainOpen says what could not be opened and what to do about it.
func explainOpen(spec socketSpec, err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		hint = "another program has the port, often another IKE daemon: stop it, or choose other ports"
	case errors.Is(err, unix.EADDRNOTAVAIL):
		hint = "this machine does not have the address: correct it, or leave it out to listen on all"
	case errors.Is(err, unix.EPERM) && spec.mark != 0:
		hint = "run as root, or grant CAP_NET_ADMIN"
	case errors.Is(err, unix.EPERM) && spec.esp:
		hint = "run as root, or grant CAP_NET_RAW"
	case errors.Is(err, unix.EACCES) && !spec.esp:
		hint = "run as root, grant CAP_NET_BIND_SERVICE, or choose ports above 1023"
	case errors.Is(err, unix.EAFNOSUPPORT):
		hint = "this machine has the address family switched off"
	}
	if hint == "" {
		return fmt.Errorf("open %s: %w", spec.what(), err)
	}
	return fmt.Errorf("open %s: %w (%s)", spec.what(), err, hint)
}
