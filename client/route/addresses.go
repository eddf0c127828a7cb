package route

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/rtnl"
)

// addAddresses brings the interface up with the inner addresses. What is there
// already is not touched: each change is told to all who watch addresses, ourselves
// included. Duplicate address detection has nobody to ask in a tunnel and would
// delay the first packet.
func (k *Kernel) addAddresses(link netlink.Link, want []netip.Addr) error {
	if link == nil {
		return nil
	}
	have, err := k.addresses(link)
	if err != nil {
		return err
	}
	name := link.Attrs().Name
	if link.Attrs().RawFlags&unix.IFF_UP == 0 {
		quietInterface(name)
		if err := k.nl.LinkSetUp(link); err != nil {
			return fmt.Errorf("bring interface %s up: %w", name, explain(err))
		}
	}
	for _, a := range want {
		if slices.ContainsFunc(have, func(h installedAddress) bool { return h.addr == a }) {
			continue
		}
		err := k.nl.AddrReplace(link, &netlink.Addr{IPNet: rtnl.IPNet(single(a)), Flags: unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE})
		if a.Is6() && noIPv6(err) {
			k.log.Warn("IPv6 is off on this machine: the inner IPv6 address cannot be used", "address", a)
			continue
		}
		if err != nil {
			return fmt.Errorf("set address %s on %s: %w", a, name, explain(err))
		}
		k.waitUntilLocal(a)
	}
	return nil
}

// waitUntilLocal waits until packets to a new address are taken for ours. For IPv6 the
// kernel leaves that to a worker, even without duplicate address detection, and the
// first answers through the tunnel would be lost.
func (k *Kernel) waitUntilLocal(a netip.Addr) {
	const (
		tries = 100
		pause = 5 * time.Millisecond
	)
	for range tries {
		routes, err := k.nl.RouteGet(a.AsSlice())
		if err != nil || len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return
		}
		time.Sleep(pause)
	}
}

func (k *Kernel) removeAddresses(link netlink.Link, want []netip.Addr) error {
	if link == nil {
		return nil
	}
	have, err := k.addresses(link)
	if err != nil {
		return err
	}
	for _, h := range have {
		if slices.Contains(want, h.addr) {
			continue
		}
		if err := k.nl.AddrDel(link, &h.raw); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s from %s: %w", h.addr, link.Attrs().Name, explain(err))
		}
	}
	return nil
}

// installedAddress is an address with what is needed to remove it.
type installedAddress struct {
	addr netip.Addr
	raw  netlink.Addr
}

// addresses lists those of an interface, but for link-local ones, which are the
// kernel's affair.
func (k *Kernel) addresses(link netlink.Link) (out []installedAddress, err error) {
	list, err := rtnl.Dump(func() ([]netlink.Addr, error) { return k.nl.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	for _, raw := range list {
		if a, ok := netip.AddrFromSlice(raw.IP); ok && !a.Unmap().IsLinkLocalUnicast() {
			out = append(out, installedAddress{a.Unmap(), raw})
		}
	}
	return out, nil
}

// quietInterface keeps the kernel from giving the tunnel a link-local address and
// from believing router advertisements in it. Without IPv6, or with /proc/sys
// read-only, there is nothing to be quiet about, or nothing to be done.
func quietInterface(name string) {
	for key, value := range map[string]string{"addr_gen_mode": "1", "accept_ra": "0"} {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/"+key, []byte(value), 0)
	}
}
