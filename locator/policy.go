package locator

import (
	"errors"
	"fmt"
	glob "path"
	"time"
)

// Criterion is one thing that pairs are compared by.
type Criterion uint8

// Criteria.
const (
	ByInterface  Criterion = iota + 1 // place of the interface in Policy.Interfaces
	ByMetered                         // unmetered before metered
	ByPreference                      // Local.Preference
	ByFamily                          // Policy.Family
	ByNAT                             // known to be free of NATs first
	ByForeign                         // the peer's order of its addresses
)

// String returns the criterion's name.
func (c Criterion) String() string {
	if c == 0 {
		return "invalid"
	}
	return name(int(c), criterionWords...)
}

// Family prefers an address family.
type Family uint8

// Families.
const (
	AnyFamily Family = iota
	PreferIPv4
	PreferIPv6
)

// Check says when return routability is checked before an address of the peer gets
// traffic (RFC 4555 §3.7).
type Check uint8

// Times of checking.
const (
	// CheckBefore waits for the answer: the default of the RFC and ours.
	CheckBefore Check = iota
	// CheckAfter moves traffic and checks at the same time; a failed check moves it
	// back.
	CheckAfter
	// CheckNever trusts the authenticated peer.
	CheckNever
)

// Standby says what happens with the pairs that are not current.
type Standby uint8

// Kinds of standby (draft-melen-hip-nat-mm §3.2.1).
const (
	Hot  Standby = iota // kept verified, with their NAT bindings
	Cold                // probed when needed
)

// Policy is how an entry decides, as data. Zero fields have the values of
// DefaultPolicy.
type Policy struct {
	// Order lists the criteria, the most important one first. A pair that is better
	// by the first criterion in which two pairs differ is preferred, and traffic
	// moves there once it is verified. Criteria that are not listed do not count.
	Order []Criterion
	// Interfaces holds patterns for names of interfaces (as in path.Match: "wl*",
	// "eth0"), best first. Names that match none come last.
	Interfaces []string
	Family     Family

	// Between pairs that are equal by Order, traffic moves if the round trip of the
	// other has been shorter by RTTGain percent and by RTTMargin for RTTFor.
	// A negative RTTGain switches this off.
	RTTGain   int
	RTTMargin time.Duration
	RTTFor    time.Duration

	Check   Check
	Standby Standby

	// SuspectAfter is how long traffic may go unanswered before the path is
	// checked.
	SuspectAfter time.Duration
	// Patience is the least time that the current pair has to answer probes before
	// traffic moves to an alternative that did. Pairs with a long round trip get
	// more, up to PatienceMax.
	Patience, PatienceMax time.Duration
	// ProbeInterval is the first distance between probes of one pair, which doubles.
	ProbeInterval time.Duration
	// RetryActive bounds the distance between probes of a pair while traffic waits,
	// RetryIdle while nobody does.
	RetryActive, RetryIdle time.Duration
	// Keepalive is the distance of keepalives on a standby pair. Every ProofEvery-th
	// is a request whose answer proves the pair anew; the others are one octet.
	Keepalive  time.Duration
	ProofEvery int
	// KeepaliveMin bounds the keepalives of pairs whose NAT forgot a binding sooner.
	KeepaliveMin time.Duration
	// IdleCheck, if not zero, probes the current pair when nothing was heard on it
	// for that long. It is off by default: keepalives on the current pair are the
	// data path's, liveness checks without traffic are the dialect's (RFC 7296
	// §2.4), and a path nobody uses need not be repaired before somebody does.
	IdleCheck time.Duration
	// FailedMax bounds the distance between probes of a failed standby pair.
	FailedMax time.Duration
	// HoldDown is how long a pair that failed while current has to work before it is
	// preferred again. It doubles with each failure, up to HoldDownMax.
	HoldDown, HoldDownMax time.Duration
	// ProofLifetime is how long a responder believes in an address after its last
	// proof: behind a NAT it may belong to somebody else by then. Initiators keep
	// proofs as long as the peer keeps the address.
	ProofLifetime time.Duration

	// ProbeBurst and ProbesPerSecond bound all packets that an entry asks for.
	ProbeBurst, ProbesPerSecond int
	// UnprovenBurst and UnprovenPerMinute bound the packets to all addresses
	// together that have never answered.
	UnprovenBurst, UnprovenPerMinute int
	// MaxLocal, MaxForeign and MaxPairs bound the size of an entry, MaxStandby the
	// number of pairs in hot standby.
	MaxLocal, MaxForeign, MaxPairs, MaxStandby int
}

