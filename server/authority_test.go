package server

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/pki"
)

// The gateway's certificate follows the names in the configuration.
func TestRenewCertificate(t *testing.T) {
	a := newAdmin(t)
	before := mustLoad(t, a).Policy.Local.Certificate()
	a.Config.Addresses = append(a.Config.Addresses, "2001:db8::1")
	if _, err := a.RenewCertificate(pki.Ed25519); err != nil {
		t.Fatal(err)
	}
	after := mustLoad(t, a).Policy.Local.Certificate()
	if after.SerialNumber.Cmp(before.SerialNumber) == 0 || len(after.IPAddresses) != 2 || after.PublicKeyAlgorithm.String() != "Ed25519" {
		t.Errorf("certificate %v", after.Subject)
	}
	if err := os.Remove(filepath.Join(a.Config.StateDir, gatewayFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(a.Path, time.Now()); err == nil || !strings.Contains(err.Error(), "vpn-server cert renew") {
		t.Errorf("without the key: %v", err)
	}
	crl, err := a.RevocationList()
	if err != nil || !strings.Contains(string(crl), "BEGIN X509 CRL") {
		t.Errorf("%v", err)
	}
}

// Whatever happens during a renewal, certificate and key fit together.
func TestRenewalsAtOnce(t *testing.T) {
	a := newAdmin(t)
	var renewals sync.WaitGroup
	for range 4 {
		renewals.Go(func() {
			for range 5 {
				if _, err := a.RenewCertificate(pki.Ed25519); err != nil {
					t.Error(err)
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() { renewals.Wait(); close(ended) }()
	for running := true; running; {
		select {
		case <-ended:
			running = false
		default:
		}
		mustLoad(t, a)
	}
}

// A revocation list that is good for another ten days is good enough to start with
// when it cannot be renewed.
func TestRevocationListAtHand(t *testing.T) {
	dir := t.TempDir()
	r, err := Setup(SetupOptions{Name: "vpn.example.test", ConfigDir: dir, StateDir: filepath.Join(dir, "state"),
		Now: func() time.Time { return time.Now().Add(-pki.CRLLifetime + 10*24*time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(r.Authority, "ca.key"), filepath.Join(t.TempDir(), "offline")); err != nil {
		t.Fatal(err)
	}
	s, err := Load(r.Config, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Policy.Remote.CRLs) != 1 || !strings.Contains(strings.Join(s.Warnings, "\n"), "cannot be renewed") {
		t.Errorf("%d lists, warnings %q", len(s.Policy.Remote.CRLs), s.Warnings)
	}
	if err := os.Remove(filepath.Join(r.Authority, "crl.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(r.Config, time.Now()); err == nil {
		t.Error("started without knowing who is revoked")
	}
}

func TestAnotherAuthority(t *testing.T) {
	a := newAdmin(t)
	a.Config.Auth.CA = []string{"ca.pem"}
	if _, err := a.AddUser("alice", UserOptions{}); err == nil || !strings.Contains(err.Error(), "another authority") {
		t.Error(err)
	}
	if users, err := a.Users(); err != nil || len(users) != 0 {
		t.Errorf("%v, %v", users, err)
	}
}
