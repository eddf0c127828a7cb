package shard

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
)

// IDs gives the names that must be unique in a process: sessions, Child SAs, inbound
// SPIs of ESP. Its methods may be called from any goroutine.
type IDs struct {
	shards   uint64
	sessions []atomic.Uint64 // one counter per shard
	children atomic.Uint64
	spis     atomic.Uint32
	scramble uint32
}

// NewIDs makes identifiers for n shards. SPIs begin at a random place, so that a
// restarted daemon does not soon give out those its peers still use from before.
func NewIDs(n int, random io.Reader) (*IDs, error) {
	var seed [8]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return nil, fmt.Errorf("draw the first SPI: %w", err)
	}
	ids := &IDs{shards: uint64(max(1, n)), sessions: make([]atomic.Uint64, max(1, n))}
	ids.spis.Store(binary.LittleEndian.Uint32(seed[:4]))
	ids.scramble = binary.LittleEndian.Uint32(seed[4:])
	return ids, nil
}

// ForShard returns the function that names the sessions of shard i. The identifier
// modulo the number of shards is the shard (Group.Of); zero is never given out.
func (ids *IDs) ForShard(i int) func() ike.SessionID {
	return func() ike.SessionID {
		return ike.SessionID(ids.sessions[i].Add(1)*ids.shards + uint64(i))
	}
}

// Child names a Child SA.
func (ids *IDs) Child() esp.ChildID { return esp.ChildID(ids.children.Add(1)) }

// firstSPI is the smallest SPI that may be used: the ones below are reserved
// (RFC 4303 §2.1).
const firstSPI = 256

// ESPSPI gives an inbound SPI. A counter runs through all 32-bit values and each is
// scrambled by a bijection, so an SPI comes back only after all others have been used.
func (ids *IDs) ESPSPI() uint32 {
	for {
		if spi := mix(ids.spis.Add(1), ids.scramble); spi >= firstSPI {
			return spi
		}
	}
}

// mix is a bijection on 32-bit numbers: each step (xor with a constant, xor with a
// right shift, product with an odd number) can be undone.
func mix(x, scramble uint32) uint32 {
	x ^= scramble
	x ^= x >> 16
	x *= 0x7feb352d
	x ^= x >> 15
	x *= 0x846ca68b
	x ^= x >> 16
	return x
}
