package auth

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
)

// Limits of PEM files. A system's whole list of authorities is around 250 KiB with
// 150 certificates; a revocation list of a large authority a few MiB.
const (
	maxPEM             = 16 << 20
	maxPEMCertificates = 4096
)

// LoadKeyPEM reads a private key: PKCS#8 "PRIVATE KEY", "RSA PRIVATE KEY"
// (PKCS#1) or "EC PRIVATE KEY" (SEC 1). Other blocks in the file are passed over;
// more than one key is an error.
func LoadKeyPEM(data []byte) (crypto.Signer, error) {
	var key crypto.Signer
	err := eachBlock(data, "a private key", func(b *pem.Block) (bool, error) {
		defer clear(b.Bytes)
		if !strings.HasSuffix(b.Type, "PRIVATE KEY") {
			return false, nil
		}
		if key != nil {
			return true, fmt.Errorf("%w: more than one private key", ErrBadPEM)
		}
		var err error
		key, err = parseKey(b)
		return true, err
	})
	if err != nil {
		return nil, err
	}
	return key, nil
}

func parseKey(b *pem.Block) (crypto.Signer, error) {
	if b.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED") {
		return nil, fmt.Errorf("%w: the private key is encrypted with a passphrase: decrypt it first, for instance with openssl pkey", ErrBadPEM)
	}
	key, err := parseKeyDER(b)
	if err != nil {
		// The parsers' own errors may quote the input, so they are not passed on.
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: the key cannot sign: an RSA, ECDSA or Ed25519 key is needed", ErrBadPEM)
	}
	if err := CheckPublicKey(signer.Public()); err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	return signer, nil
}

func parseKeyDER(b *pem.Block) (key any, err error) {
	switch b.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(b.Bytes)
	default:
		return nil, fmt.Errorf("%w: %q is not supported: convert it to PKCS#8, for instance with openssl pkey", ErrBadPEM, printable(b.Type))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the %s block is damaged, or of an unsupported kind", ErrBadPEM, printable(b.Type))
	}
	return key, nil
}

// LoadCertificatesPEM reads all certificates of a PEM file, in their order.
func LoadCertificatesPEM(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	err := eachBlock(data, "a certificate", func(b *pem.Block) (bool, error) {
		if b.Type != "CERTIFICATE" {
			return false, nil
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return true, fmt.Errorf("%w: certificate %d of the file: %w", ErrBadPEM, len(certs)+1, err)
		}
		if certs = append(certs, c); len(certs) > maxPEMCertificates {
			return true, fmt.Errorf("%w: more than %d in one file", ErrTooManyCertificates, maxPEMCertificates)
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return certs, nil
}

// LoadCRLPEM reads all revocation lists of a PEM file. A file in DER, as published
// on web servers, is read too.
func LoadCRLPEM(data []byte) ([]*x509.RevocationList, error) {
	if len(data) > 0 && data[0] == 0x30 && len(data) <= maxPEM { // a SEQUENCE
		crl, err := x509.ParseRevocationList(data)
		if err != nil {
			return nil, fmt.Errorf("%w: revocation list: %w", ErrBadPEM, err)
		}
		return []*x509.RevocationList{crl}, nil
	}
	var crls []*x509.RevocationList
	err := eachBlock(data, "a revocation list", func(b *pem.Block) (bool, error) {
		if b.Type != "X509 CRL" {
			return false, nil
		}
		crl, err := x509.ParseRevocationList(b.Bytes)
		if err != nil {
			return true, fmt.Errorf("%w: revocation list %d of the file: %w", ErrBadPEM, len(crls)+1, err)
		}
		crls = append(crls, crl)
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	return crls, nil
}

// eachBlock hands every PEM block to use, which says whether it was of the wanted
// type. It is an error if none was.
func eachBlock(data []byte, wanted string, use func(*pem.Block) (bool, error)) error {
	if len(data) > maxPEM {
		return fmt.Errorf("%w: file of %d octets, at most %d are read", ErrBadPEM, len(data), maxPEM)
	}
	var others []string
	found := false
	for rest := data; ; {
		var b *pem.Block
		b, rest = pem.Decode(rest)
		if b == nil {
			break
		}
		used, err := use(b)
		if err != nil {
			return err
		}
		found = found || used
		if t := printable(b.Type); !used && len(others) < 8 && !slices.Contains(others, t) {
			others = append(others, t)
		}
	}
	if !found {
		return fmt.Errorf("%w: expected %s, found %s", ErrBadPEM, wanted, foundInstead(data, others))
	}
	return nil
}

func foundInstead(data []byte, others []string) string {
	switch {
	case len(others) > 0:
		return strings.Join(others, ", ")
	case len(bytes.TrimSpace(data)) == 0:
		return "an empty file"
	case bytes.Contains(data, []byte("-----BEGIN ")):
		return "a damaged or truncated PEM block"
	}
	return "no PEM block (the text between -----BEGIN and -----END)"
}
