package suite

import (
	"bytes"
	"testing"
)

func TestHMACVectors(t *testing.T) {
	prfs := map[string]PRFID{"prfsha256": PRFHMACSHA256, "prfsha384": PRFHMACSHA384, "prfsha512": PRFHMACSHA512}
	integs := map[string]IntegID{"sha256": IntegHMACSHA256, "sha384": IntegHMACSHA384, "sha512": IntegHMACSHA512}
	for _, v := range vectors(t, "rfc4868.txt") {
		name, key, data, want := v[0]+" "+v[1], unhex(t, v[2]), unhex(t, v[3]), unhex(t, v[4])
		if id, ok := prfs[v[1]]; ok {
			prf, err := NewPRF(id)
			if err != nil {
				t.Fatal(err)
			}
			if got := prf.Sum(key, data); !bytes.Equal(got, want) || len(got) != prf.KeyLen() {
				t.Errorf("%s: got %x, want %x", name, got, want)
			}
			if got := prf.Sum(key, data[:3], nil, data[3:]); !bytes.Equal(got, want) {
				t.Errorf("%s in parts: got %x, want %x", name, got, want)
			}
			continue
		}
		id := integs[v[1]]
		mac, err := NewHMAC(id, key)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		mac.Write(data)
		if got := mac.Sum(nil)[:id.TagLen()]; !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, want %x", name, got, want)
		}
	}
}

// TestPRFPlus compares prf+ with its definition in RFC 7296 §2.13, written out.
func TestPRFPlus(t *testing.T) {
	key, seed := []byte("SKEYSEED"), []byte("nonces and SPIs")
	for _, id := range []PRFID{PRFHMACSHA256, PRFHMACSHA384, PRFHMACSHA512} {
		prf, err := NewPRF(id)
		if err != nil {
			t.Fatal(err)
		}
		var want, block []byte
		for i := 1; i <= 255; i++ {
			block = prf.Sum(key, append(append(bytes.Clone(block), seed...), byte(i)))
			want = append(want, block...)
		}
		size := prf.KeyLen()
		for _, n := range []int{0, 1, size - 1, size, size + 1, 7 * size, 255*size - 1, 255 * size} {
			if got := prf.Plus(key, seed, n); !bytes.Equal(got, want[:n]) {
				t.Errorf("%v: prf+ of %d octets is wrong", id, n)
			}
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v: prf+ beyond 255 blocks did not panic", id)
				}
			}()
			prf.Plus(key, seed, 255*size+1)
		}()
	}
}

func TestUnsupportedAlgorithms(t *testing.T) {
	if _, err := NewPRF(2); err == nil { // HMAC-SHA1
		t.Error("PRF_HMAC_SHA1 was accepted")
	}
	if _, err := NewHMAC(2, make([]byte, 20)); err == nil { // HMAC-SHA1-96
		t.Error("AUTH_HMAC_SHA1_96 was accepted")
	}
	if _, err := NewHMAC(IntegNone, nil); err == nil {
		t.Error("an HMAC without algorithm was accepted")
	}
	for _, id := range []IntegID{IntegHMACSHA256, IntegHMACSHA384, IntegHMACSHA512} {
		for _, n := range []int{0, id.KeyLen() - 1, id.KeyLen() + 1} {
			if _, err := NewHMAC(id, make([]byte, n)); err == nil {
				t.Errorf("%v with a key of %d octets was accepted", id, n)
			}
		}
	}
	for _, encr := range []Encr{{3, 0}, {EncrAESCBC, 0}, {EncrAESCBC, 192}, {EncrAESGCM16, 0}, {EncrAESGCM16, 64}, {EncrChaCha20Poly1305, 256}} {
		if encr.Valid() || encr.KeyLen() != 0 {
			t.Errorf("%v counts as valid", encr)
		}
		if _, err := NewAEAD(encr, make([]byte, 32)); err == nil {
			t.Errorf("%v was accepted as AEAD cipher", encr)
		}
		if _, err := NewProtector(encr, IntegHMACSHA256, make([]byte, encr.KeyMaterialLen()), make([]byte, 32)); err == nil {
			t.Errorf("%v was accepted for IKE", encr)
		}
	}
}

