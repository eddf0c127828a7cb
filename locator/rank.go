package locator

import (
	"cmp"
	glob "path"
	"slices"
)

// rank is the place of a pair by policy, smaller is better: one octet for each
// criterion, the most important one highest. Policy is data; this is all the code
// it takes.
type rank uint64

// rankPath computes the ranks of a path. levels holds the distinct preferences of
// the local locators, best first.
func (e *Entry) rankPath(p *path, levels []int) {
	p.rank, p.atBest = 0, 0
	for _, c := range e.policy.Order {
		place := rank(min(e.criterion(c, p, levels), 255))
		p.rank, p.atBest = p.rank<<8|place, p.atBest<<8|place
		if c == ByNAT && p.nat == NATUnknown {
			p.atBest--
		}
	}
}

// better says whether policy prefers a pair to the current one. Only a NAT that is
// known to be there makes a pair without one better: leaving because nobody has
// looked would mean going back as soon as somebody does.
func (e *Entry) better(p *path) bool { return p.rank < e.current.atBest }

func (e *Entry) criterion(c Criterion, p *path, levels []int) int {
	switch c {
	case ByInterface:
		return e.interfacePlace(p.local.name)
	case ByMetered:
		return worse(p.local.metered)
	case ByPreference:
		return slices.Index(levels, p.local.preference)
	case ByFamily:
		v4 := p.foreign.addr.Addr().Is4()
		return worse(e.policy.Family == PreferIPv4 && !v4 || e.policy.Family == PreferIPv6 && v4)
	case ByNAT:
		return worse(p.nat != NATAbsent)
	case ByForeign:
		return slices.Index(e.foreigns, p.foreign)
	}
	return 0
}

func worse(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func (e *Entry) interfacePlace(name string) int {
	for i, pattern := range e.policy.Interfaces {
		if ok, _ := glob.Match(pattern, name); ok {
			return i
		}
	}
	return len(e.policy.Interfaces)
}

// rerank computes ranks and the set of hot standby pairs anew. It is called when
// anything changes that they depend on, which is rare.
func (e *Entry) rerank() {
	var levels []int
	for _, l := range e.locals {
		if !slices.Contains(levels, l.preference) {
			levels = append(levels, l.preference)
		}
	}
	slices.SortFunc(levels, func(a, b int) int { return cmp.Compare(b, a) })
	for _, p := range e.paths {
		e.rankPath(p, levels)
		p.hot = false
	}
	if e.policy.Standby == Hot && e.role == Initiator {
		e.chooseHot()
	}
}

// chooseHot marks the pairs that are kept in hot standby: first the best one over
// each other interface or local address, since links fail more often than
// gateways, then the best one to each other address of the peer, then the rest.
func (e *Entry) chooseHot() {
	order := slices.Clone(e.paths)
	slices.SortStableFunc(order, func(a, b *path) int {
		return cmp.Or(cmp.Compare(worse(a.reach == Failed), worse(b.reach == Failed)), cmp.Compare(a.rank, b.rank))
	})
	left := e.policy.MaxStandby
	mark := func(p *path) {
		if left > 0 && !p.hot && p != e.current && p.usable() {
			p.hot = true
			left--
		}
	}
	covered := func(same func(p, q *path) bool, p *path) bool {
		return slices.ContainsFunc(order, func(q *path) bool { return (q.hot || q == e.current) && same(p, q) })
	}
	for _, p := range order {
		if !covered(func(p, q *path) bool { return p.local == q.local }, p) {
			mark(p)
		}
	}
	for _, p := range order {
		if !covered(func(p, q *path) bool { return p.foreign == q.foreign }, p) {
			mark(p)
		}
	}
	for _, p := range order {
		mark(p)
	}
}
