package route

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

// Kernel makes the routing of this machine match plans. It belongs to the network
// namespace in which it was made.
type Kernel struct {
	nl  *netlink.Handle
	log *slog.Logger
}

// NewKernel opens the channel to the kernel.
func NewKernel(log *slog.Logger) (*Kernel, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open the kernel's routing socket: %w", err)
	}
	return &Kernel{nl: h, log: log}, nil
}

// Close closes the channel. What was applied stays.
func (k *Kernel) Close() { k.nl.Close() }

// Apply makes the machine match the plan. New things come first, blackholes before
// rules and rules before addresses, and what is not wanted any more goes last: at no
// moment is there less protection than before or after. It may be called any number
// of times.
func (k *Kernel) Apply(p Plan) error {
	link, err := k.link(p)
	if err != nil {
		return err
	}
	oldRules, oldRoutes, err := k.present(link)
	if err != nil {
		return err
	}
	steps := []func() error{
		func() error { return k.addRoutes(p.Routes, oldRoutes, link, false) },
		func() error { return k.addRules(p.Rules, oldRules, true) },
		func() error { return k.addAddresses(link, p.Addresses) },
		func() error { return k.addRoutes(p.Routes, oldRoutes, link, true) },
		func() error { return k.addRules(p.Rules, oldRules, false) },
		func() error { return k.removeAddresses(link, p.Addresses) },
		func() error { return k.removeRules(oldRules, p.Rules) },
		func() error { return k.removeRoutes(oldRoutes, p.Routes) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Clear removes everything that is ours, of this run or another, except the guard of
// the given addresses. It goes on after errors.
func (k *Kernel) Clear(guarded []netip.Addr) error {
	rules, routes, err := k.present(nil)
	if err != nil {
		return err
	}
	keep := Build(Settings{Guarded: guarded})
	return errors.Join(
		k.addRoutes(keep.Routes, routes, nil, false),
		k.addRules(keep.Rules, rules, true),
		k.removeRules(rules, keep.Rules),
		k.removeRoutes(routes, keep.Routes),
	)
}

// Present says whether anything of ours is in the kernel.
func (k *Kernel) Present() (bool, error) {
	rules, routes, err := k.present(nil)
	return len(rules)+len(routes) > 0, err
}

// Guarded returns the addresses that are guarded now, whoever set that up.
func (k *Kernel) Guarded() ([]netip.Addr, error) {
	rules, _, err := k.present(nil)
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, r := range rules {
		if r.Priority == prioGuard && r.From.IsValid() {
			out = append(out, r.From.Addr())
		}
	}
	return out, nil
}

// Release removes the rules about addresses that are not ours to guard any more,
// whoever set them up. All else stays.
func (k *Kernel) Release(addrs []netip.Addr) error {
	rules, _, err := k.present(nil)
	if err != nil {
		return err
	}
	of := slices.DeleteFunc(rules, func(r Rule) bool {
		return r.Priority > prioGuard || !r.From.IsValid() || !slices.Contains(addrs, r.From.Addr())
	})
	return k.removeRules(of, nil)
}

// link finds the interface of a plan, nil if the plan needs none.
func (k *Kernel) link(p Plan) (netlink.Link, error) {
	if p.Interface == "" {
		return nil, nil
	}
	link, err := k.nl.LinkByName(p.Interface)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", p.Interface, err)
	}
	return link, nil
}

// installedRoute is a route of ours with what is needed to remove it.
type installedRoute struct {
	Route
	raw netlink.Route
}

// present lists what is ours: rules by protocol number and priority, routes by
// table. A lost state file loses nothing.
func (k *Kernel) present(link netlink.Link) (rules []Rule, routes []installedRoute, err error) {
	for _, f := range families {
		r, err := k.rules(f.family)
		if err != nil {
			return nil, nil, err
		}
		rules = append(rules, r...)
		for _, table := range []int{TunnelTable, GuardTable} {
			r, err := k.routes(f.family, table, link)
			if err != nil {
				return nil, nil, err
			}
			routes = append(routes, r...)
		}
	}
	return rules, routes, nil
}

func (k *Kernel) rules(family int) ([]Rule, error) {
	list, err := rtnl.Dump(func() ([]netlink.Rule, error) { return k.nl.RuleList(family) })
	if missingFamily(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list routing rules: %w", err)
	}
	var out []Rule
	for _, r := range list {
		if r.Protocol == Protocol && r.Priority >= prioInner && r.Priority <= prioEnd {
			out = append(out, ruleOf(r))
		}
	}
	return out, nil
}

func (k *Kernel) routes(family, table int, link netlink.Link) ([]installedRoute, error) {
	list, err := rtnl.Dump(func() ([]netlink.Route, error) {
		return k.nl.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	})
	if missingFamily(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []installedRoute
	for _, r := range list {
		ours := routeOf(r)
		if ours.Kind == Via && (link == nil || r.LinkIndex != link.Attrs().Index) {
			ours.Source = netip.Addr{} // of another interface: differs from every plan
		}
		out = append(out, installedRoute{ours, r})
	}
	return out, nil
}

func missingFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// noIPv6 recognises what the kernel says where IPv6 is switched off by sysctl.
func noIPv6(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)
}

// explain adds what a person can do about an error of the kernel.
func explain(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w (changing routes needs root or CAP_NET_ADMIN)", err)
	}
	return err
}
