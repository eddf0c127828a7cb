package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Duration is a span of time in a file: "10s", "1h30m", "2d", "52w". "0" and
// "never" are zero, which means never or unlimited wherever a duration is used.
// Months and years have no fixed length and are refused.
type Duration time.Duration

// durationPattern is a sequence of numbers with units.
var durationPattern = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$`)

// UnmarshalTOML reads a duration; besides strings the plain number 0 is accepted.
func (d *Duration) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case string:
		return d.UnmarshalText([]byte(v))
	case int64:
		if v == 0 {
			*d = 0
			return nil
		}
		return fmt.Errorf(`must be a duration with a unit in quotes, such as "%ds"`, v)
	}
	return fmt.Errorf(`must be a duration in quotes such as "10s" or "2h", not %s`, kindOf(v))
}

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "0" || s == "never" {
		*d = 0
		return nil
	}
	const longest = 32
	if len(s) > longest || !durationPattern.MatchString(s) {
		return fmt.Errorf(`%.40q is not a duration such as "10s", "2h" or "30d" ("0" for never)`, s)
	}
	total := time.Duration(0)
	for _, part := range regexp.MustCompile(`[0-9.]+[a-z]+`).FindAllString(s, -1) {
		span, err := parseSpan(part)
		if err != nil || total+span < total {
			return fmt.Errorf("%q is too long for a duration", s)
		}
		total += span
	}
	*d = Duration(total)
	return nil
}

// parseSpan reads one number with its unit. Days and weeks are 24 hours and 7 days.
func parseSpan(s string) (time.Duration, error) {
	number := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz")
	hours := map[string]float64{"d": 24, "w": 7 * 24}[s[len(number):]]
	if hours == 0 {
		return time.ParseDuration(s)
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, err
	}
	const most = float64(1<<63-1) / float64(time.Hour)
	if n*hours >= most {
		return 0, strconv.ErrRange
	}
	return time.Duration(n * hours * float64(time.Hour)), nil
}

// String returns the duration as it would be written in a file.
func (d Duration) String() string {
	const day = Duration(24 * time.Hour)
	switch {
	case d == 0:
		return "0"
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText returns what String returns.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Std is the duration as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }
