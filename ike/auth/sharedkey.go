package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// keyPad is "Key Pad for IKEv2", 17 ASCII characters (RFC 7296 §2.15).
const keyPad = "Key Pad for IKEv2"

// SignedOctets are the octets that a side proves with AUTH (RFC 7296 §2.15): its
// own first message as sent, without a non-ESP marker, the nonce of the other
// side, and its identity under its SK_p.
func SignedOctets(prf suite.PRF, skp, realMessage, nonce []byte, id *message.ID) []byte {
	maced := prf.Sum(skp, id.Body())
	octets := make([]byte, 0, len(realMessage)+len(nonce)+len(maced))
	octets = append(octets, realMessage...)
	octets = append(octets, nonce...)
	return append(octets, maced...)
}

// SharedKeyAuth is the AUTH data for a shared key (RFC 7296 §2.15).
func SharedKeyAuth(prf suite.PRF, secret, octets []byte) []byte {
	padded := prf.Sum(secret, []byte(keyPad))
	defer clear(padded)
	return prf.Sum(padded, octets)
}

// VerifySharedKey checks the peer's AUTH payload against a shared key, in constant
// time. An empty key verifies nothing.
func VerifySharedKey(a *message.Auth, prf suite.PRF, secret, octets []byte) error {
	if a.Method != message.AuthSharedKey {
		return fmt.Errorf("%w: expected a shared key, the peer used %s", ErrMethodRefused, methodName(a.Method))
	}
	if len(secret) == 0 {
		return ErrNoSharedKey
	}
	if !hmac.Equal(a.Data, SharedKeyAuth(prf, secret, octets)) {
		return fmt.Errorf("%w: the peer's proof does not fit the shared key configured here", ErrWrongSharedKey)
	}
	return nil
}

// SharedKey finds the shared key for a peer, if the peer may come in with one at
// all.
func (r *Remote) SharedKey(id Identity) ([]byte, error) {
	if !r.AllowPSK {
		return nil, fmt.Errorf("%w: shared keys are not allowed for %s", ErrMethodRefused, id)
	}
	if err := r.checkIdentity(id); err != nil {
		return nil, err
	}
	if r.PSK == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoSharedKey, id)
	}
	secret, ok := r.PSK(id)
	if !ok || len(secret) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoSharedKey, id)
	}
	return secret, nil
}

// KeyFingerprint tells shared keys apart without holding them. Zero stands for no key.
type KeyFingerprint [8]byte

// FingerprintOf is the fingerprint of a shared key.
func FingerprintOf(secret []byte) (f KeyFingerprint) {
	h := sha256.New()
	h.Write([]byte("wayfarer key fingerprint\x00"))
	h.Write(secret)
	copy(f[:], h.Sum(nil))
	return f
}

// checkIdentity says whether the peer may be this identity.
func (r *Remote) checkIdentity(id Identity) error {
	if err := id.Valid(); err != nil {
		return fmt.Errorf("peer identity %s: %w", id, err)
	}
	if !r.ID.Match(id) {
		return fmt.Errorf("%w: the peer says that it is %s, expected is %s", ErrIdentityMismatch, id, r.ID)
	}
	return nil
}

func methodName(m message.AuthMethod) string {
	switch m {
	case message.AuthRSA:
		return "RSA signature (1)"
	case message.AuthSharedKey:
		return "shared key (2)"
	case message.AuthECDSA256, message.AuthECDSA384, message.AuthECDSA521:
		return fmt.Sprintf("ECDSA signature (%d)", m)
	case message.AuthDigitalSignature:
		return "digital signature (14)"
	}
	return fmt.Sprintf("method %d", m)
}
