package auth

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestRevocation(t *testing.T) {
	root := newRoot(t, "root", "p256")
	otherRoot := newRoot(t, "root", "p256") // the same name, another key
	inter := root.issue(t, caTemplate("intermediate"), "p256")
	noSign := caTemplate("cannot sign lists")
	noSign.KeyUsage = x509.KeyUsageCertSign
	mute := root.issue(t, noSign, "p256")

	direct := root.client(t, laptop, "p256")
	deep := inter.client(t, laptop, "p256")
	other := root.client(t, "bob@example.test", "p256")

	from, until := testNow.Add(-time.Hour), testNow.Add(time.Hour)
	long := testNow.Add(-100 * time.Hour)
	empty := root.crl(t, from, until)
	listed := root.crl(t, from, until, other.cert, direct.cert)
	stale := root.crl(t, long, testNow, direct.cert)
	staleEmpty := root.crl(t, long, testNow)
	future := root.crl(t, testNow.Add(time.Second), until)
	interListed := inter.crl(t, from, until, deep.cert)
	interEmpty := inter.crl(t, from, until)
	rootRevokesInter := root.crl(t, from, until, inter.cert)
	forged := otherRoot.crl(t, from, until, direct.cert)
	forgedEmpty := otherRoot.crl(t, from, until)

	extended := func(id asn1.ObjectIdentifier, critical bool, value []byte, revoked ...*x509.Certificate) *x509.RevocationList {
		template := &x509.RevocationList{Number: nextSerial(), ThisUpdate: from, NextUpdate: until,
			ExtraExtensions: []pkix.Extension{{Id: id, Critical: critical, Value: value}}}
		for _, c := range revoked {
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: from})
		}
		return root.signList(t, template)
	}
	deltaIndicator := asn1.ObjectIdentifier{2, 5, 29, 27}
	delta := extended(deltaIndicator, true, []byte{2, 1, 1})
	// IssuingDistributionPoint with only onlyContainsUserCerts, and with indirectCRL.
	partial := extended(oidIssuingPoint, true, []byte{0x30, 3, 0x81, 1, 0xff})
	partialListed := extended(oidIssuingPoint, true, []byte{0x30, 3, 0x81, 1, 0xff}, direct.cert)
	indirectListed := extended(oidIssuingPoint, true, []byte{0x30, 3, 0x84, 1, 0xff}, direct.cert)
	junkPoint := extended(oidIssuingPoint, true, []byte{0x30, 3, 0x81}, direct.cert)
	harmless := extended(asn1.ObjectIdentifier{1, 2, 3}, false, []byte{5, 0})

	lists := func(l ...*x509.RevocationList) []*x509.RevocationList { return l }
	for _, tc := range []struct {
		name           string
		sent           []*x509.Certificate
		crls, peerCRLs []*x509.RevocationList
		require        bool
		want           error
		says           string
	}{
		{name: "no list", sent: certs(direct)},
		{name: "not listed", sent: certs(direct), crls: lists(empty)},
		{name: "listed", sent: certs(direct), crls: lists(listed), want: ErrRevoked, says: "2026-03-01 11:00:00 UTC"},
		{name: "listed in a peer's list", sent: certs(direct), peerCRLs: lists(listed), want: ErrRevoked},
		{name: "listed in one of two", sent: certs(direct), crls: lists(listed), peerCRLs: lists(empty), want: ErrRevoked},
		{name: "listed in an outdated list", sent: certs(direct), crls: lists(stale), want: ErrRevoked},
		{name: "list of another authority of the same name", sent: certs(direct), crls: lists(forged), peerCRLs: lists(forged)},
		{name: "list of an intermediate", sent: certs(deep, inter), crls: lists(interListed), want: ErrRevoked},
		{name: "list of an intermediate does not speak of others", sent: certs(direct), crls: lists(interListed)},
		{name: "intermediate revoked", sent: certs(deep, inter), crls: lists(rootRevokesInter), want: ErrRevoked, says: "CN=intermediate"},
		{name: "partial list that names it", sent: certs(direct), crls: lists(partialListed), want: ErrRevoked},
		{name: "indirect list", sent: certs(direct), crls: lists(indirectListed)},
		{name: "list with a damaged extension", sent: certs(direct), crls: lists(junkPoint)},

		{name: "required and there", sent: certs(direct), crls: lists(empty), require: true},
		{name: "required and sent by the peer", sent: certs(direct), peerCRLs: lists(empty), require: true},
		{name: "required with a harmless extension", sent: certs(direct), crls: lists(harmless), require: true},
		{name: "required and missing", sent: certs(direct), require: true, want: ErrRevocationUnknown, says: "CN=root"},
		{name: "required, outdated", sent: certs(direct), crls: lists(staleEmpty), require: true, want: ErrRevocationUnknown},
		{name: "required, not begun", sent: certs(direct), crls: lists(future), require: true, want: ErrRevocationUnknown},
		{name: "required, outdated and current", sent: certs(direct), crls: lists(staleEmpty, empty), require: true},
		{name: "required, forged", sent: certs(direct), crls: lists(forgedEmpty), require: true, want: ErrRevocationUnknown},
		{name: "required, delta only", sent: certs(direct), crls: lists(delta), require: true, want: ErrRevocationUnknown},
		{name: "required, partial only", sent: certs(direct), crls: lists(partial), require: true, want: ErrRevocationUnknown},
		{name: "required for all", sent: certs(deep, inter), crls: lists(empty, interEmpty), require: true},
		{name: "required, missing for the intermediate", sent: certs(deep, inter), crls: lists(interEmpty), require: true, want: ErrRevocationUnknown, says: "CN=root"},
		{name: "required, missing for the peer", sent: certs(deep, inter), crls: lists(empty), require: true, want: ErrRevocationUnknown, says: "CN=intermediate"},
		{name: "list by a key that may not sign lists", sent: certs(mute.client(t, laptop, "p256"), mute),
			crls: lists(empty), peerCRLs: lists(signedBy(t, mute)), require: true, want: ErrRevocationUnknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := remote(root)
			r.CRLs, r.RequireCRL = tc.crls, tc.require
			withCache := *r
			withCache.Cache = NewCache(8)
			for _, r := range []*Remote{r, &withCache, &withCache} {
				_, err := r.VerifyChain(testNow, mustIdentity(t, laptop), tc.sent, tc.peerCRLs)
				if !errors.Is(err, tc.want) {
					t.Fatalf("got %v, want %v", err, tc.want)
				}
				if err != nil && !strings.Contains(err.Error(), tc.says) {
					t.Errorf("%q does not say %q", err, tc.says)
				}
			}
		})
	}
}

