package auth

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

const laptop = "laptop@example.test"

func TestVerifyChain(t *testing.T) {
	root := newRoot(t, "root", "p256")
	int1 := root.issue(t, caTemplate("int1"), "p384")
	int2 := int1.issue(t, caTemplate("int2"), "rsa")
	rogue := newRoot(t, "root", "p256") // the same name
	direct := root.client(t, laptop, "p256")
	deep := int2.client(t, laptop, "ed25519")

	noCA := certTemplate("no CA")
	notAnAuthority := root.issue(t, noCA, "p256")
	byNoCA := notAnAuthority.client(t, laptop, "p256")

	pathlen := caTemplate("pathlen 0")
	pathlen.MaxPathLenZero = true
	short := root.issue(t, pathlen, "p256")
	tooLong := short.issue(t, caTemplate("below pathlen 0"), "p256")

	constrained := caTemplate("constrained")
	constrained.PermittedEmailAddresses = []string{"other.test"}
	constrained.PermittedDNSDomainsCritical = true
	limited := root.issue(t, constrained, "p256")

	serverOnly := caTemplate("server authority")
	serverOnly.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	serverCA := root.issue(t, serverOnly, "p256")

	expiredTemplate := caTemplate("expired authority")
	expiredTemplate.NotAfter = testNow.Add(-time.Second)
	expiredCA := root.issue(t, expiredTemplate, "p256")

	weakRoot := newRoot(t, "weak root", "rsa1024")

	usage := func(change func(*x509.Certificate)) *x509.Certificate {
		c := certTemplate(laptop)
		c.EmailAddresses = []string{laptop}
		change(c)
		return root.issue(t, c, "p256").cert
	}
	ekus := func(known []x509.ExtKeyUsage, unknown ...asn1.ObjectIdentifier) []*x509.Certificate {
		return []*x509.Certificate{usage(func(c *x509.Certificate) { c.ExtKeyUsage, c.UnknownExtKeyUsage = known, unknown })}
	}

	for _, tc := range []struct {
		name   string
		sent   []*x509.Certificate
		change func(*Remote)
		want   error
		says   string // part of the error
	}{
		{name: "issued by the root", sent: certs(direct)},
		{name: "root sent along", sent: certs(direct, root)},
		{name: "two intermediates sent", sent: certs(deep, int2, int1)},
		{name: "in any order, with others", sent: certs(deep, rogue, int1, direct, int2, root)},
		{name: "intermediates configured", sent: certs(deep), change: func(r *Remote) { r.Intermediates = certs(int1, int2) }},
		{name: "one sent, one configured", sent: certs(deep, int2), change: func(r *Remote) { r.Intermediates = certs(int1) }},
		{name: "intermediate is the trusted root", sent: certs(deep), change: func(r *Remote) { r.Roots = certs(int2) }},
		{name: "certificate itself trusted", sent: certs(direct), change: func(r *Remote) { r.Roots = certs(direct) }},
		{name: "no certificate", want: ErrNoCertificate, says: laptop},
		{name: "intermediate missing", sent: certs(deep, int1), want: ErrUnknownAuthority, says: "CN=int2,O=Test"},
		{name: "rogue root of the same name", sent: certs(rogue.client(t, laptop, "p256"), rogue), want: ErrUnknownAuthority, says: "CN=root,O=Test"},
		{name: "no roots", sent: certs(direct), change: func(r *Remote) { r.Roots = nil }, want: ErrUnknownAuthority, says: "no authority is configured"},
		{name: "issued by a certificate that is no authority", sent: certs(byNoCA, notAnAuthority), want: ErrUnknownAuthority},
		{name: "path too long", sent: certs(tooLong.client(t, laptop, "p256"), tooLong, short), want: ErrBadCertificate},
		{name: "name constraints", sent: certs(limited.client(t, laptop, "p256"), limited), want: ErrBadCertificate, says: "constrain"},

		{name: "expired", sent: []*x509.Certificate{usage(func(c *x509.Certificate) { c.NotAfter = testNow.Add(-time.Second) })}, want: ErrExpired, says: "2026-03-01 11:59:59 UTC"},
		{name: "not yet valid", sent: []*x509.Certificate{usage(func(c *x509.Certificate) { c.NotBefore = testNow.Add(time.Second) })}, want: ErrNotYetValid, says: "2026-03-01 12:00:01 UTC"},
		{name: "valid to the second", sent: []*x509.Certificate{usage(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = testNow, testNow })}},
		{name: "authority expired", sent: certs(expiredCA.client(t, laptop, "p256"), expiredCA), want: ErrExpired, says: "CN=expired authority"},

		{name: "weak key", sent: certs(root.client(t, laptop, "rsa1024")), want: ErrWeakKey, says: "1024"},
		{name: "weak curve", sent: certs(root.client(t, laptop, "p224")), want: ErrWeakKey, says: "P-224"},
		{name: "weak root", sent: certs(weakRoot.client(t, laptop, "p256")), change: func(r *Remote) { r.Roots = certs(weakRoot) }, want: ErrWeakKey, says: "weak root"},

		{name: "no extended key usage", sent: ekus(nil)},
		{name: "any extended key usage", sent: ekus([]x509.ExtKeyUsage{x509.ExtKeyUsageAny})},
		{name: "IKE intermediate", sent: ekus(nil, oidIKEIntermediate)},
		{name: "ipsecIKE", sent: ekus([]x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}, oidIPsecIKE)},
		{name: "server's certificate as client", sent: ekus([]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}), want: ErrWrongUsage, says: "clientAuth"},
		{name: "client's certificate as server", sent: certs(direct), change: func(r *Remote) { r.Usage = x509.ExtKeyUsageServerAuth }, want: ErrWrongUsage, says: "serverAuth"},
		{name: "other usage", sent: ekus([]x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}), want: ErrWrongUsage},
		{name: "unknown usage", sent: ekus(nil, asn1.ObjectIdentifier{1, 2, 3}), want: ErrWrongUsage},
		{name: "client usage where none is set", sent: certs(direct), change: func(r *Remote) { r.Usage = 0 }, want: ErrWrongUsage},
		{name: "authority for servers only", sent: certs(serverCA.client(t, laptop, "p256"), serverCA), want: ErrWrongUsage, says: "server authority"},
		{name: "key usage without signatures", sent: []*x509.Certificate{usage(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })}, want: ErrWrongUsage, says: "digital signatures"},
		{name: "key usage nonRepudiation", sent: []*x509.Certificate{usage(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageContentCommitment })}},
		{name: "no key usage", sent: []*x509.Certificate{usage(func(c *x509.Certificate) { c.KeyUsage = 0 })}},

		{name: "unknown critical extension", sent: []*x509.Certificate{usage(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		})}, want: ErrBadCertificate, says: "1.2.3.4"},
		{name: "unknown extension", sent: []*x509.Certificate{usage(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Value: []byte{5, 0}}}
		})}},

		{name: "certificate of another", sent: certs(root.client(t, "eve@example.test", "p256")), want: ErrIdentityMismatch, says: "eve@example.test"},
		{name: "not the expected peer", sent: certs(direct), change: func(r *Remote) { r.ID = Exactly(mustIdentity(t, "bob@example.test")) }, want: ErrIdentityMismatch, says: "bob@example.test"},
		{name: "nobody is expected", sent: certs(direct), change: func(r *Remote) { r.ID = Pattern{} }, want: ErrIdentityMismatch},
		{name: "signatures not allowed", sent: certs(direct), change: func(r *Remote) { r.AllowSignature = false }, want: ErrMethodRefused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := remote(root)
			if tc.change != nil {
				tc.change(r)
			}
			id := mustIdentity(t, laptop)
			// The outcome is the same without a cache, and twice with one.
			withCache := *r
			withCache.Cache = NewCache(8)
			for _, r := range []*Remote{r, &withCache, &withCache} {
				cert, err := r.VerifyChain(testNow, id, tc.sent, nil)
				if !errors.Is(err, tc.want) {
					t.Fatalf("got %v, want %v", err, tc.want)
				}
				if err == nil && cert != tc.sent[0] {
					t.Error("not the peer's certificate")
				}
				if err != nil && (cert != nil || !strings.Contains(err.Error(), tc.says)) {
					t.Errorf("certificate %v, error %q does not say %q", cert != nil, err, tc.says)
				}
			}
		})
	}
}

