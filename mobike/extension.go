package mobike

import (
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Config is how sessions move.
type Config struct {
	Policy locator.Policy
	// Local returns the addresses that this host can be reached at, the most
	// preferred first; inner addresses of tunnels and of protected networks do not
	// belong there. Changes are told with SetLocal.
	Local func() []locator.Local
	// Announce says whether the peer is told of the addresses that are not in use
	// (RFC 4555 §3.4). A client behind NATs has little to announce.
	Announce bool
}

// Extension offers MOBIKE in new sessions. It is not changed once in use.
type Extension struct{ cfg Config }

// New returns the extension for ike.Policy.Extensions.
func New(cfg Config) *Extension {
	if cfg.Local == nil {
		cfg.Local = func() []locator.Local { return nil }
	}
	return &Extension{cfg: cfg}
}

// Name implements ike.Extension.
func (*Extension) Name() string { return "mobike" }

// Begin implements ike.Extension.
func (x *Extension) Begin(s *ike.Session) ike.Task { return &Task{cfg: &x.cfg, session: s} }

// SetLocal tells a session which addresses this host has now. Without MOBIKE it
// does nothing.
func SetLocal(now time.Time, s *ike.Session, addrs []locator.Local) {
	if t, ok := ike.TaskOf[*Task](s); ok {
		t.setLocal(now, addrs)
	}
}

// Hint tells a session of something that may have broken its path: an ICMP error, a
// suspend, a change of routes. It starts a check, no more.
func Hint(now time.Time, s *ike.Session, why locator.Cause) {
	if t, ok := ike.TaskOf[*Task](s); ok && t.active {
		t.entry.Hint(now, t.session.Path().Pair, why)
		t.run(now)
	}
}

// HintOn is Hint about one pair, which need not be the current one: an ICMP error tells
// whom it is about.
func HintOn(now time.Time, s *ike.Session, pair locator.Pair, why locator.Cause) {
	t, ok := ike.TaskOf[*Task](s)
	if !ok || !t.active {
		return
	}
	if p := t.session.Path().Pair; p.Local == pair.Local && p.Remote == pair.Remote {
		pair = p // by whatever interface the word came
	}
	t.entry.Hint(now, pair, why)
	t.run(now)
}

// Paths returns what a session knows about its pairs, and false without MOBIKE.
func Paths(s *ike.Session) ([]locator.PairInfo, bool) {
	t, ok := ike.TaskOf[*Task](s)
	if !ok || !t.active {
		return nil, false
	}
	return t.entry.Pairs(), true
}
