package suite

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"os"
	"slices"
	"testing"
)

var allHashes = []HashID{HashSHA256, HashSHA384, HashSHA512, HashIdentity}

// testRSA returns the key of testdata, which serves no other purpose.
func testRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	data, err := os.ReadFile("testdata/rsa2048.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PrivateKey)
}

// testECDSA returns a key with a small, fixed private scalar.
func testECDSA(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	scalar := make([]byte, (curve.Params().BitSize+7)/8)
	scalar[len(scalar)-3] = 0x57
	key, err := ecdsa.ParseRawPrivateKey(curve, scalar)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func testKeys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	return map[string]crypto.Signer{
		"RSA":     testRSA(t),
		"P-256":   testECDSA(t, elliptic.P256()),
		"P-384":   testECDSA(t, elliptic.P384()),
		"P-521":   testECDSA(t, elliptic.P521()),
		"Ed25519": ed25519.NewKeyFromSeed(make([]byte, 32)),
	}
}

// TestAlgorithmIdentifiers has the objects of RFC 7427 appendix A and RFC 8420
// appendix A. That of RSASSA-PSS is without the trailer field: see
// SignatureScheme.AlgorithmIdentifier.
func TestAlgorithmIdentifiers(t *testing.T) {
	for scheme, want := range map[SignatureScheme]string{
		RSASHA256:   "300d 0609 2a86 4886 f70d 0101 0b05 00",
		RSASHA384:   "300d 0609 2a86 4886 f70d 0101 0c05 00",
		RSASHA512:   "300d 0609 2a86 4886 f70d 0101 0d05 00",
		ECDSASHA256: "300a 0608 2a86 48ce 3d04 0302",
		ECDSASHA384: "300a 0608 2a86 48ce 3d04 0303",
		ECDSASHA512: "300a 0608 2a86 48ce 3d04 0304",
		Ed25519:     "3005 0603 2b65 70",
		RSAPSSSHA256: "3041 0609 2a86 4886 f70d 0101 0a30 34a0 0f30 0d06 0960 8648 0165 0304 0201 0500" +
			"a11c 301a 0609 2a86 4886 f70d 0101 0830 0d06 0960 8648 0165 0304 0201 0500 a203 0201 20",
		RSAPSSSHA384: "3041 0609 2a86 4886 f70d 0101 0a30 34a0 0f30 0d06 0960 8648 0165 0304 0202 0500" +
			"a11c 301a 0609 2a86 4886 f70d 0101 0830 0d06 0960 8648 0165 0304 0202 0500 a203 0201 30",
		RSAPSSSHA512: "3041 0609 2a86 4886 f70d 0101 0a30 34a0 0f30 0d06 0960 8648 0165 0304 0203 0500" +
			"a11c 301a 0609 2a86 4886 f70d 0101 0830 0d06 0960 8648 0165 0304 0203 0500 a203 0201 40",
	} {
		if got := scheme.AlgorithmIdentifier(); !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("%v: got %x, want %s", scheme, got, want)
		}
		if got, err := ParseAlgorithmIdentifier(unhex(t, want)); err != nil || got != scheme {
			t.Errorf("%v: parsed as %v, %v", scheme, got, err)
		}
	}
	if SignatureScheme(0).AlgorithmIdentifier() != nil {
		t.Error("an unknown scheme has an AlgorithmIdentifier")
	}
}

