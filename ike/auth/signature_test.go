package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// rfc4754 holds the signatures of RFC 4754 §8 over "abc": the public key, and the
// authentication data as it stands in the payload.
var rfc4754 = []struct {
	method     message.AuthMethod
	curve      elliptic.Curve
	x, y, auth string
}{
	{message.AuthECDSA256, elliptic.P256(),
		"2442a5cc0ecd015fa3ca31dc8e2bbc70bf42d60cbca20085e0822cb04235e970",
		"6fc98bd7e50211a4a27102fa3549df79ebcb4bf246b80945cddfe7d509bbfd7d",
		"cb28e0999b9c7715fd0a80d8e47a77079716cbbf917dd72e97566ea1c066957c86fa3bb4e26cad5bf90b7f81899256ce" +
			"7594bb1ea0c89212748bff3b3d5b0315"},
	{message.AuthECDSA384, elliptic.P384(),
		"96281bf8dd5e0525ca049c048d345d3082968d10fedf5c5aca0c64e6465a97ea5ce10c9dfec21797415710721f437922",
		"447688ba94708eb6e2e4d59f6ab6d7edff9301d249fe49c33096655f5d502fad3d383b91c5e7edaa2b714cc99d5743ca",
		"fb017b914e29149432d8bac29a514640b46f53ddab2c69948084e2930f1c8f7e08e07c9c63f2d21a07dcb56a6af56eb3" +
			"b263a1305e057f984d38726a1b46874109f417bca112674c528262a40a629af1cbb9f516ce0fa7d2ff630863a00e8b9f"},
	{message.AuthECDSA521, elliptic.P521(),
		"0151518f1af0f563517edd5485190df95a4bf57b5cba4cf2a9a3f6474725a35f7afe0a6ddeb8bedbcd6a197e592d4018" +
			"8901cecd650699c9b5e456aea5add19052a8",
		"006f3b142ea1bfff7e2837ad44c9e4ff6d2d34c73184bbad90026dd5e6e85317d9df45cad7803c6c20035b2f3ff63aff" +
			"4e1ba64d1c077577da3f4286c58f0aeae643",
		"0154fd3836af92d0dca57dd5341d3053988534fde8318fc6aaaab68e2e6f4339b19f2f281a7e0b22c269d93cf8794a92" +
			"78880ed7dbb8d9362caeacee544320552251017705a7030290d1ceb605a9a1bb03ff9cdd521e87a696ec926c8c10c836" +
			"2df4975367101f67d1cf9bccbf2f3d239534fa509e70aac851ae01aac68d62f866472660"},
}

func TestVerifySignatureRFC4754(t *testing.T) {
	for _, v := range rfc4754 {
		point, err := hex.DecodeString("04" + v.x + v.y)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := ecdsa.ParseUncompressedPublicKey(v.curve, point)
		if err != nil {
			t.Fatal(err)
		}
		data, err := hex.DecodeString(v.auth)
		if err != nil {
			t.Fatal(err)
		}
		a := &message.Auth{Method: v.method, Data: data}
		if err := VerifySignature(a, pub, []byte("abc")); err != nil {
			t.Errorf("method %d: %v", v.method, err)
		}
		if err := VerifySignature(a, pub, []byte("abd")); !errors.Is(err, ErrBadSignature) {
			t.Errorf("method %d, other message: %v", v.method, err)
		}
	}
}

var allHashes = []suite.HashID{suite.HashSHA256, suite.HashSHA384, suite.HashSHA512, suite.HashIdentity}

