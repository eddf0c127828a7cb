package suite

import (
	"crypto/cipher"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
)

// Errors of Protector.Open.
var (
	// ErrIntegrity means that the ICV is wrong, or that there is not even room
	// for one: the message did not come from the peer, or was damaged.
	ErrIntegrity = errors.New("integrity check failed")
	// ErrPadding means that the ICV is right but the padding inside is not: the
	// peer itself sent something malformed.
	ErrPadding = errors.New("padding length exceeds the encrypted content")
)

// Protector seals and opens the Encrypted payload of IKE in one direction
// (RFC 7296 §3.14, RFC 5282 §3, RFC 7634 §3). It is not safe for concurrent use.
type Protector struct {
	encr  Encr
	integ IntegID

	aead  cipher.AEAD      // AEAD ciphers
	nonce [12]byte         // salt, then the IV in use
	next  uint64           // next IV
	spent bool             // all IVs were used
	block cipher.Block     // CBC
	mac   hash.Hash        // CBC
	tag   [maxHashLen]byte // scratch of mac
}

const maxHashLen = 64

var errZeroed = errors.New("the keys of this IKE SA were erased")

// NewProtector makes a Protector from the keys of one direction: SK_e, with the
// salt at its end for an AEAD cipher, and SK_a, empty for an AEAD cipher. The keys
// are copied into key schedules; the caller may erase its own.
func NewProtector(encr Encr, integ IntegID, encrKey, integKey []byte) (*Protector, error) {
	if len(encrKey) != encr.KeyMaterialLen() {
		return nil, fmt.Errorf("keying material of %d octets for %v, which takes %d", len(encrKey), encr, encr.KeyMaterialLen())
	}
	p := &Protector{encr: encr, integ: integ}
	var err error
	if encr.AEAD() {
		if integ != IntegNone || len(integKey) != 0 {
			return nil, fmt.Errorf("%v takes no integrity algorithm (RFC 5282 §8), got %v", encr, integ)
		}
		if p.aead, err = NewAEAD(encr, encrKey[:encr.KeyLen()]); err != nil {
			return nil, err
		}
		copy(p.nonce[:aeadSaltLen], encrKey[encr.KeyLen():])
		return p, nil
	}
	if p.block, err = NewCBCBlock(encr, encrKey); err != nil {
		return nil, err
	}
	if p.mac, err = NewHMAC(integ, integKey); err != nil {
		return nil, err
	}
	return p, nil
}

// icvLen is the length of the integrity check value on the wire.
func (p *Protector) icvLen() int {
	if p.encr.AEAD() {
		return p.encr.ICVLen()
	}
	return p.integ.TagLen()
}

// padLen is the padding for n octets of payloads: the least that makes payloads,
// padding and the Pad Length octet a multiple of the block size.
func (p *Protector) padLen(n int) int {
	block := p.encr.BlockLen()
	return (block - (n+1)%block) % block
}

// SealedLen is the length of what Seal appends for n octets of payloads.
func (p *Protector) SealedLen(n int) int {
	return p.encr.IVLen() + n + p.padLen(n) + 1 + p.icvLen()
}

// Seal appends IV, ciphertext and ICV to dst. The ICV covers aad, which is the
// message from its header through the generic header of the Encrypted payload
// (and the fragment numbers, RFC 7383 §2.5), with final lengths. aad may be the
// content of dst; plaintext must not overlap the space behind it. An AEAD cipher
// numbers its IVs, CBC takes a fresh one from rand.
func (p *Protector) Seal(dst, aad, plaintext []byte, rand io.Reader) ([]byte, error) {
	if p.aead == nil && p.block == nil {
		return nil, errZeroed
	}
	dst = grow(dst, p.SealedLen(len(plaintext)))
	if p.aead != nil {
		return p.sealAEAD(dst, aad, plaintext)
	}
	return p.sealCBC(dst, aad, plaintext, rand)
}

func (p *Protector) sealAEAD(dst, aad, plaintext []byte) ([]byte, error) {
	if p.spent {
		return nil, errors.New("all IVs of this IKE SA are used up, it has to be rekeyed")
	}
	iv := p.nonce[aeadSaltLen:]
	binary.BigEndian.PutUint64(iv, p.next)
	if p.next == math.MaxUint64 {
		p.spent = true
	}
	p.next++
	dst = append(dst, iv...)
	start := len(dst)
	dst = append(dst, plaintext...)
	dst = append(dst, 0) // Pad Length
	return p.aead.Seal(dst[:start], p.nonce[:], dst[start:], aad), nil
}