func TestParseAlgorithmIdentifier(t *testing.T) {
	const pss256 = "a00f 300d 0609 6086 4801 6503 0402 0105 00a1 1c30 1a06 092a 8648 86f7 0d01 0108 300d 0609 6086 4801 6503 0402 0105 00"
	for name, c := range map[string]struct {
		der  string
		want SignatureScheme
		err  error // of a kind, when want is 0
	}{
		"RFC 7427 §A.4.3": {"3046 0609 2a86 4886 f70d 0101 0a30 39" + pss256 + "a203 0201 20 a303 0201 01", RSAPSSSHA256, nil},
		"RFC 7427 §A.4.1": {"300d 0609 2a86 4886 f70d 0101 0a30 00", 0, ErrSHA1},
		"RFC 7427 §A.4.2": {"303e 0609 2a86 4886 f70d 0101 0a30 31a0 0b30 0906 052b 0e03 021a 0500 a118 3016" +
			"0609 2a86 4886 f70d 0101 0830 0906 052b 0e03 021a 0500 a203 0201 14a3 0302 0101", 0, nil},
		"RFC 7427 §A.1.1, SHA-1":       {"300d 0609 2a86 4886 f70d 0101 0505 00", 0, ErrSHA1},
		"RFC 7427 §A.3.1, SHA-1":       {"3009 0607 2a86 48ce 3d04 01", 0, ErrSHA1},
		"RFC 7427 §A.2.2, DSA":         {"300b 0609 6086 4801 6503 0403 02", 0, nil},
		"RFC 8420 §A.2, Ed448":         {"3005 0603 2b65 71", 0, nil},
		"RSA without NULL":             {"300b 0609 2a86 4886 f70d 0101 0b", RSASHA256, nil},
		"ECDSA with NULL":              {"300c 0608 2a86 48ce 3d04 0302 0500", ECDSASHA256, nil},
		"Ed25519 with NULL":            {"3007 0603 2b65 70 0500", 0, errAlgorithmIdentifier},
		"PSS, hashes without NULL":     {"303d 0609 2a86 4886 f70d 0101 0a30 30 a00d 300b 0609 6086 4801 6503 0402 01 a11a 3018 0609 2a86 4886 f70d 0101 08 300b 0609 6086 4801 6503 0402 01 a203 0201 20", RSAPSSSHA256, nil},
		"PSS, salt of 20 by default":   {"303c 0609 2a86 4886 f70d 0101 0a30 2f" + pss256, 0, nil},
		"PSS, salt of 33":              {"3041 0609 2a86 4886 f70d 0101 0a30 34" + pss256 + "a203 0201 21", 0, nil},
		"PSS, trailer 2":               {"3046 0609 2a86 4886 f70d 0101 0a30 39" + pss256 + "a203 0201 20 a303 0201 02", 0, nil},
		"PSS without parameters":       {"300b 0609 2a86 4886 f70d 0101 0a", 0, errAlgorithmIdentifier},
		"PSS, fields in another order": {"3041 0609 2a86 4886 f70d 0101 0a30 34 a203 0201 20" + pss256, 0, errAlgorithmIdentifier},
		"PSS, mask with another hash":  {"3041 0609 2a86 4886 f70d 0101 0a30 34 a00f 300d 0609 6086 4801 6503 0402 0105 00a1 1c30 1a06 092a 8648 86f7 0d01 0108 300d 0609 6086 4801 6503 0402 0205 00 a203 0201 20", 0, nil},
		"nothing":                      {"", 0, errAlgorithmIdentifier},
		"empty sequence":               {"3000", 0, errAlgorithmIdentifier},
		"one octet behind":             {"3005 0603 2b65 70 00", 0, errAlgorithmIdentifier},
		"length not minimal":           {"3081 0506 032b 6570", 0, errAlgorithmIdentifier},
		"parameters of another type":   {"300c 0608 2a86 48ce 3d04 0302 3000", 0, errAlgorithmIdentifier},
	} {
		got, err := ParseAlgorithmIdentifier(unhex(t, c.der))
		if got != c.want || (err == nil) != (c.want != 0) || c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	// Cut at every length.
	for scheme := RSAPSSSHA256; scheme <= Ed25519; scheme++ {
		der := scheme.AlgorithmIdentifier()
		for n := range der {
			if got, err := ParseAlgorithmIdentifier(der[:n]); err == nil {
				t.Errorf("%v cut to %d octets: got %v", scheme, n, got)
			}
		}
	}
}

func TestSchemesFor(t *testing.T) {
	keys := testKeys(t)
	for _, c := range []struct {
		key     string
		hashes  []HashID
		padding []RSAPadding
		want    []SignatureScheme
	}{
		{"RSA", allHashes, nil, []SignatureScheme{RSAPSSSHA256, RSAPSSSHA384, RSAPSSSHA512, RSASHA256, RSASHA384, RSASHA512}},
		{"RSA", allHashes, []RSAPadding{PKCS1v15First}, []SignatureScheme{RSASHA256, RSASHA384, RSASHA512, RSAPSSSHA256, RSAPSSSHA384, RSAPSSSHA512}},
		{"RSA", []HashID{1, HashSHA512}, nil, []SignatureScheme{RSAPSSSHA512, RSASHA512}},
		{"RSA", []HashID{1, HashIdentity}, nil, nil},
		{"P-256", allHashes, nil, []SignatureScheme{ECDSASHA256, ECDSASHA384, ECDSASHA512}},
		{"P-384", allHashes, nil, []SignatureScheme{ECDSASHA384, ECDSASHA512, ECDSASHA256}},
		{"P-521", allHashes, nil, []SignatureScheme{ECDSASHA512, ECDSASHA384, ECDSASHA256}},
		{"P-384", []HashID{HashSHA256}, nil, []SignatureScheme{ECDSASHA256}},
		{"Ed25519", allHashes, nil, []SignatureScheme{Ed25519}},
		{"Ed25519", []HashID{HashSHA256, HashSHA512}, nil, nil}, // RFC 8420 §2
	} {
		got := SchemesFor(keys[c.key].Public(), c.hashes, c.padding...)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s with %v: got %v, want %v", c.key, c.hashes, got, c.want)
		}
	}
	if got := SchemesFor("no key", allHashes); len(got) != 0 {
		t.Errorf("schemes for a string: %v", got)
	}
	if got := SchemesFor(&ecdsa.PublicKey{Curve: elliptic.P224()}, allHashes); len(got) != 0 {
		t.Errorf("schemes for P-224: %v", got)
	}
}

