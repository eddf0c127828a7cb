// Package rtnl is what everybody who talks to the kernel about routes and addresses
// needs beside the netlink library: listings that are repeated when a change has
// disturbed them, and the library's addresses as those of net/netip.
package rtnl

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// tries is how often a listing is begun anew before a machine that changes all the time
// is an error.
const tries = 10

// Dump repeats a listing that a concurrent change has disturbed: the kernel says so
// (NLM_F_DUMP_INTR), and what it has listed may be incomplete.
func Dump[T any](list func() ([]T, error)) (out []T, err error) {
	for range tries {
		out, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}

// IPNet puts a prefix into the library's terms; bits behind the prefix are dropped.
func IPNet(p netip.Prefix) *net.IPNet {
	p = p.Masked()
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// PrefixOf is the opposite of IPNet, but keeps the bits behind the prefix: addresses of
// interfaces have some. Nil and what is no prefix give an invalid one.
func PrefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if !ok || size == 0 {
		return netip.Prefix{}
	}
	if size == 8*net.IPv4len {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits)
}

// Family is the address family of an address: unix.AF_INET or unix.AF_INET6.
func Family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
