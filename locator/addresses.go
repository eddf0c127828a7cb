package locator

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// SetLocal replaces the local locators by the complete list of what the machine
// has (RFC 4555 §3.5). Pairs over an address that is gone are gone at once; if the
// current one is among them, traffic moves to the best other pair in the same
// instant. New addresses are probed. The same list again changes nothing.
func (e *Entry) SetLocal(now time.Time, ls []Local) {
	t := e.advance(now)
	idle := e.current == nil
	next := make([]*local, 0, len(ls))
	added := false
	for _, l := range e.sortedLocals(ls) {
		known := e.knownLocal(l)
		if known == nil {
			known = &local{addr: netip.AddrPortFrom(l.Addr.Unmap(), e.portOf(l)), scope: ScopeOf(l.Addr)}
			known.returns = e.returned(t, known.addr.Addr())
			added = true
		}
		if slices.Contains(next, known) {
			continue
		}
		if l.Interface != 0 {
			known.iface = l.Interface
		}
		known.name, known.metered, known.preference = l.Name, l.Metered, l.Preference
		next = append(next, known)
	}
	for _, l := range e.locals {
		if !slices.Contains(next, l) {
			e.departed(t, l.addr.Addr())
		}
	}
	e.locals = next
	e.rebuild(t, LocalLost)
	if added {
		e.stir(t, cond(idle, LocalAdded, e.alarm.cause))
	}
	e.settle(t)
}

// sortedLocals returns the list within the limit, the address in use and the most
// preferred ones first.
func (e *Entry) sortedLocals(ls []Local) []Local {
	out := slices.DeleteFunc(slices.Clone(ls), func(l Local) bool { return !l.Addr.IsValid() || l.Addr.IsMulticast() })
	unused := func(l Local) int {
		return worse(e.current == nil || e.current.local.addr.Addr() != l.Addr.Unmap())
	}
	slices.SortStableFunc(out, func(a, b Local) int {
		return cmp.Or(cmp.Compare(unused(a), unused(b)), cmp.Compare(b.Preference, a.Preference))
	})
	return out[:min(len(out), e.policy.MaxLocal)]
}

// knownLocal returns the record of a local address that the entry already has. An
// interface that was not known is learnt; another one makes another locator.
func (e *Entry) knownLocal(l Local) *local {
	for _, k := range e.locals {
		if k.addr.Addr() == l.Addr.Unmap() && (k.iface == l.Interface || k.iface == 0 || l.Interface == 0) &&
			(l.Port == 0 || l.Port == k.addr.Port()) {
			return k
		}
	}
	return nil
}

func (e *Entry) portOf(l Local) uint16 {
	if l.Port != 0 {
		return l.Port
	}
	return e.last.Local.Port()
}

// SetForeign replaces the foreign locators by the peer's complete list, most
// preferred first, which includes the address in use (RFC 4555 §3.6). Addresses
// that no unicast packet can go to, and more than Policy.MaxForeign, are left out.
func (e *Entry) SetForeign(now time.Time, fs []Foreign) {
	t := e.advance(now)
	idle := e.current == nil
	next := e.keptForeign(fs)
	limit := e.policy.MaxForeign
	if e.current != nil && listed(fs, e.current.foreign.addr) {
		limit-- // a place for the address in use
	}
	added := false
	for _, f := range fs {
		addr := plain(f.Addr)
		inUse := e.current != nil && e.current.foreign.addr == addr
		if !acceptable(addr) || len(next) >= limit && !inUse {
			e.refused++
			continue
		}
		if inUse {
			limit = e.policy.MaxForeign
		}
		known := e.knownForeign(addr)
		if slices.Contains(next, known) {
			continue
		}
		if known == nil {
			known = &foreign{addr: addr, scope: ScopeOf(addr.Addr()), activeAt: t}
			added = true
		}
		known.origin, known.unlisted = e.originOf(addr, f.Origin), false
		e.setLifetime(t, known, f.Lifetime)
		next = append(next, known)
	}
	e.foreigns = next
	e.rebuild(t, ForeignWithdrawn)
	if added {
		e.stir(t, cond(idle, ForeignAdded, e.alarm.cause))
	}
	e.settle(t)
}

// keptForeign returns the foreign locators that a list of the peer does not remove
// by leaving them out: on a responder the source of the last update, where traffic
// goes, and that of the one being checked. Updates move traffic, lists do not.
func (e *Entry) keptForeign(fs []Foreign) []*foreign {
	var kept []*foreign
	if e.role != Responder {
		return kept
	}
	for _, f := range e.foreigns {
		used := f == e.lastAddr || e.wanted != nil && e.wanted.foreign == f
		if used && !listed(fs, f.addr) {
			kept = append(kept, f)
		}
	}
	return kept
}