// TestSignVerify signs by every scheme of every key, and checks that nothing else
// verifies.
func TestSignVerify(t *testing.T) {
	keys := testKeys(t)
	msg := []byte("RealMessage1 | NonceRData | MACedIDForI")
	for name, key := range keys {
		schemesOfKey := SchemesFor(key.Public(), allHashes)
		if len(schemesOfKey) == 0 {
			t.Fatalf("no scheme for %s", name)
		}
		for _, scheme := range schemesOfKey {
			sig, err := Sign(seeded(1), key, scheme, msg)
			if err != nil {
				t.Fatalf("%s, %v: %v", name, scheme, err)
			}
			if err := Verify(key.Public(), scheme, msg, sig); err != nil {
				t.Errorf("%s, %v: %v", name, scheme, err)
			}
			if again, err := Sign(seeded(1), key, scheme, msg); err != nil || !bytes.Equal(sig, again) {
				t.Errorf("%s, %v: equal randomness gives different signatures, %v", name, scheme, err)
			}
			if err := Verify(key.Public(), scheme, msg[1:], sig); !errors.Is(err, ErrSignature) {
				t.Errorf("%s, %v: other message: %v", name, scheme, err)
			}
			for _, i := range []int{0, len(sig) / 2, len(sig) - 1} {
				forged := bytes.Clone(sig)
				forged[i] ^= 1
				if err := Verify(key.Public(), scheme, msg, forged); !errors.Is(err, ErrSignature) {
					t.Errorf("%s, %v: octet %d changed: %v", name, scheme, i, err)
				}
			}
			for _, cut := range [][]byte{nil, sig[:len(sig)-1], append(bytes.Clone(sig), 0)} {
				if err := Verify(key.Public(), scheme, msg, cut); !errors.Is(err, ErrSignature) {
					t.Errorf("%s, %v: %d octets: %v", name, scheme, len(cut), err)
				}
			}
			for _, other := range schemesOfKey {
				if other != scheme && Verify(key.Public(), other, msg, sig) == nil {
					t.Errorf("%s: a signature by %v verifies as %v", name, scheme, other)
				}
			}
		}
		for scheme := SignatureScheme(0); scheme <= Ed25519+1; scheme++ {
			if slices.Contains(schemesOfKey, scheme) {
				continue
			}
			if _, err := Sign(seeded(1), key, scheme, msg); err == nil {
				t.Errorf("%s signed by %v", name, scheme)
			}
			if err := Verify(key.Public(), scheme, msg, nil); err == nil || errors.Is(err, ErrSignature) {
				t.Errorf("%s with %v: %v", name, scheme, err)
			}
		}
	}
	weak := &rsa.PublicKey{N: new(big.Int).Lsh(bigOne, 1023), E: 65537}
	if err := Verify(weak, RSASHA256, msg, make([]byte, 128)); err == nil || errors.Is(err, ErrSignature) {
		t.Errorf("RSA of 1024 bits: %v", err)
	}
	if err := VerifyRSA(weak, msg, make([]byte, 128)); err == nil || errors.Is(err, ErrSignature) {
		t.Errorf("RSA of 1024 bits: %v", err)
	}
	if err := Verify(ed25519.PublicKey{1, 2}, Ed25519, msg, make([]byte, 64)); err == nil {
		t.Error("a public key of two octets was accepted")
	}
	if _, err := Sign(dry, testRSA(t), RSAPSSSHA256, msg); !errors.Is(err, io.EOF) {
		t.Errorf("PSS without randomness: %v", err)
	}
}