// DefaultPolicy returns the policy of a client that was not told anything. It
// avoids metered links, follows the operating system's preference of links, and
// prefers pairs without NAT.
func DefaultPolicy() Policy {
	return Policy{
		Order:         []Criterion{ByInterface, ByMetered, ByPreference, ByFamily, ByNAT},
		RTTGain:       30,
		RTTMargin:     10 * time.Millisecond,
		RTTFor:        30 * time.Second,
		SuspectAfter:  300 * time.Millisecond,
		Patience:      200 * time.Millisecond,
		PatienceMax:   time.Second,
		ProbeInterval: 100 * time.Millisecond,
		RetryActive:   400 * time.Millisecond,
		RetryIdle:     5 * time.Second,
		Keepalive:     20 * time.Second,
		ProofEvery:    3,
		KeepaliveMin:  10 * time.Second,
		FailedMax:     5 * time.Minute,
		HoldDown:      5 * time.Second,
		HoldDownMax:   time.Minute,
		ProofLifetime: 10 * time.Minute,
		ProbeBurst:    64, ProbesPerSecond: 20,
		UnprovenBurst: 32, UnprovenPerMinute: 60,
		MaxLocal: 16, MaxForeign: 16, MaxPairs: 64, MaxStandby: 4,
	}
}

// withDefaults fills in what was left out.
func (p Policy) withDefaults() Policy {
	d := DefaultPolicy()
	if p.Order == nil {
		p.Order = d.Order
	}
	for _, f := range [...]struct {
		field *time.Duration
		value time.Duration
	}{
		{&p.RTTMargin, d.RTTMargin}, {&p.RTTFor, d.RTTFor}, {&p.SuspectAfter, d.SuspectAfter},
		{&p.Patience, d.Patience}, {&p.PatienceMax, max(d.PatienceMax, p.Patience)}, {&p.ProbeInterval, d.ProbeInterval},
		{&p.RetryActive, max(d.RetryActive, p.ProbeInterval)}, {&p.RetryIdle, max(d.RetryIdle, p.RetryActive)},
		{&p.Keepalive, d.Keepalive}, {&p.KeepaliveMin, min(d.KeepaliveMin, max(p.Keepalive, 0))},
		{&p.FailedMax, max(d.FailedMax, p.Keepalive)}, {&p.HoldDown, d.HoldDown},
		{&p.HoldDownMax, max(d.HoldDownMax, p.HoldDown)}, {&p.ProofLifetime, d.ProofLifetime},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	for _, f := range [...]struct {
		field *int
		value int
	}{
		{&p.RTTGain, d.RTTGain}, {&p.ProofEvery, d.ProofEvery}, {&p.ProbeBurst, d.ProbeBurst},
		{&p.ProbesPerSecond, d.ProbesPerSecond}, {&p.UnprovenBurst, d.UnprovenBurst},
		{&p.UnprovenPerMinute, d.UnprovenPerMinute}, {&p.MaxLocal, d.MaxLocal}, {&p.MaxForeign, d.MaxForeign},
		{&p.MaxPairs, d.MaxPairs}, {&p.MaxStandby, d.MaxStandby},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if p.KeepaliveMin == 0 {
		p.KeepaliveMin = d.KeepaliveMin
	}
	return p
}

// Limits of what a policy may ask for.
const (
	minInterval = 10 * time.Millisecond // shorter timings would be a flood
	maxSize     = 250                   // ranks have one octet per criterion
)

// Validate says whether an entry can work by the policy. The error names the
// field and what would be right.
func (p Policy) Validate() error {
	p = p.withDefaults()
	var errs []error
	seen := map[Criterion]bool{}
	for _, c := range p.Order {
		if c < ByInterface || c > ByForeign {
			errs = append(errs, fmt.Errorf("policy: criterion %d does not exist: use interface, metered, preference, family, nat or foreign", c))
		} else if seen[c] {
			errs = append(errs, fmt.Errorf("policy: criterion %q is listed twice: name each once", c))
		}
		seen[c] = true
	}
	for _, pattern := range p.Interfaces {
		if _, err := glob.Match(pattern, ""); err != nil {
			errs = append(errs, fmt.Errorf("policy: interface pattern %q: %w (write it like \"wl*\" or \"eth0\")", pattern, err))
		}
	}
	if len(p.Interfaces) > maxSize {
		errs = append(errs, fmt.Errorf("policy: %d interface patterns are too many: use at most %d", len(p.Interfaces), maxSize))
	}
	errs = append(errs, p.validateTimes()...)
	for _, f := range []struct {
		name   string
		n, top int
	}{
		{"probe burst", p.ProbeBurst, 1000}, {"probes per second", p.ProbesPerSecond, 1000}, {"unproven burst", p.UnprovenBurst, 1000},
		{"unproven probes per minute", p.UnprovenPerMinute, 6000}, {"proof interval", p.ProofEvery, maxSize}, {"local limit", p.MaxLocal, maxSize},
		{"foreign limit", p.MaxForeign, maxSize}, {"pair limit", p.MaxPairs, 1000}, {"standby limit", p.MaxStandby, 1000},
	} {
		if f.n < 1 || f.n > f.top {
			errs = append(errs, fmt.Errorf("policy: %s %d is out of range: use 1 to %d", f.name, f.n, f.top))
		}
	}
	if p.RTTGain > 99 {
		errs = append(errs, fmt.Errorf("policy: round-trip gain of %d%% cannot be reached: use less than 100", p.RTTGain))
	}
	if p.Check > CheckNever || p.Standby > Cold || p.Family > PreferIPv6 {
		errs = append(errs, errors.New("policy: check, standby or family has an unknown value"))
	}
	return errors.Join(errs...)
}

func (p Policy) validateTimes() []error {
	var errs []error
	for _, f := range []struct {
		name string
		d    time.Duration
	}{
		{"suspicion time", p.SuspectAfter}, {"patience", p.Patience}, {"probe interval", p.ProbeInterval},
		{"retry interval", p.RetryActive}, {"idle retry interval", p.RetryIdle}, {"keepalive interval", p.Keepalive},
		{"shortest keepalive interval", p.KeepaliveMin}, {"hold-down", p.HoldDown}, {"proof lifetime", p.ProofLifetime},
	} {
		if f.d < minInterval {
			errs = append(errs, fmt.Errorf("policy: %s %v is too short: use at least %v", f.name, f.d, minInterval))
		}
	}
	for _, f := range []struct {
		low, high string
		a, b      time.Duration
	}{
		{"patience", "longest patience", p.Patience, p.PatienceMax},
		{"probe interval", "retry interval", p.ProbeInterval, p.RetryActive},
		{"retry interval", "idle retry interval", p.RetryActive, p.RetryIdle},
		{"shortest keepalive interval", "keepalive interval", p.KeepaliveMin, p.Keepalive},
		{"keepalive interval", "longest retry of failed pairs", p.Keepalive, p.FailedMax},
		{"hold-down", "longest hold-down", p.HoldDown, p.HoldDownMax},
	} {
		if f.a > f.b {
			errs = append(errs, fmt.Errorf("policy: %s %v is longer than %s %v: exchange or adapt them", f.low, f.a, f.high, f.b))
		}
	}
	if p.IdleCheck < 0 || p.IdleCheck > 0 && p.IdleCheck < time.Second {
		errs = append(errs, fmt.Errorf("policy: idle check %v is too short: use at least 1s, or 0 for none", p.IdleCheck))
	}
	return errs
}

func (p *Policy) probeQuota() quota {
	return quota{burst: p.ProbeBurst, interval: time.Second / time.Duration(p.ProbesPerSecond)}
}

func (p *Policy) unprovenQuota() quota {
	return quota{burst: p.UnprovenBurst, interval: time.Minute / time.Duration(p.UnprovenPerMinute)}
}

// Recovery is the longest time between a pair beginning to answer every probe
// (within rtt) and traffic moving there, for an initiator that is looking for one
// of that many pairs with proven addresses. Waiting says whether traffic does.
func (p Policy) Recovery(pairs int, waiting bool, rtt time.Duration) time.Duration {
	p = p.withDefaults()
	retry := p.RetryIdle + p.RetryIdle/jitterShare
	if waiting {
		retry = p.RetryActive
	}
	// The token bucket may be empty, and then serves the pairs in turn.
	turn := time.Duration(pairs) * p.probeQuota().interval
	return max(retry, p.spread(pairs)) + turn + rtt
}

// spread is the least distance between probes of one pair in a long outage: all
// pairs together use less than the rate of the bucket, which so fills up again for
// the next change.
func (p *Policy) spread(pairs int) time.Duration {
	return time.Duration(pairs) * p.probeQuota().interval * 3 / 2
}
