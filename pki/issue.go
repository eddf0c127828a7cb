package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
)

// oidIKEIntermediate is the extended key usage that Apple's and old Windows
// clients look for in the certificate of a gateway.
var oidIKEIntermediate = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 8, 2, 2}

// IssueOptions refine what is issued; the zero value is good.
type IssueOptions struct {
	// Name under which the certificate is listed; empty means the
	// first name or identity in it.
	Name string
	// KeyType of the new key; empty means DefaultKeyType.
	KeyType KeyType
	// Lifetime; zero means the default for the kind of certificate. No certificate
	// outlives its authority.
	Lifetime time.Duration
	// PublicKey, if not nil, is certified in place of a new key, and the Bundle has
	// no private key.
	PublicKey crypto.PublicKey
}

// Bundle is what a gateway or a client needs, in PEM.
type Bundle struct {
	CA   []byte // certificate of the authority
	Cert []byte
	Key  []byte // PKCS#8; nil when the public key was given

	Issued Certificate // the entry in the index
}

// Clear wipes the private key.
func (b *Bundle) Clear() { clear(b.Key) }

// String names the certificate, and shows no key.
func (b Bundle) String() string {
	return fmt.Sprintf("%s certificate of %s", b.Issued.Kind, b.Issued.Name)
}

// GoString is String, so that %#v shows no key either.
func (b Bundle) GoString() string { return b.String() }

// IssueServer issues a certificate for a gateway. The first of its domain names, or
// of its addresses if it has no name, is its common name. To renew a certificate,
// issue it again.
func (a *Authority) IssueServer(names []string, addrs []netip.Addr, o IssueOptions) (*Bundle, error) {
	b, err := a.issueServer(names, addrs, o)
	if err != nil {
		return nil, fmt.Errorf("issue gateway certificate: %w", err)
	}
	return b, nil
}

func (a *Authority) issueServer(names []string, addrs []netip.Addr, o IssueOptions) (*Bundle, error) {
	if len(names)+len(addrs) == 0 {
		return nil, fmt.Errorf("%w: give the domain name or the address that clients connect to", ErrInvalid)
	}
	if o.Lifetime > MaxServerLifetime {
		return nil, fmt.Errorf("lifetime of %d days: %w: iOS and macOS refuse gateways with more than %d", o.Lifetime/day, ErrInvalid, MaxServerLifetime/day)
	}
	if o.Lifetime == 0 {
		o.Lifetime = DefaultServerLifetime
	}
	template := &x509.Certificate{
		DNSNames:           names,
		ExtKeyUsage:        []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidIKEIntermediate},
	}
	for _, name := range names {
		if err := checkDomain(name); err != nil {
			return nil, err
		}
	}
	for _, addr := range addrs {
		if !addr.IsValid() || addr.Zone() != "" || addr.IsUnspecified() {
			return nil, fmt.Errorf("address %v: %w", addr, ErrInvalid)
		}
		template.IPAddresses = append(template.IPAddresses, addr.Unmap().AsSlice())
	}
	if len(names) > 0 {
		return a.issue(KindServer, names[0], template, o)
	}
	return a.issue(KindServer, addrs[0].Unmap().String(), template, o)
}

// IssueClient issues a certificate for a client, whose identity is an e-mail
// address or a domain name. To renew a certificate, issue it again.
func (a *Authority) IssueClient(identity string, o IssueOptions) (*Bundle, error) {
	b, err := a.issueClient(identity, o)
	if err != nil {
		return nil, fmt.Errorf("issue client certificate: %w", err)
	}
	return b, nil
}

func (a *Authority) issueClient(identity string, o IssueOptions) (*Bundle, error) {
	if o.Lifetime == 0 {
		o.Lifetime = DefaultClientLifetime
	}
	template := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	name, isEmail, err := clientName(identity)
	if err != nil {
		return nil, err
	}
	if isEmail {
		template.EmailAddresses = []string{name}
	} else {
		template.DNSNames = []string{name}
	}
	return a.issue(KindClient, name, template, o)
}