func TestVerifyChainNeedsTime(t *testing.T) {
	root := newRoot(t, "root", "p256")
	if _, err := remote(root).VerifyChain(time.Time{}, mustIdentity(t, laptop), certs(root.client(t, laptop, "p256")), nil); err == nil {
		t.Error("verified without knowing the time")
	}
}

// A stranger sends many authorities of one name: none leads to ours, so none may
// cost a search.
func TestMazeOfCertificatesIsNotSearched(t *testing.T) {
	root := newRoot(t, "root", "p256")
	maze := newRoot(t, "maze", "p256")
	sent := certs(maze.client(t, laptop, "p256"))
	for range maxCertPayloads - 1 {
		sent = append(sent, newRoot(t, "maze", "p256").cert)
	}
	r := remote(root)
	if got := r.connected(sent[1:]); len(got) != 0 {
		t.Errorf("%d certificates of the maze are looked at", len(got))
	}
	if _, err := r.VerifyChain(testNow, mustIdentity(t, laptop), sent, nil); !errors.Is(err, ErrUnknownAuthority) {
		t.Errorf("got %v", err)
	}
}

// TestCertificateOfManyNames: a stranger may show one that fills a message; what it costs
// to refuse it grows with the number of names, not with its square.
func TestCertificateOfManyNames(t *testing.T) {
	const names = 4000
	c := certTemplate("many")
	for i := range names {
		c.DNSNames = append(c.DNSNames, fmt.Sprintf("N%d.example.test", i))
	}
	stranger := newRoot(t, "stranger", "p256").issue(t, c, "p256").cert
	for name, f := range map[string]func(){
		"describe": func() { describe(stranger) },
		"match":    func() { _ = MatchCertificate(stranger, mustIdentity(t, laptop)) },
	} {
		if got := testing.AllocsPerRun(1, f); got > 10*names {
			t.Errorf("%s: %.0f allocations for %d names", name, got, names)
		}
	}
}

