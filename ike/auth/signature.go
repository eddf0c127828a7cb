package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math"

	"golang.org/x/crypto/cryptobyte"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// Sign proves l's identity with its private key. peerHashes is what the peer sent
// in SIGNATURE_HASH_ALGORITHMS; with a hash in it that goes with the key the
// result is a Digital Signature (RFC 7427 §3), otherwise one of the older methods
// (RFC 7296 §3.8, RFC 4754). Ed25519 has no older method.
func Sign(rand io.Reader, l *Local, peerHashes []suite.HashID, octets []byte) (*message.Auth, error) {
	if l.Key == nil {
		return nil, fmt.Errorf("sign as %s: %w: there is no private key", l.ID, ErrNoCredentials)
	}
	if err := CheckPublicKey(l.Key.Public()); err != nil {
		return nil, fmt.Errorf("sign as %s: %w", l.ID, err)
	}
	padding := suite.PSSFirst
	if l.PreferPKCS1 {
		padding = suite.PKCS1v15First
	}
	var a *message.Auth
	var err error
	if schemes := suite.SchemesFor(l.Key.Public(), peerHashes, padding); len(schemes) > 0 {
		a, err = signDigital(rand, l.Key, schemes[0], octets)
	} else {
		a, err = signOld(rand, l.Key, octets)
	}
	if err != nil {
		return nil, fmt.Errorf("sign as %s: %w", l.ID, err)
	}
	return a, nil
}

// signDigital makes AUTH data of method 14: length, AlgorithmIdentifier, signature.
func signDigital(rand io.Reader, key crypto.Signer, scheme suite.SignatureScheme, octets []byte) (*message.Auth, error) {
	algorithm := scheme.AlgorithmIdentifier()
	if len(algorithm) == 0 || len(algorithm) > math.MaxUint8 {
		return nil, fmt.Errorf("no AlgorithmIdentifier for %s", scheme)
	}
	signature, err := suite.Sign(rand, key, scheme, octets)
	if err != nil {
		return nil, err
	}
	data := make([]byte, 0, 1+len(algorithm)+len(signature))
	data = append(data, byte(len(algorithm)))
	data = append(data, algorithm...)
	return &message.Auth{Method: message.AuthDigitalSignature, Data: append(data, signature...)}, nil
}

// signOld makes AUTH data for a peer without RFC 7427.
func signOld(rand io.Reader, key crypto.Signer, octets []byte) (*message.Auth, error) {
	switch pub := key.Public().(type) {
	case *rsa.PublicKey:
		data, err := suite.SignRSA(rand, key, octets)
		return &message.Auth{Method: message.AuthRSA, Data: data}, err
	case *ecdsa.PublicKey:
		data, err := suite.SignECDSA(rand, key, octets)
		return &message.Auth{Method: ecdsaMethod(pub), Data: data}, err
	}
	return nil, fmt.Errorf("%w: the peer does not offer a signature method (RFC 7427) that goes with an %s key: give it an RSA or ECDSA key in its place", ErrMethodRefused, KeyName(key.Public()))
}

// ecdsaMethod is the method that RFC 4754 assigned to a curve; zero if none.
func ecdsaMethod(pub *ecdsa.PublicKey) message.AuthMethod {
	switch pub.Curve {
	case elliptic.P256():
		return message.AuthECDSA256
	case elliptic.P384():
		return message.AuthECDSA384
	case elliptic.P521():
		return message.AuthECDSA521
	}
	return 0
}

// VerifySignature checks the peer's AUTH payload against the public key of its
// certificate. Methods 1, 9, 10, 11 and 14 are known; SHA-1 and RSA below 2048
// bits are refused.
func VerifySignature(a *message.Auth, pub crypto.PublicKey, octets []byte) error {
	if err := CheckPublicKey(pub); err != nil {
		return fmt.Errorf("the peer's key: %w", err)
	}
	var err error
	switch a.Method {
	case message.AuthDigitalSignature:
		err = verifyDigital(a, pub, octets)
	case message.AuthRSA:
		err = verifyRSA(a, pub, octets)
	case message.AuthECDSA256, message.AuthECDSA384, message.AuthECDSA521:
		err = verifyECDSA(a, pub, octets)
	default:
		return fmt.Errorf("%w: expected a signature, the peer used %s", ErrMethodRefused, methodName(a.Method))
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, suite.ErrSignature):
		return fmt.Errorf("%w: %s by the peer's %s key", ErrBadSignature, methodName(a.Method), KeyName(pub))
	case errors.Is(err, suite.ErrSHA1):
		return fmt.Errorf("%w: %w", ErrWeakKey, err)
	}
	return err
}

func verifyRSA(a *message.Auth, pub crypto.PublicKey, octets []byte) error {
	key, ok := pub.(*rsa.PublicKey)
	if !ok {
		return wrongKey(a.Method, pub)
	}
	return suite.VerifyRSA(key, octets, a.Data)
}

func verifyECDSA(a *message.Auth, pub crypto.PublicKey, octets []byte) error {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok || ecdsaMethod(key) != a.Method {
		return wrongKey(a.Method, pub)
	}
	return suite.VerifyECDSA(key, octets, a.Data)
}

func verifyDigital(a *message.Auth, pub crypto.PublicKey, octets []byte) error {
	var algorithm cryptobyte.String
	signature := cryptobyte.String(a.Data)
	if !signature.ReadUint8LengthPrefixed(&algorithm) {
		return fmt.Errorf("%w: AUTH data of %d octets is truncated", ErrBadSignature, len(a.Data))
	}
	scheme, err := suite.ParseAlgorithmIdentifier(algorithm)
	if errors.Is(err, suite.ErrSHA1) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMethodRefused, err)
	}
	err = suite.Verify(pub, scheme, octets, signature)
	if err == nil || errors.Is(err, suite.ErrSignature) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrBadSignature, err)
}

func wrongKey(m message.AuthMethod, pub crypto.PublicKey) error {
	return fmt.Errorf("%w: %s, while the certificate has an %s key", ErrBadSignature, methodName(m), KeyName(pub))
}
