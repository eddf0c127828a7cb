package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"strings"
)

// RSA moduli that we accept, in bits: below 2048 is too weak (RFC 8247 §3.1.1),
// beyond 8192 verifying costs more than a stranger may make us spend.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// CheckPublicKey says whether a key is one that we sign and verify with: RSA of
// 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, Ed25519.
func CheckPublicKey(pub any) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("%w: RSA with %d bits, accepted are %d to %d", ErrWeakKey, bits, minRSABits, maxRSABits)
		}
		return nil
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("%w: ECDSA on %s, accepted are P-256, P-384 and P-521", ErrWeakKey, k.Curve.Params().Name)
	case ed25519.PublicKey:
		return nil
	}
	return fmt.Errorf("%w: key of type %T, accepted are RSA, ECDSA and Ed25519", ErrWeakKey, pub)
}

// weakSignature says whether a certificate is signed with a broken hash.
func weakSignature(c *x509.Certificate) bool {
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

// KeyName describes a public key for people: "RSA 3072", "ECDSA P-256", "Ed25519".
func KeyName(pub crypto.PublicKey) string {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", pub), "*")
}
