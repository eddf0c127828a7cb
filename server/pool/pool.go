// Package pool leases inner addresses of one network to sessions.
//
// A lease belongs to an owner (who the peer is) and, while it is in use, to exactly
// one session. After the session it stays the owner's, so that the same client finds
// the same address again, until the pool has nothing else left: then the lease that
// was released longest ago goes to somebody new.
//
// The package does no I/O and reads no clock. A Pool is not safe for concurrent use.
package pool

import (
	"fmt"
	"net/netip"
)

// maxLeases bounds what a pool remembers, since an IPv6 network has more addresses
// than a machine has memory.
const maxLeases = 1 << 20

// Lease is an address and whom it belongs to. Session is zero when no session uses it.
type Lease struct {
	Address netip.Addr
	Owner   string
	Session uint64
}

// Pool is the addresses of one network.
type Pool struct {
	prefix      netip.Prefix
	first, last netip.Addr
	reserved    map[netip.Addr]bool
	capacity    int

	leases  map[netip.Addr]*lease
	byOwner map[string]*lease // the owner's lease released last, head of its released ones
	inUse   int
	next    netip.Addr // first address that has perhaps never been leased
	// Released leases in the order of their release.
	oldest, newest *lease
}

// lease is the pool's own record. While session is zero it is in two lists: that of
// all released leases, and that of its owner's released ones.
type lease struct {
	address      netip.Addr
	owner        string
	session      uint64
	older, newer *lease // of all
	next, prev   *lease // of the owner's: released before, released after
}

// New makes a pool of the network's addresses. The first and the last address of an
// IPv4 network (unless it is a /31 or /32) and the first one of an IPv6 network
// (RFC 4291 §2.6.1) are left out, and so are the reserved ones.
func New(prefix netip.Prefix, reserved ...netip.Addr) (*Pool, error) {
	if !prefix.IsValid() || prefix.Addr().Is4In6() {
		return nil, fmt.Errorf("%s is not a network that addresses can be leased from", prefix)
	}
	p := &Pool{
		prefix:   prefix.Masked(),
		reserved: make(map[netip.Addr]bool),
		leases:   make(map[netip.Addr]*lease),
		byOwner:  make(map[string]*lease),
	}
	p.first, p.last = bounds(p.prefix)
	for _, a := range reserved {
		if p.within(a) {
			p.reserved[a] = true
		}
	}
	p.capacity = p.count() - len(p.reserved)
	if p.capacity < 1 {
		return nil, fmt.Errorf("%s has no address to lease: choose a larger network", prefix)
	}
	p.next = p.first
	return p, nil
}

// bounds returns the first and the last address that may be leased.
func bounds(p netip.Prefix) (first, last netip.Addr) {
	first, last = p.Addr(), lastAddress(p)
	hostBits := first.BitLen() - p.Bits()
	if hostBits < 2 {
		return first, last
	}
	if first.Is4() {
		last = last.Prev()
	}
	return first.Next(), last
}

