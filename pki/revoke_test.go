package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
)

func currentList(t testing.TB, a *Authority) *x509.RevocationList {
	t.Helper()
	lists := must[[]*x509.RevocationList](t)(auth.LoadCRLPEM(must[[]byte](t)(a.CRL())))
	if len(lists) != 1 {
		t.Fatalf("%d lists", len(lists))
	}
	if err := lists[0].CheckSignatureFrom(a.Certificate()); err != nil {
		t.Fatal(err)
	}
	return lists[0]
}

func TestRevoke(t *testing.T) {
	now := testNow
	a := newAuthority(t, Options{Now: clock(&now)})
	issue := func(identity, name string) *Bundle {
		return must[*Bundle](t)(a.IssueClient(identity, IssueOptions{Name: name}))
	}
	alice1, alice2, bob := issue("alice@example.test", "alice"), issue("alice@example.test", "alice"), issue("bob@example.test", "")
	first := currentList(t, a)
	if len(first.RevokedCertificateEntries) != 0 {
		t.Error("a new list is not empty")
	}

	for _, b := range []*Bundle{alice1, alice2} {
		got := must[*Certificate](t)(a.Revoke(b.Issued.Serial, KeyCompromise))
		if got.Serial != b.Issued.Serial || !got.Revoked() || got.Reason != KeyCompromise {
			t.Errorf("revoked %v", got)
		}
	}
	list := currentList(t, a)
	if len(list.RevokedCertificateEntries) != 2 || list.Number.Cmp(first.Number) <= 0 {
		t.Errorf("%d entries, number %v after %v", len(list.RevokedCertificateEntries), list.Number, first.Number)
	}
	for _, e := range list.RevokedCertificateEntries {
		if e.ReasonCode != 1 || !e.RevocationTime.Equal(testNow) {
			t.Errorf("reason %d at %v", e.ReasonCode, e.RevocationTime)
		}
	}
	r := remoteFor(t, a, x509.ExtKeyUsageClientAuth)
	for b, want := range map[*Bundle]error{alice1: auth.ErrRevoked, alice2: auth.ErrRevoked, bob: nil} {
		if err := verify(t, r, now, localFrom(t, b)); !errors.Is(err, want) {
			t.Errorf("%v: %v, want %v", b, err, want)
		}
	}

	alice3 := issue("alice@example.test", "alice")
	if err := verify(t, r, now, localFrom(t, alice3)); err != nil {
		t.Errorf("a new certificate for the same name: %v", err)
	}
	serial := alice3.Issued.Serial
	colons := strings.ToUpper(serial[:2] + ":" + serial[2:])
	if got := must[*Certificate](t)(a.Revoke(colons, "")); got.Serial != serial || got.Reason != Unspecified {
		t.Errorf("revoked %v", got)
	}
	// Names and identities are no serial numbers: they would fit others, too.
	for what, want := range map[string]error{serial: ErrRevoked, "bob@example.test": ErrNotFound, "alice": ErrNotFound, "": ErrNotFound} {
		if _, err := a.Revoke(what, ""); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", what, err, want)
		}
	}
	if _, err := a.Revoke(serial, "boredom"); !errors.Is(err, ErrInvalid) {
		t.Errorf("unknown reason: %v", err)
	}
}

func TestCRLIsRenewed(t *testing.T) {
	now := testNow
	a := newAuthority(t, Options{Now: clock(&now)})
	alice := must[*Bundle](t)(a.IssueClient("alice@example.test", IssueOptions{Lifetime: 40 * day}))
	must[*Certificate](t)(a.Revoke(alice.Issued.Serial, KeyCompromise))
	first := currentList(t, a)
	now = testNow.Add(CRLLifetime/2 - time.Minute)
	if again := currentList(t, a); again.Number.Cmp(first.Number) != 0 {
		t.Error("renewed without need")
	}
	now = testNow.Add(CRLLifetime / 2)
	second := currentList(t, a)
	if second.Number.Cmp(first.Number) <= 0 || !second.NextUpdate.Equal(now.Add(CRLLifetime)) {
		t.Errorf("number %v, until %v", second.Number, second.NextUpdate)
	}
	// A clock that was ahead when the list was signed.
	now = testNow
	third := currentList(t, a)
	if third.Number.Cmp(second.Number) <= 0 || now.Before(third.ThisUpdate) {
		t.Errorf("number %v, from %v", third.Number, third.ThisUpdate)
	}
	// A clock that was far ahead, so that all certificates have expired: when it is
	// right again, or behind, they are still revoked.
	now = testNow.Add(3000 * day)
	if n := len(currentList(t, a).RevokedCertificateEntries); n != 1 {
		t.Errorf("%d entries long after expiry", n)
	}
	if list := must[[]Certificate](t)(a.List()); len(list) != 1 || !list[0].Revoked() {
		t.Error("the index forgot the revocation")
	}
}

