package server

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path/filepath"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
)

// maxPEM is the largest certificate, key or CRL file that is read.
const maxPEM = 16 << 20 // a revocation list can be long

// chainCache is how many clients' certificate chains are remembered as verified.
const chainCache = 4096

// credentials are what certificates and keys the gateway has.
type credentials struct {
	key           crypto.Signer
	chain         []*x509.Certificate // own first
	roots         []*x509.Certificate
	intermediates []*x509.Certificate
	crls          []*x509.RevocationList
}

// authentication makes both sides' part of the policy.
func (l *loader) authentication() (auth.Local, auth.Remote) {
	c := l.credentials()
	l.trust = newTrust(c.crls)
	local := auth.Local{Key: c.key, Chain: c.chain}
	l.identity(&local)
	remote := auth.Remote{
		ID:    l.remoteID(),
		Roots: c.roots, Intermediates: c.intermediates, CRLs: c.crls, RequireCRL: l.Config.Auth.RequireCRL,
		Usage: x509.ExtKeyUsageClientAuth,
		PSK:   l.keys.find,
		Cache: auth.NewCache(chainCache),
	}
	remote.AllowSignature, remote.AllowPSK = l.methods(c)
	return local, remote
}

// identity decides who the gateway is, and checks that it can prove it.
func (l *loader) identity(local *auth.Local) {
	key, text := "id", l.Config.ID
	if text == "" {
		key, text = "name", l.Config.Name
	}
	if text == "" {
		return // reported with the names
	}
	id, err := auth.ParseIdentity(text)
	if err != nil {
		l.problems.Add(key, "%v", err)
		return
	}
	local.ID = id
	if local.Key == nil {
		// The engine proves itself with the peer's own key where keys differ.
		local.PSK, _ = l.keys.only()
		return
	}
	if err := local.Prepare(); err != nil {
		l.problems.Add("auth.certificate", "%v", err)
	}
	if own := local.Certificate(); own != nil {
		l.warnOfGateway(own)
	}
}

// remoteID is the pattern of clients' identities. Several patterns are checked when a
// client is admitted; then everybody may try.
func (l *loader) remoteID() auth.Pattern {
	for i, text := range l.Config.Auth.RemoteID {
		p, err := auth.ParsePattern(text)
		if err != nil {
			l.problems.Add(fmt.Sprintf("auth.remote_id[%d]", i), "%v", err)
			continue
		}
		l.Patterns = append(l.Patterns, p)
	}
	switch len(l.Patterns) {
	case 0:
		l.problems.Add("auth.remote_id", `is empty: nobody could connect; "*" is everybody who can prove an identity`)
		return auth.Pattern{}
	case 1:
		return l.Patterns[0]
	}
	return auth.Any()
}

// unique says what a second session of an identity means.
func (l *loader) unique() Unique {
	u := Unique(l.Config.Auth.Unique)
	if !slices.Contains([]Unique{UniqueNo, UniqueNever, UniqueReplace, UniqueKeep}, u) {
		l.problems.Add("auth.unique", "%.40q is none of no, never, replace and keep", l.Config.Auth.Unique)
	}
	return u
}

// methods says which ways to authenticate are open to clients. Without a list it is
// what there are credentials for.
func (l *loader) methods(c credentials) (certificate, psk bool) {
	haveCertificates := c.key != nil && len(c.roots) > 0
	list := l.Config.Auth.Methods
	for i, m := range list {
		key := fmt.Sprintf("auth.methods[%d]", i)
		switch m {
		case methodCertificate:
			certificate = true
			if !haveCertificates {
				l.problems.Add(key, "certificates are allowed, but the gateway has none: run vpn-server init, or set auth.certificate, auth.key and auth.ca")
			}
		case methodPSK:
			psk = true
			if l.keys.empty() {
				l.problems.Add(key, "pre-shared keys are allowed, but there is none: add [[psk]], or run vpn-server user add --psk")
			}
		default:
			l.problems.Add(key, "%.40q is neither %s nor %s", m, methodCertificate, methodPSK)
		}
	}
	if len(list) > 0 {
		return certificate, psk
	}
	if !haveCertificates && l.keys.empty() {
		l.problems.Add("auth", "the gateway has neither certificates nor pre-shared keys: run vpn-server init, or configure auth.certificate, auth.key and auth.ca, or [[psk]]")
	}
	return haveCertificates, !l.keys.empty()
}

