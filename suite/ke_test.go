package suite

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"testing"
)

var keMethods = []KEID{KECurve25519, KEP256, KEP384, KEP521, KEModp2048, KEModp3072, KEModp4096}

func initiate(t testing.TB, id KEID, rand io.Reader) KEInitiator {
	t.Helper()
	k, err := InitiateKE(id, rand)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// checkExchange runs an exchange with given private keys on both sides and
// compares everything that results.
func checkExchange(t *testing.T, id KEID, i, r, publicI, publicR, secret []byte) {
	t.Helper()
	initiator := initiate(t, id, bytes.NewReader(i))
	if got := initiator.Public(); !bytes.Equal(got, publicI) {
		t.Errorf("%v: initiator's data %x, want %x", id, got, publicI)
	}
	response, got, err := RespondKE(id, bytes.NewReader(r), publicI)
	if err != nil {
		t.Fatalf("%v: %v", id, err)
	}
	if !bytes.Equal(response, publicR) {
		t.Errorf("%v: responder's data %x, want %x", id, response, publicR)
	}
	if !bytes.Equal(got, secret) {
		t.Errorf("%v: responder's secret %x, want %x", id, got, secret)
	}
	if got, err = initiator.Shared(publicR); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("%v: initiator's secret %x, %v, want %x", id, got, err, secret)
	}
}

func TestECPVectors(t *testing.T) {
	ids := map[string]KEID{"ecp256": KEP256, "ecp384": KEP384, "ecp521": KEP521}
	for _, v := range vectors(t, "rfc5903.txt") {
		var f [7][]byte
		for i := range f {
			f[i] = unhex(t, v[i+1])
		}
		i, r, gix, giy, grx, gry, girx := f[0], f[1], f[2], f[3], f[4], f[5], f[6]
		checkExchange(t, ids[v[0]], i, r, append(gix, giy...), append(grx, gry...), girx)
	}
}

// TestCurve25519Vector is RFC 8031 appendix A.
func TestCurve25519Vector(t *testing.T) {
	checkExchange(t, KECurve25519,
		unhex(t, "751fb430865 5b476b6789b7325f9ea8c ddd16a58533ff6d9e60009464a5f9d94"),
		unhex(t, "0a54645253290d60ddadd0e030bacd9e 5501efdc220755a1e978f1b839a05688"),
		unhex(t, "48d5ddd4061257ba166fa3f9bbdb74f1 a4e81c089384fa77f790709f0dfbc766"),
		unhex(t, "0be7c1f5aad87d7e4486626732 98a443 478b859745179eaf564c79c0ef6eee25"),
		unhex(t, "c74950607a12327f3204d94b6825bfb0 68b7f8319a9e3708ed3d43ce8130c950"))
}

// TestMODPVectors has exponents that count (1, 8, 15, ... and 3, 8, 13, ...), and
// SHA-256 of the results, computed with the three-argument pow of Python from the
// primes as printed in RFC 3526.
func TestMODPVectors(t *testing.T) {
	for _, v := range []struct {
		id                       KEID
		publicI, publicR, secret string
	}{
		{KEModp2048,
			"8654980f63a38c46fe3565b8ba8807297a20c7ac8bf5fb1e388b52f2add09b2a",
			"70e8d8da3198591ec3ee6188d06d68c1b3da879eeedb82409dd98baac6393b69",
			"edc99011ccc7a46724c1fe57dd24f426698ac1a377802c92c8cc2ca777e2010c"},
		{KEModp3072,
			"8ba0e2bd31d586a5622f4dea69d3fc0cffb7871fe81fede5badb8369b031b57c",
			"176c5576f0150e449d52cd7587ffd9a19220ae4d54e3babd0233d8d8b2de6a10",
			"d5dcccd95bb8caa42a73a96f6158cf9ce1ddbbea6e562c6732e8a20aaff066e5"},
		{KEModp4096,
			"dbc06580c241cf0f38dc27ad54fb4693475232f5d83292d08b8b1a2358deda9a",
			"b085995e93d02ccdfc5e4f7ba9f63ee1a63a679dac3e1dbdb7cdc37346fc9e7a",
			"57360453bf9532c925f09bede46a07dc26b765e8bb5e7f06dea20d53aed5721e"},
	} {
		n := modpGroupOf(v.id).exponentLen
		i, r := make([]byte, n), make([]byte, n)
		for j := range n {
			i[j], r[j] = byte(7*j+1), byte(5*j+3)
		}
		initiator := initiate(t, v.id, bytes.NewReader(i))
		response, secret, err := RespondKE(v.id, bytes.NewReader(r), initiator.Public())
		if err != nil {
			t.Fatal(err)
		}
		for what, c := range map[string]struct {
			got  []byte
			want string
		}{"initiator's data": {initiator.Public(), v.publicI}, "responder's data": {response, v.publicR}, "secret": {secret, v.secret}} {
			if sum := sha256.Sum256(c.got); hex.EncodeToString(sum[:]) != c.want || len(c.got) != v.id.DataLen() {
				t.Errorf("%v: wrong %s", v.id, what)
			}
		}
	}
}