func TestMatchCertificate(t *testing.T) {
	root := newRoot(t, "root", "p256")
	template := certTemplate("cn.example.test")
	template.DNSNames = []string{"vpn.example.test", "*.wild.test"}
	template.EmailAddresses = []string{"Laptop@example.test"}
	template.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1).To4(), net.ParseIP("2001:db8::1")}
	c := root.issue(t, template, "p256").cert
	for id, want := range map[string]bool{
		"vpn.example.test":                true,
		"VPN.example.TEST":                true,
		"laptop@Example.test":             true,
		"192.0.2.1":                       true,
		"2001:db8::1":                     true,
		"CN=cn.example.test,O=Test":       true,
		"O=test, CN=CN.example.test":      true,
		"cn.example.test":                 false, // a name in the subject is none
		"a.wild.test":                     false, // no wildcards
		"fqdn:*.wild.test":                false,
		"email:vpn.example.test":          false, // the kind must be right
		"fqdn:laptop@example.test":        false,
		"fqdn:192.0.2.1":                  false,
		"192.0.2.2":                       false,
		"::ffff:192.0.2.1":                false,
		"CN=cn.example.test":              false,
		"dn:O=Test,CN=cn.example.test":    false,
		"CN=cn.example.test,O=Test,C=FI":  false,
		"keyid:vpn.example.test":          false,
		"vpn.example.test.evil.test":      false,
		"dn:#3000":                        false,
		"CN=cn.example.test+O=Test":       false,
		"CN=cn.example.test\\00evil,O=Te": false,
	} {
		parsed, err := ParseIdentity(id)
		if err != nil {
			if want {
				t.Fatal(err)
			}
			continue
		}
		err = MatchCertificate(c, parsed)
		if want != (err == nil) || !want && !errors.Is(err, ErrIdentityMismatch) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if err := MatchCertificate(c, Identity{}); err == nil {
		t.Error("the certificate is for nobody")
	}
	if got := fmt.Sprint(Identities(c)); got != "[vpn.example.test Laptop@example.test 192.0.2.1 2001:db8::1 CN=cn.example.test,O=Test]" {
		t.Errorf("identities: %s", got)
	}
	// An empty subject is no identity.
	bare := certTemplate("")
	bare.Subject = pkix.Name{}
	bare.DNSNames = []string{"a.test"}
	bareCert := root.issue(t, bare, "p256").cert
	if err := MatchCertificate(bareCert, Identity{9, bareCert.RawSubject}); err == nil {
		t.Error("an empty subject is an identity")
	}
}

