package ike

import (
	"crypto/sha3"
	"encoding/binary"
	"io"
	"time"
)

// seedLen is the length of a seed for seededReader: twice the strength of the strongest
// algorithm.
const seedLen = 64

// random fills a new slice. A source that fails is fatal: no key or nonce may be
// made without it.
func (e *Engine) random(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(e.cfg.Rand, b); err != nil {
		panic("ike: the source of randomness failed: " + err.Error())
	}
	return b
}

// randomFraction returns a number in [0, 1).
func (e *Engine) randomFraction() float64 {
	return float64(binary.BigEndian.Uint64(e.random(8))>>11) / (1 << 53)
}

// pause returns a random time from least to least and spread: two sides that get into
// each other's way must not try again in step (RFC 7296 §2.25).
func (e *Engine) pause(least, spread time.Duration) time.Duration {
	return least + time.Duration(e.randomFraction()*float64(spread))
}

// How long to wait before an exchange is begun again: after TEMPORARY_FAILURE, and after a
// rekey that has failed.
const (
	refusedPause, refusedPauseSpread = time.Second, 2 * time.Second
	failedChildPause                 = 5 * time.Second
	failedIKEPause                   = 10 * time.Second
)

// seededReader is a stream of random octets made from a seed, for Work that runs
// away from the engine's own source: SHAKE256 is a cryptographic generator, and the
// same seed gives the same stream when a session is replayed.
func seededReader(seed []byte) io.Reader {
	h := sha3.NewSHAKE256()
	_, _ = h.Write(seed)
	clear(seed)
	return h
}