// TestSizes pins the numbers that key derivation depends on (RFC 4106 §8.1,
// RFC 7634 §2, RFC 3602 §3, RFC 4868 §2.6, RFC 5903 §7).
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		encr                                  Encr
		aead                                  bool
		key, salt, iv, icv, block, keyMateral int
	}{
		{Encr{EncrAESCBC, 128}, false, 16, 0, 16, 0, 16, 16},
		{Encr{EncrAESCBC, 256}, false, 32, 0, 16, 0, 16, 32},
		{Encr{EncrAESGCM16, 128}, true, 16, 4, 8, 16, 1, 20},
		{Encr{EncrAESGCM16, 256}, true, 32, 4, 8, 16, 1, 36},
		{Encr{EncrChaCha20Poly1305, 0}, true, 32, 4, 8, 16, 1, 36},
	} {
		e := c.encr
		if !e.Valid() || e.AEAD() != c.aead || e.KeyLen() != c.key || e.SaltLen() != c.salt || e.IVLen() != c.iv ||
			e.ICVLen() != c.icv || e.BlockLen() != c.block || e.KeyMaterialLen() != c.keyMateral {
			t.Errorf("wrong sizes for %v", e)
		}
	}
	for id, want := range map[IntegID][2]int{IntegHMACSHA256: {32, 16}, IntegHMACSHA384: {48, 24}, IntegHMACSHA512: {64, 32}, IntegNone: {0, 0}} {
		if id.KeyLen() != want[0] || id.TagLen() != want[1] || !id.Valid() {
			t.Errorf("wrong sizes for %v", id)
		}
	}
	for id, want := range map[KEID]int{KEModp2048: 256, KEModp3072: 384, KEModp4096: 512, KEP256: 64, KEP384: 96, KEP521: 132, KECurve25519: 32, KENone: 0, 2: 0} {
		if id.DataLen() != want || id.Valid() != (want != 0) {
			t.Errorf("wrong size for %v", id)
		}
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		Encr{EncrAESCBC, 256}.String():         "aes256",
		Encr{EncrAESGCM16, 128}.String():       "aes128gcm16",
		Encr{EncrChaCha20Poly1305, 0}.String(): "chacha20poly1305",
		Encr{EncrAESCBC, 0}.String():           "ENCR_AES_CBC",
		Encr{3, 0}.String():                    "ENCR_3",
		Encr{13, 128}.String():                 "ENCR_13_128",
		PRFHMACSHA384.String():                 "prfsha384",
		PRFID(2).String():                      "PRF_2",
		IntegHMACSHA512.String():               "sha512",
		IntegID(2).String():                    "INTEG_2",
		IntegNone.String():                     "none",
		KECurve25519.String():                  "x25519",
		KEID(2).String():                       "KE_2",
		HashIdentity.String():                  "identity",
		HashID(1).String():                     "HASH_1",
		SignatureScheme(99).String():           "signature scheme 99",
		IKEAlgorithms{Encr{EncrAESCBC, 256}, IntegHMACSHA256, PRFHMACSHA256, KEP256}.String(): "aes256-sha256-prfsha256-ecp256",
		ESPAlgorithms{Encr: Encr{EncrAESGCM16, 256}, ESN: true}.String():                      "aes256gcm16-esn",
		ESPAlgorithms{Encr{EncrAESCBC, 128}, IntegHMACSHA256, KEModp2048, false}.String():     "aes128-sha256-modp2048-noesn",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func BenchmarkPRFPlus(b *testing.B) {
	prf, _ := NewPRF(PRFHMACSHA256)
	key, seed := make([]byte, 32), make([]byte, 80)
	b.ReportAllocs()
	for b.Loop() {
		prf.Plus(key, seed, 5*32+2*36)
	}
}