// A list that cannot be renewed is good as long as it names all that is revoked.
func TestCRLThatCannotBeRenewed(t *testing.T) {
	now := testNow
	a := newAuthority(t, Options{Now: clock(&now)})
	b := must[*Bundle](t)(a.IssueClient("alice@example.test", IssueOptions{}))
	empty := must[[]byte](t)(a.CRL())
	must[*Certificate](t)(a.Revoke(b.Issued.Serial, KeyCompromise))
	atHand := must[[]byte](t)(a.CRL())
	offline := filepath.Join(t.TempDir(), keyFile)
	if err := os.Rename(a.path(keyFile), offline); err != nil {
		t.Fatal(err)
	}
	for name, later := range map[string]time.Duration{"past half its life": CRLLifetime/2 + day, "expired": 2 * CRLLifetime, "not yet valid": -2 * day} {
		now = testNow.Add(later)
		crl, err := a.CRL()
		if !errors.Is(err, ErrNotRenewed) || !errors.Is(err, fs.ErrNotExist) || !bytes.Equal(crl, atHand) {
			t.Errorf("%s: %d octets, %v", name, len(crl), err)
		}
	}
	// A renewal that was interrupted has used up a number, but revoked nobody.
	ix := must[*index](t)(a.readIndex())
	ix.CRLNumber++
	if err := a.writeIndex(ix); err != nil {
		t.Fatal(err)
	}
	if crl, err := a.CRL(); !errors.Is(err, ErrNotRenewed) || !bytes.Equal(crl, atHand) {
		t.Errorf("after an interrupted renewal: %d octets, %v", len(crl), err)
	}
	other := newAuthority(t, Options{})
	for name, list := range map[string][]byte{"one that names too few": empty, "another authority's": must[[]byte](t)(other.CRL()), "half": atHand[:len(atHand)/2]} {
		if err := os.WriteFile(a.path(crlFile), list, 0o600); err != nil {
			t.Fatal(err)
		}
		if crl, err := a.CRL(); err == nil || errors.Is(err, ErrNotRenewed) || crl != nil {
			t.Errorf("%s: %d octets, %v", name, len(crl), err)
		}
	}
	if err := os.Rename(offline, a.path(keyFile)); err != nil {
		t.Fatal(err)
	}
	if n := len(currentList(t, a).RevokedCertificateEntries); n != 1 {
		t.Errorf("with the key again %d entries", n)
	}
}

// A revocation that was interrupted before the list was written is in the next one.
func TestCRLCatchesUp(t *testing.T) {
	a := newAuthority(t, Options{})
	b := must[*Bundle](t)(a.IssueClient("alice@example.test", IssueOptions{}))
	old := must[[]byte](t)(a.CRL())
	must[*Certificate](t)(a.Revoke(b.Issued.Serial, KeyCompromise))
	for name, damage := range map[string]func() error{
		"old":     func() error { return os.WriteFile(a.path(crlFile), old, 0o600) },
		"missing": func() error { return os.Remove(a.path(crlFile)) },
		"damaged": func() error { return os.WriteFile(a.path(crlFile), old[:len(old)/2], 0o600) },
		"another authority's": func() error { // with the right number
			other := newAuthority(t, Options{})
			ix := must[*index](t)(a.readIndex())
			key := must[crypto.Signer](t)(other.key())
			return os.WriteFile(a.path(crlFile), must[[]byte](t)(signCRL(&index{CRLNumber: ix.CRLNumber}, other.cert, key, testNow)), 0o600)
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if err := verify(t, remoteFor(t, a, x509.ExtKeyUsageClientAuth), testNow, localFrom(t, b)); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("%s list: %v", name, err)
		}
		// The same command once more puts it right, too.
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Revoke(b.Issued.Serial, KeyCompromise); !errors.Is(err, ErrRevoked) {
			t.Errorf("%s list: %v", name, err)
		}
		lists, err := auth.LoadCRLPEM(must[[]byte](t)(os.ReadFile(a.path(crlFile))))
		if err != nil || len(lists[0].RevokedCertificateEntries) != 1 {
			t.Errorf("%s list after the command: %v", name, err)
		}
	}
}

func TestExpiring(t *testing.T) {
	now := testNow
	a := newAuthority(t, Options{Now: clock(&now), Lifetime: 100 * day})
	issue := func(name string, days time.Duration) *Bundle {
		return must[*Bundle](t)(a.IssueClient(name+"@example.test", IssueOptions{Name: name, Lifetime: days * day}))
	}
	issue("soon", 10)
	issue("later", 50)
	issue("renewed", 5)
	issue("renewed", 60)
	must[*Certificate](t)(a.Revoke(issue("revoked", 5).Issued.Serial, ""))
	must[*Bundle](t)(a.IssueServer([]string{"soon"}, nil, IssueOptions{Lifetime: 12 * day}))
	for _, tc := range []struct {
		after, within time.Duration
		want          string
	}{
		{0, 5 * day, ""},
		{0, 30 * day, "client soon, server soon"},
		{0, 50 * day, "client soon, server soon, client later"},
		{12 * day, 5 * day, "client soon, server soon"}, // expired, but not long ago
		{20 * day, 5 * day, ""},
		{0, 100 * day, "client soon, server soon, client later, client renewed, authority Test CA"},
	} {
		var got []string
		for _, c := range must[[]Certificate](t)(a.Expiring(testNow.Add(tc.after), tc.within)) {
			got = append(got, fmt.Sprintf("%s %s", c.Kind, c.Name))
		}
		if s := strings.Join(got, ", "); s != tc.want {
			t.Errorf("after %v within %v: %s, want %s", tc.after, tc.within, s, tc.want)
		}
	}
}
