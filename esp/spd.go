package esp

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// SPD chooses the Child SA for an outbound packet: the part of a security policy
// database that RFC 4301 §4.4.1 calls SPD-S. Lookups take no lock and do not
// slow down with the number of hosts.
//
// A packet goes to the host with the longest matching prefix for its destination;
// among that host's Child SAs that cover the packet, to the one inserted last.
type SPD[V comparable] struct {
	mu         sync.Mutex // serialises changes
	order      uint64
	table      atomic.Pointer[bart.Table[[]policy[V]]]
	generation atomic.Uint64 // moves after table, so that it is never ahead of it
}

// policy is one Child SA as it stands at one prefix. Those at one prefix are in
// order of preference, the latest first.
type policy[V comparable] struct {
	value     V
	host      HostID
	order     uint64
	selectors *Selectors
}

// Insert makes a Child SA eligible. Inserting it again makes it the latest.
func (d *SPD[V]) Insert(v V, host HostID, selectors *Selectors, remote []Selector) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.order++
	p := policy[V]{value: v, host: host, order: d.order, selectors: selectors}
	d.edit(remote, func(old []policy[V]) []policy[V] {
		return append([]policy[V]{p}, without(old, v)...)
	})
}

// Remove takes a Child SA out; remote must be what it was inserted with.
func (d *SPD[V]) Remove(v V, remote []Selector) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.edit(remote, func(old []policy[V]) []policy[V] { return without(old, v) })
}

func without[V comparable](old []policy[V], v V) []policy[V] {
	return slices.DeleteFunc(slices.Clone(old), func(p policy[V]) bool { return p.value == v })
}

// edit replaces the lists at every prefix of the selectors. Readers keep the old
// table, whose lists are never changed.
func (d *SPD[V]) edit(remote []Selector, change func([]policy[V]) []policy[V]) {
	t := d.table.Load()
	if t == nil {
		t = new(bart.Table[[]policy[V]])
	}
	for _, prefix := range remotePrefixes(remote) {
		t = t.ModifyPersist(prefix, func(old []policy[V], _ bool) ([]policy[V], bool) {
			next := change(old)
			return next, len(next) == 0
		})
	}
	d.table.Store(t)
	d.generation.Add(1)
}

// remotePrefixes is the set of prefixes that the selectors cover.
func remotePrefixes(remote []Selector) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range remote {
		for _, p := range s.prefixes() {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

// Lookup finds the Child SA for a packet.
func (d *SPD[V]) Lookup(p *Inner) (v V, ok bool) {
	t := d.table.Load()
	if t == nil {
		return v, false
	}
	dst := p.Dst()
	prefix, list, found := t.LookupPrefixLPM(netip.PrefixFrom(dst, dst.BitLen()))
	var best *policy[V]
	for found {
		best = better(best, list, p)
		if prefix.Bits() == 0 {
			break
		}
		prefix, list, found = t.LookupPrefixLPM(netip.PrefixFrom(dst, prefix.Bits()-1))
	}
	if best == nil {
		return v, false
	}
	return best.value, true
}

// better returns the best of what was found so far and the policies at the next
// shorter prefix.
func better[V comparable](best *policy[V], list []policy[V], p *Inner) *policy[V] {
	for i := range list {
		c := &list[i]
		if best != nil && (c.host != best.host || c.order < best.order) {
			continue
		}
		if c.selectors.Outbound(p) {
			best = c
		}
	}
	return best
}

// Generation changes whenever the table does: a caller that reads it before Lookup
// may keep the result for the packets of one flow until it differs.
func (d *SPD[V]) Generation() uint64 { return d.generation.Load() }
