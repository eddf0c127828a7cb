package route

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Attached lists the prefixes of the networks this machine is attached to, other
// than through the given interface or loopback.
func (k *Kernel) Attached(except string) ([]netip.Prefix, error) {
	links, err := retryDump(k.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	usable := map[int]bool{}
	for _, l := range links {
		a := l.Attrs()
		usable[a.Index] = a.Name != except && a.RawFlags&unix.IFF_LOOPBACK == 0 && a.RawFlags&unix.IFF_UP != 0
	}
	addrs, err := retryDump(func() ([]netlink.Addr, error) { return k.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if p := prefixOf(a.IPNet); usable[a.LinkIndex] && p.IsValid() {
			out = append(out, p.Masked())
		}
	}
	return out, nil
}

// Elsewhere says whether an address is configured on another interface than the
// given one: then it belongs to this machine's networks, and is not ours to guard.
func (k *Kernel) Elsewhere(a netip.Addr, except string) bool {
	links, err := retryDump(k.nl.LinkList)
	if err != nil {
		return false
	}
	for _, l := range links {
		if l.Attrs().Name == except {
			continue
		}
		addrs, err := retryDump(func() ([]netlink.Addr, error) { return k.nl.AddrList(l, netlink.FAMILY_ALL) })
		if err != nil {
			continue
		}
		for _, have := range addrs {
			if p := prefixOf(have.IPNet); p.IsValid() && p.Addr() == a {
				return true
			}
		}
	}
	return false
}

// Watch calls changed whenever an address of this machine comes or goes, until ctx
// ends. Several changes may be told by one call.
func Watch(ctx context.Context, changed func()) error {
	updates := make(chan netlink.AddrUpdate, 64)
	done := make(chan struct{})
	if err := netlink.AddrSubscribe(updates, done); err != nil {
		return fmt.Errorf("watch the addresses of this machine: %w", err)
	}
	defer close(done)
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-updates:
			if !ok {
				return fmt.Errorf("the kernel stopped telling about addresses")
			}
			drain(updates)
			changed()
		}
	}
}

func drain(updates <-chan netlink.AddrUpdate) {
	for {
		select {
		case _, ok := <-updates:
			if !ok {
				return
			}
		default:
			return
		}
	}
}
