package auth

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Extensions of revocation lists (RFC 5280 §5.2).
var (
	oidCRLNumber    = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidAuthorityKey = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidIssuingPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
)

// checkRevocation looks up each certificate below the root in the lists of its
// issuer. One list that names it is enough to refuse it (RFC 4945 §5.2.1), also
// when newer lists are needed: what was revoked stays revoked.
func (r *Remote) checkRevocation(now time.Time, chain []*x509.Certificate, peerCRLs []*x509.RevocationList) error {
	for i := range len(chain) - 1 {
		c, issuer := chain[i], chain[i+1]
		current := false
		for list := range r.signedLists(issuer, peerCRLs) {
			if entry := list.find(c); entry != nil {
				return inChain(c, i == 0, fmt.Errorf("%w by %s since %s", ErrRevoked, nameIdentity(issuer.RawSubject), date(entry.RevocationTime)))
			}
			current = current || list.complete && isCurrent(list.crl, now)
		}
		if r.RequireCRL && !current {
			return inChain(c, i == 0, fmt.Errorf("%w of %s, and policy requires one", ErrRevocationUnknown, nameIdentity(issuer.RawSubject)))
		}
	}
	return nil
}

// signedList is a revocation list with a verified signature.
type signedList struct {
	crl *x509.RevocationList
	// complete: the list speaks of all certificates of the issuer.
	complete bool
	// serials finds entries by serial number; nil if not indexed.
	serials map[string]int
}

func (l signedList) find(c *x509.Certificate) *x509.RevocationListEntry {
	entries := l.crl.RevokedCertificateEntries
	if l.serials != nil {
		if i, ok := l.serials[string(c.SerialNumber.Bytes())]; ok {
			return &entries[i]
		}
		return nil
	}
	i := slices.IndexFunc(entries, func(e x509.RevocationListEntry) bool {
		return e.SerialNumber.Cmp(c.SerialNumber) == 0
	})
	if i < 0 {
		return nil
	}
	return &entries[i]
}

// signedLists yields the usable lists of an issuer, the configured ones first.
func (r *Remote) signedLists(issuer *x509.Certificate, peerCRLs []*x509.RevocationList) func(yield func(signedList) bool) {
	return func(yield func(signedList) bool) {
		for _, crl := range r.CRLs {
			if list, ok := r.Cache.signedList(crl, issuer); ok && !yield(list) {
				return
			}
		}
		for _, crl := range peerCRLs {
			if list, ok := verifyList(crl, issuer); ok && !yield(list) {
				return
			}
		}
	}
}

// verifyList checks that a list was signed by an issuer about its certificates.
func verifyList(crl *x509.RevocationList, issuer *x509.Certificate) (signedList, bool) {
	if !bytes.Equal(crl.RawIssuer, issuer.RawSubject) {
		return signedList{}, false
	}
	complete, ok := listScope(crl)
	if !ok || crl.CheckSignatureFrom(issuer) != nil {
		return signedList{}, false
	}
	return signedList{crl: crl, complete: complete}, true
}

// isCurrent says whether a list can show that a certificate is not revoked.
func isCurrent(crl *x509.RevocationList, now time.Time) bool {
	return !now.Before(crl.ThisUpdate) && now.Before(crl.NextUpdate)
}

// listScope reads from the critical extensions what a list speaks about. Delta
// lists and indirect lists are not usable (RFC 4945 §5.2.2.4.1). A list for one
// distribution point can show that a certificate is revoked, not that it is not.
func listScope(crl *x509.RevocationList) (complete, ok bool) {
	complete = true
	for _, e := range crl.Extensions {
		switch {
		case e.Id.Equal(oidIssuingPoint):
			if isIndirect(e.Value) {
				return false, false
			}
			complete = false
		case e.Id.Equal(oidCRLNumber), e.Id.Equal(oidAuthorityKey), !e.Critical:
		default:
			return false, false
		}
	}
	return complete, true
}

// isIndirect says whether an IssuingDistributionPoint is that of a list about
// certificates of other issuers, or cannot be read (RFC 5280 §5.2.5).
func isIndirect(der []byte) bool {
	input := cryptobyte.String(der)
	var fields cryptobyte.String
	if !input.ReadASN1(&fields, cbasn1.SEQUENCE) || !input.Empty() {
		return true
	}
	for !fields.Empty() {
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !fields.ReadAnyASN1(&value, &tag) {
			return true
		}
		if tag == cbasn1.Tag(4).ContextSpecific() {
			return !bytes.Equal(value, []byte{0})
		}
	}
	return false
}