// TestOpenSSLSignatures verifies signatures of another implementation.
func TestOpenSSLSignatures(t *testing.T) {
	key, msg := testRSA(t), []byte("octets to be signed")
	named := make(map[string]SignatureScheme)
	for scheme := range schemes {
		named[scheme.String()] = scheme
	}
	for _, v := range vectors(t, "openssl-signatures.txt") {
		sig := unhex(t, v[1])
		if v[0] == "rsa-sha1" {
			if err := VerifyRSA(&key.PublicKey, msg, sig); !errors.Is(err, ErrSHA1) {
				t.Errorf("a signature with SHA-1: %v", err)
			}
			continue
		}
		scheme := named[v[0]]
		if err := Verify(&key.PublicKey, scheme, msg, sig); err != nil {
			t.Errorf("%s: %v", v[0], err)
		}
		// Method 1 takes any of the hashes, and only PKCS#1 v1.5.
		err := VerifyRSA(&key.PublicKey, msg, sig)
		if pss := schemes[scheme].key == keyRSAPSS; pss != errors.Is(err, ErrSignature) || !pss && err != nil {
			t.Errorf("%s as method 1: %v", v[0], err)
		}
		if schemes[scheme].key == keyRSA {
			if own, err := Sign(nil, key, scheme, msg); err != nil || !bytes.Equal(own, sig) {
				t.Errorf("%s: own signature differs, %v", v[0], err)
			}
		}
	}
	sig, err := SignRSA(nil, key, msg)
	if err != nil || VerifyRSA(&key.PublicKey, msg, sig) != nil {
		t.Errorf("method 1: %v", err)
	}
	if err := VerifyRSA(&key.PublicKey, msg[1:], sig); !errors.Is(err, ErrSignature) {
		t.Errorf("method 1, other message: %v", err)
	}
}

// TestECDSAVectors are the signatures of RFC 4754 §8.
func TestECDSAVectors(t *testing.T) {
	curves := map[string]elliptic.Curve{"ecp256": elliptic.P256(), "ecp384": elliptic.P384(), "ecp521": elliptic.P521()}
	msg := []byte("abc")
	for _, v := range vectors(t, "rfc4754.txt") {
		curve := curves[v[0]]
		key, err := ecdsa.ParseRawPrivateKey(curve, unhex(t, v[1]))
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil || !bytes.Equal(point[1:], unhex(t, v[2]+v[3])) {
			t.Errorf("%s: public key %x, %v", v[0], point, err)
		}
		if err := VerifyECDSA(&key.PublicKey, msg, unhex(t, v[4]+v[5])); err != nil {
			t.Errorf("%s: %v", v[0], err)
		}
		sig, err := SignECDSA(nil, key, msg)
		if err != nil || len(sig) != 2*len(unhex(t, v[4])) {
			t.Fatalf("%s: own signature of %d octets, %v", v[0], len(sig), err)
		}
		if err := VerifyECDSA(&key.PublicKey, msg, sig); err != nil {
			t.Errorf("%s: own signature: %v", v[0], err)
		}
		for name, bad := range map[string][]byte{
			"nothing":          nil,
			"one octet less":   sig[1:],
			"one octet more":   append([]byte{0}, sig...),
			"two octets more":  append(append([]byte{0}, sig...), 0),
			"zeros":            make([]byte, len(sig)),
			"r is zero":        append(make([]byte, len(sig)/2), sig[len(sig)/2:]...),
			"r and s swapped":  append(bytes.Clone(sig[len(sig)/2:]), sig[:len(sig)/2]...),
			"ones":             bytes.Repeat([]byte{0xff}, len(sig)),
			"one bit of s off": append(bytes.Clone(sig[:len(sig)-1]), sig[len(sig)-1]^1),
		} {
			if err := VerifyECDSA(&key.PublicKey, msg, bad); !errors.Is(err, ErrSignature) {
				t.Errorf("%s, %s: %v", v[0], name, err)
			}
		}
	}
	if _, err := SignECDSA(nil, testRSA(t), msg); err == nil {
		t.Error("an RSA key signed by ECDSA")
	}
	if err := VerifyECDSA(&ecdsa.PublicKey{Curve: elliptic.P224()}, msg, make([]byte, 56)); err == nil || errors.Is(err, ErrSignature) {
		t.Errorf("P-224: %v", err)
	}
}

