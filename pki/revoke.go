package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
)

// CRLLifetime is how long a revocation list is valid. A new one is made when half
// of that is over, or something is revoked.
const CRLLifetime = 30 * day

// Reason says why a certificate is revoked (RFC 5280 §5.3.1).
type Reason string

// Reasons.
const (
	Unspecified          Reason = "unspecified"
	KeyCompromise        Reason = "key-compromise" // the key is lost or known to others
	AffiliationChanged   Reason = "affiliation-changed"
	Superseded           Reason = "superseded" // there is a new certificate
	CessationOfOperation Reason = "cessation-of-operation"
)

// reasonCodes are the numbers of CRLReason.
var reasonCodes = map[Reason]int{
	Unspecified:          0,
	KeyCompromise:        1,
	AffiliationChanged:   3,
	Superseded:           4,
	CessationOfOperation: 5,
}

// ParseReason reads the name of a reason; empty is Unspecified.
func ParseReason(s string) (Reason, error) {
	if s == "" {
		return Unspecified, nil
	}
	if _, ok := reasonCodes[Reason(s)]; !ok {
		return "", fmt.Errorf("reason %q: %w: possible are %s, %s, %s, %s, %s", s, ErrInvalid,
			Unspecified, KeyCompromise, AffiliationChanged, Superseded, CessationOfOperation)
	}
	return Reason(s), nil
}

// Revoke revokes the certificate with a serial number, as List has it, and renews the
// revocation list. It returns what it revoked.
func (a *Authority) Revoke(serial string, reason Reason) (*Certificate, error) {
	reason, err := ParseReason(string(reason))
	if err != nil {
		return nil, fmt.Errorf("revoke %q: %w", serial, err)
	}
	var revoked *Certificate
	err = a.locked(func() error {
		ix, err := a.readIndex()
		if err != nil {
			return err
		}
		c, err := ix.revoke(serial, reason, a.Now())
		if errors.Is(err, ErrRevoked) {
			// Perhaps by a command that could not finish.
			return errors.Join(err, a.refreshCRL(ix))
		}
		if err != nil {
			return err
		}
		revoked = c
		key, err := a.key()
		if err != nil {
			return err
		}
		return a.updateCRL(ix, key)
	})
	if err != nil {
		return nil, fmt.Errorf("revoke %q: %w", serial, err)
	}
	return revoked, nil
}

func (ix *index) revoke(serial string, reason Reason, now time.Time) (*Certificate, error) {
	c := ix.find(serial)
	switch {
	case c == nil:
		return nil, ErrNotFound
	case c.Revoked():
		return nil, ErrRevoked
	}
	at := now.UTC().Truncate(time.Second)
	c.RevokedAt, c.Reason = &at, reason
	return c, nil
}

// CRL is the current revocation list in PEM. It makes a new one when the one at
// hand is half-way to its end or behind the index. If that fails, it returns the list
// at hand with an error that is ErrNotRenewed, as long as it names all that is revoked.
func (a *Authority) CRL() ([]byte, error) {
	ix, err := a.readIndex()
	if err == nil {
		if list := a.crlAtHand(); list.current(ix, a.Now()) {
			return list.pem, nil
		}
		err = a.locked(func() error {
			// Another process may have been faster.
			if ix, err = a.readIndex(); err != nil {
				return err
			}
			return a.refreshCRL(ix)
		})
	}
	if err != nil {
		return a.notRenewed(err)
	}
	data, err := os.ReadFile(a.path(crlFile))
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	return data, nil
}

// notRenewed is the list at hand, if it is good enough, and why there is no newer one.
func (a *Authority) notRenewed(why error) ([]byte, error) {
	ix, err := a.readIndex() // another process may have revoked something meanwhile
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", why)
	}
	list := a.crlAtHand()
	if !list.complete(ix) {
		return nil, fmt.Errorf("revocation list: %w", why)
	}
	return list.pem, fmt.Errorf("%w, the one of %s is used, which is good until %s: %w", ErrNotRenewed,
		list.crl.ThisUpdate.Format(time.DateTime), list.crl.NextUpdate.Format(time.DateTime), why)
}

// refreshCRL makes a new list if there is need to. It runs under the lock.
func (a *Authority) refreshCRL(ix *index) error {
	if a.crlAtHand().current(ix, a.Now()) {
		return nil
	}
	key, err := a.key()
	if err != nil {
		return err
	}
	return a.updateCRL(ix, key)
}

// revocationList is a list that the authority has signed; the zero value is none.
type revocationList struct {
	pem []byte
	crl *x509.RevocationList
}

// crlAtHand is the list in the file.
func (a *Authority) crlAtHand() revocationList {
	data, err := os.ReadFile(a.path(crlFile))
	if err != nil {
		return revocationList{}
	}
	lists, err := auth.LoadCRLPEM(data)
	if err != nil || len(lists) != 1 || lists[0].CheckSignatureFrom(a.cert) != nil {
		return revocationList{}
	}
	return revocationList{pem: data, crl: lists[0]}
}

// current says whether a list is the last one, and good for a while.
func (l revocationList) current(ix *index, now time.Time) bool {
	if l.crl == nil || l.crl.Number == nil || l.crl.Number.Cmp(big.NewInt(ix.CRLNumber)) != 0 {
		return false
	}
	return !now.Before(l.crl.ThisUpdate) && l.crl.NextUpdate.Sub(now) > CRLLifetime/2
}

// complete says whether a list names all that is revoked: it may be older than the
// last one that was to be made, but it lets nobody in.
func (l revocationList) complete(ix *index) bool {
	if l.crl == nil {
		return false
	}
	named := map[string]bool{}
	for _, e := range l.crl.RevokedCertificateEntries {
		named[serialString(e.SerialNumber)] = true
	}
	return !slices.ContainsFunc(ix.Certificates, func(c Certificate) bool { return c.Revoked() && !named[c.Serial] })
}

// updateCRL signs a new list for an index, which it writes first: a crash between
// the two leaves a list with an old number, which CRL replaces. It runs under the
// lock.
func (a *Authority) updateCRL(ix *index, key crypto.Signer) error {
	ix.CRLNumber++
	data, err := signCRL(ix, a.cert, key, a.Now())
	if err != nil {
		return err
	}
	if err := a.writeIndex(ix); err != nil {
		return err
	}
	return a.write(crlFile, data)
}

func signCRL(ix *index, cert *x509.Certificate, key crypto.Signer, now time.Time) ([]byte, error) {
	// Backdated like certificates, for verifiers whose clocks run late.
	from := now.UTC().Truncate(time.Second).Add(-backdate)
	template := &x509.RevocationList{
		Number:     big.NewInt(ix.CRLNumber),
		ThisUpdate: from,
		NextUpdate: from.Add(backdate + CRLLifetime),
	}
	for _, c := range ix.Certificates {
		// Expired ones, too, although they might leave the list (RFC 5280 §3.3): whether
		// they have expired is a question to a clock, which may be wrong.
		if !c.Revoked() {
			continue
		}
		serial, err := parseSerial(c.Serial)
		if err != nil {
			return nil, err
		}
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber:   serial,
			RevocationTime: *c.RevokedAt,
			ReasonCode:     reasonCodes[c.Reason],
		})
	}
	slices.SortFunc(template.RevokedCertificateEntries, func(a, b x509.RevocationListEntry) int {
		return a.SerialNumber.Cmp(b.SerialNumber)
	})
	der, err := x509.CreateRevocationList(rand.Reader, template, cert, key)
	if err != nil {
		return nil, fmt.Errorf("sign revocation list: %w", err)
	}
	return encodePEM("X509 CRL", der), nil
}
