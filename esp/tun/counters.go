package tun

import "sync/atomic"

// Counters say how many packets were not carried, and why. What belongs to one
// Child SA stands in its esp.Stats.
type Counters struct {
	// Outbound, from the TUN device.
	OutMalformed uint64 // not IPv4 or IPv6
	OutNoChild   uint64 // no active Child SA covers the packet; it is never sent in clear
	OutAway      uint64 // the host has been silent for long (Path.Sparing)
	OutTooBig    uint64 // answered with ICMP, or would have been but for the rate limit
	OutExhausted uint64 // the Child SA has reached its hard limit
	OutUnsent    uint64 // the sender refused
	Keepalives   uint64 // NAT keepalives sent
	MSSClamped   uint64 // both directions

	// Inbound, from the network.
	InUnknownSPI uint64
	InMalformed  uint64 // too short, bad trailer, or no packet inside
	InDummy      uint64 // RFC 4303 §2.6
	InExhausted  uint64 // the Child SA has reached its hard limit
	InCongested  uint64 // marked by the network, and nobody inside would understand (RFC 6040 §4.2)
	InUnwritten  uint64 // the TUN device refused
}

// counters is Counters while it is being counted.
type counters struct {
	outMalformed, outNoChild, outAway, outTooBig, outExhausted, outUnsent, keepalives, mssClamped,
	inUnknownSPI, inMalformed, inDummy, inExhausted, inCongested, inUnwritten atomic.Uint64
}

// Counters returns the counters of the data path.
func (d *DataPath) Counters() Counters {
	c := &d.counters
	return Counters{
		OutMalformed: c.outMalformed.Load(), OutNoChild: c.outNoChild.Load(), OutAway: c.outAway.Load(),
		OutTooBig: c.outTooBig.Load(), OutExhausted: c.outExhausted.Load(),
		OutUnsent: c.outUnsent.Load(), Keepalives: c.keepalives.Load(), MSSClamped: c.mssClamped.Load(),
		InUnknownSPI: c.inUnknownSPI.Load(), InMalformed: c.inMalformed.Load(), InDummy: c.inDummy.Load(),
		InExhausted: c.inExhausted.Load(), InCongested: c.inCongested.Load(), InUnwritten: c.inUnwritten.Load(),
	}
}