// TestMODPPrimes computes the primes by the formula of RFC 3526 §3 to §5,
// p = 2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi] + k).
func TestMODPPrimes(t *testing.T) {
	for id, k := range map[KEID]int64{KEModp2048: 124476, KEModp3072: 1690314, KEModp4096: 240904} {
		n := uint(8 * id.DataLen())
		p := new(big.Int).Lsh(bigOne, n)
		p.Sub(p, new(big.Int).Lsh(bigOne, n-64))
		p.Sub(p, bigOne)
		middle := piTimesPowerOf2(n - 130)
		middle.Add(middle, big.NewInt(k))
		p.Add(p, middle.Lsh(middle, 64))
		if got := modpGroupOf(id).p; got.Cmp(p) != 0 {
			t.Errorf("%v: wrong prime", id)
		}
	}
	if p := modp2048.p; !p.ProbablyPrime(1) || !new(big.Int).Rsh(p, 1).ProbablyPrime(1) {
		t.Error("the prime of modp2048 is not a safe prime")
	}
}

// piTimesPowerOf2 returns the integer part of 2^n pi, by Machin's formula
// pi = 16 arctan(1/5) - 4 arctan(1/239).
func piTimesPowerOf2(n uint) *big.Int {
	const guard = 64
	arctan := func(x int64) *big.Int {
		term := new(big.Int).Lsh(bigOne, n+guard)
		term.Quo(term, big.NewInt(x))
		sum, square := new(big.Int), big.NewInt(x*x)
		for i := int64(1); term.Sign() != 0; i += 2 {
			part := new(big.Int).Quo(term, big.NewInt(i))
			if i%4 == 1 {
				sum.Add(sum, part)
			} else {
				sum.Sub(sum, part)
			}
			term.Quo(term, square)
		}
		return sum
	}
	pi := new(big.Int).Mul(arctan(5), big.NewInt(16))
	pi.Sub(pi, new(big.Int).Mul(arctan(239), big.NewInt(4)))
	return pi.Rsh(pi, guard)
}

func TestKERandom(t *testing.T) {
	for _, id := range keMethods {
		initiator := initiate(t, id, seeded(1))
		if again := initiate(t, id, seeded(1)); !bytes.Equal(initiator.Public(), again.Public()) {
			t.Errorf("%v: equal randomness gives different keys", id)
		}
		if other := initiate(t, id, seeded(2)); bytes.Equal(initiator.Public(), other.Public()) {
			t.Errorf("%v: different randomness gives equal keys", id)
		}
		if len(initiator.Public()) != id.DataLen() {
			t.Errorf("%v: data of %d octets", id, len(initiator.Public()))
		}
		response, secretR, err := RespondKE(id, seeded(3), initiator.Public())
		if err != nil {
			t.Fatalf("%v: %v", id, err)
		}
		secretI, err := initiator.Shared(response)
		if err != nil || !bytes.Equal(secretI, secretR) {
			t.Errorf("%v: secrets %x and %x, %v", id, secretI, secretR, err)
		}
		initiator.Zero()
		if _, err := initiator.Shared(response); err == nil {
			t.Errorf("%v: secret after Zero", id)
		}
		if _, err := InitiateKE(id, dry); !errors.Is(err, io.EOF) {
			t.Errorf("%v without randomness: %v", id, err)
		}
	}
	for _, id := range []KEID{KEP256, KEP384, KEP521} {
		if _, err := InitiateKE(id, zeros{}); err == nil {
			t.Errorf("%v: a key was made of zeros", id)
		}
	}
	// A draw that is out of range is followed by another (here the group order, then 1).
	order := unhex(t, "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")
	one := append(make([]byte, 31), 1)
	generator := "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296" +
		"4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
	if k := initiate(t, KEP256, bytes.NewReader(append(order, one...))); !bytes.Equal(k.Public(), unhex(t, generator)) {
		t.Error("a scalar out of range was not drawn again")
	}
}