func listed(fs []Foreign, addr netip.AddrPort) bool {
	return slices.ContainsFunc(fs, func(f Foreign) bool { return plain(f.Addr) == addr })
}

func (e *Entry) knownForeign(addr netip.AddrPort) *foreign {
	for _, f := range e.foreigns {
		if f.addr == addr {
			return f
		}
	}
	return nil
}

// setLifetime takes over a lifetime. An address with an absolute end is not
// renewed by activity any more (Host Cache draft §2.1.3).
func (e *Entry) setLifetime(t instant, f *foreign, life Lifetime) {
	f.until, f.renew = never, life.Renew
	if !life.Until.IsZero() {
		f.until, f.renew = e.instantOf(life.Until), 0
	}
	if end := f.expiry(); f.expired && (end == never || end > t) {
		f.expired = false
	}
}

// rebuild makes the pairs of the present locators, keeping what is known of those
// that remain. If the current one does not, the cause says why.
func (e *Entry) rebuild(t instant, cause Cause) {
	// First see whether the current pair lives: a responder pairs up everything
	// only when it does not.
	if c := e.current; c != nil && !e.alive(c) {
		e.current = nil
		e.raise(t, cause)
	}
	var next []*path
	keep := func(p *path) {
		if len(next) < e.policy.MaxPairs && !slices.Contains(next, p) {
			next = append(next, p)
		}
	}
	if e.current != nil {
		keep(e.current)
	}
	if e.role == Responder && !e.searching() {
		for _, p := range e.paths {
			if e.alive(p) {
				keep(p)
			}
		}
	} else {
		e.pairUp(func(l *local, f *foreign) { keep(e.pathOf(t, l, f)) })
	}
	e.adopt(next)
}

// alive says whether both locators of a path are still there.
func (e *Entry) alive(p *path) bool {
	return slices.Contains(e.locals, p.local) && slices.Contains(e.foreigns, p.foreign)
}

// searching says whether a responder needs all pairs: its own address is gone.
func (e *Entry) searching() bool {
	return e.current == nil || e.alarm.adrift
}

// pairUp visits all pairs that can be, in the order of both lists together: first
// with first, first with second, second with first, and so on. So a limit cuts off
// what is last in both.
func (e *Entry) pairUp(visit func(*local, *foreign)) {
	for sum := 0; sum < len(e.locals)+len(e.foreigns)-1; sum++ {
		for i := max(0, sum-len(e.foreigns)+1); i <= min(sum, len(e.locals)-1); i++ {
			if l, f := e.locals[i], e.foreigns[sum-i]; pairable(l, f) {
				visit(l, f)
			}
		}
	}
}

// pathOf returns the record for two locators, a new one if there was none.
func (e *Entry) pathOf(t instant, l *local, f *foreign) *path {
	for _, p := range e.paths {
		if p.local == l && p.foreign == f {
			p.pair.Interface = l.iface
			return p
		}
	}
	p := e.newPath(t, l, f)
	p.why = LocalAdded
	if len(e.foreigns) > 0 && f.activeAt == t {
		p.why = ForeignAdded
	}
	if f.origin.authorised() {
		p.why = Authorized
	}
	return p
}

// adopt takes over a new set of paths and forgets everything about others.
func (e *Entry) adopt(next []*path) {
	e.paths = next
	if e.current != nil {
		e.last = e.current.pair
	}
	if !slices.Contains(next, e.wanted) {
		e.wanted = nil
	}
	if !slices.Contains(next, e.unmet) {
		e.unmet = nil
	}
	if !slices.Contains(next, e.previous) {
		e.previous = nil
	}
	e.rerank()
}

// ensure returns the record of a pair that the dialect uses, making locators for
// it where there are none: an observed source behind a NAT is one of the peer's
// addresses although no list names it (RFC 4621 §6.4). It returns nil for pairs
// that cannot be.
func (e *Entry) ensure(t instant, pair Pair, origin Origin) *path {
	if p := e.find(pair); p != nil {
		return p
	}
	pair = plainPair(pair)
	l := e.knownLocal(Local{Addr: pair.Local.Addr(), Interface: pair.Interface, Port: pair.Local.Port()})
	if l == nil {
		l = &local{addr: pair.Local, iface: pair.Interface, scope: ScopeOf(pair.Local.Addr())}
	}
	f := e.knownForeign(pair.Remote)
	if f == nil {
		f = &foreign{addr: pair.Remote, scope: ScopeOf(pair.Remote.Addr()), origin: e.originOf(pair.Remote, origin),
			unlisted: origin == Observed, activeAt: t, renew: DefaultLifetime}
	}
	if !acceptable(f.addr) || !pairable(l, f) || !e.admit(l, f) {
		e.refused++
		return nil
	}
	p := e.newPath(t, l, f)
	if l.iface != pair.Interface {
		p.pair.Interface = pair.Interface
	}
	e.paths = append(e.paths, p)
	e.rerank()
	return p
}

