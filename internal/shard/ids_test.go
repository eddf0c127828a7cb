package shard

import (
	"bytes"
	"errors"
	"testing"
	"testing/iotest"

	"github.com/wayfarer-vpn/wayfarer/ike"
)

func TestIDsAreUniqueAndTellTheShard(t *testing.T) {
	const n = 3
	ids, err := NewIDs(n, bytes.NewReader([]byte("12345678")))
	if err != nil {
		t.Fatal(err)
	}
	g := NewGroup(n, func(int) Config { return Config{} })
	seen := map[ike.SessionID]bool{0: true}
	for i := range n {
		next := ids.ForShard(i)
		for range 1000 {
			id := next()
			if seen[id] {
				t.Fatalf("session %d twice", id)
			}
			seen[id] = true
			if g.Of(id) != g.Shards()[i] {
				t.Fatalf("session %d is not in shard %d", id, i)
			}
		}
	}
	if a, b := ids.Child(), ids.Child(); a == b || a == 0 {
		t.Errorf("child identifiers %d, %d", a, b)
	}
}

func TestESPSPIs(t *testing.T) {
	for _, seed := range []string{"12345678", "\xff\xff\xff\xff\x00\x00\x00\x00", "\x00\x00\x00\x00\xff\xff\xff\xff"} {
		ids, err := NewIDs(1, bytes.NewReader([]byte(seed)))
		if err != nil {
			t.Fatal(err)
		}
		seen := map[uint32]bool{}
		for range 200_000 {
			spi := ids.ESPSPI()
			if spi < 256 || seen[spi] {
				t.Fatalf("SPI %08x is reserved or comes twice", spi)
			}
			seen[spi] = true
		}
	}
	broken := errors.New("no randomness")
	if _, err := NewIDs(1, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("error: %v", err)
	}
}

// mix must be a bijection, or two SAs could get one SPI. Its steps are each undone.
func FuzzMixIsABijection(f *testing.F) {
	f.Add(uint32(0), uint32(0))
	f.Add(uint32(0xffffffff), uint32(0x12345678))
	f.Fuzz(func(t *testing.T, x, scramble uint32) {
		y := mix(x, scramble)
		// The inverses of the odd factors modulo 2^32, found by Newton's iteration.
		inverse := func(a uint32) uint32 {
			i := a
			for range 5 {
				i *= 2 - a*i
			}
			return i
		}
		y ^= y >> 16
		y *= inverse(0x846ca68b)
		y ^= y>>15 ^ y>>30
		y *= inverse(0x7feb352d)
		y ^= y >> 16
		if y^scramble != x {
			t.Fatalf("mix(%08x, %08x) cannot be undone", x, scramble)
		}
	})
}
