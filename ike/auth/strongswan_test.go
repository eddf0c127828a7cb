package auth

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "strongswan", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// strongSwanPeer loads a key and certificate made with strongSwan's pki.
func strongSwanPeer(t testing.TB, name string) *Local {
	t.Helper()
	key, err := LoadKeyPEM(readFile(t, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := LoadCertificatesPEM(readFile(t, name+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	return &Local{Key: key, Chain: chain}
}

// TestStrongSwanCertificates proves and verifies an identity with certificates made
// by another implementation: keys in its formats, e-mail names, no key usage, its
// extended key usages and revocation lists.
func TestStrongSwanCertificates(t *testing.T) {
	for _, kind := range []string{"rsa", "ecdsa", "ed25519"} {
		roots, err := LoadCertificatesPEM(readFile(t, "ca-"+kind+".pem"))
		if err != nil {
			t.Fatal(err)
		}
		crls, err := LoadCRLPEM(readFile(t, "revoked-"+kind+".crl"))
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			peer, id string
			usage    x509.ExtKeyUsage
			crls     []*x509.RevocationList
			require  bool
			want     error
		}{
			{"client", "laptop@example.test", x509.ExtKeyUsageClientAuth, nil, false, nil},
			{"client", "C=FI, O=Roaming Lab, CN=client-" + kind, x509.ExtKeyUsageClientAuth, nil, false, nil},
			{"client", "CN=client-" + kind + ",O=Roaming Lab,C=FI", x509.ExtKeyUsageClientAuth, nil, false, nil},
			{"client", "laptop@example.test", x509.ExtKeyUsageServerAuth, nil, false, ErrWrongUsage},
			{"client", "laptop@example.test", x509.ExtKeyUsageClientAuth, crls, false, ErrRevoked},
			{"server", "vpn.example.test", x509.ExtKeyUsageServerAuth, crls, true, nil},
			{"server", "192.0.2.1", x509.ExtKeyUsageServerAuth, crls, true, nil},
		} {
			local := strongSwanPeer(t, tc.peer+"-"+kind)
			local.ID = mustIdentity(t, tc.id)
			if err := local.Prepare(); err != nil {
				t.Errorf("%s, %s: %v", tc.peer, kind, err)
				continue
			}
			if local.ID.Kind == message.IDDERDN && !bytes.Equal(local.ID.Data, local.Certificate().RawSubject) {
				t.Errorf("%s, %s: the name is not the subject octet by octet", tc.peer, kind)
			}
			octets := []byte("signed octets")
			proof, err := Sign(rand.Reader, local, allHashes, octets)
			if err != nil {
				t.Fatal(err)
			}
			r := &Remote{ID: Any(), AllowSignature: true, Roots: roots, Usage: tc.usage, CRLs: tc.crls, RequireCRL: tc.require}
			proved, err := r.VerifyPeer(testNow, local.ID, proof, CertPayloads(local), octets)
			if !errors.Is(err, tc.want) {
				t.Errorf("%s, %s, %s: got %v, want %v", tc.peer, kind, tc.id, err, tc.want)
			}
			if err == nil && !proved.Certificate.Equal(local.Certificate()) {
				t.Errorf("%s, %s: another certificate", tc.peer, kind)
			}
		}
	}
}

func TestVerifyPeerRefuses(t *testing.T) {
	root := newRoot(t, "root", "p256")
	me, eve := root.client(t, laptop, "p256"), root.client(t, "eve@example.test", "p256")
	octets := []byte("octets")
	proof, err := Sign(rand.Reader, &Local{Key: me.key}, allHashes, octets)
	if err != nil {
		t.Fatal(err)
	}
	r := remote(root)
	payloads := func(as ...*authority) (out []*message.Cert) {
		for _, a := range as {
			out = append(out, &message.Cert{Encoding: message.CertX509Signature, Data: a.cert.Raw})
		}
		return out
	}
	for _, tc := range []struct {
		name     string
		id       string
		payloads []*message.Cert
		octets   string
		want     error
	}{
		{"good", laptop, payloads(me), "octets", nil},
		{"certificate of another", laptop, payloads(eve), "octets", ErrIdentityMismatch},
		{"key of another", "eve@example.test", payloads(eve), "octets", ErrBadSignature},
		{"own certificate not first", laptop, payloads(eve, me), "octets", ErrIdentityMismatch},
		{"other octets", laptop, payloads(me), "octet", ErrBadSignature},
		{"none", laptop, nil, "octets", ErrNoCertificate},
		{"junk", laptop, []*message.Cert{{Encoding: message.CertX509Signature, Data: []byte{0x30}}}, "octets", ErrBadCertificate},
	} {
		if _, err := r.VerifyPeer(testNow, mustIdentity(t, tc.id), proof, tc.payloads, []byte(tc.octets)); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
}
