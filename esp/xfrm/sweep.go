package xfrm

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/rtnl"
)

// reservedNumbers are those below the first reqid in use: if_ids and the probe's.
const reservedNumbers = 15

// Sweep removes what a run of the owner has left in the kernel: the interface, states,
// policies, routes. It knows them by their numbers and leaves everything else alone. A
// kernel without IPsec is swept clean by definition. ErrInUse means that the owner lives.
func Sweep(o Owner) error {
	lock, err := o.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	return sweep(o)
}

// sweep is for the holder of the lock.
func sweep(o Owner) error {
	return errors.Join(sweepPolicies(o), sweepStates(o), sweepLinks(o), sweepPins(o))
}

// noIPsec recognises a kernel without XFRM.
func noIPsec(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ECONNREFUSED)
}

func sweepPolicies(o Owner) error {
	list, err := rtnl.Dump(func() ([]netlink.XfrmPolicy, error) { return netlink.XfrmPolicyList(netlink.FAMILY_ALL) })
	if noIPsec(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list policies: %w", err)
	}
	var errs []error
	for _, p := range list {
		if !slices.ContainsFunc(p.Tmpls, func(t netlink.XfrmPolicyTmpl) bool { return o.owns(uint32(t.Reqid)) }) {
			continue
		}
		if err := netlink.XfrmPolicyDel(&p); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove a policy: %w", err))
		}
	}
	return errors.Join(errs...)
}

func sweepStates(o Owner) error {
	list, err := rtnl.Dump(func() ([]netlink.XfrmState, error) { return netlink.XfrmStateList(netlink.FAMILY_ALL) })
	if noIPsec(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list states: %w", err)
	}
	var errs []error
	for _, s := range list {
		if !o.owns(uint32(s.Reqid)) || s.Spi == 0 {
			continue
		}
		if err := netlink.XfrmStateDel(&s); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove a state: %w", err))
		}
	}
	return errors.Join(errs...)
}

func sweepLinks(o Owner) error {
	list, err := rtnl.Dump(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, l := range list {
		x, isXfrm := l.(*netlink.Xfrmi)
		_, isDummy := l.(*netlink.Dummy)
		if !(isXfrm && x.Ifid == o.interfaceID() || isDummy && l.Attrs().Alias == o.alias()) {
			continue
		}
		if err := netlink.LinkDel(l); err != nil && !linkGone(err) {
			errs = append(errs, fmt.Errorf("remove the interface %s: %w", l.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}
