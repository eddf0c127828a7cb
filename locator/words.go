package locator

import (
	"fmt"
	"strings"
	"time"
)

// Policies are written by people: their words, as text and back.

var (
	criterionWords = []string{ByInterface: "interface", ByMetered: "metered", ByPreference: "preference", ByFamily: "family",
		ByNAT: "nat", ByForeign: "foreign"}
	familyWords  = []string{AnyFamily: "any", PreferIPv4: "ipv4", PreferIPv6: "ipv6"}
	checkWords   = []string{CheckBefore: "before", CheckAfter: "after", CheckNever: "never"}
	standbyWords = []string{Hot: "hot", Cold: "cold"}
)

// wordFor reads one of the words; the empty ones stand for values that do not exist.
func wordFor(text []byte, words []string) (int, error) {
	var known []string
	for i, w := range words {
		if w == "" {
			continue
		}
		if w == string(text) {
			return i, nil
		}
		known = append(known, fmt.Sprintf("%q", w))
	}
	return 0, fmt.Errorf("%.40q is none of %s", text, strings.Join(known, ", "))
}

// String returns the family's word.
func (f Family) String() string { return name(int(f), familyWords...) }

// String returns the word for the time of checking.
func (c Check) String() string { return name(int(c), checkWords...) }

// String returns the word for the kind of standby.
func (s Standby) String() string { return name(int(s), standbyWords...) }

// MarshalText writes the criterion's word.
func (c Criterion) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalText writes the family's word.
func (f Family) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// MarshalText writes the word for the time of checking.
func (c Check) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalText writes the word for the kind of standby.
func (s Standby) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads "interface", "metered", "preference", "family", "nat" or
// "foreign".
func (c *Criterion) UnmarshalText(text []byte) error {
	i, err := wordFor(text, criterionWords)
	*c = Criterion(i)
	return err
}

// UnmarshalText reads "any", "ipv4" or "ipv6".
func (f *Family) UnmarshalText(text []byte) error {
	i, err := wordFor(text, familyWords)
	*f = Family(i)
	return err
}

// UnmarshalText reads "before", "after" or "never".
func (c *Check) UnmarshalText(text []byte) error {
	i, err := wordFor(text, checkWords)
	*c = Check(i)
	return err
}

// UnmarshalText reads "hot" or "cold".
func (s *Standby) UnmarshalText(text []byte) error {
	i, err := wordFor(text, standbyWords)
	*s = Standby(i)
	return err
}

// Detecting returns the policy with another time that traffic over a path may go
// unanswered before it moves to one that answers: the time of suspicion, and the
// patience after it, which are three fifths and two fifths of it. Probes keep in step.
func (p Policy) Detecting(failure time.Duration) Policy {
	p.SuspectAfter = failure * 3 / 5
	p.Patience = failure - p.SuspectAfter
	p.PatienceMax = max(DefaultPolicy().PatienceMax, p.Patience)
	p.ProbeInterval = min(DefaultPolicy().ProbeInterval, p.Patience/2)
	return p
}

// Detection is the time within which the policy notices a path that has died under
// traffic, a round trip aside.
func (p Policy) Detection() time.Duration {
	p = p.withDefaults()
	return p.SuspectAfter + p.Patience
}
