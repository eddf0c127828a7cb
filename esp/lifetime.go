package esp

import (
	"math"
	"sync/atomic"
)

// Limit says which limits of an SA a packet has just crossed. Each is reported
// once in the life of an SA, to one caller.
type Limit uint8

// Limits. Both may be set.
const (
	LimitSoft Limit = 1 << iota // time to rekey
	LimitHard                   // the SA carries nothing any more
)

// RekeyAfter is the lifetime of an SA that is renewed when it has carried so much, zero
// for no limit: the soft limits ask for it, the hard ones leave as much again meanwhile.
func RekeyAfter(bytes, packets uint64) Lifetime {
	return Lifetime{
		SoftBytes: bytes, HardBytes: saturatingDouble(bytes),
		SoftPackets: packets, HardPackets: saturatingDouble(packets),
	}
}

func saturatingDouble(n uint64) uint64 {
	if n > math.MaxUint64/2 {
		return math.MaxUint64
	}
	return 2 * n
}

// limits turns a Lifetime into thresholds that are cheap to compare with, and
// remembers what has been reported.
type limits struct {
	softPackets, hardPackets uint64
	softBytes, hardBytes     uint64
	soft, hard               atomic.Bool
}

func (l *limits) init(life Lifetime) {
	l.softPackets, l.hardPackets = orUnlimited(life.SoftPackets), orUnlimited(life.HardPackets)
	l.softBytes, l.hardBytes = orUnlimited(life.SoftBytes), orUnlimited(life.HardBytes)
}

func orUnlimited(n uint64) uint64 {
	if n == 0 {
		return math.MaxUint64
	}
	return n
}

// used reports the limits crossed when so many packets and octets were carried.
func (l *limits) used(packets, octets uint64) Limit {
	if packets < l.softPackets && octets < l.softBytes {
		return 0
	}
	if l.soft.Load() || !l.soft.CompareAndSwap(false, true) {
		return 0
	}
	return LimitSoft
}

// exhausted reports the hard limit, once.
func (l *limits) exhausted() Limit {
	if l.hard.Load() || !l.hard.CompareAndSwap(false, true) {
		return 0
	}
	return LimitHard
}