// issue completes a template, signs it, and enters it into the index.
func (a *Authority) issue(kind Kind, first string, template *x509.Certificate, o IssueOptions) (*Bundle, error) {
	if o.Name == "" {
		o.Name = first
	}
	if err := checkName(o.Name); err != nil {
		return nil, err
	}
	keyPEM, pub, err := o.key()
	if err != nil {
		return nil, err
	}
	template.NotBefore, template.NotAfter, err = a.validity(o.Lifetime)
	if err != nil {
		return nil, err
	}
	template.Subject = subject(first, a.cert.Subject.Organization)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if _, isRSA := pub.(*rsa.PublicKey); isRSA && kind == KindServer {
		// Some clients know gateways from web servers, whose RSA certificates have it.
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	template.BasicConstraintsValid = true // and no authority
	template.SubjectKeyId, err = keyIdentifier(pub)
	if err != nil {
		return nil, err
	}
	var cert *x509.Certificate
	err = a.locked(func() error {
		cert, err = a.enter(kind, o.Name, template, pub)
		return err
	})
	if err != nil {
		clear(keyPEM)
		return nil, err
	}
	return &Bundle{
		CA:     a.CertificatePEM(),
		Cert:   encodePEM("CERTIFICATE", cert.Raw),
		Key:    keyPEM,
		Issued: entry(cert, kind, o.Name),
	}, nil
}

// key makes the key of a certificate, unless the public key is given.
func (o IssueOptions) key() (keyPEM []byte, pub crypto.PublicKey, err error) {
	if o.PublicKey != nil {
		if err := auth.CheckPublicKey(o.PublicKey); err != nil {
			return nil, nil, fmt.Errorf("public key: %w", err)
		}
		return nil, o.PublicKey, nil
	}
	if o.KeyType == "" {
		o.KeyType = DefaultKeyType
	}
	key, err := o.KeyType.generate()
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err = marshalKey(key)
	return keyPEM, key.Public(), err
}

// validity is the time in which a certificate issued now is valid, within that of
// the authority.
func (a *Authority) validity(lifetime time.Duration) (from, to time.Time, err error) {
	now := a.Now()
	if lifetime <= backdate {
		return from, to, fmt.Errorf("lifetime %v: %w: more than %v is needed", lifetime, ErrInvalid, backdate)
	}
	if now.Before(a.cert.NotBefore) {
		// What began by this clock would end too early, or before it begins.
		return from, to, fmt.Errorf("the clock shows %s, but the certificate authority begins on %s: set the clock right", now.UTC().Format(time.DateTime), a.cert.NotBefore.Format(time.DateTime))
	}
	if a.cert.NotAfter.Sub(now) < leastRemaining {
		return from, to, fmt.Errorf("the certificate authority ends on %s: make a new one", a.cert.NotAfter.Format(time.DateTime))
	}
	from, to = validityFrom(now, lifetime)
	if from.Before(a.cert.NotBefore) {
		from = a.cert.NotBefore
	}
	if to.After(a.cert.NotAfter) {
		to = a.cert.NotAfter
	}
	return from, to, nil
}

// validityFrom begins in the past by backdate, and counts both its ends (RFC 5280
// §4.1.2.5).
func validityFrom(now time.Time, lifetime time.Duration) (from, to time.Time) {
	from = now.UTC().Truncate(time.Second).Add(-backdate)
	return from, from.Add(lifetime - time.Second)
}

// enter gives a template a serial number, signs it, and records it: first the
// certificate, then the index that makes it count. It runs under the lock.
func (a *Authority) enter(kind Kind, name string, template *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, error) {
	ix, err := a.readIndex()
	if err != nil {
		return nil, err
	}
	key, err := a.key()
	if err != nil {
		return nil, err
	}
	template.SerialNumber, err = ix.freeSerial()
	if err != nil {
		return nil, err
	}
	cert, err := signCertificate(template, a.cert, pub, key)
	if err != nil {
		return nil, err
	}
	c := entry(cert, kind, name)
	if err := a.write(filepath.Join(certsDir, c.Serial+".pem"), encodePEM("CERTIFICATE", cert.Raw)); err != nil {
		return nil, err
	}
	ix.Certificates = append(ix.Certificates, c)
	return cert, a.writeIndex(ix)
}

func signCertificate(template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// selfSign makes the certificate of an authority, which may issue certificates for
// gateways and clients, and none for further authorities.
func selfSign(key crypto.Signer, o Options, now time.Time) (*x509.Certificate, error) {
	serial, err := new(index).freeSerial()
	if err != nil {
		return nil, err
	}
	id, err := keyIdentifier(key.Public())
	if err != nil {
		return nil, err
	}
	var organization []string
	if o.Organization != "" {
		organization = []string{o.Organization}
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               subject(o.Name, organization),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		SubjectKeyId:          id,
		// Self-signed, but some verifiers look for it.
		AuthorityKeyId: id,
	}
	template.NotBefore, template.NotAfter = validityFrom(now, o.Lifetime)
	return signCertificate(template, template, key.Public(), key)
}

// subject leaves out a common name that is too long: it serves people only, the
// alternative names count.
func subject(commonName string, organization []string) pkix.Name {
	name := pkix.Name{Organization: organization, CommonName: commonName}
	if len(commonName) > maxCommonName {
		name.CommonName = ""
	}
	return name
}

// keyIdentifier is the leftmost 160 bits of the SHA-256 of the key, method 1 of
// RFC 7093 §2.
func keyIdentifier(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return sum[:20], nil
}

// freeSerial draws a serial number of 126 random bits that is not in use. It is
// positive and has 16 octets always; RFC 5280 §4.1.2.2 allows 20.
func (ix *index) freeSerial() (*big.Int, error) {
	const attempts = 10
	for range attempts {
		b := make([]byte, 16)
		if _, err := rand.Read(b); err != nil {
			return nil, fmt.Errorf("draw serial number: %w", err)
		}
		b[0] = b[0]&0x7f | 0x40
		n := new(big.Int).SetBytes(b)
		inUse := slices.ContainsFunc(ix.Certificates, func(c Certificate) bool { return c.Serial == serialString(n) })
		if !inUse {
			return n, nil
		}
	}
	return nil, errors.New("draw serial number: the random numbers repeat")
}

func parseSerial(s string) (*big.Int, error) {
	n, ok := new(big.Int).SetString(s, 16)
	if !ok || n.Sign() <= 0 || serialString(n) != s || len(s) > 40 {
		return nil, fmt.Errorf("serial number %q: %w", s, ErrInvalid)
	}
	return n, nil
}

// entry describes a certificate for the index.
func entry(c *x509.Certificate, kind Kind, name string) Certificate {
	out := Certificate{
		Serial:    serialString(c.SerialNumber),
		Kind:      kind,
		Name:      name,
		KeyType:   auth.KeyName(c.PublicKey),
		NotBefore: c.NotBefore.UTC(),
		NotAfter:  c.NotAfter.UTC(),
	}
	if kind == KindAuthority {
		return out
	}
	for _, id := range auth.Identities(c) {
		out.Identities = append(out.Identities, id.String())
	}
	return out
}
