package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func pemBlock(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func pkcs8(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemBlock("PRIVATE KEY", der)
}

func TestLoadKeyPEM(t *testing.T) {
	p256 := testKey(t, "p256")
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := pemBlock("CERTIFICATE", newRoot(t, "root", "p256").cert.Raw)
	good := pkcs8(t, p256)
	for _, tc := range []struct {
		name, in string
		want     error
		says     string
	}{
		{name: "PKCS#8 ECDSA", in: good},
		{name: "PKCS#8 RSA", in: pkcs8(t, testKey(t, "rsa"))},
		{name: "PKCS#8 Ed25519", in: pkcs8(t, testKey(t, "ed25519"))},
		{name: "with a certificate and text", in: "subject=CN = x\n" + cert + "\n# key\n" + good},
		{name: "after EC parameters", in: pemBlock("EC PARAMETERS", []byte{6, 0}) + good},
		{name: "CRLF", in: strings.ReplaceAll(good, "\n", "\r\n")},
		{name: "empty", in: "", want: ErrBadPEM, says: "found an empty file"},
		{name: "certificate", in: cert, want: ErrBadPEM, says: "expected a private key, found CERTIFICATE"},
		{name: "no PEM", in: "hello", want: ErrBadPEM, says: "no PEM block"},
		{name: "truncated", in: good[:len(good)-20], want: ErrBadPEM, says: "truncated"},
		{name: "two keys", in: good + good, want: ErrBadPEM, says: "more than one"},
		{name: "encrypted PKCS#8", in: pemBlock("ENCRYPTED PRIVATE KEY", []byte{1}), want: ErrBadPEM, says: "openssl pkey"},
		{name: "encrypted PKCS#1", in: "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n", want: ErrBadPEM, says: "passphrase"},
		{name: "OpenSSH", in: pemBlock("OPENSSH PRIVATE KEY", []byte{1}), want: ErrBadPEM, says: "OPENSSH"},
		{name: "junk", in: pemBlock("PRIVATE KEY", []byte("junk")), want: ErrBadPEM, says: "damaged"},
		{name: "key agreement key", in: pkcs8(t, x25519), want: ErrBadPEM, says: "cannot sign"},
		{name: "weak", in: pkcs8(t, testKey(t, "rsa1024")), want: ErrWeakKey, says: "1024"},
	} {
		key, err := LoadKeyPEM([]byte(tc.in))
		if !errors.Is(err, tc.want) || (key == nil) != (err != nil) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
		if err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %q does not say %q", tc.name, err, tc.says)
		}
	}
	key, err := LoadKeyPEM([]byte(good))
	if err != nil || !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(p256.Public()) {
		t.Errorf("another key: %v", err)
	}
}

// Keys as OpenSSL writes them.
func TestLoadKeyFromOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	for _, args := range [][]string{
		{"ecparam", "-name", "prime256v1", "-genkey"}, // with EC PARAMETERS before
		{"genpkey", "-algorithm", "ed25519"},
		{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"},
		{"genrsa", "-traditional", "2048"},
	} {
		out, err := exec.Command(openssl, args...).Output()
		if err != nil {
			t.Fatalf("openssl %v: %v", args, err)
		}
		if _, err := LoadKeyPEM(out); err != nil {
			t.Errorf("openssl %v: %v", args, err)
		}
	}
}

func TestLoadCertificatesPEM(t *testing.T) {
	root := newRoot(t, "root", "p256")
	client := root.client(t, laptop, "p256")
	one, two := pemBlock("CERTIFICATE", client.cert.Raw), pemBlock("CERTIFICATE", root.cert.Raw)
	got, err := LoadCertificatesPEM([]byte("text\n" + one + pkcs8(t, client.key) + two))
	if err != nil || len(got) != 2 || !got[0].Equal(client.cert) || !got[1].Equal(root.cert) {
		t.Errorf("got %d certificates, %v", len(got), err)
	}
	for in, says := range map[string]string{
		pkcs8(t, client.key):                        "found PRIVATE KEY",
		one + pemBlock("CERTIFICATE", []byte{0x30}): "certificate 2",
		"": "empty",
	} {
		if got, err := LoadCertificatesPEM([]byte(in)); !errors.Is(err, ErrBadPEM) || !strings.Contains(err.Error(), says) || got != nil {
			t.Errorf("got %v, want an error that says %q", err, says)
		}
	}
	if _, err := LoadCertificatesPEM(make([]byte, maxPEM+1)); !errors.Is(err, ErrBadPEM) {
		t.Errorf("huge file: %v", err)
	}
}

func TestLoadCRLPEM(t *testing.T) {
	root := newRoot(t, "root", "p256")
	crl := root.crl(t, testNow, testNow)
	block := pemBlock("X509 CRL", crl.Raw)
	for in, want := range map[string]int{block: 1, block + block: 2, string(crl.Raw): 1} {
		got, err := LoadCRLPEM([]byte(in))
		if err != nil || len(got) != want || !bytes.Equal(got[0].Raw, crl.Raw) {
			t.Errorf("got %d lists, %v", len(got), err)
		}
	}
	for in, says := range map[string]string{
		pemBlock("CERTIFICATE", root.cert.Raw): "found CERTIFICATE",
		pemBlock("X509 CRL", []byte{0x30}):     "revocation list 1",
		"\x30\x01":                             "revocation list",
	} {
		if _, err := LoadCRLPEM([]byte(in)); !errors.Is(err, ErrBadPEM) || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want an error that says %q", err, says)
		}
	}
}

func addPEMFiles(f *testing.F, patterns ...string) {
	for _, pattern := range patterns {
		names, err := filepath.Glob(filepath.Join("testdata", "strongswan", pattern))
		if err != nil || len(names) == 0 {
			f.Fatalf("%s: no files, %v", pattern, err)
		}
		for _, name := range names {
			f.Add(readFile(f, filepath.Base(name)))
		}
	}
}

func FuzzLoadKeyPEM(f *testing.F) {
	addPEMFiles(f, "client-*.key")
	f.Add([]byte(pkcs8(f, testKey(f, "p256"))))
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := LoadKeyPEM(data)
		if (err == nil) != (key != nil) {
			t.Fatalf("key %T with error %v", key, err)
		}
		if err != nil {
			if !errors.Is(err, ErrBadPEM) && !errors.Is(err, ErrWeakKey) {
				t.Fatalf("error without a reason: %v", err)
			}
			return
		}
		if err := CheckPublicKey(key.Public()); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzLoadCertificatesPEM(f *testing.F) {
	addPEMFiles(f, "*.pem", "*.crl")
	roots := fuzzRoots(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		certs, err := LoadCertificatesPEM(data)
		if (err == nil) != (len(certs) > 0) {
			t.Fatalf("%d certificates, error %v", len(certs), err)
		}
		// Whatever parsed must be safe to show, match and build chains with.
		if err == nil {
			useCertificates(t, roots, certs, nil)
		}
		crls, err := LoadCRLPEM(data)
		if (err == nil) != (len(crls) > 0) {
			t.Fatalf("%d lists, error %v", len(crls), err)
		}
	})
}
