package suite

import (
	"errors"
	"fmt"
	"io"
	"math/big"
)

// modpGroup is a group of RFC 3526.
type modpGroup struct {
	p, pMinus1 *big.Int
	// exponentLen is the length of private exponents in octets. They need twice
	// the strength of the group in bits (RFC 3526 §1); these sizes are at or above
	// the higher of the two estimates in RFC 3526 §8. Full-length exponents would
	// cost about six times as much and add nothing.
	exponentLen int
}

var (
	modp2048 = newMODPGroup(modp2048Hex, 320)
	modp3072 = newMODPGroup(modp3072Hex, 424)
	modp4096 = newMODPGroup(modp4096Hex, 512)
)

var (
	bigOne = big.NewInt(1)
	bigTwo = big.NewInt(2)
)

func newMODPGroup(prime string, exponentBits int) modpGroup {
	p, ok := new(big.Int).SetString(prime, 16)
	if !ok {
		panic("suite: malformed MODP prime")
	}
	return modpGroup{p: p, pMinus1: new(big.Int).Sub(p, bigOne), exponentLen: exponentBits / 8}
}

func modpGroupOf(id KEID) modpGroup {
	switch id {
	case KEModp2048:
		return modp2048
	case KEModp3072:
		return modp3072
	default:
		return modp4096
	}
}

// modpKE is a Diffie-Hellman exchange modulo a prime.
//
// math/big does not promise that its time is independent of the exponent. Each
// exponent is used for two exponentiations at most and only one of them with a
// base the peer chose, which leaves nothing to average over (RFC 6989 §3 sees a
// need for blinding beyond a hundred uses).
type modpKE struct {
	id       KEID
	group    modpGroup
	exponent *big.Int // nil after Zero
	public   []byte
}

func newMODP(id KEID, rand io.Reader) (*modpKE, error) {
	group := modpGroupOf(id)
	raw := make([]byte, group.exponentLen)
	defer clear(raw)
	if _, err := io.ReadFull(rand, raw); err != nil {
		return nil, fmt.Errorf("making a key pair for %v: reading randomness: %w", id, err)
	}
	// The highest bit is set: the exponent has its full length, and is never 0 or 1.
	raw[0] |= 0x80
	k := &modpKE{id: id, group: group, exponent: new(big.Int).SetBytes(raw)}
	k.public = new(big.Int).Exp(bigTwo, k.exponent, group.p).FillBytes(make([]byte, id.DataLen()))
	return k, nil
}

// Public implements KEInitiator.
func (k *modpKE) Public() []byte { return k.public }

// Shared implements KEInitiator. The secret has the length of the modulus, with
// leading zeros kept (RFC 7296 §2.14).
func (k *modpKE) Shared(response []byte) ([]byte, error) {
	if k.exponent == nil {
		return nil, errors.New("the private key of this exchange was erased")
	}
	if len(response) != k.id.DataLen() {
		return nil, keLengthError(k.id, len(response))
	}
	peer := new(big.Int).SetBytes(response)
	// RFC 6989 §2.1: 1 < r < p-1.
	if peer.Cmp(bigOne) <= 0 || peer.Cmp(k.group.pMinus1) >= 0 {
		return nil, fmt.Errorf("%w for %v: public value out of range", ErrKEData, k.id)
	}
	shared := peer.Exp(peer, k.exponent, k.group.p)
	defer zeroInt(shared)
	return shared.FillBytes(make([]byte, k.id.DataLen())), nil
}

// Zero implements KEInitiator.
func (k *modpKE) Zero() {
	if k.exponent != nil {
		zeroInt(k.exponent)
		k.exponent = nil
	}
}

// zeroInt overwrites the words of a number.
func zeroInt(n *big.Int) {
	clear(n.Bits())
	n.SetInt64(0)
}
