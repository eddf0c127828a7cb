// Package network makes the gateway's host carry the tunnel's traffic: the address
// and the state of the TUN device, routes for the address pools, forwarding, and the
// packet filter rules that keep tunnel traffic in the tunnel.
//
// It works with a desired state: Apply takes the whole of it, any number of times,
// and makes the host match, whatever an earlier or crashed run has left behind. What
// belongs to us is recognised by route protocol, by rule protocol with its priority, and by
// table name.
//
// # No clear text
//
// Packets for pool addresses must leave through the TUN device or not at all. Clients
// come and go, the daemon may crash, and hosts behind the gateway keep sending to
// inner addresses meanwhile; without precautions the default route would carry these
// packets, which nobody has encrypted, out of the uplink. Three things prevent it:
//
//   - each pool has, beside its route to the TUN device, an unreachable route of worse
//     metric. When the TUN device goes, however it goes, that one answers;
//   - a policy rule sends lookups for pool addresses to the main table first, since
//     gateways with several uplinks often have tables chosen by source address;
//   - packet filter rules drop what is addressed to a pool and about to leave by
//     another device, and what claims to come from a pool but arrives on another one.
//
// Routes and rules of the first two kinds stay after an orderly end too, for the same
// reason: Leave keeps them and Remove, for the removal of the product, does not. They
// cost nothing, and a reboot forgets them.
package network

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/rtnl"
)

const (
	// protocol marks our routes and policy rules (rtm_protocol, FRA_PROTOCOL). The
	// number is free in iproute2's rt_protos.
	protocol = 87
	// guardMetric is worse than what anybody gives a route by hand.
	guardMetric = 1 << 30
	// rulePriority is before the rules that administrators and network managers set.
	rulePriority = 87
)

// Desired is what the host should look like.
type Desired struct {
	// Device is the name of the TUN device, which exists already.
	Device string
	// MTU of the device; zero leaves it.
	MTU int
	// Addresses are the gateway's own inner addresses.
	Addresses []netip.Addr
	// Pools are the networks that clients' addresses come from.
	Pools []netip.Prefix
	// KernelESP says that the kernel seals and opens packets, and so nobody adapts the
	// segment size of TCP connections to the tunnel: a rule does. PolicyBased says that the
	// kernel does without an XFRM interface: packets come and go by the uplinks, and what was
	// in the tunnel is known by its having been opened, or about to be sealed.
	KernelESP, PolicyBased bool
	// Masquerade hides clients behind the gateway's address when their packets leave
	// by another device (source NAT).
	Masquerade bool
}

// Network applies desired states. It is not safe for concurrent use.
type Network struct {
	log     *slog.Logger
	sysctls sysctls
	warned  map[string]bool
}

// New makes a Network. What is changed of the host's settings is noted in the file
// statePath, so that Leave can restore it even when a run in between has crashed.
func New(statePath string, log *slog.Logger) *Network {
	return &Network{log: log, sysctls: sysctls{root: "/proc/sys", notes: statePath, log: log}, warned: map[string]bool{}}
}

// Apply makes the host match d. The guards come first: nothing is forwarded before
// they stand.
func (n *Network) Apply(d Desired) error {
	h, err := open()
	if err != nil {
		return err
	}
	defer h.Close()
	if err := n.guard(h, d.Pools); err != nil {
		return err
	}
	if err := n.filter(d); err != nil {
		return err
	}
	link, err := n.device(h, d)
	if err != nil {
		return err
	}
	if err := routes(h, link, d.Pools); err != nil {
		return err
	}
	return n.sysctls.forward(d)
}

// Leave removes what Apply has made except for the guards, and restores the host's
// settings. The TUN device belongs to its maker. It goes on after an error.
func (n *Network) Leave() error {
	errs := []error{removeFilter(), n.sysctls.restore()}
	h, err := open()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer h.Close()
	errs = append(errs, eachRoute(h, func(r netlink.Route) error {
		if r.Priority == guardMetric {
			return nil
		}
		return deleteRoute(h, r)
	}))
	return errors.Join(errs...)
}

// Remove removes everything, guards included.
func (n *Network) Remove() error {
	errs := []error{n.Leave()}
	h, err := open()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer h.Close()
	errs = append(errs,
		eachRoute(h, func(r netlink.Route) error { return deleteRoute(h, r) }),
		eachRule(h, func(r netlink.Rule) error { return deleteRule(h, r) }))
	return errors.Join(errs...)
}

func open() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return h, nil
}

// device brings the TUN device up with its addresses.
func (n *Network) device(h *netlink.Handle, d Desired) (netlink.Link, error) {
	link, err := h.LinkByName(d.Device)
	if err != nil {
		return nil, fmt.Errorf("find the TUN device %s: %w", d.Device, err)
	}
	if d.MTU > 0 && link.Attrs().MTU != d.MTU {
		if err := h.LinkSetMTU(link, d.MTU); err != nil {
			return nil, fmt.Errorf("set the MTU of %s to %d: %w", d.Device, d.MTU, err)
		}
	}
	// Without a link-local address the kernel sends no router solicitations and
	// multicast reports into the tunnel.
	n.sysctls.set("net/ipv6/conf/"+d.Device+"/addr_gen_mode", "1")
	if err := addresses(h, link, d.Addresses); err != nil {
		return nil, err
	}
	if err := h.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set %s up: %w", d.Device, err)
	}
	return link, nil
}

