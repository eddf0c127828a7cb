package auth

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// MatchCertificate says whether a certificate is for an identity (RFC 4945 §3.1):
// a domain name must be a dNSName, an e-mail address a rfc822Name, an address an
// iPAddress of the subject alternative names; a distinguished name must be the
// subject. Names in the subject do not count for the other kinds, and wildcards in
// certificates stand for nothing.
func MatchCertificate(c *x509.Certificate, id Identity) error {
	if err := id.Valid(); err != nil {
		return err
	}
	if !isFor(c, id) {
		return fmt.Errorf("%w: certificate is for %s, not for %s", ErrIdentityMismatch, namesIn(c), id)
	}
	return nil
}

// isFor is MatchCertificate for a valid identity.
func isFor(c *x509.Certificate, id Identity) bool {
	switch id.Kind {
	case message.IDFQDN:
		return !isWildcard(id) && containsFold(c.DNSNames, string(id.Data))
	case message.IDRFC822:
		return containsFold(c.EmailAddresses, string(id.Data))
	case message.IDIPv4, message.IDIPv6:
		return slices.ContainsFunc(c.IPAddresses, func(ip net.IP) bool { return bytes.Equal(ip, id.Data) })
	case message.IDDERDN:
		return id.Equal(Identity{message.IDDERDN, c.RawSubject})
	}
	return false
}

// Identities lists the identities that a certificate proves, the ones of most use
// to a peer's policy first.
func Identities(c *x509.Certificate) []Identity {
	var ids []Identity
	for _, name := range c.DNSNames {
		ids = append(ids, Identity{message.IDFQDN, []byte(name)})
	}
	for _, name := range c.EmailAddresses {
		ids = append(ids, Identity{message.IDRFC822, []byte(name)})
	}
	for _, ip := range c.IPAddresses {
		kind := message.IDIPv4
		if len(ip) == net.IPv6len {
			kind = message.IDIPv6
		}
		ids = append(ids, Identity{kind, ip})
	}
	ids = append(ids, Identity{message.IDDERDN, c.RawSubject})
	return slices.DeleteFunc(ids, func(id Identity) bool { return id.Valid() != nil || isWildcard(id) })
}

func isWildcard(id Identity) bool {
	return id.Kind == message.IDFQDN && bytes.Contains(id.Data, []byte("*"))
}

// Prepare completes l from its certificate and checks it. Without an identity it
// takes the first that the certificate proves. A distinguished name is replaced by
// the certificate's subject octet by octet, as RFC 4945 §3.1.5 wants it sent.
func (l *Local) Prepare() error {
	own := l.Certificate()
	if own != nil && l.ID.IsZero() {
		ids := Identities(own)
		if len(ids) == 0 {
			return fmt.Errorf("certificate %s: %w: it names nobody", describe(own), ErrNoCredentials)
		}
		l.ID = ids[0]
	}
	if own != nil && l.ID.Kind == message.IDDERDN && !l.UsesPSK() {
		if subject := (Identity{message.IDDERDN, own.RawSubject}); l.ID.Equal(subject) {
			l.ID = subject
		}
	}
	return l.Check()
}

func containsFold(names []string, name string) bool {
	name = lowerASCII(name)
	return slices.ContainsFunc(names, func(n string) bool { return lowerASCII(n) == name })
}

// namesIn lists the first few identities of a certificate.
func namesIn(c *x509.Certificate) string {
	ids := Identities(c)
	if len(ids) == 0 {
		return "nobody"
	}
	const shown = 4
	names := make([]string, 0, shown)
	for _, id := range ids[:min(shown, len(ids))] {
		names = append(names, id.String())
	}
	if len(ids) > shown {
		names = append(names, fmt.Sprintf("%d more", len(ids)-shown))
	}
	return strings.Join(names, " or ")
}

// describe names a certificate in an error. It may be anybody's, with any number of
// names: its subject has to do.
func describe(c *x509.Certificate) string {
	if subject := nameIdentity(c.RawSubject); subject.Valid() == nil {
		return fmt.Sprintf("%s (serial %x)", subject, c.SerialNumber)
	}
	return fmt.Sprintf("with serial %x", c.SerialNumber)
}

func nameIdentity(der []byte) Identity { return Identity{message.IDDERDN, der} }
