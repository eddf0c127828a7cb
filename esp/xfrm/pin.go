package xfrm

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/rtnl"
)

// A machine with two uplinks sends by the better default route, whatever source
// address a packet has. A path that names an interface must leave by that one, so
// sealed packets get a route of their own, in a table that a rule for our mark and
// their source address leads to. It follows what the kernel would do for a socket
// bound to the interface.

const (
	pinTable    = 22344
	pinPriority = 69 // right before the rules of package client/route
	pinProtocol = 88
	// pinPause lets a burst of changes to the routing table pass.
	pinPause = 100 * time.Millisecond
)

// pin is a path that leaves by a certain interface.
type pin struct {
	local, remote netip.Addr
	iface         int
}

// pins are those in force.
type pins struct {
	mu  sync.Mutex
	set map[pin]int // how many hosts want it
}

// pinned says whether a path is to be pinned.
func (k *linux) pinned(p esp.Path) (pin, bool) {
	local, remote := ends(p)
	return pin{local, remote, p.Pair.Interface}, k.cfg.Mark != 0 && p.Pair.Interface != 0 && !remote.IsLinkLocalUnicast()
}

// openPins follows the routing table.
func (k *linux) openPins() error {
	k.pins.set = map[pin]int{}
	if k.cfg.Mark == 0 {
		return nil
	}
	updates := make(chan netlink.RouteUpdate, 64)
	if err := netlink.RouteSubscribe(updates, k.done); err != nil {
		return fmt.Errorf("watch the routing table: %w", err)
	}
	k.goroutines.Go(func() {
		for u := range updates {
			if u.Table == unix.RT_TABLE_MAIN || u.Table < pinTable-2 || u.Table > pinTable {
				k.repin(updates)
			}
		}
	})
	return nil
}

// repin sets all pins anew after a change.
func (k *linux) repin(updates <-chan netlink.RouteUpdate) {
	quiet := time.NewTimer(pinPause)
	defer quiet.Stop()
	for waiting := true; waiting; {
		select {
		case _, ok := <-updates:
			waiting = ok
		case <-quiet.C:
			waiting = false
		}
	}
	k.pins.mu.Lock()
	defer k.pins.mu.Unlock()
	for p := range k.pins.set {
		if err := k.setPin(p); err != nil {
			k.log.Debug("path not pinned to its interface", "local", p.local, "remote", p.remote, "error", err)
		}
	}
}

// Pin implements kernel.
func (k *linux) Pin(path esp.Path) error {
	p, want := k.pinned(path)
	if !want {
		return nil
	}
	k.pins.mu.Lock()
	defer k.pins.mu.Unlock()
	if k.pins.set[p] == 0 {
		if err := k.setPin(p); err != nil {
			return err
		}
	}
	k.pins.set[p]++
	return nil
}

// setPin looks up the way by the interface, and sets route and rule.
func (k *linux) setPin(p pin) error {
	// Without a source address the rule for it does not apply: the answer is the
	// machine's own, not an older one of ours.
	found, err := k.route.RouteGetWithOptions(p.remote.AsSlice(), &netlink.RouteGetOptions{OifIndex: p.iface, Mark: k.cfg.Mark})
	if err != nil || len(found) == 0 {
		// The interface has no way there at the moment. The path may be a dying one.
		k.log.Debug("no route by the path's interface", "remote", p.remote, "interface", p.iface, "error", err)
		return nil
	}
	r := &netlink.Route{
		Dst: hostNet(p.remote), Table: pinTable, Protocol: pinProtocol, LinkIndex: p.iface, Gw: found[0].Gw, Via: found[0].Via,
		Flags: int(netlink.FLAG_ONLINK),
	}
	if r.Gw == nil && r.Via == nil {
		r.Scope, r.Flags = netlink.SCOPE_LINK, 0
	}
	if err := k.route.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s by the path's interface: %w", p.remote, err)
	}
	err = k.route.RuleAdd(pinRule(p.local, k.cfg.Mark))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("lead packets from %s to their route: %w", p.local, err)
	}
	return nil
}

// Unpin implements kernel.
func (k *linux) Unpin(path esp.Path) error {
	p, want := k.pinned(path)
	if !want {
		return nil
	}
	k.pins.mu.Lock()
	defer k.pins.mu.Unlock()
	if k.pins.set[p]--; k.pins.set[p] > 0 {
		return nil
	}
	delete(k.pins.set, p)
	keepRoute, keepRule := false, false
	for o := range k.pins.set {
		keepRoute = keepRoute || o.remote == p.remote
		keepRule = keepRule || o.local == p.local
	}
	var errs []error
	if !keepRule {
		errs = append(errs, ignore(k.route.RuleDel(pinRule(p.local, k.cfg.Mark)), unix.ENOENT))
	}
	if !keepRoute {
		errs = append(errs, ignore(k.route.RouteDel(&netlink.Route{Dst: hostNet(p.remote), Table: pinTable}), unix.ESRCH))
	}
	return errors.Join(errs...)
}

func pinRule(local netip.Addr, mark uint32) *netlink.Rule {
	mask := uint32(math.MaxUint32)
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table, r.Protocol = rtnl.Family(local), pinPriority, pinTable, pinProtocol
	r.Src, r.Mark, r.Mask = hostNet(local), mark, &mask
	return r
}

func hostNet(a netip.Addr) *net.IPNet { return rtnl.IPNet(netip.PrefixFrom(a, a.BitLen())) }

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// sweepPins removes rules and routes of a run that has not ended in order.
func sweepPins(o Owner) error {
	if o != Laptop {
		return nil
	}
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := rtnl.Dump(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		if err != nil {
			continue // the family is missing
		}
		for _, r := range rules {
			if r.Table == pinTable && r.Protocol == pinProtocol {
				r.Family = family
				errs = append(errs, ignore(netlink.RuleDel(&r), unix.ENOENT))
			}
		}
		routes, err := rtnl.Dump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Table: pinTable}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			continue
		}
		for _, r := range routes {
			errs = append(errs, ignore(netlink.RouteDel(&r), unix.ESRCH))
		}
	}
	return errors.Join(errs...)
}