func TestLocalPrepare(t *testing.T) {
	root := newRoot(t, "root", "p256")
	me := root.client(t, laptop, "p256")
	local := func(change func(*Local)) *Local {
		l := &Local{ID: mustIdentity(t, laptop), Key: me.key, Chain: certs(me)}
		change(l)
		return l
	}
	for _, tc := range []struct {
		name  string
		local *Local
		want  error
		id    string
	}{
		{"good", local(func(*Local) {}), nil, laptop},
		{"identity from certificate", local(func(l *Local) { l.ID = Identity{} }), nil, laptop},
		{"shared key", &Local{ID: mustIdentity(t, laptop), PSK: []byte("secret")}, nil, laptop},
		{"shared key without identity", &Local{PSK: []byte("secret")}, ErrBadIdentity, ""},
		{"nothing", &Local{ID: mustIdentity(t, laptop)}, ErrNoCredentials, ""},
		{"no certificate", local(func(l *Local) { l.Chain = nil }), ErrNoCredentials, ""},
		{"certificate of another key", local(func(l *Local) { l.Chain = certs(root.client(t, laptop, "p256")) }), ErrNoCredentials, ""},
		{"certificate of another kind of key", local(func(l *Local) { l.Chain = certs(root.client(t, laptop, "ed25519")) }), ErrNoCredentials, ""},
		{"weak key", local(func(l *Local) { l.Key = testKey(t, "rsa1024") }), ErrWeakKey, ""},
		{"identity not in certificate", local(func(l *Local) { l.ID = mustIdentity(t, "bob@example.test") }), ErrIdentityMismatch, ""},
		{"name", local(func(l *Local) { l.ID = mustIdentity(t, "cn=LAPTOP@example.test,o=test") }), nil, "CN=laptop@example.test,O=Test"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.local.Prepare(); !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if tc.want == nil && tc.local.ID.String() != tc.id {
				t.Errorf("identity %v, want %s", tc.local.ID, tc.id)
			}
		})
	}
}

func TestLocalShowsNoSecret(t *testing.T) {
	l := Local{ID: mustIdentity(t, laptop), PSK: []byte("hunter2"), Key: testKey(t, "p256")}
	for _, format := range []string{"%v", "%+v", "%s", "%#v", "%q"} {
		for _, v := range []any{l, &l} {
			if s := fmt.Sprintf(format, v); strings.Contains(s, "hunter2") || strings.Contains(s, "104") || len(s) > 100 {
				t.Errorf("%s shows %s", format, s)
			}
		}
	}
	if l.LogValue().String() != laptop {
		t.Errorf("logged as %s", l.LogValue())
	}
}
