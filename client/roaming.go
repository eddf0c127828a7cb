package client

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/netmon"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/mobike"
)

// uplinks are the addresses that this machine can reach the network from, and the
// extension that lets sessions move among them (RFC 4555).
type uplinks struct {
	extension *mobike.Extension
	policy    locator.Policy
	addresses atomic.Pointer[[]locator.Local]
	changed   chan struct{} // a token: they are others now
}

func newUplinks() *uplinks {
	u := &uplinks{policy: locator.DefaultPolicy(), changed: make(chan struct{}, 1)}
	u.addresses.Store(&[]locator.Local{})
	u.extension = mobike.New(mobike.Config{Policy: u.policy, Announce: true, Local: u.list})
	return u
}

func (u *uplinks) list() []locator.Local { return *u.addresses.Load() }

func (u *uplinks) set(now []locator.Local) {
	u.addresses.Store(&now)
	select {
	case u.changed <- struct{}{}:
	default:
	}
}

// roam makes a policy for sessions that move.
func (u *uplinks) roam(p *ike.Policy) *ike.Policy {
	q := *p
	q.Extensions = append([]ike.Extension{u.extension}, p.Extensions...)
	q.UnansweredAfter = u.policy.SuspectAfter
	return &q
}

// watch tells the engine which uplinks there are, until ctx ends. What leads nowhere
// is none, and neither is the tunnel itself.
func (s *stack) watchUplinks(ctx context.Context) {
	cfg := netmon.Config{Log: s.log, NeedRoute: true, Ignore: func(name string) bool { return name == s.name }}
	netmon.Watch(ctx, cfg, func(now []locator.Local) {
		s.uplinks.set(now)
		s.log.Debug("uplinks", "addresses", uplinkNames(now))
		s.shard.Do(func(at time.Time, e shard.Engine) {
			if engine, ok := e.(*ike.Engine); ok {
				engine.EachSession(at, func(at time.Time, x *ike.Session) { mobike.SetLocal(at, x, now) })
			}
		})
	})
}

func uplinkNames(ls []locator.Local) []string {
	var out []string
	for _, l := range ls {
		out = append(out, l.Name+" "+l.Addr.String())
	}
	return out
}

// Paths returns what is known about the pairs of a session; nothing without MOBIKE.
func (s *stack) Paths(ctx context.Context, id ike.SessionID) (out []locator.PairInfo) {
	_ = s.shard.Call(ctx, func(now time.Time, e shard.Engine) {
		engine, ok := e.(*ike.Engine)
		if !ok {
			return
		}
		_ = engine.WithSession(now, id, func(_ time.Time, x *ike.Session) { out, _ = mobike.Paths(x) })
	})
	return out
}

// Handover is the last move of a session to another path.
type Handover struct {
	Time  time.Time      `json:"time"`
	From  netip.AddrPort `json:"from"`
	To    netip.AddrPort `json:"to"`
	Peer  netip.AddrPort `json:"peer"`
	Cause string         `json:"cause"`
	// Verified says that the new path had been tried before.
	Verified bool `json:"verified"`
	// SilentMS is how long nothing had been heard on the old path.
	SilentMS float64 `json:"silent_ms"`
}

// handover notes and logs a move.
func (c *connection) handover(a ike.PathChanged) {
	h := &Handover{Time: time.Now(), From: a.From.Local, To: a.To.Local, Peer: a.To.Remote, Cause: a.Cause, Verified: a.Verified,
		SilentMS: float64(a.Gap.Microseconds()) / 1000}
	c.log.Info("moved to another path", "profile", c.profile.Name, slog.String("from", a.From.String()), slog.String("to", a.To.String()),
		"cause", a.Cause, "verified", a.Verified, "silent", a.Gap.Round(time.Millisecond).String())
	c.set(func(l *live) { l.handover = h })
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
	Chosen       string   `json:"chosen,omitempty"` // why it became current
}

// pathTeller is a Stack that knows of several paths.
type pathTeller interface {
	Paths(ctx context.Context, id ike.SessionID) []locator.PairInfo
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
	teller, ok := st.(pathTeller)
	if !ok || id == 0 {
		return out
	}
	for _, p := range teller.Paths(ctx, id) {
		path := Path{
			Local: *endpoint(p.Pair.Local), Remote: *endpoint(p.Pair.Remote), Interface: p.Name, Current: p.Current, Standby: p.Standby,
			Verification: p.Verification.String(), Reachability: p.Reachability.String(), Why: p.Why.String(), NAT: p.NAT.String(),
			RTTMS: float64(p.RTT.Microseconds()) / 1000,
		}
		if p.Current {
			path.Chosen = p.Chosen.String()
		}
		out = append(out, path)
	}
	return out
}
