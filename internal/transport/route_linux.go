package transport

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// LocalAddressFor returns the source address, and the interface that has it,
// which the kernel would choose for packets of this transport to remote. It asks
// the routing table with the transport's mark, and sends nothing.
func (t *Transport) LocalAddressFor(remote netip.Addr) (netip.Addr, int, error) {
	return LocalAddressFor(remote, t.cfg.Mark)
}

// LocalAddressFor is the same without a transport, for a given mark.
func LocalAddressFor(remote netip.Addr, mark uint32) (netip.Addr, int, error) {
	local, err := sourceFor(remote.Unmap(), mark)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("find the way to %s: %w", remote, err)
	}
	index, err := interfaceOf(local)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("find the interface of %s: %w", local, err)
	}
	return local.WithZone(""), index, nil
}

// sourceFor connects a UDP socket, which makes the kernel look up the route and
// choose the source, and reads that back. The zone of a link-local result is kept.
func sourceFor(remote netip.Addr, mark uint32) (netip.Addr, error) {
	if !remote.IsValid() || remote.IsUnspecified() {
		return netip.Addr{}, unix.EDESTADDRREQ
	}
	family := unix.AF_INET
	if remote.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return netip.Addr{}, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if mark != 0 {
		if err := setMark(fd, mark); err != nil {
			return netip.Addr{}, err
		}
	}
	zone, err := zoneIndex(remote.Zone())
	if err != nil {
		return netip.Addr{}, err
	}
	const anyPort = 4500 // nothing is sent; only zero is refused
	to := bindAddress(socketSpec{bind: netip.AddrPortFrom(remote, anyPort), zone: zone})
	if err := unix.Connect(fd, to); err != nil {
		return netip.Addr{}, os.NewSyscallError("connect", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}, os.NewSyscallError("getsockname", err)
	}
	return fromSockaddr(sa).Addr().WithZone(remote.Zone()), nil
}

// interfaceOf returns the index of the interface that has an address. The zone
// decides between interfaces that share a link-local one. An address that is in
// a local prefix only, as all of 127.0.0.0/8 are, belongs to that interface.
func interfaceOf(a netip.Addr) (int, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return 0, err
	}
	covering := 0
	for _, ifi := range interfaces {
		if a.Zone() != "" && a.Zone() != ifi.Name {
			continue
		}
		addresses, err := ifi.Addrs()
		if err != nil {
			continue // gone since it was listed
		}
		for _, has := range addresses {
			prefix, err := netip.ParsePrefix(has.String())
			if err != nil {
				continue
			}
			if prefix.Addr() == a.WithZone("") {
				return ifi.Index, nil
			}
			if ifi.Flags&net.FlagLoopback != 0 && prefix.Contains(a.WithZone("")) {
				covering = ifi.Index
			}
		}
	}
	if covering == 0 {
		return 0, fmt.Errorf("no interface has it any more")
	}
	return covering, nil
}
