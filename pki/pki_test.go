package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func clock(now *time.Time) func() time.Time { return func() time.Time { return *now } }

// newAuthority makes one in a new directory, at testNow.
func newAuthority(t testing.TB, o Options) *Authority {
	t.Helper()
	now := testNow
	if o.Name == "" {
		o.Name = "Test CA"
	}
	if o.Now == nil {
		o.Now = clock(&now)
	}
	a, err := Create(filepath.Join(t.TempDir(), "pki"), o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// localFrom loads a bundle as a gateway or client does.
func localFrom(t testing.TB, b *Bundle) *auth.Local {
	t.Helper()
	l := &auth.Local{
		Key:   must[crypto.Signer](t)(auth.LoadKeyPEM(b.Key)),
		Chain: must[[]*x509.Certificate](t)(auth.LoadCertificatesPEM(b.Cert)),
	}
	if err := l.Prepare(); err != nil {
		t.Fatal(err)
	}
	return l
}

// remoteFor verifies peers with the authority and its current revocation list.
func remoteFor(t testing.TB, a *Authority, usage x509.ExtKeyUsage) *auth.Remote {
	t.Helper()
	return &auth.Remote{
		ID: auth.Any(), AllowSignature: true, Usage: usage, RequireCRL: true,
		Roots: must[[]*x509.Certificate](t)(auth.LoadCertificatesPEM(a.CertificatePEM())),
		CRLs:  must[[]*x509.RevocationList](t)(auth.LoadCRLPEM(must[[]byte](t)(a.CRL()))),
	}
}

var modernHashes = []suite.HashID{suite.HashSHA256, suite.HashSHA384, suite.HashSHA512, suite.HashIdentity}

// verify runs the whole proof that IKE asks of a peer.
func verify(t testing.TB, r *auth.Remote, now time.Time, l *auth.Local) error {
	t.Helper()
	octets := []byte("signed octets")
	proof, err := auth.Sign(rand.Reader, l, modernHashes, octets)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.VerifyPeer(now, l.ID, proof, auth.CertPayloads(l), octets)
	return err
}

func TestIssuedCertificates(t *testing.T) {
	for _, kind := range []KeyType{ECDSAP256, ECDSAP384, Ed25519, RSA2048} {
		t.Run(string(kind), func(t *testing.T) {
			a := newAuthority(t, Options{Name: "Example VPN", Organization: "Example", KeyType: kind})
			ca := a.Certificate()
			if !ca.IsCA || !ca.MaxPathLenZero || ca.MaxPathLen != 0 || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign ||
				len(ca.SubjectKeyId) != 20 || ca.Subject.String() != "CN=Example VPN,O=Example" {
				t.Errorf("authority: %v, path %d, usage %b, key %x", ca.Subject, ca.MaxPathLen, ca.KeyUsage, ca.SubjectKeyId)
			}
			if got, want := ca.NotAfter, testNow.Add(DefaultLifetime-time.Hour-time.Second); !got.Equal(want) {
				t.Errorf("authority until %v, want %v", got, want)
			}

			server := must[*Bundle](t)(a.IssueServer([]string{"vpn.example.test", "vpn2.example.test"},
				[]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, IssueOptions{KeyType: kind}))
			cert := localFrom(t, server).Certificate()
			wantUsage := x509.KeyUsageDigitalSignature
			if _, isRSA := cert.PublicKey.(*rsa.PublicKey); isRSA {
				wantUsage |= x509.KeyUsageKeyEncipherment
			}
			if cert.Subject.String() != "CN=vpn.example.test,O=Example" || cert.IsCA || cert.KeyUsage != wantUsage ||
				!slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) ||
				len(cert.UnknownExtKeyUsage) != 1 || cert.UnknownExtKeyUsage[0].String() != "1.3.6.1.5.5.8.2.2" ||
				!bytes.Equal(cert.AuthorityKeyId, ca.SubjectKeyId) || len(cert.SubjectKeyId) != 20 {
				t.Errorf("server: %v, usage %b, %v, %v", cert.Subject, cert.KeyUsage, cert.ExtKeyUsage, cert.UnknownExtKeyUsage)
			}
			if d := cert.NotAfter.Sub(cert.NotBefore) + time.Second; d != DefaultServerLifetime {
				t.Errorf("server certificate lives %v", d)
			}
			if got := fmt.Sprint(server.Issued.Identities); got != "[vpn.example.test vpn2.example.test 192.0.2.1 2001:db8::1 CN=vpn.example.test,O=Example]" {
				t.Errorf("identities %s", got)
			}

			client := must[*Bundle](t)(a.IssueClient("alice@example.test", IssueOptions{Name: "alice", KeyType: kind}))
			cert = localFrom(t, client).Certificate()
			if !slices.Equal(cert.EmailAddresses, []string{"alice@example.test"}) || cert.KeyUsage != x509.KeyUsageDigitalSignature ||
				!slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || len(cert.UnknownExtKeyUsage) != 0 {
				t.Errorf("client: %v, usage %b, %v", cert.EmailAddresses, cert.KeyUsage, cert.ExtKeyUsage)
			}
			host := must[*Bundle](t)(a.IssueClient("laptop7", IssueOptions{KeyType: kind}))
			if cert := localFrom(t, host).Certificate(); !slices.Equal(cert.DNSNames, []string{"laptop7"}) {
				t.Errorf("client: %v", cert.DNSNames)
			}

			// crypto/x509, as a stranger would use it.
			pool := x509.NewCertPool()
			pool.AddCert(ca)
			if _, err := localFrom(t, server).Certificate().Verify(x509.VerifyOptions{Roots: pool, DNSName: "vpn2.example.test", CurrentTime: testNow}); err != nil {
				t.Error(err)
			}
			if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: testNow, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				t.Error(err)
			}
			// IKE.
			servers, clients := remoteFor(t, a, x509.ExtKeyUsageServerAuth), remoteFor(t, a, x509.ExtKeyUsageClientAuth)
			for _, b := range []*Bundle{client, host} {
				if err := verify(t, clients, testNow, localFrom(t, b)); err != nil {
					t.Error(err)
				}
				if err := verify(t, servers, testNow, localFrom(t, b)); !errors.Is(err, auth.ErrWrongUsage) {
					t.Errorf("client as server: %v", err)
				}
			}
			if err := verify(t, servers, testNow, localFrom(t, server)); err != nil {
				t.Error(err)
			}
			if err := verify(t, servers, testNow.Add(DefaultServerLifetime), localFrom(t, server)); !errors.Is(err, auth.ErrExpired) {
				t.Errorf("expired: %v", err)
			}
		})
	}
}

