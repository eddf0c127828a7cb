package auth

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// VerifyPeer checks all that a peer showed to prove itself with a signature: the
// certificates in its CERT payloads for the identity it claims (see VerifyChain),
// and the AUTH payload with the key of its certificate (see VerifySignature). This is
// the work of public keys, and takes a while.
func (r *Remote) VerifyPeer(now time.Time, id Identity, a *message.Auth, payloads []*message.Cert, octets []byte) (Verified, error) {
	certs, crls, err := ParseCertPayloads(payloads)
	if err != nil {
		return Verified{}, err
	}
	chain, err := r.verifyChain(now, id, certs, crls)
	if err != nil {
		return Verified{}, err
	}
	if err := VerifySignature(a, chain[0].PublicKey, octets); err != nil {
		return Verified{}, fmt.Errorf("%s: %w", id, err)
	}
	return Verified{Certificate: chain[0], Addresses: certifiedAddresses(chain)}, nil
}

// Verified is what the certificates of a proved peer say.
type Verified struct {
	Certificate *x509.Certificate // the peer's own
	Addresses   AddressSet        // that its authorities let it use (RFC 3779)
}

// VerifyChain decides whether the certificates that a peer sent, its own first,
// prove the identity that it claims. It looks at the identity (r.ID), the chain to
// one of r.Roots with everything that RFC 5280 §6 asks for, validity at now, key
// strength, key usage, revocation and the identity in the certificate, and returns
// the peer's certificate. crls are lists that the peer sent; they are believed as
// far as the issuer signed them.
//
// It does not check that the peer holds the private key: see VerifySignature.
func (r *Remote) VerifyChain(now time.Time, id Identity, certs []*x509.Certificate, crls []*x509.RevocationList) (*x509.Certificate, error) {
	chain, err := r.verifyChain(now, id, certs, crls)
	if err != nil {
		return nil, err
	}
	return chain[0], nil
}

// verifyChain is VerifyChain, and returns the chain up to the root.
func (r *Remote) verifyChain(now time.Time, id Identity, certs []*x509.Certificate, crls []*x509.RevocationList) ([]*x509.Certificate, error) {
	if !r.AllowSignature {
		return nil, fmt.Errorf("%w: certificates are not allowed for %s", ErrMethodRefused, id)
	}
	if now.IsZero() { // crypto/x509 would read the clock
		return nil, errors.New("verify certificate chain: the time is not given")
	}
	if err := r.checkIdentity(id); err != nil {
		return nil, err
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%w: %s sent none: its certificate has to be in the IKE_AUTH message", ErrNoCertificate, id)
	}
	leaf := certs[0]
	chain, err := r.verify(now, leaf, certs[1:], crls)
	if err != nil {
		return nil, fmt.Errorf("certificate %s of %s: %w", describe(leaf), id, err)
	}
	if err := MatchCertificate(leaf, id); err != nil {
		return nil, err
	}
	return chain, nil
}

