package mobike

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/simnet"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// addressBlocks is the extension of RFC 3779 with one IPv4 network.
func addressBlocks(p netip.Prefix) pkix.Extension {
	type family struct {
		Family []byte
		Blocks []asn1.BitString
	}
	bits := asn1.BitString{Bytes: p.Addr().AsSlice()[:(p.Bits()+7)/8], BitLength: p.Bits()}
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 7}, Critical: true,
		Value: must(asn1.Marshal([]family{{[]byte{0, 1}, []asn1.BitString{bits}}}))}
}

// certificate makes a certificate that lists a network; without an issuer it is a root.
func certificate(now time.Time, name string, listed netip.Prefix, issuer *x509.Certificate, by crypto.Signer) (*x509.Certificate, ed25519.PrivateKey) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(name))), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{addressBlocks(listed)},
	}
	if issuer == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.DNSNames = true, true, x509.KeyUsageCertSign, nil
		issuer, by = c, key
	}
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, c, issuer, pub, by)))), key
}

// withCertificates makes both sides prove themselves with certificates; the client's
// lists a network that its addresses may come from.
func withCertificates(listed netip.Prefix) func(*world) {
	return func(w *world) {
		now := w.net.Now()
		ca, caKey := certificate(now, "authority", netip.MustParsePrefix("0.0.0.0/0"), nil, nil)
		local := func(name string, listed netip.Prefix) auth.Local {
			c, key := certificate(now, name, listed, ca, caKey)
			return auth.Local{ID: must(auth.ParseIdentity(name)), Key: key, Chain: []*x509.Certificate{c}}
		}
		remote := auth.Remote{ID: auth.Any(), AllowSignature: true, Roots: []*x509.Certificate{ca}}
		w.tune = func(client, server *ike.Policy) {
			client.Local, server.Local = local("laptop.example.test", listed), local("vpn.example.test", netip.MustParsePrefix("203.0.113.0/24"))
			client.Remote, server.Remote = remote, remote
			client.SendCertificates, server.SendCertificates = true, true
		}
	}
}

// TestCertifiedAddress moves to an address that the client's certificate lists: traffic
// follows without a check. To one that it does not list it follows after one.
func TestCertifiedAddress(t *testing.T) {
	for _, tc := range []struct {
		listed string
		checks bool
	}{
		{"192.0.2.128/25", false}, // the public address of uplink B's NAT
		{"192.0.2.0/25", true},
	} {
		t.Run(tc.listed, func(t *testing.T) {
			w := connected(t, 1, withCertificates(netip.MustParsePrefix(tc.listed)))
			checks := 0
			w.net.SetFilter(func(p simnet.Packet) bool {
				data := bytes.TrimPrefix(p.Data, marker)
				probe := len(data) > 1000 // of the path MTU, which follows any move
				request := data[0] != 0xd0 && !probe && message.Flags(data[19])&message.FlagResponse == 0
				if request && p.Src.Addr() == srv1 && p.Dst.Addr() == natPub {
					checks++
				}
				return false
			})
			w.b.SetUp(true)
			w.a.SetUp(false)
			w.client.changed()
			w.run(time.Second)
			w.alive(100 * time.Millisecond)
			if w.server.path.Pair.Remote.Addr() != natPub {
				t.Errorf("the gateway sends to %v", w.server.path.Pair)
			}
			if (checks > 0) != tc.checks {
				t.Errorf("%d checks, want some: %v", checks, tc.checks)
			}
			w.server.engine.EachSession(w.net.Now(), func(_ time.Time, s *ike.Session) {
				pairs, _ := Paths(s)
				for _, p := range pairs {
					if p.Current && (p.ForeignOrigin == locator.Certified) == tc.checks {
						t.Errorf("origin of %v is %v", p.Pair.Remote, p.ForeignOrigin)
					}
				}
			})
		})
	}
}