// TestDeterministicECDSA is the signature of "sample" with P-256 and SHA-256 in
// RFC 6979 §A.2.5.
func TestDeterministicECDSA(t *testing.T) {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), unhex(t, "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721"))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := SignECDSA(seeded(1), key, []byte("sample"))
	want := "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716" +
		"f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"
	if err != nil || hex.EncodeToString(sig) != want {
		t.Errorf("got %x, %v", sig, err)
	}
}

// TestEd25519Vector is test 3 of RFC 8032 §7.1.
func TestEd25519Vector(t *testing.T) {
	key := ed25519.NewKeyFromSeed(unhex(t, "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"))
	want := unhex(t, "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a")
	if got, err := Sign(nil, key, Ed25519, []byte{0xaf, 0x82}); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %x, %v", got, err)
	}
}

func FuzzParseAlgorithmIdentifier(f *testing.F) {
	for scheme := RSAPSSSHA256; scheme <= Ed25519; scheme++ {
		f.Add(scheme.AlgorithmIdentifier())
	}
	f.Add([]byte{0x30, 0x80, 0x00, 0x00})
	f.Fuzz(func(t *testing.T, der []byte) {
		scheme, err := ParseAlgorithmIdentifier(der)
		if err != nil {
			if scheme != 0 {
				t.Fatal("a scheme was returned with an error")
			}
			return
		}
		if again, err := ParseAlgorithmIdentifier(scheme.AlgorithmIdentifier()); err != nil || again != scheme {
			t.Fatalf("%v became %v, %v", scheme, again, err)
		}
	})
}

func FuzzVerifyECDSA(f *testing.F) {
	key := testECDSA(f, elliptic.P256())
	msg := []byte("octets to be signed")
	sig, err := SignECDSA(nil, key, msg)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sig[1:])
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, forged []byte) {
		if VerifyECDSA(&key.PublicKey, msg, forged) == nil {
			t.Fatalf("%x verifies", forged)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	benchmarkSignatures(b, func(b *testing.B, key crypto.Signer, scheme SignatureScheme, msg []byte) func() error {
		random := seeded(1)
		return func() error {
			_, err := Sign(random, key, scheme, msg)
			return err
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	benchmarkSignatures(b, func(b *testing.B, key crypto.Signer, scheme SignatureScheme, msg []byte) func() error {
		sig, err := Sign(seeded(1), key, scheme, msg)
		if err != nil {
			b.Fatal(err)
		}
		pub := key.Public()
		return func() error { return Verify(pub, scheme, msg, sig) }
	})
}

func benchmarkSignatures(b *testing.B, prepare func(*testing.B, crypto.Signer, SignatureScheme, []byte) func() error) {
	msg := make([]byte, 600)
	for name, key := range testKeys(b) {
		scheme := SchemesFor(key.Public(), allHashes)[0]
		b.Run(name+"/"+scheme.String(), func(b *testing.B) {
			operation := prepare(b, key, scheme, msg)
			b.ReportAllocs()
			for b.Loop() {
				if err := operation(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
