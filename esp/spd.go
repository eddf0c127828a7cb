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
//
// A gateway's clients have one address each. Those are found by hashing, and a
// change among them copies a shard of the table; networks stand in a prefix table.
type SPD[V comparable] struct {
	mu         sync.Mutex // serialises changes
	order      uint64
	addresses  shards[wideAddr, []policy[V]]
	networks   atomic.Pointer[bart.Table[[]policy[V]]]
	generation atomic.Uint64 // moves after the tables, so that it is never ahead of them
}

// policy is one Child SA as it stands at one prefix. Those at one prefix are in
// order of preference, the latest first.
type policy[V comparable] struct {
	value     V
	selectors *Selectors
	host      HostID
	order     uint64
	// all: every packet of the family v6 says passes the selectors if it goes to the
	// prefix, so they need not be read.
	all, v6 bool
}

// Insert makes a Child SA eligible. Inserting it again makes it the latest.
func (d *SPD[V]) Insert(v V, host HostID, selectors *Selectors, remote []Selector) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.order++
	for _, prefix := range remotePrefixes(remote) {
		p := policy[V]{value: v, host: host, order: d.order, selectors: selectors, all: selectors.passAll(prefix), v6: prefix.Addr().Is6()}
		d.edit(prefix, func(old []policy[V]) []policy[V] {
			return append([]policy[V]{p}, without(old, v)...)
		})
	}
	d.generation.Add(1)
}

// Remove takes a Child SA out; remote must be what it was inserted with.
func (d *SPD[V]) Remove(v V, remote []Selector) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, prefix := range remotePrefixes(remote) {
		d.edit(prefix, func(old []policy[V]) []policy[V] { return without(old, v) })
	}
	d.generation.Add(1)
}

func without[V comparable](old []policy[V], v V) []policy[V] {
	return slices.DeleteFunc(slices.Clone(old), func(p policy[V]) bool { return p.value == v })
}

// edit replaces the list at a prefix. Readers keep the old one, which is never
// changed.
func (d *SPD[V]) edit(prefix netip.Prefix, change func([]policy[V]) []policy[V]) {
	if prefix.IsSingleIP() {
		a := hostKey(wide(prefix.Addr()), prefix.Addr().Is6())
		d.addresses.change(a.shard(), func(m map[wideAddr][]policy[V]) {
			if m[a] = change(m[a]); len(m[a]) == 0 {
				delete(m, a)
			}
		})
		return
	}
	t := d.networks.Load()
	if t == nil {
		t = new(bart.Table[[]policy[V]])
	}
	t = t.ModifyPersist(prefix, func(old []policy[V], _ bool) ([]policy[V], bool) {
		next := change(old)
		return next, len(next) == 0
	})
	if t.Size() == 0 {
		t = nil
	}
	d.networks.Store(t)
}

// hostKey is the key of an address in the table of addresses. An IPv4 address
// stands there in its IPv4-mapped form, which selectors never hold (validate).
func hostKey(a wideAddr, v6 bool) wideAddr {
	if !v6 {
		a.lo |= 0xffff << 32
	}
	return a
}

// shard spreads addresses that lie side by side.
func (a wideAddr) shard() uint8 { return uint8((a.hi ^ a.lo) * 0x9e3779b97f4a7c15 >> 56) }

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
	var best *policy[V]
	key := hostKey(p.dst, p.V6)
	if list, found := d.addresses.lookup(key.shard(), key); found {
		best = better(best, list, p)
	}
	if t := d.networks.Load(); t != nil {
		best = longest(t, best, p)
	}
	if best == nil {
		return v, false
	}
	return best.value, true
}

// longest goes through the networks that hold the destination, the smallest first.
func longest[V comparable](t *bart.Table[[]policy[V]], best *policy[V], p *Inner) *policy[V] {
	dst := p.Dst()
	prefix, list, found := t.LookupPrefixLPM(netip.PrefixFrom(dst, dst.BitLen()))
	for found {
		best = better(best, list, p)
		if prefix.Bits() == 0 {
			break
		}
		prefix, list, found = t.LookupPrefixLPM(netip.PrefixFrom(dst, prefix.Bits()-1))
	}
	return best
}

// better returns the best of what was found so far and the policies at the next
// shorter prefix.
func better[V comparable](best *policy[V], list []policy[V], p *Inner) *policy[V] {
	for i := range list {
		c := &list[i]
		if best != nil && (c.host != best.host || c.order < best.order) {
			continue
		}
		if c.all && c.v6 == p.V6 || c.selectors.Outbound(p) {
			best = c
		}
	}
	return best
}

// Generation changes whenever the table does: a caller that reads it before Lookup
// may keep the result for the packets of one flow until it differs.
func (d *SPD[V]) Generation() uint64 { return d.generation.Load() }
