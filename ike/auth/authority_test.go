package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync"
	"testing"
	"time"
)

// testNow is the time of all tests in this package.
var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// testKey makes a key, RSA ones once for all tests.
func testKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "rsa":
		key = rsaKeys(t)[2048]
	case "rsa1024":
		key = rsaKeys(t)[1024]
	case "p224":
		key, err = ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	case "p256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "p384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "p521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		t.Fatalf("unknown kind of key %q", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var makeRSAKeys = sync.OnceValues(func() (map[int]*rsa.PrivateKey, error) {
	keys := map[int]*rsa.PrivateKey{}
	for _, bits := range []int{1024, 2048} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			return nil, err
		}
		keys[bits] = key
	}
	return keys, nil
})

func rsaKeys(t testing.TB) map[int]*rsa.PrivateKey {
	keys, err := makeRSAKeys()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// authority is a certificate with its key.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var lastSerial struct {
	sync.Mutex
	n int64
}

func nextSerial() *big.Int {
	lastSerial.Lock()
	defer lastSerial.Unlock()
	lastSerial.n++
	return big.NewInt(lastSerial.n)
}

// certTemplate is a certificate valid around testNow.
func certTemplate(cn string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: nextSerial(),
		Subject:      pkix.Name{Organization: []string{"Test"}, CommonName: cn},
		NotBefore:    testNow.Add(-24 * time.Hour),
		NotAfter:     testNow.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func caTemplate(cn string) *x509.Certificate {
	c := certTemplate(cn)
	c.IsCA, c.BasicConstraintsValid = true, true
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return c
}

func newRoot(t testing.TB, cn, kind string) *authority {
	t.Helper()
	return sign(t, caTemplate(cn), testKey(t, kind), nil)
}

// issue signs a template for a new key.
func (a *authority) issue(t testing.TB, template *x509.Certificate, kind string) *authority {
	t.Helper()
	return sign(t, template, testKey(t, kind), a)
}

// sign makes a certificate; without an issuer it is self-signed.
func sign(t testing.TB, template *x509.Certificate, key crypto.Signer, issuer *authority) *authority {
	t.Helper()
	if issuer == nil {
		issuer = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.cert, key.Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{c, key}
}

// client is a certificate as laptops have them.
func (a *authority) client(t testing.TB, email, kind string) *authority {
	t.Helper()
	c := certTemplate(email)
	c.EmailAddresses = []string{email}
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(t, c, kind)
}

// crl revokes certificates in a list valid from and until.
func (a *authority) crl(t testing.TB, from, until time.Time, revoked ...*x509.Certificate) *x509.RevocationList {
	t.Helper()
	template := &x509.RevocationList{Number: nextSerial(), ThisUpdate: from, NextUpdate: until}
	for _, c := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: from})
	}
	return a.signList(t, template)
}

func (a *authority) signList(t testing.TB, template *x509.RevocationList) *x509.RevocationList {
	t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, template, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	return crl
}

// remote accepts clients of the given authorities.
func remote(roots ...*authority) *Remote {
	r := &Remote{ID: Any(), AllowSignature: true, Usage: x509.ExtKeyUsageClientAuth}
	for _, root := range roots {
		r.Roots = append(r.Roots, root.cert)
	}
	return r
}

func certs(as ...*authority) []*x509.Certificate {
	var out []*x509.Certificate
	for _, a := range as {
		out = append(out, a.cert)
	}
	return out
}
