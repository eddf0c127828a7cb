package locator

import (
	"slices"
	"time"
)

// PairInfo is a snapshot of what is known about one pair.
type PairInfo struct {
	Pair         Pair
	Name         string // of the interface
	Current      bool
	Standby      bool // kept in hot standby
	Metered      bool
	Verification Verification
	Reachability Reachability
	// Why says why the pair is reachable or not, and Since since when. Chosen says
	// why the current pair became current, and Moved when.
	Why            Cause
	Since          time.Time
	Chosen         Cause
	Moved          time.Time
	RTT, RTTVar    time.Duration // smoothed, zero if never measured
	NAT            NAT
	Keepalive      time.Duration // interval of keepalives while on standby
	LastHeard      time.Time
	LastAnswered   time.Time
	LastProbe      time.Time
	LastVerified   time.Time
	Probes         uint32 // sent
	Answers        uint32
	Keepalives     uint32
	Packets        uint64 // heard
	Failures       int    // times it failed while current, lately
	Expired        bool
	Held           time.Time // not preferred again until then, zero if it may be
	PolicyPlace    int       // 0 is the best; equal pairs have the same place
	ForeignProven  bool      // the peer's address has been proven or is authorised
	ForeignOrigin  Origin
	LocalScope     Scope
	ForeignScope   Scope
	LostMappings   int // times a NAT forgot us
	UnprovenProbes int // packets to the address that it has not answered yet
}

// Pairs returns what is known about each pair, in a stable order.
func (e *Entry) Pairs() []PairInfo {
	ranks := make([]rank, 0, len(e.paths))
	for _, p := range e.paths {
		ranks = append(ranks, p.rank)
	}
	slices.Sort(ranks)
	ranks = slices.Compact(ranks)
	out := make([]PairInfo, 0, len(e.paths))
	for _, p := range e.paths {
		info := e.info(p)
		info.PolicyPlace, _ = slices.BinarySearch(ranks, p.rank)
		out = append(out, info)
	}
	slices.SortStableFunc(out, func(a, b PairInfo) int { return comparePairs(a.Pair, b.Pair) })
	return out
}

func (e *Entry) info(p *path) PairInfo {
	info := PairInfo{
		Pair: p.pair, Name: p.local.name, Current: p == e.current, Standby: p.hot, Metered: p.local.metered,
		Verification: p.verification, Reachability: p.reach, Why: p.why, Since: e.timeOf(p.sinceAt),
		RTT: p.srtt, RTTVar: p.rttvar, NAT: p.nat, Keepalive: e.interval(p),
		LastHeard: e.timeOf(p.heardAt), LastAnswered: e.timeOf(p.answeredAt), LastProbe: e.timeOf(p.probedAt), LastVerified: e.timeOf(p.verifiedAt),
		Probes: p.probes, Answers: p.answers, Keepalives: p.keepalives, Packets: p.heardCount,
		Failures: int(p.failures), Expired: p.foreign.expired,
		ForeignProven: e.proven(p.foreign), ForeignOrigin: p.foreign.origin, LocalScope: p.local.scope, ForeignScope: p.foreign.scope,
		LostMappings: int(p.mappingLost), UnprovenProbes: p.foreign.spent,
	}
	if info.Current {
		info.Chosen, info.Moved = e.chosen, e.timeOf(max(e.movedAt, 1))
	}
	if held := e.heldUntil(p); held > e.now && !info.Current {
		info.Held = e.timeOf(held)
	}
	return info
}

func comparePairs(a, b Pair) int {
	if c := a.Local.Compare(b.Local); c != 0 {
		return c
	}
	if c := a.Interface - b.Interface; c != 0 {
		return c
	}
	return a.Remote.Compare(b.Remote)
}

// Locators returns the locators of both sides.
func (e *Entry) Locators() (locals, foreigns []Locator) {
	for _, l := range e.locals {
		locals = append(locals, Locator{Addr: l.addr, Interface: l.iface, Name: l.name, Scope: l.scope,
			Origin: Configured, Metered: l.metered, Preference: l.preference})
	}
	for _, f := range e.foreigns {
		foreigns = append(foreigns, Locator{Addr: f.addr, Scope: f.scope, Origin: f.origin, Expired: f.expired,
			Lifetime: Lifetime{Until: e.timeOf(f.until), Renew: f.renew}, Proven: e.timeOf(f.provenAt)})
	}
	return locals, foreigns
}

// Health returns the state of the current pair and why it is so: Operational only
// if nothing speaks against it. Without a current pair it is Failed.
func (e *Entry) Health() (Reachability, Cause) {
	switch {
	case e.current == nil && len(e.locals) == 0:
		return Failed, NoLocal
	case e.current == nil:
		return Failed, e.alarm.cause
	case e.current.reach == Operational && !e.alarm.on:
		return Operational, e.chosen
	case e.current.reach == Operational:
		return Failing, e.alarm.cause
	}
	return e.current.reach, e.alarm.cause
}

// Verification returns the state of verification of a pair.
func (e *Entry) Verification(pair Pair) Verification {
	if p := e.find(pair); p != nil {
		return p.verification
	}
	return Unverified
}

// Ignored returns how many addresses and pairs of the peer were left out because
// of limits or because no packet can go there.
func (e *Entry) Ignored() int { return e.refused }
