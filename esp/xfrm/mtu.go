package xfrm

import (
	"errors"
	"net/netip"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

// Nobody but the kernel sees the packets, so it has to know what fits a path: by the
// MTU of the interface on a laptop, which has one peer, and by routes to the peers'
// addresses with an MTU of their own on a gateway. From there it tells senders.

// fitMTU makes the kernel's idea of what fits follow the path of a host.
func (d *DataPath) fitMTU(h *host) error {
	if d.cfg.Owner == Laptop {
		return d.fitInterface()
	}
	return d.fitRoutes(h)
}

// innerMTU is what fits through a Child SA on its host's path; zero when the path's MTU
// is not known or the interface's is lower anyway.
func (d *DataPath) innerMTU(c *child) int {
	p := c.host.path
	if p.MTU == 0 {
		return 0
	}
	inner, err := esp.InnerMTU(p.MTU, p.Pair.Remote.Addr().Unmap().Is6(), p.UDP, c.desc.Out.Encr, c.desc.Out.Integ)
	if err != nil || inner <= 0 || inner >= d.cfg.MTU {
		return 0
	}
	return inner
}

// fitInterface never goes below what IPv6 needs.
func (d *DataPath) fitInterface() error {
	mtu := d.cfg.MTU
	for _, c := range d.children {
		if inner := d.innerMTU(c); inner > 0 {
			mtu = min(mtu, inner)
		}
	}
	if mtu = max(mtu, min(d.cfg.MTU, esp.MinIPv6MTU)); mtu == d.mtu {
		return nil
	}
	if err := d.kernel.SetMTU(mtu); err != nil {
		return err
	}
	d.mtu = mtu
	return nil
}

// fitRoutes narrows the way to the addresses of a host, where its path is narrow.
func (d *DataPath) fitRoutes(h *host) error {
	want := map[netip.Prefix]int{}
	for _, c := range h.children {
		inner := d.innerMTU(c)
		if inner == 0 {
			continue
		}
		for _, sel := range c.selectors {
			if !sel.dst.IsSingleIP() {
				continue // networks are routed as the administrator likes
			}
			mtu := inner
			if sel.dst.Addr().Is6() {
				mtu = max(mtu, esp.MinIPv6MTU)
			}
			if known := want[sel.dst]; known == 0 || mtu < known {
				want[sel.dst] = mtu
			}
		}
	}
	var errs []error
	for to := range h.narrowed {
		if want[to] == 0 {
			errs = append(errs, d.kernel.SetRouteMTU(to, 0))
		}
	}
	for to, mtu := range want {
		if h.narrowed[to] != mtu {
			errs = append(errs, d.kernel.SetRouteMTU(to, mtu))
		}
	}
	h.narrowed = want
	return errors.Join(errs...)
}
