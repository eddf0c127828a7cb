package xfrm

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// alias marks a dummy interface as the owner's. An XFRM interface is known by its
// if_id.
func (o Owner) alias() string {
	if o == Gateway {
		return "wayfarer gateway tunnel"
	}
	return "wayfarer client tunnel"
}

// describe is the interface as it is to be made.
func (c *Config) describe() netlink.Link {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = c.Name, c.MTU
	if c.PolicyBased {
		return &netlink.Dummy{LinkAttrs: attrs}
	}
	return &netlink.Xfrmi{LinkAttrs: attrs, Ifid: c.Owner.interfaceID()}
}

// makeInterface makes the tunnel's interface, down and without addresses.
func (k *linux) makeInterface() error {
	link := k.cfg.describe()
	if err := k.route.LinkAdd(link); err != nil {
		return explainLink(k.cfg.Name, link.Type(), err)
	}
	made, err := k.route.LinkByName(k.cfg.Name)
	if err != nil {
		return errors.Join(fmt.Errorf("find the interface %s just made: %w", k.cfg.Name, err), k.route.LinkDel(link))
	}
	k.link = made
	if err := k.route.LinkSetAlias(made, k.cfg.Owner.alias()); err != nil {
		return fmt.Errorf("mark the interface %s as ours: %w", k.cfg.Name, err)
	}
	if !k.cfg.PolicyBased {
		k.ifID = k.cfg.Owner.interfaceID()
	}
	return nil
}

func explainLink(name, kind string, err error) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("the kernel has no interfaces of type %s: %w", kind, err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("there is an interface %s already, or one with the same if_id: %w", name, err)
	}
	return fmt.Errorf("make the interface %s of type %s: %w", name, kind, err)
}

func (k *linux) removeInterface() error {
	if err := k.route.LinkDel(k.link); err != nil && !linkGone(err) {
		return fmt.Errorf("remove the interface %s: %w", k.cfg.Name, err)
	}
	return nil
}

func linkGone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.As(err, &netlink.LinkNotFoundError{})
}

// SetMTU implements kernel.
func (k *linux) SetMTU(mtu int) error {
	if err := k.route.LinkSetMTU(k.link, mtu); err != nil {
		return fmt.Errorf("set the MTU of %s to %d: %w", k.cfg.Name, mtu, err)
	}
	return nil
}

// SetRouteMTU implements kernel.
func (k *linux) SetRouteMTU(to netip.Prefix, mtu int) error {
	r := &netlink.Route{Dst: hostNet(to.Addr()), LinkIndex: k.link.Attrs().Index, Protocol: pinProtocol, MTU: mtu}
	if to.Addr().Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	if mtu == 0 {
		return ignore(k.route.RouteDel(r), unix.ESRCH)
	}
	if err := k.route.RouteReplace(r); err != nil {
		return fmt.Errorf("tell the kernel that %d octets fit on the way to %s: %w", mtu, to.Addr(), err)
	}
	return nil
}

// watchInterface calls gone when somebody else removes the interface.
func (k *linux) watchInterface(gone func(error)) error {
	updates := make(chan netlink.LinkUpdate, 16)
	if err := netlink.LinkSubscribe(updates, k.done); err != nil {
		return fmt.Errorf("watch the interface %s: %w", k.cfg.Name, err)
	}
	index := k.link.Attrs().Index
	k.goroutines.Go(func() {
		for u := range updates {
			if u.Header.Type != unix.RTM_DELLINK || int(u.Index) != index {
				continue
			}
			select {
			case <-k.done:
			default:
				gone(fmt.Errorf("the interface %s was removed by someone else", k.cfg.Name))
			}
		}
	})
	return nil
}
