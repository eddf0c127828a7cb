package config

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Size is an amount of data in octets: "1GiB", "500MB", "64 KiB", or a plain
// number. Units with an i count in steps of 1024, those without in steps of 1000.
type Size uint64

// sizeUnits lists the units from large to small within each family.
var sizeUnits = []struct {
	name   string
	octets uint64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1},
}

// UnmarshalTOML reads a size from a string or a plain number of octets.
func (s *Size) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case string:
		return s.UnmarshalText([]byte(v))
	case int64:
		if v < 0 {
			return fmt.Errorf("%d is not a size: it is negative", v)
		}
		*s = Size(v)
		return nil
	}
	return fmt.Errorf(`must be a size in quotes such as "1GiB", not %s`, kindOf(v))
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	t := string(text)
	number := strings.TrimRight(t, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	factor := uint64(0)
	if number == t {
		factor = 1
	}
	for _, unit := range sizeUnits {
		if strings.EqualFold(t[len(number):], unit.name) {
			factor = unit.octets
		}
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(number, " "), 10, 64)
	if factor == 0 || err != nil {
		return fmt.Errorf(`%.40q is not a size such as "1GiB", "500MB" or "1048576"`, t)
	}
	high, octets := bits.Mul64(n, factor)
	if high != 0 {
		return fmt.Errorf("%q is too large", t)
	}
	*s = Size(octets)
	return nil
}

// String returns the size in the largest binary unit that divides it, or the
// largest decimal one.
func (s Size) String() string {
	for _, unit := range sizeUnits {
		if s != 0 && uint64(s)%unit.octets == 0 {
			return strconv.FormatUint(uint64(s)/unit.octets, 10) + unit.name
		}
	}
	return "0"
}

// MarshalText returns what String returns.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
