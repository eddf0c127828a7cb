package auth

import (
	"bytes"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

func TestCertRequest(t *testing.T) {
	if got := CertRequest(nil); got != nil {
		t.Errorf("a request without authorities: %v", got)
	}
	a, b := newRoot(t, "a", "p256"), newRoot(t, "b", "ed25519")
	got := CertRequest(certs(a, b, a))
	sumA, sumB := sha1.Sum(a.cert.RawSubjectPublicKeyInfo), sha1.Sum(b.cert.RawSubjectPublicKeyInfo)
	if want := append(sumA[:], sumB[:]...); got.Encoding != message.CertX509Signature || !bytes.Equal(got.Data, want) {
		t.Errorf("got %d, %x; want %x", got.Encoding, got.Data, want)
	}
	var many []*x509.Certificate
	for range maxAuthorities + 1 {
		many = append(many, newRoot(t, "many", "p256").cert)
	}
	if got := CertRequest(many[:maxAuthorities]); len(got.Data) != maxAuthorities*sha1.Size {
		t.Errorf("%d octets", len(got.Data))
	}
	if got := CertRequest(many); len(got.Data) != 0 {
		t.Errorf("too many authorities: %d octets", len(got.Data))
	}
}

func TestCertPayloads(t *testing.T) {
	root := newRoot(t, "root", "p256")
	inter := root.issue(t, caTemplate("intermediate"), "p256")
	me := inter.client(t, laptop, "p256")
	got := CertPayloads(&Local{Chain: certs(me, inter, root)})
	if len(got) != 2 || !bytes.Equal(got[0].Data, me.cert.Raw) || !bytes.Equal(got[1].Data, inter.cert.Raw) {
		t.Errorf("%d payloads", len(got))
	}
	if got := CertPayloads(&Local{Chain: certs(root)}); len(got) != 1 {
		t.Error("an own certificate that is self-signed has to be sent")
	}
}

func TestParseCertPayloads(t *testing.T) {
	root := newRoot(t, "root", "p256")
	me := root.client(t, laptop, "p256")
	crl := root.crl(t, testNow, testNow)
	cert := func(der []byte) *message.Cert {
		return &message.Cert{Encoding: message.CertX509Signature, Data: der}
	}
	list := func(der []byte) *message.Cert { return &message.Cert{Encoding: message.CertCRL, Data: der} }
	other := func(encoding message.CertEncoding) *message.Cert {
		return &message.Cert{Encoding: encoding, Data: []byte("data")}
	}
	junk := []byte{0x30, 0x03, 1, 2, 3}
	many := func(n int, p *message.Cert) (out []*message.Cert) {
		for range n {
			out = append(out, p)
		}
		return out
	}
	for _, tc := range []struct {
		name        string
		in          []*message.Cert
		certs, crls int
		want        error
	}{
		{"none", nil, 0, 0, nil},
		{"one", []*message.Cert{cert(me.cert.Raw)}, 1, 0, nil},
		{"chain and list", []*message.Cert{cert(me.cert.Raw), list(crl.Raw), cert(root.cert.Raw)}, 2, 1, nil},
		{"other encodings", []*message.Cert{other(12), cert(me.cert.Raw), other(1), other(255)}, 1, 0, nil},
		{"junk behind", []*message.Cert{cert(me.cert.Raw), cert(junk), list(junk), cert(root.cert.Raw)}, 2, 0, nil},
		{"junk first", []*message.Cert{cert(junk), cert(me.cert.Raw)}, 0, 0, ErrBadCertificate},
		{"trailing octets", []*message.Cert{cert(append(bytes.Clone(me.cert.Raw), 0))}, 0, 0, ErrBadCertificate},
		{"sixteen", many(16, cert(me.cert.Raw)), 16, 0, nil},
		{"seventeen", many(17, cert(me.cert.Raw)), 0, 0, ErrTooManyCertificates},
		{"too large", []*message.Cert{cert(me.cert.Raw), other(1), cert(make([]byte, maxCertOctets))}, 0, 0, ErrTooManyCertificates},
	} {
		certs, crls, err := ParseCertPayloads(tc.in)
		if !errors.Is(err, tc.want) || len(certs) != tc.certs || len(crls) != tc.crls {
			t.Errorf("%s: got %d certificates, %d lists, %v", tc.name, len(certs), len(crls), err)
		}
		if len(certs) > 0 && !certs[0].Equal(me.cert) {
			t.Errorf("%s: another certificate first", tc.name)
		}
	}
}

// useCertificates does with certificates what a peer makes us do.
func useCertificates(t *testing.T, roots, certs []*x509.Certificate, crls []*x509.RevocationList) {
	if len(certs) > maxCertPayloads {
		certs = certs[:maxCertPayloads]
	}
	r := &Remote{ID: Any(), AllowSignature: true, Roots: roots, CRLs: crls, RequireCRL: true, Cache: NewCache(4)}
	for _, c := range certs {
		_ = describe(c)
		_ = namesIn(c)
		for _, id := range Identities(c) {
			if err := MatchCertificate(c, id); err != nil {
				t.Fatalf("identity %v of a certificate does not match it: %v", id, err)
			}
			if _, err := r.VerifyChain(testNow, id, certs, crls); err == nil && !c.Equal(certs[0]) && MatchCertificate(certs[0], id) != nil {
				t.Fatalf("identity %v is accepted with the certificate of another", id)
			}
		}
	}
}

func fuzzRoots(t testing.TB) []*x509.Certificate {
	var roots []*x509.Certificate
	for _, kind := range []string{"rsa", "ecdsa", "ed25519"} {
		certs, err := LoadCertificatesPEM(readFile(t, "ca-"+kind+".pem"))
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, certs...)
	}
	return roots
}

// FuzzParseCertPayloads takes two payloads from the wire and uses what is in them.
func FuzzParseCertPayloads(f *testing.F) {
	for _, kind := range []string{"rsa", "ecdsa", "ed25519"} {
		for _, peer := range []string{"client", "server", "ca"} {
			certs, err := LoadCertificatesPEM(readFile(f, peer+"-"+kind+".pem"))
			if err != nil {
				f.Fatal(err)
			}
			crls, err := LoadCRLPEM(readFile(f, "revoked-"+kind+".crl"))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(message.CertX509Signature), certs[0].Raw, uint8(message.CertCRL), crls[0].Raw)
		}
	}
	roots := fuzzRoots(f)
	f.Fuzz(func(t *testing.T, encoding1 uint8, data1 []byte, encoding2 uint8, data2 []byte) {
		certs, crls, err := ParseCertPayloads([]*message.Cert{
			{Encoding: message.CertEncoding(encoding1), Data: data1},
			{Encoding: message.CertEncoding(encoding2), Data: data2},
		})
		if err != nil {
			if len(certs)+len(crls) > 0 {
				t.Fatal("certificates beside an error")
			}
			return
		}
		useCertificates(t, roots, certs, crls)
	})
}
