package esp

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

// aead is AES-GCM (RFC 4106) and ChaCha20-Poly1305 (RFC 7634): nonce = salt and
// the explicit 8-octet IV, associated data = SPI and sequence number.
type aead struct {
	layout Layout
	esn    bool
	key    atomic.Pointer[aeadKey]
}

// aeadKey is what close forgets. The expanded key lies inside the cipher object,
// which offers no way to overwrite it; dropping the only reference is what can be
// done.
type aeadKey struct {
	cipher cipher.AEAD
	salt   [4]byte
}

// init prepares an aead where it lies: an SA in one piece of memory is an SA in few
// pages, and a gateway with many of them has few in its caches.
func (a *aead) init(sa *SA, layout Layout) error {
	n := sa.Encr.KeyLen()
	c, err := suite.NewAEAD(sa.Encr, sa.EncrKey[:n])
	if err != nil {
		return fmt.Errorf("prepare %v: %w", sa.Encr, err)
	}
	k := &aeadKey{cipher: c}
	if copy(k.salt[:], sa.EncrKey[n:]) != len(k.salt) || c.Overhead() != layout.ICVLen {
		return fmt.Errorf("%v does not have the shape esp expects", sa.Encr)
	}
	a.layout, a.esn = layout, sa.ESN
	a.key.Store(k)
	return nil
}

// seal uses the sequence number as IV: RFC 4106 §3.1 asks for an IV that never
// repeats under a key, and a sequence number never does.
func (a *aead) seal(s *Scratch, pkt, text []byte, seq uint64) error {
	binary.BigEndian.PutUint64(pkt[headerLen:], seq)
	return a.protect(s, pkt, text, seq)
}

// protect encrypts text into a packet whose IV is in place.
func (a *aead) protect(s *Scratch, pkt, text []byte, seq uint64) error {
	k := a.key.Load()
	if k == nil {
		return ErrClosed
	}
	at := a.layout.Headroom()
	k.cipher.Seal(pkt[at:at], a.nonce(s, k, pkt), text, a.associated(s, pkt, seq))
	return nil
}

func (a *aead) open(s *Scratch, dst, pkt []byte, seq uint64) ([]byte, error) {
	k := a.key.Load()
	if k == nil {
		return nil, ErrClosed
	}
	text, err := k.cipher.Open(dst[:0], a.nonce(s, k, pkt), pkt[a.layout.Headroom():], a.associated(s, pkt, seq))
	if err != nil {
		return nil, ErrAuthentication
	}
	return text, nil
}

func (a *aead) nonce(s *Scratch, k *aeadKey, pkt []byte) []byte {
	copy(s.nonce[:4], k.salt[:])
	copy(s.nonce[4:], pkt[headerLen:headerLen+8])
	return s.nonce[:]
}

// associated returns the associated data: 8 octets as they stand in the packet,
// or 12 with the 64-bit sequence number (RFC 4106 §5).
func (a *aead) associated(s *Scratch, pkt []byte, seq uint64) []byte {
	if !a.esn {
		return pkt[:headerLen]
	}
	copy(s.aad[:4], pkt[:4])
	binary.BigEndian.PutUint64(s.aad[4:], seq)
	return s.aad[:]
}

func (a *aead) close() { a.key.Store(nil) }
