package route

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/rtnl"
)

// Attached lists the prefixes of the networks this machine is attached to, other
// than through the given interface or loopback.
func (k *Kernel) Attached(except string) ([]netip.Prefix, error) {
	links, err := rtnl.Dump(k.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	usable := map[int]bool{}
	for _, l := range links {
		a := l.Attrs()
		usable[a.Index] = a.Name != except && a.RawFlags&unix.IFF_LOOPBACK == 0 && a.RawFlags&unix.IFF_UP != 0
	}
	addrs, err := rtnl.Dump(func() ([]netlink.Addr, error) { return k.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netip.Prefix
	for _, a := range addrs {
		if p := rtnl.PrefixOf(a.IPNet); usable[a.LinkIndex] && p.IsValid() {
			out = append(out, p.Masked())
		}
	}
	return out, nil
}

// Elsewhere returns the addresses that are configured on other interfaces than the
// given one: they belong to this machine's networks, and are not ours to guard.
func (k *Kernel) Elsewhere(except string) (map[netip.Addr]bool, error) {
	own := 0
	if except != "" {
		link, err := k.nl.LinkByName(except)
		var missing netlink.LinkNotFoundError
		switch {
		case err == nil:
			own = link.Attrs().Index
		case !errors.As(err, &missing):
			return nil, fmt.Errorf("find interface %s: %w", except, err)
		}
	}
	addrs, err := rtnl.Dump(func() ([]netlink.Addr, error) { return k.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := map[netip.Addr]bool{}
	for _, a := range addrs {
		if p := rtnl.PrefixOf(a.IPNet); p.IsValid() && (own == 0 || a.LinkIndex != own) {
			out[p.Addr()] = true
		}
	}
	return out, nil
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
