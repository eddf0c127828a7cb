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
