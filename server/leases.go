package server

import (
	"net/netip"
	"sync"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/server/pool"
	"github.com/wayfarer-vpn/wayfarer/server/store"
)

// leases gives sessions their inner addresses, and keeps whose they are. It is safe
// for use by several goroutines.
type leases struct {
	now    func() time.Time
	behind *store.Behind // nil: nothing is kept

	mu    sync.Mutex
	pools []*pool.Pool // at most one of each family
}

// newLeases makes the pools and fills them with what was kept.
func newLeases(prefixes []netip.Prefix, gateway []netip.Addr, kept []store.Lease, behind *store.Behind, now func() time.Time) (*leases, error) {
	l := &leases{now: now, behind: behind}
	if err := l.setPools(prefixes, gateway, nil); err != nil {
		return nil, err
	}
	for _, k := range kept {
		for _, p := range l.pools {
			p.Restore(pool.Lease{Address: k.Address, Owner: k.Owner})
		}
	}
	return l, nil
}

// setPools replaces the pools. Leases that fit into the new ones are kept, in use or
// not. Sessions with addresses outside of them go on until they end; their addresses
// are no longer leased then, so held tells of all that sessions have, for pools in which
// they lie again.
func (l *leases) setPools(prefixes []netip.Prefix, gateway []netip.Addr, held []pool.Lease) error {
	var next []*pool.Pool
	for _, prefix := range prefixes {
		p, err := pool.New(prefix, gateway...)
		if err != nil {
			return err
		}
		next = append(next, p)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	restore := func(lease pool.Lease) {
		for _, p := range next {
			p.Restore(lease)
		}
	}
	for _, lease := range held { // before what is remembered only
		restore(lease)
	}
	for _, old := range l.pools {
		old.Leases(restore)
	}
	l.pools = next
	return nil
}

// acquire leases the addresses that a client asks for. It is false, and nothing is
// leased, when it can have none of them.
func (l *leases) acquire(owner string, id ike.SessionID, want4, want6 bool, wishes []netip.Addr) ([]netip.Addr, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var got []netip.Addr
	for _, p := range l.pools {
		is4 := p.Prefix().Addr().Is4()
		if is4 && !want4 || !is4 && !want6 {
			continue
		}
		a, ok := p.Acquire(owner, uint64(id), wish(wishes, is4))
		if !ok {
			continue
		}
		got = append(got, a)
		l.keep(a, owner)
	}
	return got, len(got) > 0
}

// release gives addresses back.
func (l *leases) release(owner string, id ike.SessionID, addresses ...netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range addresses {
		for _, p := range l.pools {
			if p.Release(a, uint64(id)) {
				l.keep(a, owner)
			}
		}
	}
}

func (l *leases) keep(a netip.Addr, owner string) {
	if l.behind != nil {
		l.behind.Put(store.Lease{Address: a, Owner: owner, Used: l.now()})
	}
}

func wish(wishes []netip.Addr, is4 bool) netip.Addr {
	for _, w := range wishes {
		if w.Is4() == is4 {
			return w
		}
	}
	return netip.Addr{}
}

// PoolStatus is the state of a pool.
type PoolStatus struct {
	Network    netip.Prefix `json:"network"`
	Size       int          `json:"size"`
	InUse      int          `json:"in_use"`
	Remembered int          `json:"remembered"` // free, but kept for their owners while others are free
}

func (l *leases) status() []PoolStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := []PoolStatus{}
	for _, p := range l.pools {
		size, used, remembered := p.Usage()
		out = append(out, PoolStatus{p.Prefix(), size, used, remembered})
	}
	return out
}
