package auth

import (
	"crypto/rand"
	"testing"
)

// BenchmarkVerifyPeer is the work for a peer's proof: parsing its certificate,
// verifying chain and signature.
func BenchmarkVerifyPeer(b *testing.B) {
	for _, kind := range []string{"p256", "p384", "ed25519", "rsa"} {
		root := newRoot(b, "root", kind)
		me := root.client(b, laptop, kind)
		local := &Local{ID: mustIdentity(b, laptop), Key: me.key, Chain: certs(me)}
		octets := make([]byte, 600)
		proof, err := Sign(rand.Reader, local, allHashes, octets)
		if err != nil {
			b.Fatal(err)
		}
		payloads := CertPayloads(local)
		crl := root.crl(b, testNow, testNow.Add(1))
		for name, cache := range map[string]*Cache{"cold": nil, "cached": NewCache(16)} {
			r := remote(root)
			r.Cache = cache
			r.CRLs = append(r.CRLs, crl)
			b.Run(kind+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := r.VerifyPeer(testNow, local.ID, proof, payloads, octets); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkSign(b *testing.B) {
	for _, kind := range []string{"p256", "p384", "ed25519", "rsa"} {
		local := &Local{Key: testKey(b, kind)}
		octets := make([]byte, 600)
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Sign(rand.Reader, local, allHashes, octets); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPatternMatch(b *testing.B) {
	for _, s := range []string{"*", "*@example.test", "laptop@example.test"} {
		p, err := ParsePattern(s)
		if err != nil {
			b.Fatal(err)
		}
		id := mustIdentity(b, laptop)
		b.Run(s, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !p.Match(id) {
					b.Fatal("no match")
				}
			}
		})
	}
}
