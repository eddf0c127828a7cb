package vnet

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum (RFC 1071) does not depend on byte order: it may be summed
// up in words of any width and order as long as it is stored in the same order. So
// everything here is little-endian, which is what most machines load fastest.

// sum adds b to a one's complement sum.
func sum(b []byte, v uint64) uint64 {
	le := binary.LittleEndian
	var carry uint64
	for len(b) >= 64 {
		w := b[:64:64]
		v, carry = bits.Add64(v, le.Uint64(w[0:8]), 0)
		v, carry = bits.Add64(v, le.Uint64(w[8:16]), carry)
		v, carry = bits.Add64(v, le.Uint64(w[16:24]), carry)
		v, carry = bits.Add64(v, le.Uint64(w[24:32]), carry)
		v, carry = bits.Add64(v, le.Uint64(w[32:40]), carry)
		v, carry = bits.Add64(v, le.Uint64(w[40:48]), carry)
		v, carry = bits.Add64(v, le.Uint64(w[48:56]), carry)
		v, carry = bits.Add64(v, le.Uint64(w[56:64]), carry)
		v, carry = bits.Add64(v, 0, carry)
		v += carry
		b = b[64:]
	}
	for len(b) >= 8 {
		v = add(v, le.Uint64(b))
		b = b[8:]
	}
	if len(b) >= 4 {
		v = add(v, uint64(le.Uint32(b)))
		b = b[4:]
	}
	if len(b) >= 2 {
		v = add(v, uint64(le.Uint16(b)))
		b = b[2:]
	}
	if len(b) == 1 {
		v = add(v, uint64(b[0]))
	}
	return v
}

func add(v, w uint64) uint64 {
	v, carry := bits.Add64(v, w, 0)
	return v + carry
}

// word is a number as it counts in a sum.
func word(n uint16) uint64 { return uint64(bits.ReverseBytes16(n)) }

// fold brings a sum down to 16 bits.
func fold(v uint64) uint16 {
	v = v&0xffffffff + v>>32
	v = v&0xffffffff + v>>32
	v = v&0xffff + v>>16
	v = v&0xffff + v>>16
	return uint16(v)
}

// putChecksum stores the complement of a sum.
func putChecksum(b []byte, v uint64) { binary.LittleEndian.PutUint16(b, ^fold(v)) }

// putUDPChecksum does the same for UDP, where zero means that there is none (RFC
// 768).
func putUDPChecksum(b []byte, v uint64) {
	c := ^fold(v)
	if c == 0 {
		c = 0xffff
	}
	binary.LittleEndian.PutUint16(b, c)
}

// pseudo is the sum of the pseudo-header of an upper layer of n octets (RFC 9293
// §3.1, RFC 8200 §8.1).
func pseudo(ip []byte, protocol uint8, n int) uint64 {
	v := word(uint16(protocol)) + word(uint16(n)) // n never needs more: jumbograms do not pass here
	if ip[0]>>4 == 4 {
		return sum(ip[ipv4Addresses:ipv4Len], v)
	}
	return sum(ip[ipv6Addresses:ipv6Len], v)
}
