package ike

import (
	"testing"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// A gateway with a certificate has users with shared keys too, each with a key of their
// own. They can check nothing but that key.
func TestSharedKeyIsAnsweredWithItself(t *testing.T) {
	keys := map[string]string{"alice@example.test": "alice's long secret", "bob@example.test": "bob's long secret"}
	_, sp := certPolicies(t, "ecdsa")
	sp.Remote.AllowPSK = true
	sp.Remote.PSK = func(id auth.Identity) ([]byte, bool) {
		secret, ok := keys[id.String()]
		return []byte(secret), ok
	}
	for user, secret := range keys {
		cp := clientPolicy()
		cp.Local = auth.Local{ID: mustIdentity(user), PSK: []byte(secret)}
		cp.Remote.PSK, cp.IKE, cp.ESP = pskOf(secret), sp.IKE, sp.ESP
		l := connected(t, cp, sp)
		if got := l.clientInfo().AuthMethod; got != message.AuthSharedKey {
			t.Errorf("the gateway proved itself to %s with %v, want the shared key", user, got)
		}
	}
}

func TestCertificateIsAnsweredWithCertificateBesideSharedKeys(t *testing.T) {
	cp, sp := certPolicies(t, "ecdsa")
	sp.Remote.AllowPSK, sp.Remote.PSK = true, pskOf(testSecret)
	l := connected(t, cp, sp)
	if got := l.clientInfo().AuthMethod; got == message.AuthSharedKey {
		t.Errorf("the gateway proved itself with %v, want its certificate", got)
	}
}

// Whoever admits a peer learns which key it used, or that it used none.
func TestAuthorizeRequestNamesTheKey(t *testing.T) {
	certClient, certServer := certPolicies(t, "ecdsa")
	for name, tt := range map[string]struct {
		cp, sp *Policy
		want   auth.KeyFingerprint
	}{
		"shared key":  {clientPolicy(), serverPolicy(), auth.FingerprintOf([]byte(testSecret))},
		"certificate": {certClient, certServer, auth.KeyFingerprint{}},
	} {
		l := newLab(t, 1, tt.cp, tt.sp)
		grant, asked := l.server.grant, 0
		l.server.grant = func(a AuthorizeRequest) Grant {
			asked++
			if a.SharedKey != tt.want || (a.Certificate == nil) != (tt.want != auth.KeyFingerprint{}) {
				t.Errorf("%s: key %x, certificate %v", name, a.SharedKey, a.Certificate != nil)
			}
			return grant(a)
		}
		l.run()
		if asked != 1 {
			t.Errorf("%s: asked %d times", name, asked)
		}
	}
}
