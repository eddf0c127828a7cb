package client

import (
	"context"
	"net/netip"
	"path"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/netmon"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/mobike"
)

// uplinks are the addresses that this machine can reach the network from, and the
// extension that lets sessions move among them (RFC 4555).
type uplinks struct {
	extension *mobike.Extension
	policy    locator.Policy
	metered   []string // patterns
	addresses atomic.Pointer[[]locator.Local]
	changed   chan struct{} // a token: they are others now
	again     chan struct{} // a token: look again
	woken     atomic.Bool   // the next look is after a sleep
}

func newUplinks(r profile.Roaming) *uplinks {
	u := &uplinks{policy: r.Policy(), metered: r.Metered, changed: make(chan struct{}, 1), again: make(chan struct{}, 1)}
	u.addresses.Store(&[]locator.Local{})
	u.extension = mobike.New(mobike.Config{Policy: u.policy, Announce: true, Local: u.list})
	return u
}

func (u *uplinks) list() []locator.Local { return *u.addresses.Load() }

func (u *uplinks) set(now []locator.Local) {
	if before := u.addresses.Swap(&now); !slices.Equal(*before, now) {
		u.tell()
	}
}

func (u *uplinks) tell() {
	select {
	case u.changed <- struct{}{}:
	default:
	}
}

// mark marks the addresses of interfaces that the user pays for by traffic.
func (u *uplinks) mark(ls []locator.Local) []locator.Local {
	for i := range ls {
		ls[i].Metered = slices.ContainsFunc(u.metered, func(pattern string) bool {
			ok, _ := path.Match(pattern, ls[i].Name)
			return ok
		})
	}
	return ls
}

// roam makes a policy for sessions that move.
func (u *uplinks) roam(p *ike.Policy) *ike.Policy {
	q := *p
	q.Extensions = append([]ike.Extension{u.extension}, p.Extensions...)
	q.UnansweredAfter = u.policy.SuspectAfter
	return &q
}

// uplinksThat says what is an uplink: what leads nowhere is none, and neither is the
// tunnel itself.
func (s *stack) uplinksThat() netmon.Config {
	return netmon.Config{
		Log: s.log, NeedRoute: true, Ignore: func(name string) bool { return name == s.name },
		Again: s.uplinks.again, Stirred: func() { s.stirred(locator.NetworkChanged) },
	}
}

// firstUplinks reads which uplinks there are before the first session begins: it is not
// to believe that there are none because nobody has looked yet.
func (s *stack) firstUplinks() {
	now, err := netmon.Addresses(s.uplinksThat())
	if err != nil {
		s.log.Warn("the addresses of this machine cannot be read", "error", err)
		return
	}
	now = s.uplinks.mark(now)
	s.uplinks.addresses.Store(&now)
}

// watchUplinks tells the engine which uplinks there are, until ctx ends.
func (s *stack) watchUplinks(ctx context.Context) {
	netmon.Watch(ctx, s.uplinksThat(), func(now []locator.Local) {
		now = s.uplinks.mark(slices.Clone(now))
		s.uplinks.set(now)
		s.log.Debug("uplinks", "addresses", uplinkNames(now))
		s.eachSession(func(at time.Time, x *ike.Session) { mobike.SetLocal(at, x, now) })
		if s.uplinks.woken.Swap(false) {
			s.stirred(locator.Resumed)
		}
	})
}

// Resume is called after the machine has slept. The uplinks are read again, also if the
// kernel has said nothing; then every pair is tested at once. What a NAT remembers of
// us may be gone: the answers show that, and the tests themselves make it anew.
func (s *stack) Resume() {
	s.uplinks.woken.Store(true)
	select {
	case s.uplinks.again <- struct{}{}:
	default:
	}
}

// stirred makes every session test its pairs.
func (s *stack) stirred(why locator.Cause) {
	s.log.Debug("testing all paths", "because", why.String())
	s.uplinks.tell()
	s.eachSession(func(at time.Time, x *ike.Session) { mobike.Hint(at, x, why) })
}

// pathError takes what ICMP says about a pair. It makes sessions test that pair, no
// more, and not often (locator.Entry.Hint): anybody can forge it (RFC 4621 §7). That a
// packet was too big is not for us: path MTU discovery does without.
func (s *stack) pathError(e transport.PathError) {
	s.log.Debug("ICMP error", "about", e.String())
	if e.Kind == transport.TooBig {
		return
	}
	select {
	case s.errors <- e:
	default:
	}
	s.eachSession(func(at time.Time, x *ike.Session) { mobike.HintOn(at, x, e.Pair, locator.ICMPError) })
}

// eachSession runs f on every session that is up, on the engine's goroutine.
func (s *stack) eachSession(f func(at time.Time, x *ike.Session)) {
	s.shard.Do(func(at time.Time, e shard.Engine) { e.EachSession(at, f) })
}

