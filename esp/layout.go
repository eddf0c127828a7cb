package esp

import (
	"fmt"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

const (
	// headerLen is SPI and sequence number (RFC 4303 §2).
	headerLen = 8
	// trailerLen is Pad Length and Next Header (RFC 4303 §2.4, §2.6).
	trailerLen = 2
	// maxTrailer is the longest padding with its trailer.
	maxTrailer = 16 + trailerLen
	// minSPI is the first SPI outside the reserved range (RFC 4303 §2.1).
	minSPI = 256

	// MaxHeadroom is the room that sealing needs in front of a payload, whatever
	// the algorithm: SPI, sequence number and the longest IV.
	MaxHeadroom = headerLen + 16
	// MaxTailroom is the room that sealing needs behind a payload: up to one block
	// of padding with its trailer, and the longest ICV.
	MaxTailroom = 16 + trailerLen + 32
)

// Next header values of a tunnel mode SA (RFC 4303 §2.6).
const (
	NextHeaderIPv4  = 4
	NextHeaderIPv6  = 41
	NextHeaderDummy = 59
)

// Layout says how long the parts of an SA's packets are.
type Layout struct {
	IVLen  int // explicit IV on the wire
	ICVLen int
	Align  int // ciphertext is a multiple of this (RFC 4303 §2.4)
}

// LayoutOf returns the layout for a pair of algorithms.
func LayoutOf(encr suite.Encr, integ suite.IntegID) (Layout, error) {
	if encr.AEAD() {
		if integ != suite.IntegNone {
			return Layout{}, fmt.Errorf("%v brings its own integrity and cannot stand with %v", encr, integ)
		}
		return Layout{IVLen: encr.IVLen(), ICVLen: encr.ICVLen(), Align: 4}, nil
	}
	if encr.ID != suite.EncrAESCBC {
		return Layout{}, fmt.Errorf("encryption %v is not implemented for esp", encr)
	}
	if integ.TagLen() == 0 {
		return Layout{}, fmt.Errorf("%v needs an integrity algorithm, not %v", encr, integ)
	}
	return Layout{IVLen: encr.IVLen(), ICVLen: integ.TagLen(), Align: encr.BlockLen()}, nil
}

// minCiphertext is the shortest ciphertext that holds a trailer.
func (l Layout) minCiphertext() int { return l.Align }

// Headroom is the room needed in front of the payload.
func (l Layout) Headroom() int { return headerLen + l.IVLen }

// padLen returns how many pad octets a payload of n octets needs.
func (l Layout) padLen(n int) int {
	return (l.Align - (n+trailerLen)%l.Align) % l.Align
}

// SealedLen returns the length, SPI to ICV, of a sealed payload of n octets.
func (l Layout) SealedLen(n int) int {
	return l.Headroom() + n + l.padLen(n) + trailerLen + l.ICVLen
}

// MaxPayload returns the longest payload whose sealed form fits into n octets,
// zero when none does.
func (l Layout) MaxPayload(n int) int {
	space := n - l.Headroom() - l.ICVLen
	space -= space % l.Align
	return max(space-trailerLen, 0)
}
