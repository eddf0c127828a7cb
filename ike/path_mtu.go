package ike

import (
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/ike/pathmtu"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// What the paths of a session carry towards the peer: each side finds out its own
// direction, with the probes of mtu_probe.go. Known sizes are remembered for each pair
// of addresses; they go to the data path with the pair in use.

const (
	// maxSearches bounds the paths that a session remembers.
	maxSearches = 8
	// searchDelay is for how long a responder lets the initiator come to rest.
	searchDelay = 300 * time.Millisecond
	// worthwhile is how many octets sent make a path worth confirming: more than
	// keepalives and a prompt, less than the first flight of a transfer that stalls.
	worthwhile = 8 << 10
	// safeMTU is assumed on a path that the session moves to before anything is known
	// of it: what goes on there must not stall. A first path is left open instead, since
	// connections that begin meanwhile would stay with small segments.
	safeMTU = 1280
	// The wait for an answer to a probe, by the round trip (RFC 8085 §3.1.1).
	firstWait    = 500 * time.Millisecond // round trip unknown
	minWait      = 50 * time.Millisecond
	maxWait      = 3 * time.Second
	waitTrips    = 3
	rttSmoothing = 4
)

// mtuKey names a path. Ports do not matter: a NAT that changes them does not change it.
type mtuKey struct {
	local, remote netip.Addr
	iface         int
}

func keyOf(p locator.Pair) mtuKey {
	return mtuKey{p.Local.Addr().Unmap(), p.Remote.Addr().Unmap(), p.Interface}
}

// mtuRecord is what is known about one path.
type mtuRecord struct {
	key    mtuKey
	search *pathmtu.Search
	safe   int // assumed while nothing is known, zero for nothing
	rtt    time.Duration
	sent   uint64 // octets when it was confirmed last
	used   uint64 // counts moves: the smallest is forgotten first
}

func (r *mtuRecord) mtu() int {
	if mtu := r.search.MTU(); mtu > 0 {
		return mtu
	}
	return r.safe
}

// sample takes a measured round trip. A shorter one counts at once.
func (r *mtuRecord) sample(rtt time.Duration) {
	if r.rtt == 0 || rtt < r.rtt {
		r.rtt = max(rtt, 1)
		return
	}
	r.rtt += (rtt - r.rtt) / rttSmoothing
}

func (r *mtuRecord) wait() time.Duration {
	if r.rtt == 0 {
		return firstWait
	}
	return min(max(waitTrips*r.rtt, minWait), maxWait)
}

// pathMTU is path MTU discovery in one session.
type pathMTU struct {
	session *Session
	records []*mtuRecord
	current *mtuRecord // of the pair that ESP uses
	moves   uint64
	rtt     time.Duration // measured last, on whatever path
	probe   *mtuProbe     // in flight, or waiting for more answers
	alarm   bool          // the next probe is about traffic that goes unanswered
}

// Only peers of our own kind are asked: a probe that is too large is repeated in
// fragments, and strongSwan with mediation drops every fragmented INFORMATIONAL request
// (process_message_job.c takes it for a connectivity check), so that nothing else could
// be sent after it.
func (m *pathMTU) enabled() bool {
	s := m.session
	return s.nat.open && s.policy.DiscoverPathMTU && s.hosted && s.sa != nil && s.sa.fragmentation
}

// of is what is known about a path, zero for nothing.
func (m *pathMTU) of(pair locator.Pair) int {
	if !m.session.policy.DiscoverPathMTU {
		return m.session.policy.PathMTU
	}
	if r := m.find(keyOf(pair)); r != nil {
		return r.mtu()
	}
	return 0
}

func (m *pathMTU) find(k mtuKey) *mtuRecord {
	for _, r := range m.records {
		if r.key == k {
			return r
		}
	}
	return nil
}

// started begins with the path that the session came up over.
func (m *pathMTU) started(now time.Time, pair locator.Pair) {
	if !m.enabled() {
		return
	}
	if m.session.role == Responder {
		now = now.Add(searchDelay)
	}
	m.current = m.add(now, pair)
	m.current.rtt = m.rtt
}

// moved goes on with the path that ESP moves to. What was known about it before may
// not hold any more and is tried again.
func (m *pathMTU) moved(pair locator.Pair) {
	if !m.enabled() || m.current == nil || m.current.key == keyOf(pair) {
		return
	}
	soon := m.session.up
	before := m.current.mtu()
	m.current = m.find(keyOf(pair))
	if m.current == nil {
		m.current = m.add(soon, pair)
		m.current.safe = safeMTU
		if before != 0 {
			m.current.safe = min(safeMTU, before)
		}
	} else {
		m.current.search.Recheck(soon)
	}
	m.moves++
	m.current.used = m.moves
}

// add makes the record of a path, in place of the one that was out of use for longest.
func (m *pathMTU) add(at time.Time, pair locator.Pair) *mtuRecord {
	least, most := pathmtu.Min4, m.session.policy.MaxPathMTU
	if pair.Remote.Addr().Unmap().Is6() {
		least = pathmtu.Min6
	}
	if most == 0 {
		most = DefaultMaxPathMTU
	}
	// The same request has to fit into fragments of the smallest size as well; half of what
	// a message may have leaves room for their headers.
	most = min(most, least*maxFragments/2)
	r := &mtuRecord{key: keyOf(pair), search: pathmtu.New(at, least, most)}
	if len(m.records) < maxSearches {
		m.records = append(m.records, r)
		return r
	}
	oldest := 0
	for i, o := range m.records {
		if o.used < m.records[oldest].used {
			oldest = i
		}
	}
	m.records[oldest] = r
	return r
}

// publish tells the data path what the path in use carries.
func (m *pathMTU) publish() {
	s := m.session
	before, mtu := s.carried.MTU, m.current.mtu()
	if before == mtu || !s.hosted {
		return
	}
	s.carried.MTU = mtu
	if keyOf(s.path.Pair) == m.current.key {
		s.path.MTU = mtu
	}
	s.Act(MoveHost{Session: s.id, Path: s.carried})
	s.Act(PathMTUFound{Session: s.id, Pair: s.carried.Pair, Before: before, MTU: mtu})
}

// deadline says when tick has something to do, zero for never. Probes wait until
// nothing else is under way, and while IKE and ESP go different ways, which ends when
// an address has been verified.
func (m *pathMTU) deadline() time.Time {
	s := m.session
	switch {
	case m.current == nil || !m.enabled():
		return time.Time{}
	case m.probe != nil:
		return m.probe.settleBy
	case s.sa.current != nil || len(s.sa.queue) > 0 || m.current.key != keyOf(s.path.Pair):
		return time.Time{}
	}
	if at := m.current.search.Due(); at.After(s.up) {
		return at
	}
	return s.up
}

func (m *pathMTU) tick(now time.Time) {
	if m.probe != nil {
		m.settle(now)
		return
	}
	s, r := m.session, m.current
	sizes := r.search.Begin(now, m.used(r))
	if len(sizes) == 0 {
		return
	}
	m.probe = &mtuProbe{record: r, pair: s.path.Pair, sizes: sizes, alarm: m.alarm}
	m.alarm = false
	s.sa.enqueue(now, m.probe)
}

// used says whether the path has carried enough to be confirmed.
func (m *pathMTU) used(r *mtuRecord) bool {
	f := m.session.engine.cfg.Sent
	if f == nil {
		return true
	}
	sent := f(m.session.id)
	if sent-r.sent < worthwhile {
		return false
	}
	r.sent = sent
	return true
}

// suspect is traffic that goes unanswered.
func (m *pathMTU) suspect(now time.Time) {
	if m.current != nil && m.enabled() && m.current.search.Suspect(now) {
		m.alarm = true
	}
}

// hinted looks whether the peer's request is a probe with the word that its traffic
// goes unanswered: what vanishes may be what we send.
func (m *pathMTU) hinted(now time.Time, x *Exchange) {
	n := x.Notify(message.PathMTUPadding)
	if n == nil || len(n.Data) == 0 || n.Data[0] != probeAlarm || m.current == nil || !m.enabled() {
		return
	}
	m.current.search.Suspect(now)
}

// heard is a response. It measures the round trip, and may be an answer to a probe
// beside the one that ended it.
func (m *pathMTU) heard(now time.Time, sa *ikeSA, pair locator.Pair, fresh bool) {
	if p := m.probe; !fresh && p != nil && !p.settleBy.IsZero() && p.sa == sa && keyOf(pair) == p.record.key {
		p.answers++
		if p.proven() == p.sizes[0] {
			m.settle(now)
		}
		return
	}
	if !fresh || sa.out == nil || sa.out.sent != 1 {
		return
	}
	m.rtt = now.Sub(sa.out.sentAt)
	if r := m.find(keyOf(pair)); r != nil {
		r.sample(m.rtt)
	}
}

// asked is the first IKE_AUTH request: the time since IKE_SA_INIT is all that a
// responder knows of the round trip.
func (m *pathMTU) asked(now time.Time) {
	if m.rtt == 0 {
		m.rtt = min(now.Sub(m.session.started), firstWait/waitTrips)
	}
}

// settle draws the conclusion from a probe.
func (m *pathMTU) settle(now time.Time) {
	p := m.probe
	m.probe = nil
	size := p.proven()
	if size == 0 {
		p.record.search.TooLarge(now)
	} else {
		p.record.search.Answered(now, size, p.packet(size))
	}
	m.publish()
}

// void ends a probe that tells nothing.
func (m *pathMTU) void(now time.Time) {
	if p := m.probe; p != nil {
		m.probe = nil
		p.record.search.Void(now)
	}
}

// PathMTU is the largest IP packet that a pair is known to carry towards the peer, zero
// if nobody knows.
func (s *Session) PathMTU(pair locator.Pair) int { return s.mtu.of(pair) }
