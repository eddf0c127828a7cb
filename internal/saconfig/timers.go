// Package saconfig holds what profiles and the gateway's configuration say alike of
// SAs: when they are renewed and given up, and the limits of packet sizes and windows.
package saconfig

import (
	"math"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
)

// Timers say when SAs are renewed and when a silent peer is given up: the table
// [timers] of a file.
type Timers struct {
	// RekeyIKE and RekeyChild are the ages at which SAs are renewed; zero for never.
	RekeyIKE   config.Duration `toml:"rekey_ike"`
	RekeyChild config.Duration `toml:"rekey_child"`
	// Jitter is the largest fraction by which a renewal comes earlier.
	Jitter float64 `toml:"jitter"`
	// DPDDelay is the silence after which the peer is asked whether it lives, zero for
	// never; DPDTimeout how long an unanswered exchange is repeated (RFC 7296 §2.4), zero
	// for the default of the IKE engine.
	DPDDelay   config.Duration `toml:"dpd_delay"`
	DPDTimeout config.Duration `toml:"dpd_timeout"`
	// AwayTimeout is how long a session that can move (MOBIKE) outlives a peer that is out
	// of reach. Zero means DPDTimeout if that is set, or else the default of the IKE engine.
	AwayTimeout config.Duration `toml:"away_timeout"`
	// RekeyBytes and RekeyPackets renew a Child SA that has carried so much; zero for no
	// limit.
	RekeyBytes   config.Size `toml:"rekey_bytes"`
	RekeyPackets uint64      `toml:"rekey_packets"`
}

// Limits of timers.
const (
	MinTimer  = time.Second
	maxJitter = 0.5
)

// DefaultTimers are those of a file that does not say.
func DefaultTimers() Timers {
	return Timers{
		RekeyIKE: config.Duration(4 * time.Hour), RekeyChild: config.Duration(time.Hour), Jitter: 0.1,
		DPDDelay: config.Duration(30 * time.Second),
	}
}

// Report takes what is wrong with the value of a key.
type Report func(key, format string, args ...any)

// Check reports what is wrong, with the keys of the table.
func (t *Timers) Check(report Report) {
	if !(t.Jitter >= 0 && t.Jitter <= maxJitter) { // NaN too
		report("jitter", "%v is not between 0 and %v", t.Jitter, maxJitter)
	}
	if t.RekeyPackets > math.MaxInt64 {
		report("rekey_packets", "%d is too large", t.RekeyPackets)
	}
	for _, d := range []struct {
		key   string
		value config.Duration
		zero  string
	}{
		{"rekey_ike", t.RekeyIKE, "never"}, {"rekey_child", t.RekeyChild, "never"}, {"dpd_delay", t.DPDDelay, "never"},
		{"dpd_timeout", t.DPDTimeout, "the default"}, {"away_timeout", t.AwayTimeout, "the default"},
	} {
		if d.value < 0 || d.value != 0 && d.value.Std() < MinTimer {
			report(d.key, "%s is less than %s; 0 means %s", d.value, MinTimer, d.zero)
		}
	}
}

// Apply puts the timers into the policy of sessions.
func (t *Timers) Apply(p *ike.Policy) {
	p.RekeyIKE, p.RekeyChild, p.Jitter = t.RekeyIKE.Std(), t.RekeyChild.Std(), t.Jitter
	p.Lifetime = esp.RekeyAfter(uint64(t.RekeyBytes), t.RekeyPackets)
	p.LivenessDelay, p.PeerTimeout = t.DPDDelay.Std(), t.DPDTimeout.Std()
	p.AwayTimeout = ike.AwayTimeout(t.AwayTimeout.Std(), t.DPDTimeout.Std())
}
