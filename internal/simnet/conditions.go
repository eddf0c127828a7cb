package simnet

import (
	"bytes"
	"time"
)

// Conditions of one direction of a link or path. The zero value is perfect.
type Conditions struct {
	Loss float64 // probability, for each fragment
	// Delay is what every packet takes, Jitter the largest addition to it. Jitter
	// alone keeps the order.
	Delay, Jitter time.Duration
	// Reorder is the probability that a packet is held back by ReorderDelay, while
	// later ones pass it.
	Reorder      float64
	ReorderDelay time.Duration // zero means 50 ms
	Duplicate    float64       // probability that a packet comes twice
	// Corrupt is the probability that one bit is flipped. Real networks drop most
	// such packets by checksum; this is about the rest.
	Corrupt float64
	// Bandwidth in bit/s makes packets queue up; zero is unlimited. Queue is how many
	// octets may wait, zero for any number.
	Bandwidth int64
	Queue     int
	// MTU is the largest IP packet, zero for any; Oversize is what happens to larger
	// ones. DropFragments drops fragments, wherever they were made.
	MTU           int
	Oversize      Oversize
	DropFragments bool
}

// Oversize is what happens to a packet larger than the MTU.
type Oversize int

// What can happen to a packet that is too large.
const (
	Fragment     Oversize = iota // goes in pieces, all of which must arrive
	DropSilently                 // a black hole for large packets
	DropAndTell                  // the sender is told (PathMTUObserver)
)

// defaultReorderDelay is used when a packet is to be held back and no time is given.
const defaultReorderDelay = 50 * time.Millisecond

// direction is one direction of a link or path, with its past.
type direction struct {
	Conditions
	busyUntil time.Time // with limited bandwidth
	latest    time.Time // arrival of the last packet that keeps the order
}

// roll returns true with a probability. Certainty draws nothing.
func (n *Network) roll(probability float64) bool {
	switch {
	case probability <= 0:
		return false
	case probability >= 1:
		return true
	}
	return n.rng.Float64() < probability
}

// pass sends a packet through a direction; next gets each copy that comes out,
// when it does.
func (n *Network) pass(d *direction, p *packet, where string, next func(*packet)) {
	if !n.fit(d, p, where) {
		return
	}
	for range p.Fragments {
		if n.roll(d.Loss) {
			n.drop(p, Lost, where)
			return
		}
	}
	leaves, ok := d.enqueue(n.now, p)
	if !ok {
		n.drop(p, QueueFull, where)
		return
	}
	if n.roll(d.Duplicate) {
		n.stats.Duplicated++
		q := *p
		q.Data = bytes.Clone(p.Data)
		n.tracePacket("duplicated", where, &q)
		defer n.emit(d, &q, leaves, where, next)
	}
	n.emit(d, p, leaves, where, next)
}

// emit schedules the arrival of one copy.
func (n *Network) emit(d *direction, p *packet, leaves time.Time, where string, next func(*packet)) {
	if n.roll(d.Corrupt) && len(p.Data) > 0 {
		n.stats.Corrupted++
		bit := n.rng.IntN(len(p.Data) * 8)
		p.Data[bit/8] ^= 1 << (bit % 8)
		n.tracePacket("corrupted", where, p)
	}
	at := leaves.Add(d.Delay)
	if d.Jitter > 0 {
		at = at.Add(time.Duration(n.rng.Int64N(int64(d.Jitter) + 1)))
	}
	if n.roll(d.Reorder) {
		hold := d.ReorderDelay
		if hold == 0 {
			hold = defaultReorderDelay
		}
		n.At(at.Add(hold), func() { next(p) })
		return
	}
	if at.Before(d.latest) {
		at = d.latest
	}
	d.latest = at
	n.At(at, func() { next(p) })
}

// fit applies the MTU.
func (n *Network) fit(d *direction, p *packet, where string) bool {
	if d.MTU > 0 && p.largest > d.MTU {
		how := d.Oversize
		if how == Fragment && p.whole {
			how = DropSilently
		}
		switch how {
		case DropSilently:
			n.drop(p, TooBig, where)
			return false
		case DropAndTell:
			n.drop(p, TooBig, where)
			n.tellMTU(d, p)
			return false
		}
		p.Fragments, p.largest = p.pieces(d.MTU), d.MTU
	}
	if d.DropFragments && p.Fragments > 1 {
		n.drop(p, Fragmented, where)
		return false
	}
	return true
}

// tellMTU tells the sender of a packet how large it may be. What says so arrives
// as late as the packet itself would have.
func (n *Network) tellMTU(d *direction, p *packet) {
	observer, ok := p.from.host.node.(PathMTUObserver)
	if !ok {
		return
	}
	mtu, pair, link := d.MTU, p.pair, p.from
	n.After(d.Delay, func() {
		if link.up {
			n.trace.add(record{step: n.steps, at: n.now, what: "path MTU", text: link.where()})
			observer.PathMTU(n.now, pair, mtu)
		}
	})
}

// enqueue returns when the packet has left towards the other end.
func (d *direction) enqueue(now time.Time, p *packet) (time.Time, bool) {
	if d.Bandwidth <= 0 {
		return now, true
	}
	begins := now
	if d.busyUntil.After(now) {
		begins = d.busyUntil
		waiting := int64(begins.Sub(now).Seconds() * float64(d.Bandwidth) / 8)
		if d.Queue > 0 && waiting+int64(p.size()) > int64(d.Queue) {
			return time.Time{}, false
		}
	}
	takes := float64(p.size()) * 8 / float64(d.Bandwidth) * float64(time.Second)
	d.busyUntil = begins.Add(time.Duration(takes))
	return d.busyUntil, true
}
