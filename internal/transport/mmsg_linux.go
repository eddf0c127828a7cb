package transport

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2); the compiler pads it
// as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// recvmmsg waits for a message and receives up to len(msgs) that are there.
func recvmmsg(fd uintptr, msgs []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&msgs[0])),
		uintptr(len(msgs)), unix.MSG_WAITFORONE, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// sendmmsg sends up to len(msgs) messages without waiting. It reports an error
// only when the first one could not be sent.
func sendmmsg(fd uintptr, msgs []mmsghdr) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&msgs[0])),
		uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// sockaddr is a socket address of either family. IPv6 is the larger one.
type sockaddr = unix.RawSockaddrInet6

// fillSockaddr writes the address in the form that the socket's family wants and
// returns its length.
func fillSockaddr(sa *sockaddr, to netip.AddrPort, scope int) uint32 {
	if to.Addr().Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		*v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
		putPort(&v4.Port, to.Port())
		return unix.SizeofSockaddrInet4
	}
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.Addr().As16()}
	putPort(&sa.Port, to.Port())
	if to.Addr().IsLinkLocalUnicast() {
		sa.Scope_id = uint32(scope)
	}
	return unix.SizeofSockaddrInet6
}

// readSockaddr returns the address that the kernel wrote, without zone: the
// interface of a packet is told by its Pair.
func readSockaddr(sa *sockaddr, length uint32) (netip.AddrPort, bool) {
	switch {
	case sa.Family == unix.AF_INET && length >= unix.SizeofSockaddrInet4:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), getPort(&v4.Port)), true
	case sa.Family == unix.AF_INET6 && length >= unix.SizeofSockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), getPort(&sa.Port)), true
	}
	return netip.AddrPort{}, false
}

// Ports in a socket address are in network byte order whatever the machine's is.

func putPort(field *uint16, port uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(field))[:], port)
}

func getPort(field *uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(field))[:])
}

// namePointer is the form in which a message header points to an address.
func namePointer(sa *sockaddr) *byte { return (*byte)(unsafe.Pointer(sa)) }
