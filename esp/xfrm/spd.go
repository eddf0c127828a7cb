package xfrm

import (
	"errors"
	"slices"
)

// The kernel holds one policy of a kind for a selector. Several Child SAs may ask for
// the same one: a successor beside the one that it replaces, or another host when a
// client comes back before its old session has ended. An entry knows who asks, and
// points the kernel's policies to whoever comes last.

// entry is a selector with those who ask for it.
type entry struct {
	sel    selector
	claims []*child // in the order of adding
	// guests are active Child SAs of a host that has a claim, with selectors that cover
	// this one: activated later, they take its packets over.
	guests []*child

	in  *host // whose inbound policies are installed
	out *policy
}

// accept makes the kernel let through what the inbound state of c opens.
func (d *DataPath) accept(c *child) error {
	for _, sel := range c.selectors {
		e := d.spd[sel]
		if e == nil {
			e = &entry{sel: sel}
			d.spd[sel] = e
		}
		e.claims = append(e.claims, c)
		if err := d.install(e); err != nil {
			return err
		}
	}
	return nil
}

// use sends what the selectors of c cover through its outbound state.
func (d *DataPath) use(c *child) error {
	d.activations++
	c.active, c.order = true, d.activations
	for _, e := range d.entriesOf(c.host) {
		switch {
		case slices.Contains(e.claims, c):
		case slices.ContainsFunc(c.selectors, func(s selector) bool { return s.covers(e.sel) }):
			if !slices.Contains(e.guests, c) {
				e.guests = append(e.guests, c)
			}
		default:
			continue
		}
		if err := d.install(e); err != nil {
			return err
		}
	}
	return nil
}

// entriesOf are those that the host's Child SAs ask for.
func (d *DataPath) entriesOf(h *host) (out []*entry) {
	seen := map[*entry]bool{}
	for _, c := range h.sortedChildren() {
		for _, sel := range c.selectors {
			if e := d.spd[sel]; e != nil && !seen[e] {
				seen[e] = true
				out = append(out, e)
			}
		}
	}
	return out
}

// forget takes all claims of c back. Its host still knows it.
func (d *DataPath) forget(c *child) error {
	c.active = false
	var errs []error
	is := func(o *child) bool { return o == c }
	for _, e := range d.entriesOf(c.host) {
		if !slices.Contains(e.claims, c) && !slices.Contains(e.guests, c) {
			continue
		}
		e.claims, e.guests = slices.DeleteFunc(e.claims, is), slices.DeleteFunc(e.guests, is)
		errs = append(errs, d.install(e))
		if len(e.claims) == 0 {
			delete(d.spd, e.sel)
		}
	}
	return errors.Join(errs...)
}

// sender is the Child SA that packets of the entry go out on, nil if there is none.
func (e *entry) sender() (best *child) {
	if len(e.claims) == 0 {
		return nil
	}
	for _, list := range [][]*child{e.claims, e.guests} {
		for _, c := range list {
			if c.active && (best == nil || c.order > best.order) {
				best = c
			}
		}
	}
	return best
}

// install makes the kernel's policies match an entry.
func (d *DataPath) install(e *entry) error {
	return errors.Join(d.installInbound(e), d.installOutbound(e))
}

func (d *DataPath) installInbound(e *entry) error {
	var want *host
	if n := len(e.claims); n > 0 {
		want = e.claims[n-1].host
	}
	if want == e.in {
		return nil
	}
	e.in = want
	var errs []error
	for _, dir := range []direction{dirIn, dirForward} {
		key := policyKey{dir, e.sel.reversed()}
		if want == nil {
			errs = append(errs, d.kernel.RemovePolicy(key))
			continue
		}
		errs = append(errs, d.kernel.SetPolicy(policy{policyKey: key, priority: e.sel.priority(), reqid: want.reqid}))
	}
	return errors.Join(errs...)
}

func (d *DataPath) installOutbound(e *entry) error {
	key := policyKey{dirOut, e.sel}
	c := e.sender()
	if c == nil {
		if e.out == nil {
			return nil
		}
		e.out = nil
		return d.kernel.RemovePolicy(key)
	}
	want := policy{policyKey: key, priority: e.sel.priority(), src: c.out.src, dst: c.out.dst, spi: c.out.spi, reqid: c.reqid,
		block: c.host.path.Sparing}
	if e.out != nil && *e.out == want {
		return nil
	}
	if err := d.kernel.SetPolicy(want); err != nil {
		return err
	}
	e.out = &want
	return nil
}

// sending returns an entry whose packets go out on c, nil if there is none.
func (d *DataPath) sending(c *child) *entry {
	for _, sel := range c.selectors {
		if e := d.spd[sel]; e != nil && e.out != nil && e.sender() == c && e.out.reqid == c.reqid {
			return e
		}
	}
	return nil
}
