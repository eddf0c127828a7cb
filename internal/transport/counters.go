package transport

import "sync/atomic"

// Counters say how many packets and calls ended otherwise than delivered.
type Counters struct {
	Keepalives      uint64 // NAT keepalives received; they carry nothing (RFC 3948 §2.3)
	Short           uint64 // datagrams too short for an SPI or a marker
	ShortIKE        uint64 // IKE datagrams shorter than an IKE header
	MarkedOnIKEPort uint64 // non-ESP marker on the IKE port (RFC 7296 §2.23 has it on 4500 only)
	Malformed       uint64 // source port zero, broken IP header, SPI zero in protocol 50
	NotUnicast      uint64 // sent to a multicast or broadcast address
	Truncated       uint64 // larger than the buffer, or without its control data
	KernelDrops     uint64 // dropped by the kernel because the receive queue was full
	ReadErrors      uint64 // failed receive calls, ICMP errors among them
	PathErrors      uint64 // ICMP errors about packets sent before
	SendErrors      uint64 // packets that the kernel refused to send
	TrainsRefused   uint64 // segmentation refused, packets sent one by one instead
}

// counters is Counters while it is being counted.
type counters struct {
	keepalives, short, shortIKE, markedOnIKEPort, malformed, notUnicast,
	truncated, kernelDrops, readErrors, pathErrors, sendErrors, trainsRefused atomic.Uint64
}

func (c *counters) snapshot() Counters {
	return Counters{
		Keepalives:      c.keepalives.Load(),
		Short:           c.short.Load(),
		ShortIKE:        c.shortIKE.Load(),
		MarkedOnIKEPort: c.markedOnIKEPort.Load(),
		Malformed:       c.malformed.Load(),
		NotUnicast:      c.notUnicast.Load(),
		Truncated:       c.truncated.Load(),
		KernelDrops:     c.kernelDrops.Load(),
		ReadErrors:      c.readErrors.Load(),
		PathErrors:      c.pathErrors.Load(),
		SendErrors:      c.sendErrors.Load(),
		TrainsRefused:   c.trainsRefused.Load(),
	}
}

// count adds one to the counter of a datagram that is not delivered.
func (c *counters) count(k kind) {
	switch k {
	case kindKeepalive:
		c.keepalives.Add(1)
	case kindShort:
		c.short.Add(1)
	case kindShortIKE:
		c.shortIKE.Add(1)
	case kindMarkedOnIKEPort:
		c.markedOnIKEPort.Add(1)
	}
}
