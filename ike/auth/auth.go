// Package auth knows who an IKE peer is and how it proves it: identities and the
// patterns that match them, the octets that AUTH covers, shared keys, signatures,
// and certificate chains with their revocation lists (RFC 7296 §2.15 and §3.5 to
// §3.8, RFC 7427, RFC 8420, RFC 4945).
//
// It is pure. Time and randomness are arguments; there is no I/O. Everything that
// a peer sends is bounded before it is looked at, and every refusal is an error
// with a stable reason (see the Err variables) and a sentence for a person.
package auth

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"log/slog"
)

// Local is who we are and how we prove it: a shared key, or a private key with
// its certificate chain. When both are set the shared key is used. A responder
// proves itself to peers that used a shared key with that same key, whatever is here.
type Local struct {
	ID  Identity
	PSK []byte

	Key   crypto.Signer
	Chain []*x509.Certificate // own certificate first, then intermediates

	// PreferPKCS1 signs with RSASSA-PKCS1-v1_5 in place of RSASSA-PSS in method 14,
	// for peers that cannot verify PSS.
	PreferPKCS1 bool
}

// UsesPSK says whether we prove ourselves with a shared key.
func (l *Local) UsesPSK() bool { return len(l.PSK) > 0 }

// Certificate is our own certificate, nil when there is none.
func (l *Local) Certificate() *x509.Certificate {
	if len(l.Chain) == 0 {
		return nil
	}
	return l.Chain[0]
}

// Check says whether l can work at all: there is a valid identity and a way to
// prove it, the certificate belongs to the key, and the identity is in the
// certificate (RFC 4945 §3.1).
func (l *Local) Check() error {
	if err := l.ID.Valid(); err != nil {
		return fmt.Errorf("local identity: %w", err)
	}
	if l.UsesPSK() {
		return nil
	}
	if l.Key == nil {
		return fmt.Errorf("local identity %s: %w: configure a shared key, or a private key with its certificate", l.ID, ErrNoCredentials)
	}
	if err := CheckPublicKey(l.Key.Public()); err != nil {
		return fmt.Errorf("private key of %s: %w", l.ID, err)
	}
	own := l.Certificate()
	if own == nil {
		return fmt.Errorf("local identity %s: %w: there is a private key, but no certificate for it", l.ID, ErrNoCredentials)
	}
	pub, ok := l.Key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(own.PublicKey) {
		return fmt.Errorf("certificate %s: %w: it belongs to another private key than the one given", describe(own), ErrNoCredentials)
	}
	return MatchCertificate(own, l.ID)
}

// String names the identity only, so that no secret is printed by accident.
func (l Local) String() string { return l.ID.String() }

// GoString is String, so that %#v shows no secret either.
func (l Local) GoString() string { return "auth.Local{" + l.ID.String() + "}" }

// LogValue is what a log line shows.
func (l Local) LogValue() slog.Value { return slog.StringValue(l.ID.String()) }

// Remote is what a peer must show to be accepted. The zero value accepts nobody.
// It is shared between sessions and not changed once in use.
type Remote struct {
	// ID is who the peer may be.
	ID Pattern

	AllowPSK, AllowSignature bool

	// PSK finds the shared key for an identity that ID has accepted.
	PSK func(Identity) ([]byte, bool)

	// Roots are the trusted authorities, Intermediates help to build chains to
	// them. A certificate of the peer itself among Roots is trusted as it stands.
	Roots         []*x509.Certificate
	Intermediates []*x509.Certificate

	// CRLs are the revocation lists at hand. A certificate on any of them that its
	// issuer has signed is refused, also when the list is out of date. RequireCRL
	// refuses certificates for which no current list is at hand.
	CRLs       []*x509.RevocationList
	RequireCRL bool

	// Usage is the extended key usage that a peer's certificate must have if it has
	// any: x509.ExtKeyUsageServerAuth for gateways, x509.ExtKeyUsageClientAuth for
	// clients. The IPsec usages and anyExtendedKeyUsage are accepted in its place;
	// with zero only they are (RFC 4945 §5.1.3.12).
	Usage x509.ExtKeyUsage

	// Cache, if not nil, remembers chains and revocation lists whose signatures
	// were verified. Dates, usage, identity and revocation are checked each time.
	Cache *Cache
}
