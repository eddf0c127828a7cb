package route

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addRules adds what is missing: the rules about inner addresses, or the others.
func (k *Kernel) addRules(want []Rule, have []Rule, inner bool) error {
	for _, r := range want {
		if (r.Priority <= prioGuard) != inner || slices.Contains(have, r) {
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

func (k *Kernel) removeRules(have []Rule, want []Rule) error {
	var failed error
	// The rule that sends everything else through the tunnel goes first, the guard
	// last.
	for _, h := range slices.Backward(have) {
		if slices.Contains(want, h) {
			continue
		}
		if err := k.nl.RuleDel(rawRule(h)); err != nil && !errors.Is(err, unix.ENOENT) {
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
