package profile

import (
	"fmt"
	"strings"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Roaming says how a session chooses among the paths that it could go over.
type Roaming struct {
	// Interfaces are patterns for names of interfaces ("wl*", "eth0"), the preferred
	// ones first. The rest comes last.
	Interfaces []string `toml:"interfaces"`
	// Metered are patterns for interfaces whose traffic costs money: they are used
	// when no other works.
	Metered []string `toml:"metered"`
	// Family prefers an address family; "any" is the one that connected.
	Family locator.Family `toml:"family"`
	// Order lists what paths are compared by, the most important first.
	Order []locator.Criterion `toml:"order"`
	// Standby is hot or cold: whether other paths are kept verified, with their NAT
	// bindings, or are tried when they are needed. At most StandbyPaths are.
	Standby      locator.Standby `toml:"standby"`
	StandbyPaths int             `toml:"standby_paths"`
	// PathFailure is how long traffic may go unanswered before it moves to a path that
	// answers.
	PathFailure config.Duration `toml:"path_failure"`
	// Keepalive is the distance of packets that keep NAT bindings, on the path in use
	// and on those in standby.
	Keepalive config.Duration `toml:"keepalive"`
	// ProbeBurst and ProbesPerSecond bound the packets that test paths.
	ProbeBurst      int `toml:"probe_burst"`
	ProbesPerSecond int `toml:"probes_per_second"`
	// ReturnRoutability says when an address of the gateway is checked before it gets
	// traffic (RFC 4555 §3.7).
	ReturnRoutability locator.Check `toml:"return_routability"`
}

// Limits on the times of roaming.
const (
	minPathFailure = 300 * time.Millisecond
	maxPathFailure = 30 * time.Second
	minKeepalive   = 5 * time.Second
	maxPatterns    = 64
)

// DefaultRoaming is how a profile roams that does not say.
func DefaultRoaming() Roaming {
	p := locator.DefaultPolicy()
	return Roaming{
		Order: p.Order, Standby: p.Standby, StandbyPaths: p.MaxStandby, PathFailure: config.Duration(p.Detection()),
		Keepalive: config.Duration(p.Keepalive), ProbeBurst: p.ProbeBurst, ProbesPerSecond: p.ProbesPerSecond,
		ReturnRoutability: p.Check,
	}
}

// Policy is the same for the host entry of a session.
func (r *Roaming) Policy() locator.Policy {
	p := locator.DefaultPolicy().Detecting(r.PathFailure.Std())
	p.Order, p.Interfaces, p.Family = r.Order, r.Interfaces, r.Family
	p.Standby, p.MaxStandby = r.Standby, r.StandbyPaths
	p.Keepalive = r.Keepalive.Std()
	p.KeepaliveMin = min(p.KeepaliveMin, p.Keepalive)
	p.FailedMax = max(p.FailedMax, p.Keepalive)
	p.ProbeBurst, p.ProbesPerSecond = r.ProbeBurst, r.ProbesPerSecond
	p.Check = r.ReturnRoutability
	return p
}

// roaming checks the values; what is left to say is the policy's.
func (c *checker) roaming() {
	r := &c.Roaming
	before := c.problems.Err() != nil
	if d := r.PathFailure.Std(); d < minPathFailure || d > maxPathFailure {
		c.add("roaming.path_failure", "%s is not between %s and %s", d, minPathFailure, maxPathFailure)
	}
	if d := r.Keepalive.Std(); d < minKeepalive || d > time.Hour {
		c.add("roaming.keepalive", "%s is not between %s and 1h", d, minKeepalive)
	}
	if len(r.Order) == 0 {
		c.add("roaming.order", `the list is empty: write what matters, such as ["interface", "metered", "preference"]`)
	}
	for key, list := range map[string][]string{"roaming.interfaces": r.Interfaces, "roaming.metered": r.Metered} {
		if len(list) > maxPatterns {
			c.add(key, "more than %d patterns", maxPatterns)
		}
	}
	if !before && c.problems.Err() != nil {
		return // the policy would complain about the same in other words
	}
	p := r.Policy()
	p.Interfaces = append(append([]string(nil), r.Interfaces...), r.Metered...)
	if err := p.Validate(); err != nil {
		c.add("roaming", "%v", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

func (p *Profile) writeRoaming(w *writer) {
	r, d := p.Roaming, w.defaults.Roaming
	w.line("\n[roaming]")
	w.key("interfaces", words(r.Interfaces), words(d.Interfaces), `Patterns for interfaces, preferred ones first, such as ["eth*", "wl*"].`)
	w.key("metered", words(r.Metered), words(d.Metered), `Patterns for interfaces that cost money, such as ["wwan*"]: used when no other works.`)
	w.key("family", config.Quote(r.Family.String()), config.Quote(d.Family.String()), `Preferred address family: "ipv4", "ipv6" or "any" (the one that connected).`)
	w.key("order", words(r.Order), words(d.Order), `What paths are compared by: "interface", "metered", "preference" (of the system's routes), "family", "nat", "foreign".`)
	w.key("standby", config.Quote(r.Standby.String()), config.Quote(d.Standby.String()), `"hot" keeps other paths tested and ready, "cold" tries them when needed.`)
	w.key("standby_paths", fmt.Sprint(r.StandbyPaths), fmt.Sprint(d.StandbyPaths), "How many paths are kept ready.")
	w.duration("path_failure", r.PathFailure, d.PathFailure, "How long traffic may go unanswered before it moves; from 300ms.")
	w.duration("keepalive", r.Keepalive, d.Keepalive, "Distance of packets that keep NAT bindings alive.")
	w.key("probe_burst", fmt.Sprint(r.ProbeBurst), fmt.Sprint(d.ProbeBurst), "Packets that may test paths at once, and a second after that.")
	w.key("probes_per_second", fmt.Sprint(r.ProbesPerSecond), fmt.Sprint(d.ProbesPerSecond), "")
	w.key("return_routability", config.Quote(r.ReturnRoutability.String()), config.Quote(d.ReturnRoutability.String()),
		`Whether addresses of the gateway are tested "before" or "after" they get traffic, or "never".`)
}

// words writes a list of strings.
func words[T any](list []T) string {
	var out []string
	for _, w := range list {
		out = append(out, config.Quote(fmt.Sprint(w)))
	}
	return "[" + strings.Join(out, ", ") + "]"
}