func TestSignAndVerify(t *testing.T) {
	octets := []byte("the signed octets")
	for _, tc := range []struct {
		key    string
		hashes []suite.HashID
		pkcs1  bool
		method message.AuthMethod
		// prefix of the AUTH data of method 14: the AlgorithmIdentifier of RFC 7427
		// Appendix A, RFC 8420 Appendix A.
		prefix string
	}{
		{"rsa", allHashes, false, message.AuthDigitalSignature, "43304106092a864886f70d01010a"},
		{"rsa", allHashes, true, message.AuthDigitalSignature, "0f300d06092a864886f70d01010b0500"},
		{"rsa", []suite.HashID{1, suite.HashSHA512}, true, message.AuthDigitalSignature, "0f300d06092a864886f70d01010d0500"},
		{"rsa", nil, false, message.AuthRSA, ""},
		{"rsa", []suite.HashID{1}, false, message.AuthRSA, ""},
		{"p256", allHashes, false, message.AuthDigitalSignature, "0c300a06082a8648ce3d040302"},
		{"p256", []suite.HashID{suite.HashSHA384}, false, message.AuthDigitalSignature, "0c300a06082a8648ce3d040303"},
		{"p256", nil, false, message.AuthECDSA256, ""},
		{"p384", allHashes, false, message.AuthDigitalSignature, "0c300a06082a8648ce3d040303"},
		{"p384", nil, false, message.AuthECDSA384, ""},
		{"p521", allHashes, false, message.AuthDigitalSignature, "0c300a06082a8648ce3d040304"},
		{"p521", []suite.HashID{}, false, message.AuthECDSA521, ""},
		{"ed25519", allHashes, false, message.AuthDigitalSignature, "0730050603" + "2b6570"},
	} {
		l := &Local{ID: mustIdentity(t, laptop), Key: testKey(t, tc.key), PreferPKCS1: tc.pkcs1}
		a, err := Sign(rand.Reader, l, tc.hashes, octets)
		if err != nil {
			t.Errorf("%s: %v", tc.key, err)
			continue
		}
		if a.Method != tc.method {
			t.Errorf("%s, hashes %v: method %d, want %d", tc.key, tc.hashes, a.Method, tc.method)
		}
		if prefix, _ := hex.DecodeString(tc.prefix); !bytes.HasPrefix(a.Data, prefix) {
			t.Errorf("%s, hashes %v: data begins with %x, want %s", tc.key, tc.hashes, a.Data[:20], tc.prefix)
		}
		if err := VerifySignature(a, l.Key.Public(), octets); err != nil {
			t.Errorf("%s, hashes %v: %v", tc.key, tc.hashes, err)
		}
		if err := VerifySignature(a, l.Key.Public(), octets[1:]); !errors.Is(err, ErrBadSignature) {
			t.Errorf("%s, other octets: %v", tc.key, err)
		}
		other := testKey(t, map[bool]string{true: "p256", false: "p521"}[tc.key != "p256"])
		if err := VerifySignature(a, other.Public(), octets); !errors.Is(err, ErrBadSignature) {
			t.Errorf("%s, key of another kind: %v", tc.key, err)
		}
		for n := range a.Data {
			cut := &message.Auth{Method: a.Method, Data: a.Data[:n]}
			if VerifySignature(cut, l.Key.Public(), octets) == nil {
				t.Errorf("%s: verified with %d of %d octets", tc.key, n, len(a.Data))
			}
		}
		longer := &message.Auth{Method: a.Method, Data: append(bytes.Clone(a.Data), 0)}
		if VerifySignature(longer, l.Key.Public(), octets) == nil {
			t.Errorf("%s: verified with an octet appended", tc.key)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		local  Local
		hashes []suite.HashID
		want   error
	}{
		{"no key", Local{}, allHashes, ErrNoCredentials},
		{"weak key", Local{Key: testKey(t, "rsa1024")}, allHashes, ErrWeakKey},
		{"Ed25519 without RFC 7427", Local{Key: testKey(t, "ed25519")}, nil, ErrMethodRefused},
		{"Ed25519 without the Identity hash", Local{Key: testKey(t, "ed25519")}, allHashes[:3], ErrMethodRefused},
	} {
		if a, err := Sign(rand.Reader, &tc.local, tc.hashes, []byte("octets")); !errors.Is(err, tc.want) || a != nil {
			t.Errorf("%s: got %v, %v", tc.name, a, err)
		}
	}
}

func TestVerifySignatureRefuses(t *testing.T) {
	octets := []byte("octets")
	rsaKey := testKey(t, "rsa").(*rsa.PrivateKey)
	sum := sha1.Sum(octets)
	sha1Signature, err := rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA1, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	fromHex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	weak := testKey(t, "rsa1024").(*rsa.PrivateKey)
	digest := crypto.SHA256.New()
	digest.Write(octets)
	weakSignature, err := rsa.SignPKCS1v15(rand.Reader, weak, crypto.SHA256, digest.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		a    message.Auth
		pub  crypto.PublicKey
		want error
	}{
		{"SHA-1 by method 1", message.Auth{Method: message.AuthRSA, Data: sha1Signature}, rsaKey.Public(), ErrWeakKey},
		// RFC 7427 §A.1.1, §A.4.1, §A.3.1
		{"SHA-1 by method 14", message.Auth{Method: 14, Data: append(fromHex("0f300d06092a864886f70d0101050500"), sha1Signature...)}, rsaKey.Public(), ErrWeakKey},
		{"PSS with default parameters", message.Auth{Method: 14, Data: append(fromHex("0f300d06092a864886f70d01010a3000"), sha1Signature...)}, rsaKey.Public(), ErrWeakKey},
		{"ECDSA with SHA-1", message.Auth{Method: 14, Data: fromHex("0b300906072a8648ce3d0401" + "00")}, testKey(t, "p256").Public(), ErrWeakKey},
		{"RSA with 1024 bits", message.Auth{Method: message.AuthRSA, Data: weakSignature}, weak.Public(), ErrWeakKey},
		{"no data", message.Auth{Method: 14}, rsaKey.Public(), ErrBadSignature},
		{"no algorithm", message.Auth{Method: 14, Data: []byte{0}}, rsaKey.Public(), ErrMethodRefused},
		{"junk algorithm", message.Auth{Method: 14, Data: fromHex("0401020304")}, rsaKey.Public(), ErrMethodRefused},
		{"length beyond the end", message.Auth{Method: 14, Data: fromHex("ff300a06082a8648ce3d040302")}, rsaKey.Public(), ErrBadSignature},
		{"longest length", message.Auth{Method: 14, Data: append([]byte{0xff}, make([]byte, 300)...)}, rsaKey.Public(), ErrMethodRefused},
		{"longest length, nothing behind", message.Auth{Method: 14, Data: append([]byte{0xff}, make([]byte, 255)...)}, rsaKey.Public(), ErrMethodRefused},
		{"shared key", message.Auth{Method: message.AuthSharedKey}, rsaKey.Public(), ErrMethodRefused},
		{"DSS", message.Auth{Method: 3}, rsaKey.Public(), ErrMethodRefused},
		{"NULL authentication", message.Auth{Method: 13}, rsaKey.Public(), ErrMethodRefused},
		{"method of another curve", message.Auth{Method: message.AuthECDSA256, Data: make([]byte, 64)}, testKey(t, "p384").Public(), ErrBadSignature},
		{"zero signature", message.Auth{Method: message.AuthECDSA256, Data: make([]byte, 64)}, testKey(t, "p256").Public(), ErrBadSignature},
		{"no key", message.Auth{Method: message.AuthRSA, Data: sha1Signature}, nil, ErrWeakKey},
	} {
		if err := VerifySignature(&tc.a, tc.pub, octets); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
}

func FuzzVerifySignature(f *testing.F) {
	octets := []byte("octets")
	var keys []crypto.Signer
	for _, kind := range []string{"rsa", "p256", "p384", "p521", "ed25519"} {
		key := testKey(f, kind)
		keys = append(keys, key)
		for _, hashes := range [][]suite.HashID{allHashes, nil} {
			if a, err := Sign(rand.Reader, &Local{Key: key}, hashes, octets); err == nil {
				f.Add(uint8(a.Method), a.Data)
			}
		}
	}
	f.Add(uint8(14), []byte{0xff})
	f.Fuzz(func(t *testing.T, method uint8, data []byte) {
		a := &message.Auth{Method: message.AuthMethod(method), Data: data}
		for _, key := range keys {
			// The octets are fresh, so no input can hold a signature over them.
			if VerifySignature(a, key.Public(), freshOctets()) == nil {
				t.Fatalf("%x verifies as a signature by method %d", data, method)
			}
		}
	})
}

func freshOctets() []byte {
	b := make([]byte, 32)
	rand.Read(b)
	return b
}
