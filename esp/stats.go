package esp

import "time"

// Add returns the sum of two sets of counters, with the later times.
func (s Stats) Add(o Stats) Stats {
	return Stats{
		InPackets: s.InPackets + o.InPackets, InBytes: s.InBytes + o.InBytes,
		OutPackets: s.OutPackets + o.OutPackets, OutBytes: s.OutBytes + o.OutBytes,
		Replayed: s.Replayed + o.Replayed, AuthFailed: s.AuthFailed + o.AuthFailed,
		SelectorMismatch: s.SelectorMismatch + o.SelectorMismatch,
		LastIn:           later(s.LastIn, o.LastIn),
		LastOut:          later(s.LastOut, o.LastOut),
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
