package client

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Times of RFC 8305.
const (
	// attemptDelay is how long an address has the gateway for itself before the next
	// one is asked too (§5: Connection Attempt Delay).
	attemptDelay = 250 * time.Millisecond
	// resolutionDelay is how long addresses of the other family wait for those of the
	// preferred one (§3: Resolution Delay).
	resolutionDelay = 50 * time.Millisecond
	// maxCandidates bounds how many addresses are asked for one session.
	maxCandidates = 16
)

// candidate is one address to ask, and the entry of the profile that it comes from.
type candidate struct {
	server string
	addr   netip.Addr
}

// search is the look-up of a profile's entries while it goes on, and the order in which
// what it finds is asked: the entries as the profile has them, in each the families by
// turns, first the address that worked the last time.
type search struct {
	changed chan struct{} // a token: more is known

	mu      sync.Mutex
	entries []*entry
}

// entry is one host name or address of the profile.
type entry struct {
	server string
	began  time.Time
	found  [len(families)]struct {
		done  bool
		addrs []netip.Addr
		err   error
	}
	firstAt time.Time // of the first addresses found
	known   []netip.Addr
	worked  netip.Addr
}

// literal completes an entry that is an address.
func (e *entry) literal(a netip.Addr) {
	for i := range e.found {
		e.found[i].done = true
	}
	i := slices.Index(families[:], "ip6")
	if a.Is4() {
		i = slices.Index(families[:], "ip4")
	}
	e.found[i].addrs = []netip.Addr{a}
	e.firstAt = e.began
}

// found takes the result of one look-up and returns all addresses once both are done.
func (s *search) found(e *entry, family int, addrs []netip.Addr, err error) (all []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &e.found[family]
	f.done, f.err = true, err
	for _, a := range addrs {
		if a = a.Unmap(); !slices.Contains(f.addrs, a) {
			f.addrs = append(f.addrs, a)
		}
	}
	if len(f.addrs) > 0 && e.firstAt.IsZero() {
		e.firstAt = time.Now()
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
	if e.pending() {
		return nil
	}
	return e.interleaved()
}

// pending says whether a look-up is not over.
func (e *entry) pending() bool { return !e.found[0].done || !e.found[1].done }

// expectsBetter says whether the look-up that is to bring the first address is not over:
// that of IPv6, or of the family that worked the last time.
func (e *entry) expectsBetter() bool {
	if e.worked.IsValid() && e.worked.Is4() {
		return !e.found[slices.Index(families[:], "ip4")].done
	}
	return !e.found[slices.Index(families[:], "ip6")].done
}

// interleaved are the addresses found so far, by turns of the families (RFC 8305 §4).
func (e *entry) interleaved() []netip.Addr {
	var out []netip.Addr
	a, b := e.found[0].addrs, e.found[1].addrs
	for i := range max(len(a), len(b)) {
		if i < len(a) {
			out = append(out, a[i])
		}
		if i < len(b) {
			out = append(out, b[i])
		}
	}
	return out
}

// ordered are the addresses to ask. Those of an earlier look-up serve when there is no
// answer for a while, or none at all.
func (e *entry) ordered(now time.Time) []netip.Addr {
	out := e.interleaved()
	if len(out) == 0 && (!e.pending() || now.Sub(e.began) >= attemptDelay) {
		out = slices.Clone(e.known)
	}
	if i := slices.Index(out, e.worked); i > 0 {
		out = slices.Insert(slices.Delete(out, i, i+1), 0, e.worked)
	}
	return out
}

// next returns the address to ask next, leaving out those to skip. When something better
// may be found within moments, it says until when to wait for it; zero means until the
// look-up tells more.
func (s *search) next(now time.Time, skip func(candidate) bool) (c candidate, ok bool, wait time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		addrs := e.ordered(now)
		for i, a := range addrs {
			if skip(candidate{e.server, a}) {
				continue
			}
			if i == 0 && e.expectsBetter() && !e.firstAt.IsZero() && a != e.worked {
				wait = later(wait, e.firstAt.Add(resolutionDelay))
			}
			if wait.After(now) {
				return c, false, wait
			}
			return candidate{e.server, a}, true, time.Time{}
		}
		if len(addrs) == 0 && e.pending() {
			wait = later(wait, e.began.Add(attemptDelay))
		}
	}
	if !wait.After(now) {
		wait = time.Time{}
	}
	return c, false, wait
}

// over says whether nothing more will be found.
func (s *search) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(s.entries, (*entry).pending)
}

// problem says which entries have no address and why, "" if all have.
func (s *search) problem() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, e := range s.entries {
		if len(e.interleaved()) > 0 {
			continue
		}
		err := e.found[1].err
		if err == nil {
			err = e.found[0].err
		}
		out = append(out, describe(e.server, err))
	}
	return strings.Join(out, "; ")
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
