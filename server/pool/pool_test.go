package pool

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func mustNew(t *testing.T, prefix string, reserved ...string) *Pool {
	t.Helper()
	var r []netip.Addr
	for _, s := range reserved {
		r = append(r, netip.MustParseAddr(s))
	}
	p, err := New(netip.MustParsePrefix(prefix), r...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func acquire(t *testing.T, p *Pool, owner string, session uint64, wish string) string {
	t.Helper()
	var w netip.Addr
	if wish != "" {
		w = netip.MustParseAddr(wish)
	}
	a, ok := p.Acquire(owner, session, w)
	if !ok {
		return "none"
	}
	return a.String()
}

func TestSize(t *testing.T) {
	tests := []struct {
		prefix, reserved, first string
		size                    int
	}{
		{"10.30.0.0/24", "10.30.0.1", "10.30.0.2", 253},
		{"10.30.0.0/24", "192.0.2.1", "10.30.0.1", 254}, // reserved outside: no matter
		{"10.30.0.0/30", "10.30.0.1", "10.30.0.2", 1},
		{"10.30.0.0/31", "10.30.0.0", "10.30.0.1", 1},
		{"10.30.0.7/32", "10.9.9.9", "10.30.0.7", 1},
		{"fd00:30::/112", "fd00:30::1", "fd00:30::2", 65534},
		{"fd00:30::/64", "fd00:30::1", "fd00:30::2", maxLeases},
		{"fd00:30::8/128", "fd00:30::1", "fd00:30::8", 1},
		{"10.0.0.0/8", "10.0.0.1", "10.0.0.2", maxLeases},
	}
	for _, tt := range tests {
		p := mustNew(t, tt.prefix, tt.reserved)
		if size, _, _ := p.Usage(); size != tt.size {
			t.Errorf("%s: size %d, want %d", tt.prefix, size, tt.size)
		}
		if got := acquire(t, p, "a", 1, ""); got != tt.first {
			t.Errorf("%s: first lease %s, want %s", tt.prefix, got, tt.first)
		}
	}
	for _, bad := range []string{"10.0.0.1/32", "fd00::1/128"} {
		prefix := netip.MustParsePrefix(bad)
		if _, err := New(prefix, prefix.Addr()); err == nil {
			t.Errorf("%s with its only address reserved is a pool", bad)
		}
	}
	if _, err := New(netip.Prefix{}); err == nil {
		t.Error("the zero prefix is a pool")
	}
}

func TestAddressesStick(t *testing.T) {
	p := mustNew(t, "10.0.0.0/29", "10.0.0.1")
	if got := acquire(t, p, "alice", 1, ""); got != "10.0.0.2" {
		t.Fatal(got)
	}
	if got := acquire(t, p, "bob", 2, ""); got != "10.0.0.3" {
		t.Fatal(got)
	}
	// A second device of alice gets an address of its own.
	if got := acquire(t, p, "alice", 3, ""); got != "10.0.0.4" {
		t.Fatal(got)
	}
	for s, a := range map[uint64]string{1: "10.0.0.2", 2: "10.0.0.3", 3: "10.0.0.4"} {
		if !p.Release(netip.MustParseAddr(a), s) {
			t.Errorf("session %d does not have %s", s, a)
		}
	}
	// The one it asks for among its own, otherwise the first of its own.
	if got := acquire(t, p, "alice", 4, "10.0.0.4"); got != "10.0.0.4" {
		t.Error(got)
	}
	if got := acquire(t, p, "alice", 5, "10.0.0.3"); got != "10.0.0.2" {
		t.Error("alice got", got)
	}
	// A wish for an address that was never leased is granted, for bob's it is not.
	if got := acquire(t, p, "carol", 6, "10.0.0.6"); got != "10.0.0.6" {
		t.Error(got)
	}
	if got := acquire(t, p, "dave", 7, "10.0.0.3"); got != "10.0.0.5" {
		t.Error("dave got", got)
	}
	// Only bob's is left: it goes to whoever comes.
	if got := acquire(t, p, "erin", 8, ""); got != "10.0.0.3" {
		t.Error("erin got", got)
	}
	if got := acquire(t, p, "bob", 9, ""); got != "none" {
		t.Error("bob got", got)
	}
	if p.Release(netip.MustParseAddr("10.0.0.3"), 2) {
		t.Error("bob's old session released what is erin's now")
	}
}

func TestTheLeaseReleasedLongestAgoIsRecycled(t *testing.T) {
	p := mustNew(t, "10.0.0.0/29", "10.0.0.1")
	var addrs []netip.Addr
	for s := uint64(1); s <= 5; s++ {
		a, _ := p.Acquire(string(rune('a'+s)), s, netip.Addr{})
		addrs = append(addrs, a)
	}
	for _, i := range []int{2, 0, 4} {
		p.Release(addrs[i], uint64(i+1))
	}
	for n, want := range []int{2, 0, 4} {
		if a, ok := p.Acquire("new", uint64(10+n), netip.Addr{}); !ok || a != addrs[want] {
			t.Errorf("%d: got %s, want %s", n, a, addrs[want])
		}
	}
}

func TestWishesOutsideOfThePool(t *testing.T) {
	p := mustNew(t, "10.0.0.0/29", "10.0.0.1")
	for _, wish := range []string{"10.0.0.0", "10.0.0.7", "10.0.0.1", "10.0.0.8", "9.255.255.255", "fd00::1", "::ffff:10.0.0.5"} {
		if got := acquire(t, p, "x", 1, wish); got != "10.0.0.2" {
			t.Errorf("wish %s gave %s", wish, got)
		}
		p.Release(netip.MustParseAddr("10.0.0.2"), 1)
	}
}

func TestRestore(t *testing.T) {
	old := mustNew(t, "10.0.0.0/28", "10.0.0.1")
	acquire(t, old, "a", 1, "")
	acquire(t, old, "b", 2, "")
	acquire(t, old, "c", 3, "")
	old.Release(netip.MustParseAddr("10.0.0.3"), 2)
	p := mustNew(t, "10.0.0.0/29", "10.0.0.1")
	old.Leases(func(l Lease) {
		if !p.Restore(l) {
			t.Errorf("%v not restored", l)
		}
	})
	if _, inUse, remembered := p.Usage(); inUse != 2 || remembered != 1 {
		t.Errorf("in use %d, remembered %d", inUse, remembered)
	}
	if p.Restore(Lease{Address: netip.MustParseAddr("10.0.0.3"), Owner: "z"}) || p.Restore(Lease{Address: netip.MustParseAddr("10.0.0.1"), Owner: "z"}) ||
		p.Restore(Lease{Address: netip.MustParseAddr("10.0.0.9"), Owner: "z"}) {
		t.Error("a lease was restored that cannot be")
	}
	if got := acquire(t, p, "b", 9, ""); got != "10.0.0.3" {
		t.Error("b got", got)
	}
}

// Whatever happens: no address has two sessions, every leased address is one of the
// pool's, the counts are right, and a lease is found again by whom it belongs to.
func TestNeverTwoOwners(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.SampledFrom([]string{"10.1.0.0/28", "10.1.0.0/30", "10.1.0.0/31", "fd00::/124", "fd00::/64"}).Draw(t, "pool")
		pre := netip.MustParsePrefix(prefix)
		gateway := pre.Addr().Next()
		p, err := New(pre, gateway)
		if err != nil {
			t.Fatal(err)
		}
		inUse := map[netip.Addr]uint64{}
		var session uint64
		owners := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
		address := rapid.Custom(func(t *rapid.T) netip.Addr {
			a := pre.Addr()
			for range rapid.IntRange(0, 18).Draw(t, "step") {
				a = a.Next()
			}
			return a
		})
		t.Repeat(map[string]func(*rapid.T){
			"acquire": func(t *rapid.T) {
				session++
				size, used, _ := p.Usage()
				a, ok := p.Acquire(owners.Draw(t, "owner"), session, address.Draw(t, "wish"))
				if ok != (used < size) {
					t.Fatalf("%d of %d in use, acquired: %v", used, size, ok)
				}
				if !ok {
					return
				}
				if other := inUse[a]; other != 0 {
					t.Fatalf("%s has two sessions: %d and %d", a, other, session)
				}
				if !pre.Contains(a) || a == gateway {
					t.Fatalf("%s is not to be leased", a)
				}
				inUse[a] = session
			},
			"release": func(t *rapid.T) {
				a := address.Draw(t, "address")
				s := inUse[a]
				if p.Release(a, s+1) {
					t.Fatalf("%s was released by a session that does not have it", a)
				}
				if p.Release(a, s) != (s != 0) {
					t.Fatalf("release of %s by session %d", a, s)
				}
				delete(inUse, a)
			},
			"move to a new pool": func(t *rapid.T) {
				q, err := New(pre, gateway)
				if err != nil {
					t.Fatal(err)
				}
				p.Leases(func(l Lease) {
					if !q.Restore(l) {
						t.Fatalf("%v not restored", l)
					}
				})
				p = q
			},
			"": func(t *rapid.T) {
				size, used, remembered := p.Usage()
				if used != len(inUse) || used+remembered > size || used+remembered != len(p.leases) {
					t.Fatalf("size %d, in use %d of %d, remembered %d, leases %d", size, used, len(inUse), remembered, len(p.leases))
				}
				for a, l := range p.leases {
					if l.address != a || inUse[a] != l.session {
						t.Fatalf("%s has session %d, should have %d", a, l.session, inUse[a])
					}
				}
				owned, released := 0, 0
				for owner, l := range p.byOwner {
					for ; l != nil; l = l.next {
						owned++
						if l.owner != owner || p.leases[l.address] != l || l.session != 0 {
							t.Fatalf("lease %+v is in the list of %s", l, owner)
						}
					}
				}
				for l := p.oldest; l != nil; l = l.newer {
					released++
				}
				if owned != remembered || released != remembered {
					t.Fatalf("%d leases, %d owned, %d released, %d remembered", len(p.leases), owned, released, remembered)
				}
			},
		})
	})
}