func TestIssueRefuses(t *testing.T) {
	a := newAuthority(t, Options{})
	long := strings.Repeat("a", 64)
	for _, names := range [][]string{nil, {""}, {"*.example.test"}, {"a..b"}, {"a."}, {"-a.test"}, {"a b"}, {"münchen.test"},
		{long + ".test"}, {strings.Repeat("a.", 127) + "test"}, {"vpn.example.test", "a\nb"}} {
		if _, err := a.IssueServer(names, nil, IssueOptions{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("server %q: %v", names, err)
		}
	}
	for _, addr := range []netip.Addr{{}, netip.IPv4Unspecified(), netip.MustParseAddr("fe80::1%eth0")} {
		if _, err := a.IssueServer(nil, []netip.Addr{addr}, IssueOptions{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("server %v: %v", addr, err)
		}
	}
	for _, identity := range []string{"", "a@", "@b.test", "a@b@c.test", "a b@c.test", "ä@b.test", "192.0.2.1", "CN=alice", "keyid:alice", "*"} {
		if _, err := a.IssueClient(identity, IssueOptions{}); !errors.Is(err, ErrInvalid) && !errors.Is(err, auth.ErrBadIdentity) {
			t.Errorf("client %q: %v", identity, err)
		}
	}
	weak := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	for _, o := range []IssueOptions{
		{KeyType: "dsa"}, {Lifetime: MaxServerLifetime + day}, {Lifetime: -day}, {Lifetime: time.Minute}, {Name: " x"}, {Name: "a\x00b"},
		{PublicKey: weak.Public()}, {PublicKey: "nonsense"},
	} {
		if b, err := a.IssueServer([]string{"vpn.example.test"}, nil, o); err == nil {
			t.Errorf("%+v: %v", o, b)
		}
	}
	if list := must[[]Certificate](t)(a.List()); len(list) != 0 {
		t.Errorf("refused certificates are listed: %v", list)
	}
}

func TestIssueForGivenKey(t *testing.T) {
	a := newAuthority(t, Options{})
	key := must[crypto.Signer](t)(Ed25519.generate())
	b := must[*Bundle](t)(a.IssueClient("alice@example.test", IssueOptions{PublicKey: key.Public()}))
	if b.Key != nil {
		t.Error("there is a private key")
	}
	l := &auth.Local{Key: key, Chain: must[[]*x509.Certificate](t)(auth.LoadCertificatesPEM(b.Cert))}
	if err := l.Prepare(); err != nil {
		t.Error(err)
	}
}

func TestLongNameHasNoCommonName(t *testing.T) {
	a := newAuthority(t, Options{})
	name := strings.Repeat("a", 60) + ".example.test"
	b := must[*Bundle](t)(a.IssueServer([]string{name}, nil, IssueOptions{}))
	l := localFrom(t, b)
	if cn := l.Certificate().Subject.CommonName; cn != "" || l.ID.String() != name {
		t.Errorf("common name %q, identity %v", cn, l.ID)
	}
}

func TestNoCertificateOutlivesTheAuthority(t *testing.T) {
	now := testNow
	a := newAuthority(t, Options{Lifetime: 10 * day, Now: clock(&now)})
	b := must[*Bundle](t)(a.IssueClient("alice@example.test", IssueOptions{}))
	if !b.Issued.NotAfter.Equal(a.Certificate().NotAfter) {
		t.Errorf("until %v, authority until %v", b.Issued.NotAfter, a.Certificate().NotAfter)
	}
	now = now.Add(9*day + time.Hour)
	if _, err := a.IssueClient("bob@example.test", IssueOptions{}); err == nil || !strings.Contains(err.Error(), "make a new one") {
		t.Errorf("at the end of the authority: %v", err)
	}
}

func TestCreateAndOpen(t *testing.T) {
	a := newAuthority(t, Options{})
	b := must[*Bundle](t)(a.IssueClient("alice@example.test", IssueOptions{}))
	if _, err := Create(a.dir, Options{Name: "again"}); !errors.Is(err, ErrExists) {
		t.Errorf("create again: %v", err)
	}
	again := must[*Authority](t)(Open(a.dir))
	if !again.Certificate().Equal(a.Certificate()) {
		t.Error("another certificate")
	}
	if list := must[[]Certificate](t)(again.List()); len(list) != 1 || list[0].Serial != b.Issued.Serial || list[0].Name != "alice@example.test" {
		t.Errorf("list: %v", list)
	}
	stored := must[[]byte](t)(os.ReadFile(filepath.Join(a.dir, certsDir, b.Issued.Serial+".pem")))
	if !bytes.Equal(stored, b.Cert) {
		t.Error("another certificate is kept")
	}
	err := filepath.WalkDir(a.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for _, o := range []Options{{}, {Name: "x", KeyType: "dsa"}, {Name: "x", Lifetime: time.Minute}, {Name: strings.Repeat("x", 65)}, {Name: "x", Organization: "\n"}} {
		dir := t.TempDir()
		if _, err := Create(dir, o); err == nil {
			t.Errorf("%+v: created", o)
		}
		if _, err := Open(dir); !errors.Is(err, ErrNoAuthority) {
			t.Errorf("%+v: open: %v", o, err)
		}
	}
}

// A Create that was interrupted at any file leaves no authority, and the next one
// works.
func TestCreateInterrupted(t *testing.T) {
	for _, left := range [][]string{{keyFile}, {keyFile, indexFile}, {keyFile, indexFile, crlFile}} {
		whole := newAuthority(t, Options{})
		dir := t.TempDir()
		for _, name := range left {
			data := must[[]byte](t)(os.ReadFile(whole.path(name)))
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Open(dir); !errors.Is(err, ErrNoAuthority) {
			t.Errorf("%v left: open: %v", left, err)
		}
		a := must[*Authority](t)(Create(dir, Options{Name: "second"}))
		if _, err := a.IssueClient("alice@example.test", IssueOptions{}); err != nil {
			t.Errorf("%v left: %v", left, err)
		}
	}
}

func TestDamagedFiles(t *testing.T) {
	for _, tc := range []struct {
		file   string
		damage func(path string) error
		says   string
	}{
		{keyFile, func(p string) error { return os.Chmod(p, 0o644) }, "chmod 600"},
		{keyFile, os.Remove, "private key"},
		{keyFile, func(p string) error { return os.WriteFile(p, []byte("junk"), 0o600) }, "no PEM block"},
		{indexFile, os.Remove, "restore it from a backup"},
		{indexFile, func(p string) error { return os.WriteFile(p, []byte("{"), 0o600) }, "damaged"},
		{indexFile, func(p string) error { return os.WriteFile(p, []byte(`{"version":2}`), 0o600) }, "version 2"},
		{indexFile, func(p string) error {
			return os.WriteFile(p, []byte(`{"version":1,"certificates":[{"serial":"../../x"}]}`), 0o600)
		}, "damaged"},
	} {
		a := newAuthority(t, Options{})
		if err := tc.damage(a.path(tc.file)); err != nil {
			t.Fatal(err)
		}
		if _, err := a.IssueClient("alice@example.test", IssueOptions{}); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want an error that says %q", tc.file, err, tc.says)
		}
	}
	// A key of another authority.
	a, b := newAuthority(t, Options{}), newAuthority(t, Options{})
	if err := os.Rename(b.path(keyFile), a.path(keyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.IssueClient("alice@example.test", IssueOptions{}); err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("key of another: %v", err)
	}
}

func TestBundleShowsNoKey(t *testing.T) {
	b := must[*Bundle](t)(newAuthority(t, Options{}).IssueClient("alice@example.test", IssueOptions{}))
	for _, format := range []string{"%v", "%+v", "%s", "%#v"} {
		for _, v := range []any{b, *b} {
			if s := fmt.Sprintf(format, v); s != "client certificate of alice@example.test" {
				t.Errorf("%s shows %s", format, s)
			}
		}
	}
	b.Clear()
	if len(bytes.Trim(b.Key, "\x00")) != 0 {
		t.Error("the key is still there")
	}
}

// By a clock that is behind, a certificate would end too early, or before it begins;
// a clock that was put right by minutes is no reason to refuse.
func TestClockBehindTheAuthority(t *testing.T) {
	now := testNow
	a := newAuthority(t, Options{Now: clock(&now)})
	for _, behind := range []time.Duration{3000 * day, 100 * day, 2 * time.Hour} {
		now = testNow.Add(-behind)
		if _, err := a.IssueClient("alice@example.test", IssueOptions{Lifetime: 30 * day}); err == nil || !strings.Contains(err.Error(), "clock") {
			t.Errorf("%v behind: %v", behind, err)
		}
	}
	now = testNow.Add(-30 * time.Minute)
	b := must[*Bundle](t)(a.IssueClient("alice@example.test", IssueOptions{}))
	if b.Issued.NotBefore.Before(a.cert.NotBefore) || !b.Issued.NotAfter.After(testNow) {
		t.Errorf("valid from %v to %v", b.Issued.NotBefore, b.Issued.NotAfter)
	}
	if list := must[[]Certificate](t)(a.List()); len(list) != 1 {
		t.Errorf("%d certificates", len(list))
	}
}

// Commands that run at once each get their certificate into the index.
func TestConcurrentChanges(t *testing.T) {
	a := newAuthority(t, Options{})
	const n = 12
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			own, err := Open(a.dir) // as another process would
			if err != nil {
				t.Error(err)
				return
			}
			own.Now = a.Now
			name := fmt.Sprintf("user%d@example.test", i)
			b, err := own.IssueClient(name, IssueOptions{})
			if err != nil {
				t.Error(err)
			} else if i%3 == 0 {
				if _, err := own.Revoke(b.Issued.Serial, KeyCompromise); err != nil {
					t.Error(err)
				}
			}
			if _, err := own.CRL(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list := must[[]Certificate](t)(a.List())
	revoked := 0
	for _, c := range list {
		if c.Revoked() {
			revoked++
		}
	}
	if len(list) != n || revoked != n/3 {
		t.Errorf("%d certificates, %d revoked", len(list), revoked)
	}
	crl := must[[]*x509.RevocationList](t)(auth.LoadCRLPEM(must[[]byte](t)(a.CRL())))[0]
	if len(crl.RevokedCertificateEntries) != n/3 {
		t.Errorf("%d in the revocation list", len(crl.RevokedCertificateEntries))
	}
}

func TestParseKeyType(t *testing.T) {
	for _, kind := range KeyTypes() {
		var got KeyType
		if err := got.UnmarshalText([]byte(strings.ToUpper(string(kind)))); err != nil || got != kind {
			t.Errorf("%s: %v, %v", kind, got, err)
		}
	}
	if _, err := ParseKeyType("rsa1024"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "ecdsa-p256") {
		t.Errorf("got %v", err)
	}
}

func FuzzParseIndex(f *testing.F) {
	a := newAuthority(f, Options{})
	alice := must[*Bundle](f)(a.IssueClient("alice@example.test", IssueOptions{}))
	if _, err := a.Revoke(alice.Issued.Serial, Superseded); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(a.path(indexFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1,"certificates":[{"serial":"-1"}]}`))
	key, err := a.key()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ix, err := parseIndex(data)
		if err != nil {
			return
		}
		ix.find("alice@example.test")
		_, _ = ix.revoke("alice@example.test", KeyCompromise, testNow)
		for _, c := range ix.Certificates {
			if strings.ContainsAny(c.Serial, "/.") {
				t.Fatalf("serial number %q", c.Serial)
			}
		}
		_, _ = signCRL(ix, a.cert, key, testNow)
	})
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"vpn.example.test", "alice@example.test", "*.a", "a..b", "-a", "ä.test", "email:a@b", "a\x00@b"} {
		f.Add(s)
	}
	a := newAuthority(f, Options{})
	key, err := a.key()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, isEmail, err := clientName(s)
		if err != nil {
			return
		}
		// Whatever is accepted can be in a certificate, and proves that identity.
		template := &x509.Certificate{SerialNumber: must[*big.Int](t)(new(index).freeSerial()), Subject: subject(name, nil), NotBefore: testNow, NotAfter: testNow}
		if isEmail {
			template.EmailAddresses = []string{name}
		} else {
			template.DNSNames = []string{name}
		}
		cert, err := signCertificate(template, a.cert, key.Public(), key)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		id, err := auth.ParseIdentity(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := auth.MatchCertificate(cert, id); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
	})
}
