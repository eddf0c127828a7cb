package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"strings"
)

// KeyType is a kind of key for certificates.
type KeyType string

// Kinds of keys.
const (
	ECDSAP256 KeyType = "ecdsa-p256"
	ECDSAP384 KeyType = "ecdsa-p384"
	Ed25519   KeyType = "ed25519"
	RSA2048   KeyType = "rsa2048"
	RSA3072   KeyType = "rsa3072"
	RSA4096   KeyType = "rsa4096"
)

// DefaultKeyType is ECDSA on P-256, which the native clients of all phones and
// desktops know and which costs a gateway the least. Ed25519 is as good where all
// peers know it: strongSwan and newer Apple systems do, Windows does not. RSA is
// for peers that know nothing else.
const DefaultKeyType = ECDSAP256

// KeyTypes are all kinds of keys, the default first.
func KeyTypes() []KeyType {
	return []KeyType{ECDSAP256, ECDSAP384, Ed25519, RSA2048, RSA3072, RSA4096}
}

// ParseKeyType reads the name of a kind of key.
func ParseKeyType(s string) (KeyType, error) {
	var names []string
	for _, t := range KeyTypes() {
		if strings.EqualFold(s, string(t)) {
			return t, nil
		}
		names = append(names, string(t))
	}
	return "", fmt.Errorf("key type %q: %w: possible are %s", s, ErrInvalid, strings.Join(names, ", "))
}

// UnmarshalText is ParseKeyType, for configuration files.
func (t *KeyType) UnmarshalText(text []byte) error {
	parsed, err := ParseKeyType(string(text))
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}

func (t KeyType) generate() (crypto.Signer, error) {
	switch t {
	case ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	_, err := ParseKeyType(string(t))
	return nil, err
}

// marshalKey writes a private key as PKCS#8, which every tool of our time reads.
func marshalKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	defer clear(der)
	return encodePEM("PRIVATE KEY", der), nil
}
