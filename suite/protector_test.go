package suite

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"math"
	"testing"
)

// TestESPExampleChaCha20 is RFC 7634 appendix A.
func TestESPExampleChaCha20(t *testing.T) {
	aead, err := NewAEAD(Encr{EncrChaCha20Poly1305, 0}, counting(0x80, 32))
	if err != nil {
		t.Fatal(err)
	}
	plaintext := unhex(t, `45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10
		0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627
		28292a2b2c2d2e2f303132333435363701020204`)
	want := unhex(t, `24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6
		14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3
		cbec163fac469b502773f6fb94e664da9165b82829f641e0
		76aaa8266b7fb0f7b11b369907e1ad43`)
	nonce := unhex(t, "a0a1a2a3 1011121314151617")
	if got := aead.Seal(nil, nonce, plaintext, unhex(t, "0102030400000005")); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// TestIKEExampleChaCha20 is RFC 7634 appendix B.
func TestIKEExampleChaCha20(t *testing.T) {
	p := newTestProtector(t, Encr{EncrChaCha20Poly1305, 0}, IntegNone, counting(0x80, 36), nil)
	p.next = binary.BigEndian.Uint64(unhex(t, "1011121314151617"))
	message := unhex(t, "c0c1c2c3c4c5c6c7d0d1d2d3d4d5d6d72e20250000000009000000452900002910111213"+
		"14151617610394701f8d017f7c12924889 6b71bfe25236efd7cdc67066906315b2")
	aad, notify := message[:32], unhex(t, "0000000c000040010000000a")
	if n := p.SealedLen(len(notify)); n != len(message)-len(aad) {
		t.Errorf("SealedLen is %d", n)
	}
	got, err := p.Seal(bytes.Clone(aad), aad, notify, nil)
	if err != nil || !bytes.Equal(got, message) {
		t.Errorf("Seal: got %x, %v", got, err)
	}
	opened, err := p.Open(aad, message[32:])
	if err != nil || !bytes.Equal(opened, notify) {
		t.Errorf("Open: got %x, %v", opened, err)
	}
}

// TestIKEExampleCBC has a vector made with OpenSSL: enc -aes-256-cbc, then dgst
// -sha256 -mac HMAC over associated data, IV and ciphertext, cut to 16 octets.
func TestIKEExampleCBC(t *testing.T) {
	p := newTestProtector(t, Encr{EncrAESCBC, 256}, IntegHMACSHA256, counting(0, 32), counting(0x40, 32))
	aad, plaintext := counting(0xc0, 32), unhex(t, "0000000c000040010000000a")
	want := unhex(t, "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf d055421a4096586c2c3d54ffac050750 cf8209217e8844bb1247c24d2820ffe1")
	got, err := p.Seal(nil, aad, plaintext, bytes.NewReader(counting(0xa0, 16)))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("Seal: got %x, %v", got, err)
	}
	opened, err := p.Open(aad, want)
	if err != nil || !bytes.Equal(opened, plaintext) {
		t.Errorf("Open: got %x, %v", opened, err)
	}
}

// TestCBCVectors are cases 1 and 2 of RFC 3602 §4.
func TestCBCVectors(t *testing.T) {
	for _, v := range []struct{ key, iv, plaintext, ciphertext string }{
		{"06a9214036b8a15b512e03d534120006", "3dafba429d9eb430b422da802c9fac41",
			"53696e676c6520626c6f636b206d7367", "e353779c1079aeb82708942dbe77181a"},
		{"c286696d887c9aa0611bbb3e2025a45a", "562e17996d093d28ddb3ba695a2e6f58",
			"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
			"d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1"},
	} {
		block, err := NewCBCBlock(Encr{EncrAESCBC, 128}, unhex(t, v.key))
		if err != nil {
			t.Fatal(err)
		}
		got := unhex(t, v.plaintext)
		cipher.NewCBCEncrypter(block, unhex(t, v.iv)).CryptBlocks(got, got)
		if !bytes.Equal(got, unhex(t, v.ciphertext)) {
			t.Errorf("got %x, want %s", got, v.ciphertext)
		}
	}
}