// TestKERefuses is about data that a peer must not get away with (RFC 6989 §2,
// RFC 7748 §6.1).
func TestKERefuses(t *testing.T) {
	refuse := func(id KEID, what string, data []byte) {
		t.Helper()
		if _, _, err := RespondKE(id, seeded(1), data); !errors.Is(err, ErrKEData) {
			t.Errorf("%v: responder and %s: %v", id, what, err)
		}
		if _, err := initiate(t, id, seeded(1)).Shared(data); !errors.Is(err, ErrKEData) {
			t.Errorf("%v: initiator and %s: %v", id, what, err)
		}
	}
	for _, id := range keMethods {
		good := initiate(t, id, seeded(2)).Public()
		refuse(id, "nothing", nil)
		refuse(id, "one octet less", good[1:])
		refuse(id, "one octet more", append([]byte{0}, good...))
		refuse(id, "zeros", make([]byte, id.DataLen()))
	}
	for _, id := range []KEID{KEModp2048, KEModp3072, KEModp4096} {
		p, n := modpGroupOf(id).p, id.DataLen()
		number := func(add int64) []byte { return new(big.Int).Add(p, big.NewInt(add)).FillBytes(make([]byte, n)) }
		refuse(id, "1", big.NewInt(1).FillBytes(make([]byte, n)))
		refuse(id, "p-1", number(-1))
		refuse(id, "p", number(0))
		refuse(id, "p+1", number(1))
		refuse(id, "ones", bytes.Repeat([]byte{0xff}, n))
		for what, data := range map[string][]byte{"2": big.NewInt(2).FillBytes(make([]byte, n)), "p-2": number(-2)} {
			if _, _, err := RespondKE(id, seeded(1), data); err != nil {
				t.Errorf("%v: %s was refused: %v", id, what, err)
			}
		}
	}
	for _, id := range []KEID{KEP256, KEP384, KEP521} {
		off := initiate(t, id, seeded(2)).Public()
		off[len(off)-1] ^= 1
		refuse(id, "a point off the curve", off)
		refuse(id, "coordinates out of range", bytes.Repeat([]byte{0xff}, id.DataLen()))
	}
	// Points of small order, which give zero (RFC 7748 §6.1): u = 1, and p - 1.
	refuse(KECurve25519, "u = 1", append([]byte{1}, make([]byte, 31)...))
	minusOne := bytes.Repeat([]byte{0xff}, 32)
	minusOne[0], minusOne[31] = 0xec, 0x7f
	refuse(KECurve25519, "u = p-1", minusOne)

	if _, err := InitiateKE(KENone, seeded(1)); err == nil {
		t.Error("KENone was accepted")
	}
	if _, _, err := RespondKE(2, seeded(1), make([]byte, 128)); err == nil {
		t.Error("modp1024 was accepted")
	}
}

// TestCurve25519HighBit: the highest bit of the peer's value is masked, not
// refused (RFC 8031 §3.2).
func TestCurve25519HighBit(t *testing.T) {
	initiator := initiate(t, KECurve25519, seeded(1))
	peer := initiate(t, KECurve25519, seeded(2)).Public()
	want, err := initiator.Shared(peer)
	if err != nil {
		t.Fatal(err)
	}
	peer[31] |= 0x80
	if got, err := initiator.Shared(peer); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
}

// TestMODPLeadingZeros: secrets and public values keep the length of the modulus
// (RFC 7296 §2.14). About one exchange in 256 has a leading zero.
func TestMODPLeadingZeros(t *testing.T) {
	initiator := initiate(t, KEModp2048, seeded(1))
	for i := range 3000 {
		// 2^i as the peer's value, which makes the secret public^i.
		secret, err := initiator.Shared(new(big.Int).Lsh(bigOne, uint(1+i%2000)).FillBytes(make([]byte, 256)))
		if err != nil || len(secret) != 256 {
			t.Fatalf("secret of %d octets, %v", len(secret), err)
		}
		if secret[0] == 0 {
			return
		}
	}
	t.Error("no leading zero came up")
}

func FuzzRespondKE(f *testing.F) {
	for _, id := range keMethods[:5] {
		k := initiate(f, id, seeded(1))
		f.Add(uint16(id), k.Public())
		f.Add(uint16(id), make([]byte, id.DataLen()))
	}
	f.Fuzz(func(t *testing.T, id uint16, request []byte) {
		response, secret, err := RespondKE(KEID(id), seeded(9), request)
		if err != nil {
			if response != nil || secret != nil {
				t.Fatal("a result was returned with an error")
			}
			return
		}
		if len(response) != KEID(id).DataLen() || bytes.Equal(secret, make([]byte, len(secret))) {
			t.Fatalf("%v: response %x, secret %x", KEID(id), response, secret)
		}
	})
}

func BenchmarkRespondKE(b *testing.B) {
	for _, id := range keMethods {
		b.Run(id.String(), func(b *testing.B) {
			request, random := initiate(b, id, seeded(1)).Public(), seeded(2)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := RespondKE(id, random, request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
