package xfrm

import (
	"errors"
	"fmt"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

// move makes all states of a host fit its new path: inbound ones first, so that the
// peer's answers to what goes out are accepted. Sequence numbers, anti-replay windows
// and counters go along.
func (d *DataPath) move(h *host, path esp.Path) error {
	var errs []error
	for _, inbound := range []bool{true, false} {
		for _, c := range h.sortedChildren() {
			if c.hard {
				continue
			}
			if err := d.moveHalf(c, path, inbound); err != nil {
				errs = append(errs, fmt.Errorf("child sa %d: %w", c.id, err))
				d.lost(c)
			}
		}
	}
	return errors.Join(errs...)
}

// lost tells that a Child SA has come to grief: whoever negotiated it makes another.
func (d *DataPath) lost(c *child) {
	if !c.hard {
		c.hard = true
		d.raise(esp.Event{Kind: esp.HardLimit, Host: c.host.id, Child: c.id, SPI: c.in.spi})
	}
}

// moveHalf moves one direction of a Child SA.
func (d *DataPath) moveHalf(c *child, path esp.Path, inbound bool) error {
	in, out := c.statesFor(path)
	x, next := &c.out, out
	if inbound {
		x, next = &c.in, in
	}
	if x.stateID == next.stateID && x.src == next.src && sameEncap(x.encap, next.encap) {
		return nil
	}
	delete(d.states, x.stateID)
	defer func() { d.states[x.stateID] = c }()
	var err error
	if x.stateID == next.stateID && x.src == next.src && x.encap != nil && next.encap != nil {
		err = d.changePorts(x, next)
	} else {
		err = d.migrate(c, x, next, inbound)
	}
	switch {
	case errors.Is(err, errCannotMigrate):
		err = d.readd(c, x, next)
	case err == nil:
		x.state = next
	}
	if err != nil || inbound {
		return err
	}
	return d.repoint(c)
}

// changePorts is what a NAT's new mapping asks for: the addresses stay.
func (d *DataPath) changePorts(x *half, next state) error {
	if err := d.kernel.UpdatePorts(&next); err != nil || !d.arrived(next) {
		d.cfg.Log.Debug("ports of a state not changed, deleting and adding it", "spi", x.spi, "error", err)
		return errCannotMigrate
	}
	return nil
}

// migrate lets the kernel move a state, together with a policy that sends on it.
func (d *DataPath) migrate(c *child, x *half, next state, inbound bool) error {
	if d.cfg.NoMigrate || x.encap != nil && next.encap == nil {
		// The kernel's migration can switch UDP on, not off.
		return errCannotMigrate
	}
	m := migration{oldSrc: x.src, oldDst: x.dst, newSrc: next.src, newDst: next.dst, reqid: x.reqid, encap: next.encap}
	if e := d.sending(c); e != nil && !inbound {
		m.via = e.out
	}
	// Another state with the same addresses and reqid may be the one that moves first:
	// those of the host's Child SAs all move anyway. So ask once for each.
	tries := 1
	if inbound {
		tries = len(c.host.children)
	}
	for range tries {
		if d.arrived(next) {
			return nil
		}
		if err := d.kernel.Migrate(m); err != nil {
			d.cfg.Log.Debug("state not migrated, deleting and adding it", "child", uint64(c.id), "error", err)
			return errCannotMigrate
		}
	}
	if !d.arrived(next) {
		return errCannotMigrate
	}
	return nil
}

// arrived says whether the kernel has a state where it should be.
func (d *DataPath) arrived(want state) bool {
	s, err := d.kernel.State(want.stateID)
	return err == nil && s.src == want.src && sameEncap(s.encap, want.encap)
}

// readd takes a state out and puts it in again elsewhere, to go on where it ended.
func (d *DataPath) readd(c *child, x *half, next state) error {
	last, err := d.kernel.RemoveState(x.stateID)
	if err != nil {
		return fmt.Errorf("take the state out to move it: %w", err)
	}
	d.record(c, x, &last, d.cfg.Now())
	next.replay, next.used = &last.replay, &last.used
	if err := d.kernel.AddState(&next); err != nil {
		return fmt.Errorf("put the state in again to move it: %w", err)
	}
	next.replay, next.used = nil, nil
	x.state = next
	return nil
}

// reinstall makes the policies that send to a host fit its path.
func (d *DataPath) reinstall(h *host) error {
	var errs []error
	for _, e := range d.entriesOf(h) {
		errs = append(errs, d.installOutbound(e))
	}
	return errors.Join(errs...)
}

// repoint makes the policies that send on c follow it.
func (d *DataPath) repoint(c *child) error {
	var errs []error
	for _, e := range d.entriesOf(c.host) {
		if e.sender() == c {
			errs = append(errs, d.installOutbound(e))
		}
	}
	return errors.Join(errs...)
}

func sameEncap(a, b *encap) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
