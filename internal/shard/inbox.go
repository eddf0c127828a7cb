package shard

import (
	"sync"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Defaults of the limits in Config.
const (
	defaultMaxDatagrams = 2048
	defaultMaxInits     = 1024
	defaultMaxOctets    = 4 << 20
)

// datagram is one received IKE message.
type datagram struct {
	pair locator.Pair
	data []byte
}

// batch is what waited, taken out at once.
type batch struct {
	commands []func(now time.Time, e Engine)
	known    []datagram
	inits    []datagram
}

// inbox holds what waits for the shard. Commands are not limited in number: they come
// from the daemon, from work in progress (which the engine bounds) and from
// authenticated traffic only.
type inbox struct {
	bell chan struct{} // holds a token when something waits

	maxKnown, maxInits, maxOctets int

	mu          sync.Mutex
	waiting     batch
	knownOctets int
	initOctets  int
	spare       batch // emptied lists for the next swap
	closed      bool
}

func (b *inbox) init(cfg Config) {
	b.bell = make(chan struct{}, 1)
	b.maxKnown = orDefault(cfg.MaxDatagrams, defaultMaxDatagrams)
	b.maxInits = orDefault(cfg.MaxInits, defaultMaxInits)
	b.maxOctets = orDefault(cfg.MaxOctets, defaultMaxOctets)
}

func orDefault(v, d int) int {
	if v > 0 {
		return v
	}
	return d
}

func (b *inbox) putDatagram(d datagram, isInit bool) bool {
	b.mu.Lock()
	list, octets, limit := &b.waiting.known, &b.knownOctets, b.maxKnown
	if isInit {
		list, octets, limit = &b.waiting.inits, &b.initOctets, b.maxInits
	}
	if b.closed || len(*list) >= limit || *octets+len(d.data) > b.maxOctets {
		b.mu.Unlock()
		return false
	}
	*list = append(*list, d)
	*octets += len(d.data)
	b.mu.Unlock()
	b.ring()
	return true
}

func (b *inbox) putCommand(f func(now time.Time, e Engine)) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	b.waiting.commands = append(b.waiting.commands, f)
	b.mu.Unlock()
	b.ring()
	return true
}

func (b *inbox) ring() {
	select {
	case b.bell <- struct{}{}:
	default: // it has been rung
	}
}

// take empties the inbox.
func (b *inbox) take() batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.waiting
	b.waiting, b.spare = b.spare, batch{}
	b.knownOctets, b.initOctets = 0, 0
	return out
}

// recycle gives the lists of a batch back, without what they pointed to.
func (b *inbox) recycle(used batch) {
	clear(used.commands)
	clear(used.known)
	clear(used.inits)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spare = batch{used.commands[:0], used.known[:0], used.inits[:0]}
}

// close refuses everything from now on and forgets what waits.
func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.waiting, b.spare = batch{}, batch{}
}

// Octets of the IKE header that tell a request for a new IKE SA from the rest
// (RFC 7296 §3.1).
const (
	offsetSPIr     = 8
	offsetExchange = 18
	offsetFlags    = 19
)

// requestsNewSA says whether the message looks like an IKE_SA_INIT request: such a
// message costs its sender nothing, so it is the first to be dropped.
func requestsNewSA(data []byte) bool {
	if len(data) < message.HeaderLen {
		return true
	}
	for _, o := range data[offsetSPIr:16] {
		if o != 0 {
			return false
		}
	}
	return message.ExchangeType(data[offsetExchange]) == message.IKESAInit &&
		message.Flags(data[offsetFlags])&message.FlagResponse == 0
}
