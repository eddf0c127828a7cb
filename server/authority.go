package server

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/atomicfile"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/pki"
)

// Files of the state directory.
const (
	authorityDir = "pki"
	gatewayFile  = "gateway.pem" // the gateway's certificate and its key
	keyUsersFile = "psk.toml"
	profilesDir  = "profiles"
)

// ownAuthority reads the gateway's own authority, if vpn-server init has made one.
func (l *loader) ownAuthority() credentials {
	var c credentials
	dir := l.Config.StateDir
	a, err := pki.Open(filepath.Join(dir, authorityDir))
	if errors.Is(err, pki.ErrNoAuthority) {
		return c // whether that is a problem depends on the methods
	}
	if err != nil {
		l.problems.Add("state_dir", "%v", err)
		return c
	}
	c.roots = []*x509.Certificate{a.Certificate()}
	l.warnOfAuthority(a)
	gateway := filepath.Join(dir, gatewayFile)
	if data, ok := l.readOwn(gateway); ok {
		defer clear(data)
		c.chain = ownPEM(l, gateway, data, auth.LoadCertificatesPEM)
		c.key = ownPEM(l, gateway, data, auth.LoadKeyPEM)
	}
	crl, err := a.CRL()
	if errors.Is(err, pki.ErrNotRenewed) {
		l.warn("%v", err)
	} else if err != nil {
		// Without it revoked users would come in.
		l.problems.Add("state_dir", "%v", err)
		return c
	}
	if c.crls, err = auth.LoadCRLPEM(crl); err != nil {
		l.problems.Add("state_dir", "revocation list: %v", err)
	}
	return c
}

func (l *loader) readOwn(path string) (data []byte, ok bool) {
	data, err := config.ReadFile(path, maxPEM)
	if errors.Is(err, fs.ErrNotExist) {
		l.problems.Add("state_dir", "%s is missing: vpn-server cert renew makes a new one", path)
	} else if err != nil {
		l.problems.Add("state_dir", "%v", err)
	}
	return data, err == nil
}

func ownPEM[T any](l *loader, path string, data []byte, parse func([]byte) (T, error)) (content T) {
	content, err := parse(data)
	if err != nil {
		l.problems.Add("state_dir", "%s: %v: vpn-server cert renew makes a new one", path, err)
	}
	return content
}

// issueGateway issues the gateway's certificate for its names and puts it, with its
// key, into the state directory.
func issueGateway(a *pki.Authority, stateDir string, hosts []string, keyType pki.KeyType) (*pki.Certificate, error) {
	var names []string
	var addrs []netip.Addr
	for _, h := range hosts {
		if addr, err := netip.ParseAddr(h); err == nil {
			addrs = append(addrs, addr)
		} else {
			names = append(names, h)
		}
	}
	b, err := a.IssueServer(names, addrs, pki.IssueOptions{KeyType: keyType, Name: hosts[0]})
	if err != nil {
		return nil, err
	}
	defer b.Clear()
	// One file, so that no crash, and no other command, leaves a pair that does not fit.
	both := slices.Concat(b.Cert, b.Key)
	defer clear(both)
	if err := atomicfile.WriteFile(filepath.Join(stateDir, gatewayFile), both, 0o600); err != nil {
		return nil, err
	}
	return &b.Issued, nil
}

// openAuthority opens the gateway's own authority for the command line.
func (a *Admin) openAuthority() (*pki.Authority, error) {
	c := a.Config.Auth
	if c.Certificate != "" || len(c.CA) > 0 {
		return nil, fmt.Errorf("%s names certificates of another authority (auth.certificate, auth.ca): users and certificates are managed there", a.Path)
	}
	p, err := pki.Open(filepath.Join(a.Config.StateDir, authorityDir))
	if err != nil {
		return nil, err
	}
	p.Now = a.Now
	return p, nil
}

// hosts are the names and addresses that the gateway's certificate is for.
func (c *Config) hosts() []string {
	var out []string
	seen := map[string]bool{}
	for _, h := range append([]string{c.Name}, c.Addresses...) {
		if h != "" && !seen[h] {
			seen[h] = true
			out = append(out, h)
		}
	}
	return out
}

// Certificates lists what the authority has issued.
func (a *Admin) Certificates() ([]pki.Certificate, error) {
	p, err := a.openAuthority()
	if err != nil {
		return nil, err
	}
	return p.List()
}

// RenewCertificate issues the gateway's certificate anew, for the names and addresses
// that the configuration has now.
func (a *Admin) RenewCertificate(keyType pki.KeyType) (*pki.Certificate, error) {
	p, err := a.openAuthority()
	if err != nil {
		return nil, err
	}
	var issued *pki.Certificate
	err = a.locked(func() (err error) {
		issued, err = issueGateway(p, a.Config.StateDir, a.Config.hosts(), keyType)
		return err
	})
	return issued, err
}

// RevocationList is the current revocation list, in PEM. With an error that is
// pki.ErrNotRenewed it is an older one, which is complete.
func (a *Admin) RevocationList() ([]byte, error) {
	p, err := a.openAuthority()
	if err != nil {
		return nil, err
	}
	return p.CRL()
}
