// Package pki is the certificate authority of a gateway: it makes the authority,
// issues certificates for gateways and clients, revokes them, and keeps the
// revocation list current.
//
// An authority is a directory:
//
//	ca.pem        its certificate; the authority exists when this file does
//	ca.key        its private key, PKCS#8
//	index.json    what was issued and revoked
//	certs/        the issued certificates, by serial number
//	crl.pem       the revocation list
//	lock          held by the process that changes something
//
// All files belong to their owner only (0600), and are replaced as a whole or not
// at all. Private keys of gateways and clients are not kept: they leave with the
// Bundle that Issue returns.
//
// It knows no daemons and no profiles.
package pki

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/atomicfile"
)

// Errors that callers may want to tell apart.
var (
	// ErrNoAuthority: the directory holds no authority.
	ErrNoAuthority = errors.New("there is no certificate authority")
	// ErrExists: the directory holds an authority already.
	ErrExists = errors.New("there is a certificate authority already")
	// ErrNotFound: no certificate has this serial number.
	ErrNotFound = errors.New("no such certificate")
	// ErrRevoked: the certificate is revoked already.
	ErrRevoked = errors.New("already revoked")
	// ErrInvalid: a name, lifetime or key that cannot be in a certificate.
	ErrInvalid = errors.New("not possible in a certificate")
	// ErrNotRenewed: there is no newer revocation list; the one at hand is complete.
	ErrNotRenewed = errors.New("the revocation list cannot be renewed")
	// ErrBusy: another process is changing the authority.
	ErrBusy = errors.New("the certificate authority is in use")
)

// Names of the files of an authority.
const (
	certFile  = "ca.pem"
	keyFile   = "ca.key"
	indexFile = "index.json"
	crlFile   = "crl.pem"
	lockFile  = "lock"
	certsDir  = "certs"
)

const day = 24 * time.Hour

// Lifetimes of certificates.
const (
	// DefaultLifetime of an authority: a new one means new profiles for everybody.
	DefaultLifetime = 3650 * day

	// DefaultServerLifetime stays within the 398 days that Apple's systems allow
	// certificates of public authorities. For authorities that a user installed the
	// limit is MaxServerLifetime, but a gateway's certificate costs nothing to renew,
	// and a yearly renewal is one that somebody still knows how to do.
	DefaultServerLifetime = 397 * day

	// MaxServerLifetime is the limit that iOS 13, macOS 10.15 and later apply to
	// server certificates of every authority: beyond it they do not connect.
	MaxServerLifetime = 825 * day

	// DefaultClientLifetime: nobody limits client certificates, but laptops get
	// lost without anybody telling. Renewing one needs its user.
	DefaultClientLifetime = 730 * day

	// backdate lets a certificate begin before it is issued, since the clocks of
	// clients run late.
	backdate = time.Hour

	// leastRemaining is how long an authority must still live to issue anything.
	leastRemaining = day
)

// Options describe a new authority.
type Options struct {
	// Name of the authority, which users see when they install its certificate.
	Name string
	// Organization, if not empty, is in the subjects of all certificates.
	Organization string
	// KeyType of the authority; empty means DefaultKeyType.
	KeyType KeyType
	// Lifetime; zero means DefaultLifetime.
	Lifetime time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Authority is an authority in a directory. Its methods can be used by several
// goroutines and processes at once.
type Authority struct {
	// Now is the clock. It is time.Now unless changed before use.
	Now func() time.Time

	dir  string
	cert *x509.Certificate
}

// Create makes an authority in a directory that has none, and an empty revocation
// list.
func Create(dir string, o Options) (*Authority, error) {
	a := &Authority{Now: o.Now, dir: dir}
	if a.Now == nil {
		a.Now = time.Now
	}
	if o.KeyType == "" {
		o.KeyType = DefaultKeyType
	}
	if o.Lifetime == 0 {
		o.Lifetime = DefaultLifetime
	}
	if err := checkSubject(o.Name, o.Organization); err != nil {
		return nil, fmt.Errorf("create certificate authority: %w", err)
	}
	if o.Lifetime < leastRemaining {
		return nil, fmt.Errorf("create certificate authority: lifetime %v: %w: at least %v is needed", o.Lifetime, ErrInvalid, leastRemaining)
	}
	if err := os.MkdirAll(filepath.Join(dir, certsDir), 0o700); err != nil {
		return nil, fmt.Errorf("create certificate authority: %w", explain(err))
	}
	err := a.locked(func() error { return a.create(o) })
	if err != nil {
		return nil, fmt.Errorf("create certificate authority in %s: %w", dir, err)
	}
	return a, nil
}

// create writes the certificate last: without it there is no authority, and
// another Create starts over.
func (a *Authority) create(o Options) error {
	if _, err := os.Lstat(a.path(certFile)); err == nil {
		return fmt.Errorf("%w: remove the directory first if every certificate it issued may become invalid", ErrExists)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := o.KeyType.generate()
	if err != nil {
		return err
	}
	keyPEM, err := marshalKey(key)
	if err != nil {
		return err
	}
	defer clear(keyPEM)
	a.cert, err = selfSign(key, o, a.Now())
	if err != nil {
		return err
	}
	if err := a.write(keyFile, keyPEM); err != nil {
		return err
	}
	if err := a.updateCRL(&index{Version: indexVersion}, key); err != nil {
		return err
	}
	return a.write(certFile, encodePEM("CERTIFICATE", a.cert.Raw))
}

// Open opens the authority in a directory.
func Open(dir string) (*Authority, error) {
	a := &Authority{Now: time.Now, dir: dir}
	data, err := os.ReadFile(a.path(certFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s: make one with vpn-server init", ErrNoAuthority, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %w", err)
	}
	certs, err := auth.LoadCertificatesPEM(data)
	if err != nil {
		return nil, fmt.Errorf("open certificate authority: %s: %w", a.path(certFile), err)
	}
	if !certs[0].IsCA {
		return nil, fmt.Errorf("open certificate authority: %s: the certificate is not that of an authority", a.path(certFile))
	}
	a.cert = certs[0]
	return a, nil
}

// Certificate is the authority's own certificate.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// CertificatePEM is the authority's own certificate in PEM.
func (a *Authority) CertificatePEM() []byte { return encodePEM("CERTIFICATE", a.cert.Raw) }

// key loads the private key. It is not kept in memory longer than needed.
func (a *Authority) key() (crypto.Signer, error) {
	path := a.path(keyFile)
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("private key of the certificate authority: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("private key of the certificate authority: %s can be read by others: consider it leaked, or if not, chmod 600 it", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("private key of the certificate authority: %w", err)
	}
	defer clear(data)
	key, err := auth.LoadKeyPEM(data)
	if err != nil {
		return nil, fmt.Errorf("private key of the certificate authority: %s: %w", path, err)
	}
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(a.cert.PublicKey) {
		return nil, fmt.Errorf("private key of the certificate authority: %s does not belong to %s", path, a.path(certFile))
	}
	return key, nil
}

func (a *Authority) path(name string) string { return filepath.Join(a.dir, name) }

// write replaces a file of the authority.
func (a *Authority) write(name string, data []byte) error {
	return explain(atomicfile.WriteFile(a.path(name), data, 0o600))
}

// explain adds what to do to errors that the user can do something about.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: the old file is kept; make room on the disk and repeat the command", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run the command as the user of the gateway, usually root", err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: the directory has to be on a writable file system", err)
	}
	return err
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// serialString writes a serial number as it is in the index and in file names.
func serialString(n *big.Int) string { return fmt.Sprintf("%x", n) }
