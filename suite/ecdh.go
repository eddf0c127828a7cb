package suite

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
)

// ecdhKE is a key exchange over an elliptic curve: the NIST curves in the format
// of RFC 5903 §7, and Curve25519 by RFC 8031.
type ecdhKE struct {
	id    KEID
	curve ecdh.Curve
	key   *ecdh.PrivateKey // nil after Zero
}

func ecdhCurve(id KEID) ecdh.Curve {
	switch id {
	case KEP256:
		return ecdh.P256()
	case KEP384:
		return ecdh.P384()
	case KEP521:
		return ecdh.P521()
	default:
		return ecdh.X25519()
	}
}

func newECDH(id KEID, rand io.Reader) (*ecdhKE, error) {
	curve := ecdhCurve(id)
	key, err := drawECDHKey(curve, id, rand)
	if err != nil {
		return nil, fmt.Errorf("making a key pair for %v: %w", id, err)
	}
	return &ecdhKE{id: id, curve: curve, key: key}, nil
}

// drawECDHKey draws a scalar by rejection sampling. It does not use
// curve.GenerateKey, which ignores the reader it is given: sessions could then
// not be simulated or replayed from a seed.
func drawECDHKey(curve ecdh.Curve, id KEID, rand io.Reader) (*ecdh.PrivateKey, error) {
	size := id.DataLen() / 2
	if id == KECurve25519 {
		size = id.DataLen()
	}
	scalar := make([]byte, size)
	defer clear(scalar)
	// A draw is out of range with a probability of 2^-32 for P-256 and far less
	// for the others. More than a few in a row mean that rand is broken.
	for range 8 {
		if _, err := io.ReadFull(rand, scalar); err != nil {
			return nil, fmt.Errorf("reading randomness: %w", err)
		}
		if id == KEP521 {
			scalar[0] &= 0x01 // 521 of 528 bits
		}
		if key, err := curve.NewPrivateKey(scalar); err == nil {
			return key, nil
		}
	}
	return nil, errors.New("the source of randomness gives no usable scalar")
}

// sec1Uncompressed is the octet before x and y in the SEC 1 encoding of a point,
// which crypto/ecdh wants and IKE leaves out.
const sec1Uncompressed = 4

// Public implements KEInitiator.
func (k *ecdhKE) Public() []byte {
	if k.key == nil {
		return nil
	}
	public := k.key.PublicKey().Bytes()
	if k.id == KECurve25519 {
		return public
	}
	return public[1:]
}

// Shared implements KEInitiator. crypto/ecdh checks that the point is on the
// curve (RFC 6989 §2.3), gives the x coordinate only (RFC 5903 §7), and refuses
// an all-zero result of X25519 (RFC 7748 §6.1).
func (k *ecdhKE) Shared(response []byte) ([]byte, error) {
	if k.key == nil {
		return nil, errors.New("the private key of this exchange was erased")
	}
	if len(response) != k.id.DataLen() {
		return nil, keLengthError(k.id, len(response))
	}
	point := response
	if k.id != KECurve25519 {
		point = append([]byte{sec1Uncompressed}, response...)
	}
	peer, err := k.curve.NewPublicKey(point)
	if err != nil {
		return nil, fmt.Errorf("%w for %v: %w", ErrKEData, k.id, err)
	}
	secret, err := k.key.ECDH(peer)
	if err != nil {
		return nil, fmt.Errorf("%w for %v: %w", ErrKEData, k.id, err)
	}
	return secret, nil
}

// Zero implements KEInitiator. The scalar lives inside crypto/ecdh, out of reach;
// dropping it leaves it to the collector.
func (k *ecdhKE) Zero() { k.key = nil }
