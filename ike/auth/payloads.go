package auth

import (
	"bytes"
	"crypto/sha1"
	"crypto/x509"
	"fmt"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// Limits on what we look at from a peer that is not authenticated yet. RFC 7296
// §3.6 asks for four certificates at least.
const (
	maxCertPayloads = 16
	maxCertOctets   = 64 << 10
	// maxAuthorities bounds a certificate request to 2000 octets.
	maxAuthorities = 100
)

// CertRequest asks the peer for a certificate of one of our authorities (RFC 7296
// §3.7). It is nil when there are none. SHA-1 is what the protocol prescribes; it
// serves as a hint and nothing depends on its strength.
func CertRequest(roots []*x509.Certificate) *message.CertReq {
	if len(roots) == 0 {
		return nil
	}
	var data []byte
	seen := make(map[[sha1.Size]byte]bool)
	for _, root := range roots {
		sum := sha1.Sum(root.RawSubjectPublicKeyInfo)
		if seen[sum] {
			continue
		}
		if len(seen) == maxAuthorities {
			// An incomplete list would tell peers of the other authorities to stay
			// away; an empty one asks for any (RFC 4945 §3.2.7.2).
			return &message.CertReq{Encoding: message.CertX509Signature}
		}
		seen[sum] = true
		data = append(data, sum[:]...)
	}
	return &message.CertReq{Encoding: message.CertX509Signature, Data: data}
}

// CertPayloads are the payloads that carry our certificate chain, own certificate
// first (RFC 7296 §3.6). Self-signed authorities are left out: the peer has them.
func CertPayloads(l *Local) []*message.Cert {
	var out []*message.Cert
	for i, c := range l.Chain {
		if i > 0 && bytes.Equal(c.RawSubject, c.RawIssuer) {
			continue
		}
		out = append(out, &message.Cert{Encoding: message.CertX509Signature, Data: c.Raw})
	}
	return out
}

// ParseCertPayloads reads the certificates and revocation lists that a peer sent.
// The first certificate is the peer's own (RFC 7296 §3.6) and must be readable;
// other payloads that cannot be read or used are passed over, since peers send
// encodings and certificates that we have no need of.
func ParseCertPayloads(payloads []*message.Cert) (certs []*x509.Certificate, crls []*x509.RevocationList, err error) {
	if len(payloads) > maxCertPayloads {
		return nil, nil, fmt.Errorf("%w: %d, at most %d are looked at", ErrTooManyCertificates, len(payloads), maxCertPayloads)
	}
	total := 0
	for _, p := range payloads {
		if total += len(p.Data); total > maxCertOctets {
			return nil, nil, fmt.Errorf("%w: more than %d octets", ErrTooManyCertificates, maxCertOctets)
		}
	}
	for _, p := range payloads {
		switch p.Encoding {
		case message.CertX509Signature:
			c, err := x509.ParseCertificate(p.Data)
			if err == nil {
				certs = append(certs, c)
			} else if len(certs) == 0 {
				return nil, nil, fmt.Errorf("the peer's own certificate: %w: %w", ErrBadCertificate, err)
			}
		case message.CertCRL:
			if crl, err := x509.ParseRevocationList(p.Data); err == nil {
				crls = append(crls, crl)
			}
		}
	}
	return certs, crls, nil
}
