package tun

import (
	"bytes"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/transport"
)

// When an uplink goes, its address goes some milliseconds before anybody has told the
// host to move, and the kernel refuses what is sent meanwhile. These packets are kept
// for a moment and leave over the new path: sealed as they are, since nothing in them
// depends on the way they take.

const (
	// maxStranded bounds what is kept of one host, in octets.
	maxStranded = 64 << 10
	// strandedFor is how long it is worth sending: later, whoever cares has sent again.
	strandedFor = time.Second
	// strandedWait lets the word that the host has moved arrive first, or answers go
	// where it was.
	strandedWait = 2 * time.Millisecond
)

// stranded are packets of a host that have nowhere to go.
type stranded struct {
	mu     sync.Mutex
	trains []transport.Train
	octets int
	since  int64 // stamp of the first
}

// keep takes a copy of packets that the kernel refused.
func (s *stranded) keep(trains []transport.Train, stamp int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.octets > 0 && stamp-s.since > int64(strandedFor) {
		s.trains, s.octets = nil, 0
	}
	for _, t := range trains {
		if s.octets+len(t.Data) > maxStranded {
			return
		}
		if s.octets == 0 {
			s.since = stamp
		}
		s.octets += len(t.Data)
		t.Data = bytes.Clone(t.Data)
		s.trains = append(s.trains, t)
	}
}

// take returns what is worth sending now.
func (s *stranded) take(stamp int64) []transport.Train {
	s.mu.Lock()
	defer s.mu.Unlock()
	trains := s.trains
	if stamp-s.since > int64(strandedFor) {
		trains = nil
	}
	s.trains, s.octets = nil, 0
	return trains
}

// noWay says whether the kernel refused a packet because the path's own end is gone.
func noWay(err error) bool {
	for _, e := range []error{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL, syscall.EINVAL, syscall.ENETDOWN, syscall.ENODEV} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// forward sends stranded packets over the path that a host has moved to.
func (d *DataPath) forward(h *host, stamp int64) {
	trains := h.stranded.take(stamp)
	if len(trains) == 0 {
		return
	}
	time.AfterFunc(strandedWait, func() {
		sender := d.sender.Load()
		if sender == nil || d.isClosing() {
			return
		}
		path := h.path.Load()
		if err := (*sender).SendESP(path.Pair, path.UDP, trains); err != nil {
			d.warn("packets could not be sent over the new path either", "host", h.id, "pair", path.Pair, "error", err)
		}
	})
}
