package server

import (
	"net/netip"
	"sync"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/server/pool"
)

// session is what the daemon keeps of a session, from the moment the peer has proved
// who it is. Everything else the engine knows; this should stay small.
type session struct {
	id          ike.SessionID
	peer        auth.Identity
	owner       string              // peer's key: of its leases, and of its other sessions
	certificate certificateKey      // zero with a shared key
	sharedKey   auth.KeyFingerprint // zero with a certificate
	addresses   []netip.Addr
	closing     reason.Code // why the daemon ends it, if it does
	up          bool
	moves       *moves     // nil until it moves
	after       []func()   // what waits for its end
	final       *esp.Stats // what it carried, once the data path has forgotten it
}

// table is the one session table. It is safe for use by several goroutines.
type table struct {
	mu       sync.Mutex
	sessions map[ike.SessionID]*session
	byOwner  map[string][]*session
}

func newTable() *table {
	return &table{sessions: map[ike.SessionID]*session{}, byOwner: map[string][]*session{}}
}

// add enters a session and returns the identifiers of those that its owner has
// already.
func (t *table) add(s *session) (rivals []ike.SessionID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.byOwner[s.owner] {
		rivals = append(rivals, r.id)
	}
	t.sessions[s.id] = s
	t.byOwner[s.owner] = append(t.byOwner[s.owner], s)
	return rivals
}

// company is what an identity has besides one session.
type company struct {
	live      int  // sessions that are not about to end
	addressed bool // one of them has an inner address
}

// others describes the other sessions of an owner.
func (t *table) others(owner string, than ike.SessionID) (c company) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.byOwner[owner] {
		if s.id == than || s.closing != "" {
			continue
		}
		c.live++
		c.addressed = c.addressed || len(s.addresses) > 0
	}
	return c
}

// remove takes a session out and returns it; nil if there is none.
func (t *table) remove(id ike.SessionID) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sessions[id]
	if s == nil {
		return nil
	}
	delete(t.sessions, id)
	list := t.byOwner[s.owner]
	for i, other := range list {
		if other != s {
			continue
		}
		list[i] = list[len(list)-1]
		list[len(list)-1] = nil
		list = list[:len(list)-1]
		break
	}
	if len(list) == 0 {
		delete(t.byOwner, s.owner)
	} else {
		t.byOwner[s.owner] = list
	}
	return s
}

// afterEnd calls f when a session has ended, at once if there is no such session. It is
// called without the lock.
func (t *table) afterEnd(id ike.SessionID, f func()) {
	t.mu.Lock()
	if s := t.sessions[id]; s != nil {
		s.after = append(s.after, f)
		f = nil
	}
	t.mu.Unlock()
	if f != nil {
		f()
	}
}

// with calls f with a session under the lock; it is false if there is none.
func (t *table) with(id ike.SessionID, f func(*session)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sessions[id]
	if s == nil {
		return false
	}
	f(s)
	return true
}

// giveWay notes that a session ends to make room, if suits says that this helps. It is
// false if there is no such session, or if it is ending already.
func (t *table) giveWay(id ike.SessionID, suits func(*session) bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sessions[id]
	if s == nil || s.closing != "" || !suits(s) {
		return false
	}
	s.closing = reason.PeerDead
	return true
}

// matching returns the identifiers of the sessions for which f is true.
func (t *table) matching(f func(*session) bool) []ike.SessionID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []ike.SessionID
	for id, s := range t.sessions {
		if f(s) {
			out = append(out, id)
		}
	}
	return out
}

// refused returns the sessions that settings do not admit any more, and why.
func (t *table) refused(by *Settings) map[ike.SessionID]reason.Code {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[ike.SessionID]reason.Code{}
	for id, s := range t.sessions {
		if why, _ := by.refusal(s); why != "" {
			out[id] = why
		}
	}
	return out
}

// held calls f with the inner addresses of all sessions. As long as it runs no session
// gets addresses, and none leaves the table.
func (t *table) held(f func([]pool.Lease)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []pool.Lease
	for id, s := range t.sessions {
		for _, a := range s.addresses {
			out = append(out, pool.Lease{Address: a, Owner: s.owner, Session: uint64(id)})
		}
	}
	f(out)
}

// outside returns the addresses in use that no prefix contains: after a reload with
// other pools their sessions live on.
func (t *table) outside(prefixes []netip.Prefix) []netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []netip.Addr
	for _, s := range t.sessions {
		for _, a := range s.addresses {
			if !within(prefixes, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

func within(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// countingPath is a data path that tells the table what a session has carried in all
// before it forgets it.
type countingPath struct {
	esp.DataPath
	table *table
}

// RemoveHost reads the counters, then removes.
func (p countingPath) RemoveHost(id esp.HostID) error {
	if stats, err := p.QueryHost(id); err == nil {
		p.table.with(ike.SessionID(id), func(s *session) { s.final = &stats })
	}
	return p.DataPath.RemoveHost(id)
}

// sentOctets tells engines how much the data path has sent to a session's host.
func sentOctets(dp esp.DataPath) func(ike.SessionID) uint64 {
	return func(id ike.SessionID) uint64 {
		stats, err := dp.QueryHost(esp.HostID(id))
		if err != nil {
			return 0
		}
		return stats.OutBytes
	}
}

// lastInbound tells engines when the data path last heard of a session's host.
func lastInbound(dp esp.DataPath) func(ike.SessionID) time.Time {
	return func(id ike.SessionID) time.Time {
		stats, err := dp.QueryHost(esp.HostID(id))
		if err != nil {
			return time.Time{}
		}
		return stats.LastIn
	}
}