// loadKeys collects pre-shared keys: those of the configuration, then those of users
// that the command line has added.
func (l *loader) loadKeys() *keyring {
	k := &keyring{}
	for i, p := range l.Config.PSK {
		key := fmt.Sprintf("psk[%d]", i)
		if p.ID == "" {
			l.problems.Add(key+".id", `is missing: the identity that the key is for, or "*" for a default`)
			continue
		}
		if p.Secret.IsZero() {
			l.problems.Add(key+".secret", "is missing")
			continue
		}
		if err := k.add(p.ID, p.Secret); err != nil {
			l.problems.Add(key+".id", "%v", err)
		}
	}
	users, err := loadKeyUsers(l.Config.StateDir)
	if err != nil {
		l.problems.Add("state_dir", "pre-shared keys of users: %v", err)
	}
	for _, u := range users {
		_, err := userIdentity(u.ID)
		if err == nil {
			err = k.add(u.ID, u.Secret)
		}
		if err != nil {
			l.warn("the pre-shared key of user %s is not used: %v", u.Name, err)
		}
	}
	return k
}

// credentials reads the files that the configuration names, or else the gateway's own
// authority.
func (l *loader) credentials() credentials {
	a := l.Config.Auth
	var c credentials
	if a.Certificate == "" && a.Key == "" && len(a.CA) == 0 && len(a.Chain) == 0 {
		c = l.ownAuthority()
	} else {
		c = l.files()
	}
	for i, f := range a.CRL {
		key := fmt.Sprintf("auth.crl[%d]", i)
		c.crls = append(c.crls, readPEM(l, key, f, auth.LoadCRLPEM)...)
	}
	for _, crl := range c.crls {
		if !crl.NextUpdate.IsZero() && l.now.After(crl.NextUpdate) {
			l.warn("the revocation list of %s is out of date since %s", crl.Issuer, crl.NextUpdate.Format(time.DateTime))
		}
	}
	return c
}

func (l *loader) files() credentials {
	a := l.Config.Auth
	var c credentials
	switch {
	case a.Certificate != "" && a.Key == "":
		l.problems.Add("auth.key", "is missing: the private key of auth.certificate")
	case a.Certificate == "" && a.Key != "":
		l.problems.Add("auth.certificate", "is missing: the certificate of auth.key")
	case a.Certificate == "" && len(a.Chain) > 0:
		l.problems.Add("auth.certificate", "is missing: auth.chain goes with it")
	}
	c.chain = readPEM(l, "auth.certificate", a.Certificate, auth.LoadCertificatesPEM)
	for i, f := range a.Chain {
		c.chain = append(c.chain, readPEM(l, fmt.Sprintf("auth.chain[%d]", i), f, auth.LoadCertificatesPEM)...)
	}
	c.key = readPEM(l, "auth.key", a.Key, auth.LoadKeyPEM)
	for i, f := range a.CA {
		c.roots = append(c.roots, readPEM(l, fmt.Sprintf("auth.ca[%d]", i), f, auth.LoadCertificatesPEM)...)
	}
	if len(c.chain) > 1 {
		c.intermediates = c.chain[1:] // often the clients' too
	}
	return c
}

// readPEM reads a file named by a key of the configuration; no name is no content.
func readPEM[T any](l *loader, key, name string, parse func([]byte) (T, error)) (content T) {
	if name == "" {
		return content
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(l.dir, name)
	}
	data, err := config.ReadFile(name, maxPEM)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no file %s", name)
	}
	if err != nil {
		l.problems.Add(key, "%v", err)
		return content
	}
	if warning := config.BeyondConfinedRoot(name); warning != "" {
		l.Warnings = append(l.Warnings, warning)
	}
	defer clear(data)
	content, err = parse(data)
	if err != nil {
		l.problems.Add(key, "%s: %v", name, err)
	}
	return content
}

// certificateKey names a certificate by issuer and serial number, in little space.
type certificateKey [16]byte

func keyOf(rawIssuer []byte, serial *big.Int) (k certificateKey) {
	h := sha256.New()
	h.Write(rawIssuer)
	h.Write([]byte{0})
	h.Write(serial.Bytes())
	copy(k[:], h.Sum(nil))
	return k
}

// trust knows which certificates are revoked, for sessions that are up already. New
// ones are checked by package auth, with the signatures of the lists.
type trust struct {
	revoked map[certificateKey]bool
}

func newTrust(crls []*x509.RevocationList) trust {
	t := trust{revoked: map[certificateKey]bool{}}
	for _, crl := range crls {
		for _, e := range crl.RevokedCertificateEntries {
			t.revoked[keyOf(crl.RawIssuer, e.SerialNumber)] = true
		}
	}
	return t
}