// signedBy makes a list with an issuer that crypto/x509 refuses to make one for.
func signedBy(t *testing.T, a *authority) *x509.RevocationList {
	able := *a.cert
	able.KeyUsage |= x509.KeyUsageCRLSign
	able.SubjectKeyId = []byte{1}
	return (&authority{&able, a.key}).crl(t, testNow.Add(-time.Hour), testNow.Add(time.Hour))
}

// What is remembered about a certificate must not outlive what makes it invalid.
func TestCacheChecksAnew(t *testing.T) {
	root, otherRoot := newRoot(t, "root", "p256"), newRoot(t, "other", "p256")
	inter := root.issue(t, caTemplate("intermediate"), "p256")
	me := inter.client(t, laptop, "p256")
	id := mustIdentity(t, laptop)
	r := remote(root)
	r.Cache = NewCache(8)
	check := func(r *Remote, now time.Time, id Identity, want error) {
		t.Helper()
		if _, err := r.VerifyChain(now, id, certs(me, inter), nil); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	check(r, testNow, id, nil)
	// Only the cache can help a peer that does not send its intermediate.
	if _, err := r.VerifyChain(testNow, id, certs(me), nil); err != nil {
		t.Errorf("the chain was not remembered: %v", err)
	}
	check(r, testNow.Add(48*time.Hour), id, ErrExpired)
	check(r, testNow.Add(-48*time.Hour), id, ErrNotYetValid)
	check(r, testNow, mustIdentity(t, "bob@example.test"), ErrIdentityMismatch)

	changed := *r
	changed.Roots = certs(otherRoot)
	check(&changed, testNow, id, ErrUnknownAuthority)
	changed = *r
	changed.Usage = x509.ExtKeyUsageServerAuth
	check(&changed, testNow, id, ErrWrongUsage)
	changed = *r
	changed.CRLs = []*x509.RevocationList{root.crl(t, testNow, testNow.Add(time.Hour), inter.cert)}
	check(&changed, testNow, id, ErrRevoked)
	check(r, testNow, id, nil)
}

// An intermediate that was renewed serves a peer whose old chain is remembered.
func TestCacheFindsRenewedIntermediate(t *testing.T) {
	root := newRoot(t, "root", "p256")
	key := testKey(t, "p256")
	old := sign(t, caTemplate("intermediate"), key, root)
	long := caTemplate("intermediate")
	long.NotAfter = testNow.Add(1000 * time.Hour)
	renewed := sign(t, long, key, root)
	leaf := certTemplate(laptop)
	leaf.EmailAddresses, leaf.NotAfter = []string{laptop}, long.NotAfter
	me := old.issue(t, leaf, "p256")
	r := remote(root)
	r.Cache = NewCache(8)
	id := mustIdentity(t, laptop)
	if _, err := r.VerifyChain(testNow, id, certs(me, old), nil); err != nil {
		t.Fatal(err)
	}
	later := testNow.Add(100 * time.Hour)
	root.cert.NotAfter = long.NotAfter // a root's dates are in its certificate
	if _, err := r.VerifyChain(later, id, certs(me, old), nil); !errors.Is(err, ErrExpired) {
		t.Errorf("expired intermediate: %v", err)
	}
	if _, err := r.VerifyChain(later, id, certs(me, renewed), nil); err != nil {
		t.Errorf("renewed intermediate: %v", err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	root := newRoot(t, "root", "p256")
	r := remote(root)
	r.Cache = NewCache(3)
	id := mustIdentity(t, laptop)
	var last *authority
	for range 10 {
		last = root.client(t, laptop, "p256")
		if _, err := r.VerifyChain(testNow, id, certs(last), nil); err != nil {
			t.Fatal(err)
		}
		// As many lists as a peer likes: they are not remembered.
		peerList := []*x509.RevocationList{root.crl(t, testNow, testNow.Add(time.Hour))}
		if _, err := r.VerifyChain(testNow, id, certs(last), peerList); err != nil {
			t.Fatal(err)
		}
	}
	if n, m := len(r.Cache.chains), r.Cache.recent.Len(); n != 3 || m != 3 {
		t.Errorf("%d and %d chains in a cache of 3", n, m)
	}
	if r.Cache.chain(last.cert) == nil {
		t.Error("the newest chain is not there")
	}
	if len(r.Cache.lists) != 0 {
		t.Errorf("%d lists of peers are remembered", len(r.Cache.lists))
	}
	for range maxLists + 10 {
		r.Cache.signedList(&x509.RevocationList{}, root.cert)
	}
	if n := len(r.Cache.lists); n > maxLists {
		t.Errorf("%d lists", n)
	}
}
