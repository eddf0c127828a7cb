package suite

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
)

// PRF is a pseudo-random function of IKE (RFC 7296 §2.13, RFC 4868 §2.4). The
// zero value is not usable; take one from NewPRF. It holds no key.
type PRF struct {
	id   PRFID
	hash func() hash.Hash
}

// NewPRF returns the function with that identifier.
func NewPRF(id PRFID) (PRF, error) {
	switch id {
	case PRFHMACSHA256:
		return PRF{id, sha256.New}, nil
	case PRFHMACSHA384:
		return PRF{id, sha512.New384}, nil
	case PRFHMACSHA512:
		return PRF{id, sha512.New}, nil
	}
	return PRF{}, fmt.Errorf("pseudo-random function %v is not supported", id)
}

// ID returns the identifier.
func (p PRF) ID() PRFID { return p.id }

// KeyLen is the preferred key length in octets, which is also the length of what
// Sum returns.
func (p PRF) KeyLen() int { return p.id.KeyLen() }

// Sum returns prf(key, parts[0] | parts[1] | ...). The key may have any length.
func (p PRF) Sum(key []byte, parts ...[]byte) []byte {
	mac := hmac.New(p.hash, key)
	for _, part := range parts {
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// Plus returns the first n octets of prf+(key, seed) (RFC 7296 §2.13):
//
//	T1 = prf(K, S | 0x01), T2 = prf(K, T1 | S | 0x02), ...
//
// prf+ is not defined beyond 255 blocks. What IKE derives is a fraction of that,
// so asking for more is a mistake in the program, and panics.
func (p PRF) Plus(key, seed []byte, n int) []byte {
	size := p.KeyLen()
	if n < 0 || n > 255*size {
		panic(fmt.Sprintf("suite: prf+ of %d octets", n))
	}
	// Room for a whole last block, so that the result is never moved and no copy
	// of a key is left behind.
	out := make([]byte, 0, n+size)
	mac := hmac.New(p.hash, key)
	var previous []byte
	for i := byte(1); len(out) < n; i++ {
		mac.Reset()
		mac.Write(previous)
		mac.Write(seed)
		mac.Write([]byte{i})
		start := len(out)
		out = mac.Sum(out)
		previous = out[start:]
	}
	clear(out[n:])
	return out[:n:n]
}