func (p *Protector) sealCBC(dst, aad, plaintext []byte, rand io.Reader) ([]byte, error) {
	ivAt := len(dst)
	dst = dst[:ivAt+aesBlockLen]
	iv := dst[ivAt:]
	if _, err := io.ReadFull(rand, iv); err != nil {
		return nil, fmt.Errorf("reading randomness for an IV: %w", err)
	}
	start := len(dst)
	pad := p.padLen(len(plaintext))
	dst = append(dst, plaintext...)
	for range pad {
		dst = append(dst, 0)
	}
	dst = append(dst, byte(pad))
	cipher.NewCBCEncrypter(p.block, iv).CryptBlocks(dst[start:], dst[start:])
	return append(dst, p.sum(aad, dst[ivAt:])...), nil
}

// sum returns the truncated tag over the parts. It is valid until the next call.
func (p *Protector) sum(aad, sealed []byte) []byte {
	p.mac.Reset()
	p.mac.Write(aad)
	p.mac.Write(sealed)
	return p.mac.Sum(p.tag[:0])[:p.integ.TagLen()]
}

// Open checks the ICV over aad and sealed (IV, ciphertext, ICV) and returns the
// payloads without padding, in a slice of their own. It decrypts nothing that is
// not authentic, and leaves its arguments as they are.
func (p *Protector) Open(aad, sealed []byte) ([]byte, error) {
	if p.aead == nil && p.block == nil {
		return nil, errZeroed
	}
	ivLen, icvLen := p.encr.IVLen(), p.icvLen()
	if len(sealed) < ivLen+icvLen {
		return nil, ErrIntegrity
	}
	var plaintext []byte
	var err error
	if p.aead != nil {
		plaintext, err = p.openAEAD(aad, sealed)
	} else {
		plaintext, err = p.openCBC(aad, sealed[:len(sealed)-icvLen], sealed[len(sealed)-icvLen:])
	}
	if err != nil {
		return nil, err
	}
	return stripPadding(plaintext)
}

func (p *Protector) openAEAD(aad, sealed []byte) ([]byte, error) {
	var nonce [12]byte
	copy(nonce[:], p.nonce[:aeadSaltLen])
	copy(nonce[aeadSaltLen:], sealed)
	plaintext, err := p.aead.Open(nil, nonce[:], sealed[aeadIVLen:], aad)
	if err != nil {
		return nil, ErrIntegrity
	}
	return plaintext, nil
}

func (p *Protector) openCBC(aad, sealed, tag []byte) ([]byte, error) {
	if !hmac.Equal(p.sum(aad, sealed), tag) {
		return nil, ErrIntegrity
	}
	iv, ciphertext := sealed[:aesBlockLen], sealed[aesBlockLen:]
	if len(ciphertext)%aesBlockLen != 0 {
		return nil, ErrPadding
	}
	plaintext := make([]byte, len(ciphertext))
	cipher.NewCBCDecrypter(p.block, iv).CryptBlocks(plaintext, ciphertext)
	return plaintext, nil
}

// stripPadding removes padding and Pad Length. The content of the padding is the
// sender's choice and not looked at (RFC 7296 §3.14).
func stripPadding(plaintext []byte) ([]byte, error) {
	if len(plaintext) == 0 {
		return nil, ErrPadding
	}
	last := len(plaintext) - 1
	pad := int(plaintext[last])
	if pad > last {
		return nil, ErrPadding
	}
	return plaintext[: last-pad : last-pad], nil
}

// Zero makes the Protector unusable and drops its keys. The key schedules
// themselves are out of reach of this package; they are left to the collector.
func (p *Protector) Zero() {
	clear(p.nonce[:])
	clear(p.tag[:])
	p.aead, p.block, p.mac = nil, nil, nil
}

// grow makes room for n octets behind b, at once, so that aad inside b is not
// copied more often than needed.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	grown := make([]byte, len(b), len(b)+n)
	copy(grown, b)
	return grown
}