// counting returns n octets that count up.
func counting(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

func newTestProtector(t testing.TB, encr Encr, integ IntegID, encrKey, integKey []byte) *Protector {
	t.Helper()
	p, err := NewProtector(encr, integ, encrKey, integKey)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// protections are all combinations that an IKE SA can have.
var protections = []struct {
	encr  Encr
	integ IntegID
}{
	{Encr{EncrAESGCM16, 128}, IntegNone},
	{Encr{EncrAESGCM16, 256}, IntegNone},
	{Encr{EncrChaCha20Poly1305, 0}, IntegNone},
	{Encr{EncrAESCBC, 128}, IntegHMACSHA256},
	{Encr{EncrAESCBC, 256}, IntegHMACSHA384},
	{Encr{EncrAESCBC, 256}, IntegHMACSHA512},
}

func TestProtectorRoundTrip(t *testing.T) {
	for _, c := range protections {
		encrKey, integKey := counting(1, c.encr.KeyMaterialLen()), counting(7, c.integ.KeyLen())
		sender := newTestProtector(t, c.encr, c.integ, encrKey, integKey)
		receiver := newTestProtector(t, c.encr, c.integ, encrKey, integKey)
		clear(encrKey) // keys must have been copied
		clear(integKey)
		random := seeded(1)
		for n := range 70 {
			header, plaintext := counting(3, 32), counting(9, n)
			// Once with aad as the content of dst and no room behind it, once with.
			for _, room := range []int{0, 500} {
				dst := append(make([]byte, 0, len(header)+room), header...)
				sealed, err := sender.Seal(dst, dst, plaintext, random)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := len(sealed)-len(header), sender.SealedLen(n); got != want {
					t.Fatalf("%v: %d octets sealed to %d, SealedLen says %d", c.encr, n, got, want)
				}
				if !bytes.Equal(sealed[:len(header)], header) {
					t.Fatalf("%v: Seal changed what was before", c.encr)
				}
				before := bytes.Clone(sealed)
				opened, err := receiver.Open(header, sealed[len(header):])
				if err != nil || !bytes.Equal(opened, plaintext) {
					t.Fatalf("%v: opened %x, %v", c.encr, opened, err)
				}
				if !bytes.Equal(before, sealed) {
					t.Fatalf("%v: Open changed its argument", c.encr)
				}
			}
		}
	}
}

// TestProtectorRefuses changes each bit, and cuts at each length.
func TestProtectorRefuses(t *testing.T) {
	for _, c := range protections {
		p := newTestProtector(t, c.encr, c.integ, counting(1, c.encr.KeyMaterialLen()), counting(7, c.integ.KeyLen()))
		aad := counting(0, 32)
		sealed, err := p.Seal(nil, aad, []byte("payloads"), seeded(1))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 8 * len(sealed) {
			forged := bytes.Clone(sealed)
			forged[i/8] ^= 1 << (i % 8)
			if got, err := p.Open(aad, forged); !errors.Is(err, ErrIntegrity) || got != nil {
				t.Fatalf("%v: bit %d changed: got %x, %v", c.encr, i, got, err)
			}
		}
		for i := range 8 * len(aad) {
			forged := bytes.Clone(aad)
			forged[i/8] ^= 1 << (i % 8)
			if _, err := p.Open(forged, sealed); !errors.Is(err, ErrIntegrity) {
				t.Fatalf("%v: bit %d of the header changed: %v", c.encr, i, err)
			}
		}
		for n := range sealed {
			if _, err := p.Open(aad, sealed[:n]); !errors.Is(err, ErrIntegrity) {
				t.Fatalf("%v: cut to %d: %v", c.encr, n, err)
			}
		}
		if _, err := p.Open(aad, append(bytes.Clone(sealed), 0)); !errors.Is(err, ErrIntegrity) {
			t.Fatalf("%v: one octet more: %v", c.encr, err)
		}
	}
}

// TestAuthenticButMalformed is about what a peer with the keys can send.
func TestAuthenticButMalformed(t *testing.T) {
	aad := counting(0, 32)
	aead := newTestProtector(t, Encr{EncrAESGCM16, 128}, IntegNone, counting(1, 20), nil)
	sealAEAD := func(plaintext []byte) []byte {
		return append(make([]byte, 8), aead.aead.Seal(nil, append(counting(17, 4), make([]byte, 8)...), plaintext, aad)...)
	}
	cbc := newTestProtector(t, Encr{EncrAESCBC, 128}, IntegHMACSHA256, counting(1, 16), counting(7, 32))
	sealCBC := func(plaintext []byte) []byte {
		sealed := append(make([]byte, 16), plaintext...)
		if len(plaintext)%16 == 0 && len(plaintext) > 0 {
			cipher.NewCBCEncrypter(cbc.block, sealed[:16]).CryptBlocks(sealed[16:], plaintext)
		}
		return append(sealed, cbc.sum(aad, sealed)...)
	}
	for name, c := range map[string]struct {
		p      *Protector
		sealed []byte
		want   []byte // nil: ErrPadding
	}{
		"AEAD, no pad length":        {aead, sealAEAD(nil), nil},
		"AEAD, pad length too great": {aead, sealAEAD([]byte{1, 2, 3}), nil},
		"AEAD, all padding":          {aead, sealAEAD([]byte{9, 9, 2}), []byte{}},
		"AEAD, needless padding":     {aead, sealAEAD([]byte{5, 9, 9, 2}), []byte{5}},
		"CBC, nothing":               {cbc, sealCBC(nil), nil},
		"CBC, half a block":          {cbc, sealCBC(make([]byte, 8)), nil},
		"CBC, pad length too great":  {cbc, sealCBC(append(make([]byte, 15), 16)), nil},
		"CBC, all padding":           {cbc, sealCBC(append(make([]byte, 15), 15)), []byte{}},
		"CBC, a block of padding":    {cbc, sealCBC(append(append([]byte{5}, make([]byte, 30)...), 30)), []byte{5}},
	} {
		got, err := c.p.Open(aad, c.sealed)
		if c.want == nil && !errors.Is(err, ErrPadding) {
			t.Errorf("%s: got %x, %v", name, got, err)
		}
		if c.want != nil && (err != nil || !bytes.Equal(got, c.want)) {
			t.Errorf("%s: got %x, %v", name, got, err)
		}
	}
}

func TestProtectorIVs(t *testing.T) {
	p := newTestProtector(t, Encr{EncrAESGCM16, 256}, IntegNone, counting(1, 36), nil)
	seen := make(map[string]bool)
	for range 1000 {
		sealed, err := p.Seal(nil, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if iv := string(sealed[:8]); seen[iv] {
			t.Fatalf("IV %x is used twice", iv)
		} else {
			seen[iv] = true
		}
	}
	p.next = math.MaxUint64
	if _, err := p.Seal(nil, nil, nil, nil); err != nil {
		t.Errorf("the last IV is refused: %v", err)
	}
	if _, err := p.Seal(nil, nil, nil, nil); err == nil {
		t.Error("IVs start again")
	}

	cbc := newTestProtector(t, Encr{EncrAESCBC, 256}, IntegHMACSHA256, counting(1, 32), counting(1, 32))
	if _, err := cbc.Seal(nil, nil, nil, dry); err == nil {
		t.Error("CBC sealed without randomness")
	}
}

func TestProtectorArguments(t *testing.T) {
	for name, c := range map[string]struct {
		encr            Encr
		integ           IntegID
		encrKey, integ2 int
	}{
		"AEAD without salt":             {Encr{EncrAESGCM16, 256}, IntegNone, 32, 0},
		"AEAD with integrity":           {Encr{EncrAESGCM16, 256}, IntegHMACSHA256, 36, 32},
		"AEAD with integrity key":       {Encr{EncrAESGCM16, 256}, IntegNone, 36, 32},
		"CBC without integrity":         {Encr{EncrAESCBC, 256}, IntegNone, 32, 0},
		"CBC with short key":            {Encr{EncrAESCBC, 256}, IntegHMACSHA256, 31, 32},
		"CBC with short integrity key":  {Encr{EncrAESCBC, 256}, IntegHMACSHA256, 32, 31},
		"AEAD with impossible key bits": {Encr{EncrAESGCM16, 64}, IntegNone, 4, 0},
	} {
		if p, err := NewProtector(c.encr, c.integ, make([]byte, c.encrKey), make([]byte, c.integ2)); err == nil || p != nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestProtectorZero(t *testing.T) {
	for _, c := range protections {
		p := newTestProtector(t, c.encr, c.integ, counting(1, c.encr.KeyMaterialLen()), counting(7, c.integ.KeyLen()))
		sealed, err := p.Seal(nil, nil, []byte("x"), seeded(1))
		if err != nil {
			t.Fatal(err)
		}
		p.Zero()
		if _, err := p.Seal(nil, nil, []byte("x"), seeded(1)); err == nil {
			t.Errorf("%v: sealed after Zero", c.encr)
		}
		if _, err := p.Open(nil, sealed); err == nil {
			t.Errorf("%v: opened after Zero", c.encr)
		}
		if p.nonce != [12]byte{} {
			t.Errorf("%v: salt left after Zero", c.encr)
		}
	}
}

func FuzzProtectorOpen(f *testing.F) {
	var ps []*Protector
	for _, c := range protections {
		p := newTestProtector(f, c.encr, c.integ, counting(1, c.encr.KeyMaterialLen()), counting(7, c.integ.KeyLen()))
		sealed, err := p.Seal(nil, []byte("header"), []byte("payloads"), seeded(1))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(len(ps)), []byte("header"), sealed)
		f.Add(byte(len(ps)), []byte("Header"), sealed)
		f.Add(byte(len(ps)), []byte("header"), sealed[:len(sealed)-1])
		ps = append(ps, p)
	}
	f.Fuzz(func(t *testing.T, which byte, aad, sealed []byte) {
		p := ps[int(which)%len(ps)]
		aadBefore, before := bytes.Clone(aad), bytes.Clone(sealed)
		plaintext, err := p.Open(aad, sealed)
		if !bytes.Equal(aad, aadBefore) || !bytes.Equal(sealed, before) {
			t.Fatal("Open changed its arguments")
		}
		if err != nil && plaintext != nil {
			t.Fatal("plaintext returned with an error")
		}
		if err == nil && string(aad) != "header" {
			t.Fatal("a forgery was opened")
		}
	})
}

func BenchmarkProtector(b *testing.B) {
	for _, c := range protections {
		b.Run(c.encr.String(), func(b *testing.B) {
			p := newTestProtector(b, c.encr, c.integ, counting(1, c.encr.KeyMaterialLen()), counting(7, c.integ.KeyLen()))
			header, payloads, random := make([]byte, 32), make([]byte, 1000), seeded(1)
			b.ReportAllocs()
			b.SetBytes(1000)
			for b.Loop() {
				sealed, err := p.Seal(nil, header, payloads, random)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := p.Open(header, sealed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
