package route

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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
	of := slices.DeleteFunc(rules, func(r installedRule) bool {
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

// installedRule is a rule of ours with what is needed to remove it.
type installedRule struct {
	Rule
	raw netlink.Rule
}

// installedRoute is a route of ours with what is needed to remove it.
type installedRoute struct {
	Route
	raw netlink.Route
}

// present lists what is ours: rules by protocol number and priority, routes by
// table. A lost state file loses nothing.
func (k *Kernel) present(link netlink.Link) (rules []installedRule, routes []installedRoute, err error) {
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

func (k *Kernel) rules(family int) ([]installedRule, error) {
	list, err := retryDump(func() ([]netlink.Rule, error) { return k.nl.RuleList(family) })
	if missingFamily(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list routing rules: %w", err)
	}
	var out []installedRule
	for _, r := range list {
		if r.Protocol == Protocol && r.Priority >= prioInner && r.Priority <= prioEnd {
			out = append(out, installedRule{ruleOf(r), r})
		}
	}
	return out, nil
}

func (k *Kernel) routes(family, table int, link netlink.Link) ([]installedRoute, error) {
	list, err := retryDump(func() ([]netlink.Route, error) {
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

// retryDump repeats a listing that a concurrent change has disturbed.
func retryDump[T any](list func() ([]T, error)) (out []T, err error) {
	const tries = 10
	for range tries {
		out, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, err
}

func missingFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// addRules adds what is missing: the rules about inner addresses, or the others.
func (k *Kernel) addRules(want []Rule, have []installedRule, inner bool) error {
	for _, r := range want {
		if (r.Priority <= prioGuard) != inner || slices.ContainsFunc(have, func(h installedRule) bool { return h.Rule == r }) {
			continue
		}
		err := k.nl.RuleAdd(rawRule(r))
		switch {
		case err == nil || errors.Is(err, unix.EEXIST):
		case missingFamily(err):
			k.log.Debug("address family is not available", "rule", r)
		default:
			return fmt.Errorf("add routing rule %d: %w", r.Priority, explain(err))
		}
	}
	return nil
}

// addRoutes adds what is missing: the routes through the interface, or the others.
func (k *Kernel) addRoutes(want []Route, have []installedRoute, link netlink.Link, via bool) error {
	for _, r := range want {
		if (r.Kind == Via) != via || slices.ContainsFunc(have, func(h installedRoute) bool { return h.Route == r }) {
			continue
		}
		err := k.nl.RouteReplace(rawRoute(r, link))
		switch {
		case err == nil || errors.Is(err, unix.EEXIST):
		case missingFamily(err), r.To.Addr().Is6() && noIPv6(err):
			k.log.Debug("address family is not available", "route", r.To)
		default:
			return fmt.Errorf("add route to %s: %w", r.To, explain(err))
		}
	}
	return nil
}

func (k *Kernel) removeRules(have []installedRule, want []Rule) error {
	var failed error
	// The rule that sends everything else through the tunnel goes first, the guard
	// last.
	for _, h := range slices.Backward(have) {
		if slices.Contains(want, h.Rule) {
			continue
		}
		raw := rawRule(h.Rule)
		if err := k.nl.RuleDel(raw); err != nil && !errors.Is(err, unix.ENOENT) {
			failed = errors.Join(failed, fmt.Errorf("remove routing rule %d: %w", h.Priority, explain(err)))
		}
	}
	return failed
}

func (k *Kernel) removeRoutes(have []installedRoute, want []Route) error {
	var failed error
	for _, h := range have {
		// A route of the same key has been replaced by now. Deleting the old one would
		// delete the new: IPv6 does not compare preferred sources.
		if slices.ContainsFunc(want, func(w Route) bool {
			return w.Table == h.Table && w.To == h.To && w.Metric == h.Metric
		}) {
			continue
		}
		if err := k.nl.RouteDel(&h.raw); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENODEV) {
			failed = errors.Join(failed, fmt.Errorf("remove route to %s: %w", h.To, explain(err)))
		}
	}
	return failed
}

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
		err := k.nl.AddrReplace(link, &netlink.Addr{IPNet: ipNet(single(a)), Flags: unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE})
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
	list, err := retryDump(func() ([]netlink.Addr, error) { return k.nl.AddrList(link, netlink.FAMILY_ALL) })
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

// rawRule puts a rule into the terms of the netlink library.
func rawRule(r Rule) *netlink.Rule {
	raw := netlink.NewRule()
	raw.Family, raw.Priority, raw.Table, raw.Protocol = r.Family, r.Priority, r.Table, Protocol
	raw.IPProto = r.Protocol
	if r.From.IsValid() {
		raw.Src = ipNet(r.From)
	}
	if r.To.IsValid() {
		raw.Dst = ipNet(r.To)
	}
	if r.FromPort != 0 {
		raw.Sport = netlink.NewRulePortRange(r.FromPort, r.FromPort)
	}
	if r.NotMark != 0 {
		mask := uint32(math.MaxUint32)
		raw.Mark, raw.Mask, raw.Invert = r.NotMark, &mask, true
	}
	if r.Specific {
		raw.SuppressPrefixlen = 0
	}
	if r.Goto != 0 {
		raw.Goto = r.Goto
	} else if r.Table == 0 {
		raw.Type = actionNop
	}
	return raw
}

// actionNop is FR_ACT_NOP of linux/fib_rules.h: a rule that does nothing, here to be
// jumped to.
const actionNop = 3

// ruleOf is the opposite of rawRule.
func ruleOf(raw netlink.Rule) Rule {
	r := Rule{
		Family: raw.Family, Priority: raw.Priority, From: prefixOf(raw.Src), To: prefixOf(raw.Dst),
		Protocol: raw.IPProto & math.MaxUint8, Specific: raw.SuppressPrefixlen == 0,
	}
	if raw.Table > 0 && raw.Goto <= 0 {
		r.Table = raw.Table
	}
	if raw.Sport != nil {
		r.FromPort = raw.Sport.Start
	}
	if raw.Invert {
		r.NotMark = raw.Mark
	}
	if raw.Goto > 0 {
		r.Goto = raw.Goto
	}
	return r
}

// rawRoute puts a route into the terms of the netlink library.
func rawRoute(r Route, link netlink.Link) *netlink.Route {
	raw := &netlink.Route{
		Family: familyOf(r.To.Addr()), Table: r.Table, Dst: ipNet(r.To), Type: int(r.Kind),
		Priority: r.Metric, Protocol: Protocol,
	}
	if r.Kind == Via && link != nil {
		raw.LinkIndex = link.Attrs().Index
		raw.Scope = netlink.SCOPE_LINK
		raw.Src = r.Source.AsSlice()
	}
	return raw
}

func routeOf(raw netlink.Route) Route {
	r := Route{Table: raw.Table, To: prefixOf(raw.Dst), Kind: Kind(raw.Type), Metric: raw.Priority}
	if !r.To.IsValid() { // the library leaves out default destinations
		for _, f := range families {
			if f.family == raw.Family {
				r.To = f.all
			}
		}
	}
	if a, ok := netip.AddrFromSlice(raw.Src); ok && r.Kind == Via {
		r.Source = a.Unmap()
	}
	return r
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if !ok || size == 0 {
		return netip.Prefix{}
	}
	if a.Is4In6() && size == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits)
}