func uplinkNames(ls []locator.Local) []string {
	var out []string
	for _, l := range ls {
		out = append(out, l.Name+" "+l.Addr.String())
	}
	return out
}

func (s *stack) Paths(ctx context.Context, id ike.SessionID) []pathInfo {
	out, _ := shard.Ask(ctx, s.shard, func(now time.Time, e shard.Engine) (out []pathInfo) {
		_ = e.WithSession(now, id, func(_ time.Time, x *ike.Session) { // gone: no pairs
			pairs, _ := mobike.Paths(x)
			for _, p := range pairs {
				out = append(out, pathInfo{p, x.PathMTU(p.Pair)})
			}
		})
		return out
	})
	return out
}

// Handover is the last move of a session to another path.
type Handover struct {
	Time time.Time `json:"time"`
	// From and To are our addresses, FromGateway and Gateway those of the gateway.
	From        netip.AddrPort `json:"from"`
	FromGateway netip.AddrPort `json:"from_gateway"`
	To          netip.AddrPort `json:"to"`
	Gateway     netip.AddrPort `json:"gateway"`
	Cause       string         `json:"cause"`
	// Verified says that the new path had been tried before.
	Verified bool `json:"verified"`
	// Confirmed says that the gateway has followed. GapMS is how long there was no
	// working path: until it did, or until the move while it has not.
	Confirmed bool    `json:"confirmed"`
	GapMS     float64 `json:"gap_ms"`
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// moving notes a move that the gateway has yet to confirm.
func (c *connection) moving(a ike.PathChanged) {
	c.mu.Lock()
	before := c.st.handover
	c.mu.Unlock()
	if before != nil && !before.Confirmed {
		c.logHandover(before) // it never was
	}
	h := &Handover{Time: time.Now(), From: a.From.Local, FromGateway: a.From.Remote, To: a.To.Local, Gateway: a.To.Remote,
		Cause: a.Cause, Verified: a.Verified, GapMS: milliseconds(a.Gap)}
	c.set(func(l *live) { l.handover = h })
}

// followed notes that the gateway has followed, and logs the handover.
func (c *connection) followed(a ike.PathConfirmed) {
	c.mu.Lock()
	before := c.st.handover
	c.mu.Unlock()
	if before == nil || before.Confirmed {
		return
	}
	h := *before
	h.Confirmed, h.GapMS = true, milliseconds(a.Gap)
	c.logHandover(&h)
	c.set(func(l *live) { l.handover = &h })
}

// logHandover is the one line that a handover gets.
func (c *connection) logHandover(h *Handover) {
	c.log.Info("moved to another path", "profile", c.profile.Name,
		"from", locator.Pair{Local: h.From, Remote: h.FromGateway}.String(), "to", locator.Pair{Local: h.To, Remote: h.Gateway}.String(),
		"cause", h.Cause, "gap_ms", h.GapMS, "verified", h.Verified, "confirmed", h.Confirmed)
}

// Path is one pair of addresses that the session could go over.
type Path struct {
	Local        Endpoint `json:"local"`
	Remote       Endpoint `json:"remote"`
	Interface    string   `json:"interface,omitempty"`
	Current      bool     `json:"current"`
	Standby      bool     `json:"standby"`
	Verification string   `json:"verification"`
	Reachability string   `json:"reachability"`
	Why          string   `json:"why"`
	NAT          string   `json:"nat"`
	RTTMS        float64  `json:"rtt_ms,omitempty"`
	MTU          int      `json:"mtu,omitempty"`    // largest packet known to arrive at the gateway
	Chosen       string   `json:"chosen,omitempty"` // why it became current
}

// pathInfo is a pair of addresses and the largest packet it is known to carry.
type pathInfo struct {
	locator.PairInfo
	mtu int
}

// Paths lists the pairs of the present session, none without one.
func (d *Daemon) Paths(ctx context.Context) []Path {
	d.mu.Lock()
	c := d.current
	d.mu.Unlock()
	if c == nil {
		return []Path{}
	}
	return c.paths(ctx)
}

// paths lists the session's pairs.
func (c *connection) paths(ctx context.Context) []Path {
	c.mu.Lock()
	st, id := c.st.stack, c.st.session
	c.mu.Unlock()
	out := []Path{}
	if st == nil || id == 0 {
		return out
	}
	for _, p := range st.Paths(ctx, id) {
		path := Path{
			Local: *endpoint(p.Pair.Local), Remote: *endpoint(p.Pair.Remote), Interface: p.Name, Current: p.Current, Standby: p.Standby,
			Verification: p.Verification.String(), Reachability: p.Reachability.String(), Why: p.Why.String(), NAT: p.NAT.String(),
			RTTMS: float64(p.RTT.Microseconds()) / 1000, MTU: p.mtu,
		}
		if p.Current {
			path.Chosen = p.Chosen.String()
		}
		out = append(out, path)
	}
	return out
}