// addresses gives the device exactly these addresses, each a host's (/32, /128): the
// routes for the pools are set apart.
func addresses(h *netlink.Handle, link netlink.Link, want []netip.Addr) error {
	name := link.Attrs().Name
	present, err := rtnl.Dump(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", name, err)
	}
	for _, a := range want {
		flags := 0
		if a.Is6() {
			flags = unix.IFA_F_NODAD // nobody else is on this link
		}
		if err := h.AddrReplace(link, &netlink.Addr{IPNet: rtnl.IPNet(netip.PrefixFrom(a, a.BitLen())), Flags: flags}); err != nil {
			return fmt.Errorf("set the address %s of %s: %w", a, name, err)
		}
	}
	for i := range present {
		a, ok := netip.AddrFromSlice(present[i].IP)
		if a = a.Unmap(); !ok || a.IsLinkLocalUnicast() || slices.Contains(want, a) {
			continue
		}
		if err := h.AddrDel(link, &present[i]); err != nil {
			return fmt.Errorf("remove the address %s of %s: %w", a, name, err)
		}
	}
	return nil
}

// routes sends the pools to the device, and removes routes of ours for other networks.
func routes(h *netlink.Handle, link netlink.Link, pools []netip.Prefix) error {
	for _, p := range pools {
		r := netlink.Route{LinkIndex: link.Attrs().Index, Dst: rtnl.IPNet(p), Protocol: protocol, Scope: netlink.SCOPE_LINK, Table: unix.RT_TABLE_MAIN, Priority: 1}
		if p.Addr().Is6() {
			r.Scope = netlink.SCOPE_UNIVERSE
		}
		if err := h.RouteReplace(&r); err != nil {
			return fmt.Errorf("route the pool %s to %s: %w", p, link.Attrs().Name, err)
		}
	}
	return eachRoute(h, func(r netlink.Route) error {
		if slices.Contains(pools, rtnl.PrefixOf(r.Dst)) && (r.Priority == guardMetric || r.LinkIndex == link.Attrs().Index) {
			return nil
		}
		return deleteRoute(h, r)
	})
}

// guard makes the pools unreachable unless the TUN device takes them.
func (n *Network) guard(h *netlink.Handle, pools []netip.Prefix) error {
	for _, p := range pools {
		r := netlink.Route{Dst: rtnl.IPNet(p), Type: unix.RTN_UNREACHABLE, Protocol: protocol, Table: unix.RT_TABLE_MAIN, Priority: guardMetric}
		if err := h.RouteReplace(&r); err != nil {
			return fmt.Errorf("guard the pool %s: %w", p, err)
		}
	}
	present := map[netip.Prefix]bool{}
	err := eachRule(h, func(r netlink.Rule) error {
		p := rtnl.PrefixOf(r.Dst)
		if slices.Contains(pools, p) && !present[p] && r.Table == unix.RT_TABLE_MAIN {
			present[p] = true
			return nil
		}
		return deleteRule(h, r)
	})
	if err != nil {
		return err
	}
	for _, p := range pools {
		if present[p.Masked()] {
			continue
		}
		if err := h.RuleAdd(newRule(p)); err != nil {
			return fmt.Errorf("add the policy rule for the pool %s: %w", p, err)
		}
	}
	return nil
}

func newRule(p netip.Prefix) *netlink.Rule {
	r := netlink.NewRule()
	r.Dst, r.Table, r.Priority, r.Protocol = rtnl.IPNet(p), unix.RT_TABLE_MAIN, rulePriority, protocol
	r.Family = rtnl.Family(p.Addr())
	return r
}

// eachRoute calls f for our routes in the main table.
func eachRoute(h *netlink.Handle, f func(netlink.Route) error) error {
	var errs []error
	for _, fam := range families() {
		found, err := rtnl.Dump(func() ([]netlink.Route, error) {
			return h.RouteListFiltered(fam, &netlink.Route{Protocol: protocol, Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("list routes: %w", err))
		}
		for _, r := range found {
			errs = append(errs, f(r))
		}
	}
	return errors.Join(errs...)
}

// eachRule calls f for our policy rules. The client marks its rules with the same
// protocol, and may run on this machine too.
func eachRule(h *netlink.Handle, f func(netlink.Rule) error) error {
	var errs []error
	for _, fam := range families() {
		found, err := rtnl.Dump(func() ([]netlink.Rule, error) { return h.RuleList(fam) })
		if err != nil {
			errs = append(errs, fmt.Errorf("list policy rules: %w", err))
		}
		for _, r := range found {
			if r.Protocol == protocol && r.Priority == rulePriority {
				r.Family = fam
				errs = append(errs, f(r))
			}
		}
	}
	return errors.Join(errs...)
}

func deleteRoute(h *netlink.Handle, r netlink.Route) error {
	if err := h.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove the route for %s: %w", r.Dst, err)
	}
	return nil
}

func deleteRule(h *netlink.Handle, r netlink.Rule) error {
	if err := h.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the policy rule for %s: %w", r.Dst, err)
	}
	return nil
}

// families are the ones the kernel has: IPv6 may be missing or disabled.
func families() []int {
	if ipv6Missing() {
		return []int{unix.AF_INET}
	}
	return []int{unix.AF_INET, unix.AF_INET6}
}
