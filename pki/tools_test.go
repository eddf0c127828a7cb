package pki

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool finds a program of another implementation, which reads the real clock.
func tool(t *testing.T, name string) func(args ...string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed: our certificates are NOT checked by it", name)
	}
	return func(args ...string) (string, error) {
		out, err := exec.Command(path, args...).CombinedOutput()
		return string(out), err
	}
}

// writeFiles makes an authority of now with a gateway, a client and a revoked
// client, and writes their certificates to files.
func writeFiles(t *testing.T, kind KeyType) func(name string) string {
	t.Helper()
	dir := t.TempDir()
	a := newAuthority(t, Options{Name: "Example VPN", Organization: "Example", KeyType: kind, Now: time.Now})
	o := IssueOptions{KeyType: kind}
	bob := must[*Bundle](t)(a.IssueClient("bob@example.test", o))
	files := map[string][]byte{
		"ca":      a.CertificatePEM(),
		"server":  must[*Bundle](t)(a.IssueServer([]string{"vpn.example.test"}, []netip.Addr{netip.MustParseAddr("192.0.2.1")}, o)).Cert,
		"client":  must[*Bundle](t)(a.IssueClient("alice@example.test", o)).Cert,
		"revoked": bob.Cert,
		"key":     must[*Bundle](t)(a.IssueClient("carol@example.test", o)).Key,
	}
	must[*Certificate](t)(a.Revoke(bob.Issued.Serial, KeyCompromise))
	files["crl"] = must[[]byte](t)(a.CRL())
	files["ca+crl"] = append(bytes.Clone(files["ca"]), files["crl"]...)
	path := func(name string) string { return filepath.Join(dir, name+".pem") }
	for name, data := range files {
		if err := os.WriteFile(path(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestOpenSSLAccepts(t *testing.T) {
	openssl := tool(t, "openssl")
	for _, kind := range []KeyType{ECDSAP256, Ed25519, RSA2048} {
		file := writeFiles(t, kind)
		for _, args := range [][]string{
			{"-purpose", "sslserver", "-verify_hostname", "vpn.example.test", file("server")},
			{"-purpose", "sslserver", "-verify_ip", "192.0.2.1", file("server")},
			{"-purpose", "sslclient", "-verify_email", "alice@example.test", file("client")},
		} {
			args = append([]string{"verify", "-x509_strict", "-crl_check", "-CAfile", file("ca+crl")}, args...)
			if out, err := openssl(args...); err != nil {
				t.Errorf("%s: openssl %v: %v\n%s", kind, args, err, out)
			}
		}
		if out, err := openssl("verify", "-crl_check", "-CAfile", file("ca+crl"), file("revoked")); err == nil || !strings.Contains(out, "revoked") {
			t.Errorf("%s: revoked: %v\n%s", kind, err, out)
		}
		if out, err := openssl("verify", "-purpose", "sslserver", "-CAfile", file("ca"), file("client")); err == nil {
			t.Errorf("%s: client as server: %s", kind, out)
		}
		if out, err := openssl("pkey", "-in", file("key"), "-check", "-noout"); err != nil && kind != Ed25519 { // has no check
			t.Errorf("%s: key: %v\n%s", kind, err, out)
		}
	}
}

// TestOpenSSLReasons lets OpenSSL say what our reason codes mean.
func TestOpenSSLReasons(t *testing.T) {
	openssl := tool(t, "openssl")
	a := newAuthority(t, Options{})
	for reason, words := range map[Reason]string{
		KeyCompromise: "Key Compromise", AffiliationChanged: "Affiliation Changed", Superseded: "Superseded",
		CessationOfOperation: "Cessation Of Operation", Unspecified: "",
	} {
		b := must[*Bundle](t)(a.IssueClient("alice@example.test", IssueOptions{}))
		must[*Certificate](t)(a.Revoke(b.Issued.Serial, reason))
		path := filepath.Join(t.TempDir(), "crl.pem")
		if err := os.WriteFile(path, must[[]byte](t)(a.CRL()), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := openssl("crl", "-in", path, "-noout", "-text")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		_, text, ok := strings.Cut(out, strings.ToUpper(b.Issued.Serial))
		text, _, _ = strings.Cut(text, "Serial Number")
		if !ok || words != "" && !strings.Contains(text, words) || words == "" && strings.Contains(text, "Reason") {
			t.Errorf("%s: %s", reason, text)
		}
	}
}

func TestStrongSwanAccepts(t *testing.T) {
	pki := tool(t, "pki")
	if out, _ := pki("--help"); !strings.Contains(out, "--verify") {
		t.Skip("pki is not strongSwan's: our certificates are NOT checked by it")
	}
	for _, kind := range []KeyType{ECDSAP256, Ed25519, RSA2048} {
		file := writeFiles(t, kind)
		for _, name := range []string{"server", "client"} {
			if out, err := pki("--verify", "--in", file(name), "--cacert", file("ca"), "--crl", file("crl")); err != nil {
				t.Errorf("%s, %s: %v\n%s", kind, name, err, out)
			}
		}
		if out, err := pki("--verify", "--in", file("revoked"), "--cacert", file("ca"), "--crl", file("crl")); err == nil || !strings.Contains(out, "revoked") {
			t.Errorf("%s: revoked: %v\n%s", kind, err, out)
		}
		if out, err := pki("--print", "--type", "priv", "--in", file("key")); err != nil {
			t.Errorf("%s: key: %v\n%s", kind, err, out)
		}
	}
}