// verify checks everything about a certificate but its identity, and returns its
// chain.
func (r *Remote) verify(now time.Time, leaf *x509.Certificate, others []*x509.Certificate, crls []*x509.RevocationList) ([]*x509.Certificate, error) {
	if err := CheckPublicKey(leaf.PublicKey); err != nil {
		return nil, err
	}
	// When a remembered chain is no longer good there may be another, through a
	// renewed intermediate for instance.
	if chain := r.Cache.chain(leaf); len(chain) > 0 && r.isRoot(chain[len(chain)-1]) && r.checkChain(now, chain, crls) == nil {
		return chain, nil
	}
	chains, err := r.buildChains(now, leaf, others)
	if err != nil {
		return nil, err
	}
	// There is more than one chain only with cross-certified authorities; one good
	// chain is enough.
	var first error
	for _, chain := range chains {
		err := checkAddressBlocks(chain)
		if err == nil {
			err = r.checkChain(now, chain, crls)
		}
		if err == nil {
			r.Cache.addChain(chain)
			return chain, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// checkChain checks what is not in the signatures of a chain, or changes with time.
func (r *Remote) checkChain(now time.Time, chain []*x509.Certificate, crls []*x509.RevocationList) error {
	for i, c := range chain {
		if err := checkValidity(now, c, i == 0); err != nil {
			return err
		}
		if err := CheckPublicKey(c.PublicKey); err != nil {
			return inChain(c, i == 0, err)
		}
		// The usage of an authority says nothing about a root: that is configured.
		if i == 0 || i < len(chain)-1 {
			if err := checkUsage(c, r.Usage, i == 0); err != nil {
				return inChain(c, i == 0, err)
			}
		}
	}
	return r.checkRevocation(now, chain, crls)
}

// buildChains finds the ways from a certificate to the roots, all signatures
// verified.
func (r *Remote) buildChains(now time.Time, leaf *x509.Certificate, others []*x509.Certificate) ([][]*x509.Certificate, error) {
	if err := checkValidity(now, leaf, true); err != nil {
		return nil, err
	}
	if weakSignature(leaf) {
		return nil, fmt.Errorf("%w: it is signed with %s", ErrWeakKey, leaf.SignatureAlgorithm)
	}
	handled := withoutAddressBlocks(leaf)
	if oids := unhandledCritical(handled); oids != "" {
		return nil, fmt.Errorf("%w: it has the critical extension %s, which is not supported", ErrBadCertificate, oids)
	}
	intermediates := slices.Concat(r.Intermediates, r.connected(others))
	opts := x509.VerifyOptions{
		// Never nil, which would stand for the authorities of the system.
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   now,
		// checkUsage knows the IPsec usages, which crypto/x509 does not.
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, c := range intermediates {
		opts.Intermediates.AddCert(withoutAddressBlocks(c))
	}
	for _, c := range r.relevantRoots(leaf, intermediates) {
		opts.Roots.AddCert(withoutAddressBlocks(c))
	}
	chains, err := handled.Verify(opts)
	if err != nil {
		return nil, r.chainError(now, leaf, err)
	}
	return chains, nil
}

// connected keeps those of a peer's certificates that lead to an authority of
// ours, by working downwards from it: each is checked with the key of an authority
// of ours, or of one already checked. Strangers can so neither choose the keys
// that we compute with nor make us search a maze of certificates.
func (r *Remote) connected(candidates []*x509.Certificate) []*x509.Certificate {
	var found []*x509.Certificate
	rest := slices.DeleteFunc(slices.Clone(candidates), func(c *x509.Certificate) bool {
		return !c.BasicConstraintsValid || !c.IsCA || weakSignature(c) || CheckPublicKey(c.PublicKey) != nil
	})
	for parents := slices.Concat(r.Roots, r.Intermediates); len(parents) > 0 && len(rest) > 0; {
		var next []*x509.Certificate
		rest = slices.DeleteFunc(rest, func(c *x509.Certificate) bool {
			for _, parent := range parents {
				if bytes.Equal(parent.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(parent) == nil {
					next = append(next, c)
					return true
				}
			}
			return false
		})
		found = append(found, next...)
		parents = next
	}
	return found
}

// relevantRoots are the roots that can be part of a chain. Their number may be
// large, and a pool costs a hash for each.
func (r *Remote) relevantRoots(leaf *x509.Certificate, intermediates []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(r.Roots), func(root *x509.Certificate) bool {
		if bytes.Equal(root.RawSubject, leaf.RawIssuer) || root.Equal(leaf) {
			return false
		}
		return !slices.ContainsFunc(intermediates, func(c *x509.Certificate) bool {
			return bytes.Equal(root.RawSubject, c.RawIssuer) || root.Equal(c)
		})
	})
}

func (r *Remote) isRoot(c *x509.Certificate) bool {
	return slices.ContainsFunc(r.Roots, c.Equal)
}

// chainError puts an error of crypto/x509 into our words.
func (r *Remote) chainError(now time.Time, leaf *x509.Certificate, err error) error {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: it was issued by %s; trusted are %s", ErrUnknownAuthority, nameIdentity(leaf.RawIssuer), r.rootNames())
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if verr := checkValidity(now, invalid.Cert, invalid.Cert.Equal(leaf)); verr != nil {
			return verr
		}
	}
	return fmt.Errorf("%w: %w", ErrBadCertificate, err)
}

// rootNames lists the first few authorities.
func (r *Remote) rootNames() string {
	if len(r.Roots) == 0 {
		return "none, since no authority is configured"
	}
	const shown = 3
	var names []string
	for _, root := range r.Roots[:min(shown, len(r.Roots))] {
		names = append(names, nameIdentity(root.RawSubject).String())
	}
	if n := len(r.Roots) - shown; n > 0 {
		names = append(names, fmt.Sprintf("%d more", n))
	}
	return strings.Join(names, " and ")
}

// checkValidity says in whose certificate a date is wrong, and how.
func checkValidity(now time.Time, c *x509.Certificate, leaf bool) error {
	switch {
	case now.Before(c.NotBefore):
		return inChain(c, leaf, fmt.Errorf("%w: it begins on %s, the clock here says %s", ErrNotYetValid, date(c.NotBefore), date(now)))
	case now.After(c.NotAfter):
		return inChain(c, leaf, fmt.Errorf("%w: it ended on %s, the clock here says %s", ErrExpired, date(c.NotAfter), date(now)))
	}
	return nil
}

// inChain names the certificate an error is about, unless it is the peer's own,
// which VerifyChain names.
func inChain(c *x509.Certificate, leaf bool, err error) error {
	if leaf {
		return err
	}
	return fmt.Errorf("its authority %s: %w", describe(c), err)
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

// unhandledCritical lists critical extensions that crypto/x509 does not process.
func unhandledCritical(c *x509.Certificate) string {
	names := make([]string, len(c.UnhandledCriticalExtensions))
	for i, oid := range c.UnhandledCriticalExtensions {
		names[i] = oid.String()
	}
	return strings.Join(names, ", ")
}

// Extended key usages for IPsec.
var (
	oidIKEIntermediate = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 8, 2, 2}  // what Apple's and old Windows clients look for
	oidIPsecIKE        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 17} // id-kp-ipsecIKE, RFC 4945 §5.1.3.12
)

// checkUsage checks the key usage of a peer's certificate, and the extended key
// usage of that and of the authorities between it and the root, which limits what
// they may issue.
func checkUsage(c *x509.Certificate, usage x509.ExtKeyUsage, leaf bool) error {
	// RFC 4945 §5.1.3.2: digitalSignature or nonRepudiation, if there is a key usage.
	const signs = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	if leaf && c.KeyUsage != 0 && c.KeyUsage&signs == 0 {
		return fmt.Errorf("%w: its key usage does not allow digital signatures", ErrWrongUsage)
	}
	if extendedUsageAllows(c, usage) {
		return nil
	}
	switch usage {
	case x509.ExtKeyUsageServerAuth:
		return fmt.Errorf("%w: it is not a gateway's certificate: its extended key usage lacks serverAuth", ErrWrongUsage)
	case x509.ExtKeyUsageClientAuth:
		return fmt.Errorf("%w: it is not a client's certificate: its extended key usage lacks clientAuth", ErrWrongUsage)
	}
	return fmt.Errorf("%w: its extended key usage does not allow IKE", ErrWrongUsage)
}

func extendedUsageAllows(c *x509.Certificate, usage x509.ExtKeyUsage) bool {
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return true
	}
	for _, u := range c.ExtKeyUsage {
		if u == x509.ExtKeyUsageAny || u == usage {
			return true
		}
	}
	for _, oid := range c.UnknownExtKeyUsage {
		if oid.Equal(oidIKEIntermediate) || oid.Equal(oidIPsecIKE) {
			return true
		}
	}
	return false
}
