package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
)

// NewAEAD returns the cipher for an AEAD algorithm, keyed without salt. Its
// nonces are 12 octets: salt, then IV (RFC 4106 §4, RFC 5282 §4, RFC 7634 §2).
func NewAEAD(encr Encr, key []byte) (cipher.AEAD, error) {
	if !encr.Valid() || !encr.AEAD() {
		return nil, fmt.Errorf("%v is not a supported AEAD cipher", encr)
	}
	if len(key) != encr.KeyLen() {
		return nil, fmt.Errorf("key of %d octets for %v, which takes %d", len(key), encr, encr.KeyLen())
	}
	if encr.ID == EncrChaCha20Poly1305 {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// NewCBCBlock returns the block cipher for AES-CBC (RFC 3602). Modes are made
// from it with cipher.NewCBCEncrypter and cipher.NewCBCDecrypter, one a packet.
func NewCBCBlock(encr Encr, key []byte) (cipher.Block, error) {
	if !encr.Valid() || encr.ID != EncrAESCBC {
		return nil, fmt.Errorf("%v is not a supported CBC cipher", encr)
	}
	if len(key) != encr.KeyLen() {
		return nil, fmt.Errorf("key of %d octets for %v, which takes %d", len(key), encr, encr.KeyLen())
	}
	return aes.NewCipher(key)
}

// NewHMAC returns the keyed hash of an integrity algorithm. Sum gives the whole
// hash, of which the first TagLen octets go on the wire (RFC 4868 §2.3). Compare
// tags with hmac.Equal only.
func NewHMAC(id IntegID, key []byte) (hash.Hash, error) {
	if id == IntegNone || !id.Valid() {
		return nil, fmt.Errorf("integrity algorithm %v is not supported", id)
	}
	if len(key) != id.KeyLen() {
		return nil, fmt.Errorf("key of %d octets for %v, which takes %d", len(key), id, id.KeyLen())
	}
	switch id {
	case IntegHMACSHA256:
		return hmac.New(sha256.New, key), nil
	case IntegHMACSHA384:
		return hmac.New(sha512.New384, key), nil
	default:
		return hmac.New(sha512.New, key), nil
	}
}