// maxObserved bounds the addresses that no list named, beyond Policy.MaxForeign: a
// NAT in front of the peer may give it a new one at any time.
const maxObserved = 4

// admit makes room for the locators of a new pair within the limits, at the cost
// of what was observed and is not in use. It reports whether that succeeded.
func (e *Entry) admit(l *local, f *foreign) bool {
	if len(e.paths) >= e.policy.MaxPairs && !e.forget(func(p *path) bool { return true }) {
		return false
	}
	if !slices.Contains(e.foreigns, f) {
		observed := 0
		for _, g := range e.foreigns {
			observed += worse(g.unlisted)
		}
		if observed >= maxObserved && !e.dropObserved() {
			return false
		}
		e.foreigns = append(e.foreigns, f)
	}
	if !slices.Contains(e.locals, l) {
		if len(e.locals) >= e.policy.MaxLocal {
			return false
		}
		e.locals = append(e.locals, l)
	}
	return true
}

// forget drops the path that was not heard for the longest time, of those that
// match and are not in use.
func (e *Entry) forget(match func(*path) bool) bool {
	var oldest *path
	for _, p := range e.paths {
		if p != e.current && p != e.wanted && match(p) && (oldest == nil || p.heardAt < oldest.heardAt) {
			oldest = p
		}
	}
	if oldest == nil {
		return false
	}
	e.adopt(slices.DeleteFunc(slices.Clone(e.paths), func(p *path) bool { return p == oldest }))
	return true
}

// dropObserved drops the observed foreign locator that was inactive for longest.
func (e *Entry) dropObserved() bool {
	var oldest *foreign
	for _, f := range e.foreigns {
		used := e.current != nil && e.current.foreign == f || e.wanted != nil && e.wanted.foreign == f
		if f.unlisted && !used && (oldest == nil || f.activeAt < oldest.activeAt) {
			oldest = f
		}
	}
	if oldest == nil {
		return false
	}
	e.drop(oldest)
	return true
}

// drop removes a foreign locator and its paths.
func (e *Entry) drop(f *foreign) {
	e.foreigns = slices.DeleteFunc(slices.Clone(e.foreigns), func(g *foreign) bool { return g == f })
	e.adopt(slices.DeleteFunc(slices.Clone(e.paths), func(p *path) bool { return p.foreign == f }))
}

// expire ends lifetimes. Expired addresses are remembered for a while, so that
// they revive when the peer still uses them (Host Cache draft §2.1.3).
func (e *Entry) expire(t instant) {
	changed := false
	for i := 0; i < len(e.foreigns); i++ {
		f := e.foreigns[i]
		if end := e.endOf(f); end == never || end > t {
			continue
		}
		if f.expired {
			e.drop(f)
			i--
			continue
		}
		f.expired, f.endedAt, changed = true, t, true
	}
	if !changed {
		return
	}
	if e.current != nil && !e.current.usable() {
		e.current.become(t, Failed, Expired)
		e.current = nil
		e.raise(t, Expired)
	}
	e.rerank()
}

// endOf returns when the present stage of a foreign locator ends, its life or its
// remembrance, or never. Traffic to an address is activity too, so what activity
// renews does not end while it is in use.
func (e *Entry) endOf(f *foreign) instant {
	switch {
	case f.expired:
		return f.endedAt.add(MaxExpiredLifetime)
	case f.renew > 0 && e.current != nil && e.current.foreign == f:
		return never
	}
	return f.expiry()
}

// absence remembers a local address that went away, to tell a flapping link from a
// new one.
type absence struct {
	addr    netip.Addr
	at      instant
	returns int
}

const (
	// maxAbsences bounds how many addresses are remembered.
	maxAbsences = 4
	// flapWindow is how soon an address has to come back to count as flapping.
	flapWindow = 30 * time.Second
)

func (e *Entry) departed(t instant, addr netip.Addr) {
	returns := 0
	for _, l := range e.locals {
		if l.addr.Addr() == addr {
			returns = l.returns
		}
	}
	e.absent = slices.DeleteFunc(e.absent, func(a absence) bool { return a.addr == addr })
	e.absent = append(e.absent, absence{addr: addr, at: t, returns: returns})
	if len(e.absent) > maxAbsences {
		e.absent = slices.Delete(e.absent, 0, 1)
	}
}

// returned says how often an address has come back within the flap window. The
// first return costs nothing.
func (e *Entry) returned(t instant, addr netip.Addr) int {
	for _, a := range e.absent {
		if a.addr == addr && t.since(a.at) < flapWindow {
			return a.returns + 1
		}
	}
	return 0
}
