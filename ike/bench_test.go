package ike

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// testAuthority issues certificates for tests.
type testAuthority struct {
	key  crypto.Signer
	cert *x509.Certificate
	make func() crypto.Signer
}

func newTestAuthority(t testing.TB, kind string) *testAuthority {
	gen := map[string]func() (crypto.Signer, error){
		"rsa":      func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
		"ecdsa":    func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
		"ecdsa384": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
		"ecdsa521": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) },
		"ed25519":  func() (crypto.Signer, error) { _, k, err := ed25519.GenerateKey(rand.Reader); return k, err },
	}[kind]
	a := &testAuthority{make: func() crypto.Signer {
		k, err := gen()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}}
	a.key = a.make()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: testStart.Add(-time.Hour), NotAfter: testStart.Add(24 * time.Hour)}
	a.cert = a.sign(t, tmpl, tmpl, a.key.Public())
	return a
}

func (a *testAuthority) sign(t testing.TB, tmpl, parent *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, a.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// local issues a certificate for an identity.
func (a *testAuthority) local(t testing.TB, id string, usage x509.ExtKeyUsage) auth.Local {
	k := a.make()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: id},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		NotBefore: testStart.Add(-time.Hour), NotAfter: testStart.Add(24 * time.Hour)}
	if usage == x509.ExtKeyUsageClientAuth {
		tmpl.EmailAddresses = []string{id}
	} else {
		tmpl.DNSNames = []string{id}
	}
	return auth.Local{ID: mustIdentity(id), Key: k, Chain: []*x509.Certificate{a.sign(t, tmpl, a.cert, k.Public())}}
}

// certPolicies are policies with certificates of one kind on both sides.
func certPolicies(t testing.TB, kind string) (client, server *Policy) {
	a := newTestAuthority(t, kind)
	client, server = clientPolicy(), serverPolicy()
	client.Local = a.local(t, "laptop@example.test", x509.ExtKeyUsageClientAuth)
	server.Local = a.local(t, "vpn.example.test", x509.ExtKeyUsageServerAuth)
	roots := []*x509.Certificate{a.cert}
	client.Remote = auth.Remote{ID: mustPattern("vpn.example.test"), AllowSignature: true, Roots: roots, Usage: x509.ExtKeyUsageServerAuth}
	server.Remote = auth.Remote{ID: mustPattern("*@example.test"), AllowSignature: true, Roots: roots, Usage: x509.ExtKeyUsageClientAuth}
	for _, p := range []*Policy{client, server} {
		p.IKE = mustIKE("aes128gcm16-prfsha256-x25519")
		p.ESP = mustESP("aes128gcm16")
		if err := p.Local.Check(); err != nil {
			t.Fatal(err)
		}
	}
	return client, server
}

func TestConnectCertificates(t *testing.T) {
	for _, kind := range []string{"rsa", "ecdsa", "ecdsa384", "ecdsa521", "ed25519"} {
		t.Run(kind, func(t *testing.T) {
			cp, sp := certPolicies(t, kind)
			l := connected(t, cp, sp)
			if l.serverInfo().Peer.String() != "laptop@example.test" {
				t.Errorf("peer %v", l.serverInfo().Peer)
			}
		})
	}
}

// BenchmarkHandshake measures one IKE_SA_INIT, IKE_AUTH and Delete. The time of
// one side alone is reported as responder-ns/op.
func BenchmarkHandshake(b *testing.B) {
	for _, kind := range []string{"psk", "ecdsa", "rsa", "ed25519"} {
		b.Run(kind, func(b *testing.B) {
			cp, sp := clientPolicy(), serverPolicy()
			cp.IKE, sp.IKE = mustIKE("aes128gcm16-prfsha256-x25519"), mustIKE("aes128gcm16-prfsha256-x25519")
			if kind != "psk" {
				cp, sp = certPolicies(b, kind)
				sp.Remote.Cache = auth.NewCache(1024)
			}
			w := newWire(b)
			client := w.add("client", clientAddr.Addr(), 1, Config{})
			server := w.add("server", serverAddr.Addr(), 2, Config{Responder: &ResponderConfig{Policy: sp}})
			var spent time.Duration
			w.filter = func(d datagram) bool {
				if d.from == server {
					return true
				}
				start := time.Now()
				server.engine.Receive(w.now, d.pair.Reverse(), d.data)
				server.settle()
				spent += time.Since(start)
				return false
			}
			b.ReportAllocs()
			for b.Loop() {
				id, err := client.engine.Initiate(w.now, cp, locator.Pair{Local: clientAddr, Remote: serverAddr})
				if err != nil {
					b.Fatal(err)
				}
				w.run()
				client.engine.Close(w.now, id, "user-disconnect")
				w.run()
				w.log = w.log[:0]
				w.now = w.now.Add(20 * time.Second)
				w.advance(0)
			}
			if len(server.established) != b.N {
				b.Fatalf("%d of %d connected: %s", len(server.established), b.N, describeClosed(client))
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "responder-ns/op")
		})
	}
}

// BenchmarkSessionMemory reports the heap that an established session takes in the
// responder's engine.
func BenchmarkSessionMemory(b *testing.B) {
	const n = 2000
	for i := range b.N {
		if i > 0 {
			return // once says it all
		}
		w := newWire(b)
		sp := serverPolicy()
		server := w.add("server", serverAddr.Addr(), 2, Config{Responder: &ResponderConfig{Policy: sp, HalfOpenPerAddress: n, CookieThreshold: -1}})
		next := innerAddr
		server.grant = func(AuthorizeRequest) Grant {
			next = next.Next()
			return Grant{Config: Configuration{Addresses: []netip.Addr{next}}}
		}
		client := w.add("client", clientAddr.Addr(), 1, Config{})
		cp := clientPolicy()
		heap := func() uint64 {
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		for range n {
			if _, err := client.engine.Initiate(w.now, cp, locator.Pair{Local: clientAddr, Remote: serverAddr}); err != nil {
				b.Fatal(err)
			}
			w.run()
		}
		w.log, w.queue = nil, nil
		client.engine, client.childs, client.established = nil, nil, nil
		with := heap()
		if len(server.established) != n {
			b.Fatalf("%d sessions", len(server.established))
		}
		server.engine, server.established = nil, nil
		server.childs = nil
		b.ReportMetric(float64(with-heap())/n, "B/session")
	}
}
