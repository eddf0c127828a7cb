package suite

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// This file holds the authentication methods that are older than RFC 7427: the
// RSA method of RFC 7296 and the ECDSA methods of RFC 4754. They are used with a
// peer that did not send SIGNATURE_HASH_ALGORITHMS.

// SignRSA signs msg for authentication method 1 (RFC 7296 §3.8): PKCS#1 v1.5,
// with SHA-256. RFC 7296 would have SHA-1 as default; its §3.8 lets the receiver
// learn the hash from the signature itself, and peers in the field do.
func SignRSA(rand io.Reader, signer crypto.Signer, msg []byte) ([]byte, error) {
	return Sign(rand, signer, RSASHA256, msg)
}

// VerifyRSA checks a signature of authentication method 1. The signature itself
// names its hash; SHA-256, SHA-384 and SHA-512 are accepted. SHA-1 is not, and
// gets an error that says so, since peers without RFC 7427 fall back to it.
func VerifyRSA(pub *rsa.PublicKey, msg, sig []byte) error {
	if err := checkRSASize(pub); err != nil {
		return err
	}
	for _, scheme := range []SignatureScheme{RSASHA256, RSASHA512, RSASHA384} {
		if Verify(pub, scheme, msg, sig) == nil {
			return nil
		}
	}
	sum := sha1.Sum(msg)
	if rsa.VerifyPKCS1v15(pub, crypto.SHA1, sum[:], sig) == nil {
		return ErrSHA1
	}
	return ErrSignature
}

// ecdsaMethod returns the scheme that the methods of RFC 4754 tie to a curve, and
// the length of r and of s.
func ecdsaMethod(pub *ecdsa.PublicKey) (SignatureScheme, int, error) {
	switch pub.Curve {
	case elliptic.P256():
		return ECDSASHA256, 32, nil
	case elliptic.P384():
		return ECDSASHA384, 48, nil
	case elliptic.P521():
		return ECDSASHA512, 66, nil
	}
	return 0, 0, errors.New("ECDSA authentication needs a key on P-256, P-384 or P-521")
}

// SignECDSA signs msg for authentication methods 9, 10 and 11 (RFC 4754 §7): the
// curve decides the method and the hash, the signature is r | s with fixed lengths.
func SignECDSA(rand io.Reader, signer crypto.Signer, msg []byte) ([]byte, error) {
	pub, ok := signer.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign by ECDSA", signer.Public())
	}
	scheme, size, err := ecdsaMethod(pub)
	if err != nil {
		return nil, err
	}
	der, err := Sign(rand, signer, scheme, msg)
	if err != nil {
		return nil, err
	}
	return fixedFromDER(der, size)
}

// VerifyECDSA checks a signature of authentication methods 9, 10 and 11. The
// caller makes sure that the method fits the curve.
func VerifyECDSA(pub *ecdsa.PublicKey, msg, sig []byte) error {
	scheme, size, err := ecdsaMethod(pub)
	if err != nil {
		return err
	}
	if len(sig) != 2*size {
		return ErrSignature
	}
	der, err := derFromFixed(sig, size)
	if err != nil {
		return ErrSignature
	}
	return Verify(pub, scheme, msg, der)
}

// fixedFromDER turns an ECDSA-Sig-Value into r | s.
func fixedFromDER(der []byte, size int) ([]byte, error) {
	input := cryptobyte.String(der)
	var seq cryptobyte.String
	r, s := new(big.Int), new(big.Int)
	if !input.ReadASN1(&seq, casn1.SEQUENCE) || !input.Empty() ||
		!seq.ReadASN1Integer(r) || !seq.ReadASN1Integer(s) || !seq.Empty() ||
		r.Sign() <= 0 || s.Sign() <= 0 || r.BitLen() > 8*size || s.BitLen() > 8*size {
		return nil, errors.New("the signer returned a malformed ECDSA signature")
	}
	out := make([]byte, 2*size)
	r.FillBytes(out[:size])
	s.FillBytes(out[size:])
	return out, nil
}

// derFromFixed turns r | s into an ECDSA-Sig-Value.
func derFromFixed(sig []byte, size int) ([]byte, error) {
	r, s := new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:])
	var b cryptobyte.Builder
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(r)
		b.AddASN1BigInt(s)
	})
	return b.Bytes()
}