func lastAddress(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// count returns the number of addresses from first to last, at most maxLeases plus
// the number of reserved ones.
func (p *Pool) count() int {
	hostBits := p.first.BitLen() - p.prefix.Bits()
	if hostBits > 20 {
		return maxLeases + len(p.reserved)
	}
	n := 1 << hostBits
	switch {
	case hostBits < 2:
		return n
	case p.first.Is4():
		return n - 2
	default:
		return n - 1
	}
}

func (p *Pool) within(a netip.Addr) bool {
	return a.Is4() == p.first.Is4() && a.Zone() == "" && !a.Less(p.first) && !p.last.Less(a)
}

// Prefix returns the pool's network.
func (p *Pool) Prefix() netip.Prefix { return p.prefix }

// Usage returns how many addresses there are, how many are in use by a session, and
// how many more are remembered for an owner.
func (p *Pool) Usage() (size, inUse, remembered int) {
	return p.capacity, p.inUse, len(p.leases) - p.inUse
}

// Acquire leases an address to a session of owner; session must not be zero. The
// address is, in this order: wish, if it is the owner's own and free; another of the
// owner's own free ones; wish, if it was never leased; any that was never leased; the
// one that was released longest ago. False means that all addresses are in use.
func (p *Pool) Acquire(owner string, session uint64, wish netip.Addr) (netip.Addr, bool) {
	l := p.own(owner, wish)
	if l == nil {
		l = p.fresh(owner, wish)
	}
	if l == nil {
		l = p.recycle(owner)
	}
	if l == nil {
		return netip.Addr{}, false
	}
	p.unlink(l)
	l.session = session
	p.inUse++
	return l.address, true
}

// Release ends the use of an address by a session. It is false, and nothing changes,
// when that session does not use it.
func (p *Pool) Release(address netip.Addr, session uint64) bool {
	l := p.leases[address]
	if l == nil || session == 0 || l.session != session {
		return false
	}
	l.session = 0
	p.inUse--
	p.link(l)
	return true
}

// Restore brings back what is known from an earlier run or an earlier pool. Released
// leases are restored in the order of their release. An address outside of the pool,
// or leased already, is left out.
func (p *Pool) Restore(r Lease) bool {
	if !p.within(r.Address) || p.reserved[r.Address] || p.leases[r.Address] != nil || len(p.leases) >= p.capacity {
		return false
	}
	l := p.add(r.Address, r.Owner)
	if r.Session != 0 {
		p.unlink(l)
		l.session = r.Session
		p.inUse++
	}
	return true
}

// Leases calls f for every lease: first those in use, then the released ones in the
// order of their release. f must not change the pool.
func (p *Pool) Leases(f func(Lease)) {
	for _, l := range p.leases {
		if l.session != 0 {
			f(Lease{l.address, l.owner, l.session})
		}
	}
	for l := p.oldest; l != nil; l = l.newer {
		f(Lease{l.address, l.owner, 0})
	}
}

// own finds a released lease of the owner, preferably the wished one, otherwise the
// one released last.
func (p *Pool) own(owner string, wish netip.Addr) *lease {
	if l := p.leases[wish]; l != nil && l.session == 0 && l.owner == owner {
		return l
	}
	return p.byOwner[owner]
}

// fresh leases an address that was never leased, preferably the wished one.
func (p *Pool) fresh(owner string, wish netip.Addr) *lease {
	if len(p.leases) >= p.capacity {
		return nil
	}
	if p.within(wish) && !p.reserved[wish] && p.leases[wish] == nil {
		return p.add(wish, owner)
	}
	// There is one: fewer are leased than exist, and those behind next are all leased.
	for ; p.within(p.next); p.next = p.next.Next() {
		if !p.reserved[p.next] && p.leases[p.next] == nil {
			return p.add(p.next, owner)
		}
	}
	return nil
}

// recycle takes the lease that was released longest ago from its owner.
func (p *Pool) recycle(owner string) *lease {
	l := p.oldest
	if l == nil {
		return nil
	}
	p.unlink(l)
	l.owner = owner
	p.link(l)
	return l
}

// add makes a released lease.
func (p *Pool) add(a netip.Addr, owner string) *lease {
	l := &lease{address: a, owner: owner}
	p.leases[a] = l
	p.link(l)
	return l
}

// link appends l to the released leases, as the newest.
func (p *Pool) link(l *lease) {
	l.older, l.newer = p.newest, nil
	if p.newest != nil {
		p.newest.newer = l
	} else {
		p.oldest = l
	}
	p.newest = l

	l.next, l.prev = p.byOwner[l.owner], nil
	if l.next != nil {
		l.next.prev = l
	}
	p.byOwner[l.owner] = l
}

// unlink takes l out of the released leases.
func (p *Pool) unlink(l *lease) {
	if l.older != nil {
		l.older.newer = l.newer
	} else {
		p.oldest = l.newer
	}
	if l.newer != nil {
		l.newer.older = l.older
	} else {
		p.newest = l.older
	}

	switch {
	case l.prev != nil:
		l.prev.next = l.next
	case l.next != nil:
		p.byOwner[l.owner] = l.next
	default:
		delete(p.byOwner, l.owner)
	}
	if l.next != nil {
		l.next.prev = l.prev
	}
	l.older, l.newer, l.next, l.prev = nil, nil, nil, nil
}
