package esp

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math"
	mathrand "math/rand/v2"
	"sync"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

// testRand is a reproducible source of randomness.
func testRand() *mathrand.ChaCha8 { return mathrand.NewChaCha8([32]byte{1}) }

// referenceICV computes the ICV of RFC 4868 without the code under test.
func referenceICV(integ suite.IntegID, key, authenticated []byte, seq uint64, esn bool) []byte {
	newHash, n := map[suite.IntegID]func() hash.Hash{
		suite.IntegHMACSHA256: sha256.New, suite.IntegHMACSHA384: sha512.New384, suite.IntegHMACSHA512: sha512.New,
	}[integ], map[suite.IntegID]int{suite.IntegHMACSHA256: 16, suite.IntegHMACSHA384: 24, suite.IntegHMACSHA512: 32}[integ]
	h := hmac.New(newHash, key)
	h.Write(authenticated)
	if esn {
		binary.Write(h, binary.BigEndian, uint32(seq>>32))
	}
	return h.Sum(nil)[:n]
}

type testAlgorithm struct {
	name  string
	encr  suite.Encr
	integ suite.IntegID
}

var testAlgorithms = []testAlgorithm{
	{"aes128gcm16", suite.Encr{ID: suite.EncrAESGCM16, KeyBits: 128}, suite.IntegNone},
	{"aes256gcm16", suite.Encr{ID: suite.EncrAESGCM16, KeyBits: 256}, suite.IntegNone},
	{"chacha20poly1305", suite.Encr{ID: suite.EncrChaCha20Poly1305}, suite.IntegNone},
	{"aes128-sha256", suite.Encr{ID: suite.EncrAESCBC, KeyBits: 128}, suite.IntegHMACSHA256},
	{"aes256-sha384", suite.Encr{ID: suite.EncrAESCBC, KeyBits: 256}, suite.IntegHMACSHA384},
	{"aes256-sha512", suite.Encr{ID: suite.EncrAESCBC, KeyBits: 256}, suite.IntegHMACSHA512},
}

func (a testAlgorithm) sa(spi uint32, esn bool) *SA {
	sa := &SA{SPI: spi, Encr: a.encr, Integ: a.integ, ESN: esn,
		EncrKey: make([]byte, a.encr.KeyMaterialLen()), IntegKey: make([]byte, a.integ.KeyLen())}
	r := mathrand.NewChaCha8([32]byte{byte(spi), byte(spi >> 8), 9})
	r.Read(sa.EncrKey)
	r.Read(sa.IntegKey)
	return sa
}

// pair makes both ends of an SA.
func (a testAlgorithm) pair(t testing.TB, esn bool) (*Sealer, *Opener) {
	t.Helper()
	s, err := NewSealer(a.sa(0x1000, esn), Lifetime{}, testRand())
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOpener(a.sa(0x1000, esn), Lifetime{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

// sealOne seals a copy of payload with the next sequence number.
func sealOne(t testing.TB, s *Sealer, payload []byte, nextHeader uint8) []byte {
	t.Helper()
	first, n, _ := s.Reserve(1, len(payload))
	if n != 1 {
		t.Fatal("no sequence number left")
	}
	return sealAs(t, s, payload, nextHeader, first)
}

func sealAs(t testing.TB, s *Sealer, payload []byte, nextHeader uint8, seq uint64) []byte {
	t.Helper()
	buf := make([]byte, MaxHeadroom+len(payload)+MaxTailroom)
	copy(buf[MaxHeadroom:], payload)
	pkt, err := s.Seal(new(Scratch), buf, MaxHeadroom, len(payload), nextHeader, seq)
	if err != nil {
		t.Fatal(err)
	}
	return pkt
}

func TestSealOpen(t *testing.T) {
	for _, a := range testAlgorithms {
		for _, esn := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s esn=%v", a.name, esn), func(t *testing.T) {
				s, o := a.pair(t, esn)
				for n := range 70 {
					payload := bytes.Repeat([]byte{byte(n)}, n)
					pkt := sealOne(t, s, payload, NextHeaderIPv4)
					if len(pkt) != s.Layout().SealedLen(n) {
						t.Fatalf("sealed %d octets into %d, SealedLen says %d", n, len(pkt), s.Layout().SealedLen(n))
					}
					if got := s.Layout().MaxPayload(len(pkt)); got < n || s.Layout().SealedLen(got) > len(pkt) {
						t.Fatalf("MaxPayload(%d) = %d for a payload of %d", len(pkt), got, n)
					}
					if (len(pkt)-s.layout.ICVLen)%4 != 0 {
						t.Fatalf("trailer does not end on a 4-octet boundary: %d", len(pkt))
					}
					opened, err := o.Open(new(Scratch), nil, pkt)
					if err != nil || !bytes.Equal(opened.Payload, payload) || opened.NextHeader != NextHeaderIPv4 {
						t.Fatalf("%d octets: %+v, %v", n, opened, err)
					}
				}
			})
		}
	}
}

// Sealing from one buffer to another gives the same packet as sealing in place, and
// leaves the payload and what lies behind it as they were.
func TestSealTo(t *testing.T) {
	for _, a := range testAlgorithms {
		t.Run(a.name, func(t *testing.T) {
			from, other := a.pair(t, true)
			for n := range 70 {
				seq := uint64(n + 1)
				memory := bytes.Repeat([]byte{byte(n)}, n+MaxTailroom)
				want := bytes.Clone(memory)
				dst := make([]byte, from.Layout().SealedLen(n))
				pkt, err := from.SealTo(new(Scratch), dst, memory[:n], NextHeaderIPv4, seq)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(memory, want) {
					t.Fatalf("%d octets: the payload or what is behind it has changed", n)
				}
				if len(pkt) != len(dst) {
					t.Fatalf("%d octets: sealed to %d, announced %d", n, len(pkt), len(dst))
				}
				opened, err := other.Open(new(Scratch), nil, pkt)
				if err != nil || !bytes.Equal(opened.Payload, want[:n]) {
					t.Fatalf("%d octets: opened %x, %v", n, opened.Payload, err)
				}
				if _, err := from.SealTo(new(Scratch), dst[1:], memory[:n], NextHeaderIPv4, seq); !errors.Is(err, ErrBufferTooSmall) {
					t.Fatalf("short destination: %v", err)
				}
				if _, err := from.SealTo(new(Scratch), dst, memory[:n:n+1], NextHeaderIPv4, seq); !errors.Is(err, ErrBufferTooSmall) {
					t.Fatalf("no room behind the payload: %v", err)
				}
			}
		})
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	for _, a := range testAlgorithms {
		t.Run(a.name, func(t *testing.T) {
			s, o := a.pair(t, false)
			pkt := sealOne(t, s, []byte("some payload"), NextHeaderIPv4)
			for bit := 32; bit < len(pkt)*8; bit++ { // the SPI selects the SA
				bad := bytes.Clone(pkt)
				bad[bit/8] ^= 1 << (bit % 8)
				if _, err := o.Open(new(Scratch), nil, bad); err == nil {
					t.Fatalf("bit %d flipped, packet accepted", bit)
				}
			}
			if top := o.Top(); top != 0 {
				t.Fatalf("forged packets moved the window to %d", top)
			}
			if _, err := o.Open(new(Scratch), nil, pkt); err != nil {
				t.Fatalf("true packet after the forged ones: %v", err)
			}
		})
	}
}

// TestShortPackets sends packets of 0 to 59 octets with a fresh sequence number.
func TestShortPackets(t *testing.T) {
	for _, a := range testAlgorithms {
		for _, esn := range []bool{false, true} {
			s, o := a.pair(t, esn)
			for n := range 60 {
				pkt := make([]byte, n)
				copy(pkt, []byte{0, 0, 0x10, 0, 0, 0, 0, byte(n + 1)})
				if _, err := o.Open(new(Scratch), nil, pkt); err == nil {
					t.Fatalf("%s: %d octets accepted", a.name, n)
				}
			}
			if o.Top() != 0 {
				t.Fatalf("%s: the window moved", a.name)
			}
			st := o.Stats()
			if st.Packets != 0 || st.Malformed+st.AuthFailed+st.Replayed != 60 {
				t.Fatalf("%s: %+v", a.name, st)
			}
			if _, err := o.Open(new(Scratch), nil, sealOne(t, s, nil, NextHeaderIPv4)); err != nil {
				t.Fatalf("%s: %v", a.name, err)
			}
		}
	}
}

// sealPlain protects a plaintext as it is, trailer included.
func sealPlain(t testing.TB, s *Sealer, plain []byte, seq uint64) []byte {
	t.Helper()
	pkt := make([]byte, s.layout.Headroom()+len(plain)+s.layout.ICVLen)
	binary.BigEndian.PutUint32(pkt, s.spi)
	binary.BigEndian.PutUint32(pkt[4:], uint32(seq))
	copy(pkt[s.layout.Headroom():], plain)
	if err := s.transform.seal(new(Scratch), pkt, textOf(pkt, s.layout), seq); err != nil {
		t.Fatal(err)
	}
	return pkt
}

func TestBadTrailers(t *testing.T) {
	for _, v := range []struct {
		name  string
		plain string
		want  error
	}{
		{"pad length beyond the packet", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa0f04", ErrPadding},
		{"pad length 255", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaff04", ErrPadding},
		{"pad octets not 1, 2, 3", "aaaaaaaaaaaaaaaaaaaaaaaa02010204", ErrPadding},
		{"all padding", "0102030405060708090a0b0c0d0e0e04", nil},
		{"dummy", "aaaaaaaaaaaaaaaaaaaaaaaa0102023b", ErrDummy},
	} {
		for _, a := range testAlgorithms {
			t.Run(v.name+" "+a.name, func(t *testing.T) {
				s, o := a.pair(t, false)
				if _, err := o.Open(new(Scratch), nil, sealPlain(t, s, unhex(t, v.plain), 1)); !errors.Is(err, v.want) {
					t.Fatalf("got %v, want %v", err, v.want)
				}
				if o.Top() != 1 {
					t.Fatal("an authentic packet must move the window")
				}
			})
		}
	}
}

func TestSequenceNumbersEnd(t *testing.T) {
	s, _ := testAlgorithms[0].pair(t, false)
	s.seq.Store(math.MaxUint32/4*3 - 1)
	if _, n, crossed := s.Reserve(1, 10); n != 1 || crossed != LimitSoft {
		t.Fatalf("at three quarters: %d, %v", n, crossed)
	}
	if _, _, crossed := s.Reserve(1, 10); crossed != 0 {
		t.Fatal("the soft limit was reported twice")
	}
	s.seq.Store(math.MaxUint32 - 2)
	first, n, crossed := s.Reserve(5, 50)
	if first != math.MaxUint32-1 || n != 2 || crossed != LimitHard {
		t.Fatalf("at the end: %d, %d, %v", first, n, crossed)
	}
	if _, n, crossed := s.Reserve(1, 10); n != 0 || crossed != 0 {
		t.Fatalf("beyond the end: %d, %v", n, crossed)
	}
}

func TestSequenceNumbersEndESN(t *testing.T) {
	s, _ := testAlgorithms[0].pair(t, true)
	s.seq.Store(math.MaxUint32)
	if first, n, crossed := s.Reserve(1, 0); first != 1<<32 || n != 1 || crossed != 0 {
		t.Fatalf("past 32 bits: %d, %d, %v", first, n, crossed)
	}
	s.seq.Store(math.MaxUint64 - 1)
	if first, n, _ := s.Reserve(2, 0); first != math.MaxUint64 || n != 1 {
		t.Fatalf("at the end: %d, %d", first, n)
	}
	if _, n, _ := s.Reserve(1, 0); n != 0 {
		t.Fatal("sequence number wrapped")
	}
}

func TestReserveIsExclusive(t *testing.T) {
	const goroutines, trains, train = 8, 500, 7
	s, _ := testAlgorithms[0].pair(t, false)
	var wg sync.WaitGroup
	taken := make([][]uint64, goroutines)
	for g := range goroutines {
		wg.Go(func() {
			for range trains {
				first, n, _ := s.Reserve(train, train)
				for i := range n {
					taken[g] = append(taken[g], first+uint64(i))
				}
			}
		})
	}
	wg.Wait()
	seen := make([]bool, goroutines*trains*train+1)
	for _, list := range taken {
		for _, seq := range list {
			if seq == 0 || seen[seq] {
				t.Fatalf("sequence number %d handed out twice", seq)
			}
			seen[seq] = true
		}
	}
}

func TestLifetimes(t *testing.T) {
	life := Lifetime{SoftBytes: 100, HardBytes: 200, SoftPackets: 50, HardPackets: 60}
	a := testAlgorithms[0]
	s, err := NewSealer(a.sa(0x1000, false), life, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, n, crossed := s.Reserve(2, 99); n != 2 || crossed != 0 {
		t.Fatalf("below: %d %v", n, crossed)
	}
	if _, n, crossed := s.Reserve(2, 1); n != 2 || crossed != LimitSoft {
		t.Fatalf("soft bytes: %d %v", n, crossed)
	}
	if _, n, crossed := s.Reserve(1, 101); n != 0 || crossed != LimitHard {
		t.Fatalf("hard bytes: %d %v", n, crossed)
	}
	if _, n, crossed := s.Reserve(100, 0); n != 56 || crossed != 0 {
		t.Fatalf("hard packets: %d %v", n, crossed)
	}
}

func TestInboundLifetime(t *testing.T) {
	a := testAlgorithms[0]
	s, _ := a.pair(t, false)
	o, err := NewOpener(a.sa(0x1000, false), Lifetime{SoftPackets: 2, HardPackets: 3}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		crossed Limit
		err     error
	}{{0, nil}, {LimitSoft, nil}, {0, nil}, {LimitHard, ErrLifetime}, {0, ErrLifetime}} {
		opened, err := o.Open(new(Scratch), nil, sealOne(t, s, []byte("x"), NextHeaderIPv4))
		if opened.Crossed != want.crossed || !errors.Is(err, want.err) {
			t.Fatalf("packet %d: %v %v, want %+v", i+1, opened.Crossed, err, want)
		}
	}
}

func TestESNAcrossSubspace(t *testing.T) {
	for _, a := range testAlgorithms {
		s, o := a.pair(t, true)
		for _, seq := range []uint64{1, 1<<32 - 100, 1<<32 - 1, 1 << 32, 1<<32 - 2, 1<<32 + 5000, 1<<32 + 4000} {
			if seq == 1<<32-100 {
				o.window.Accept(1 << 31)
			}
			if _, err := o.Open(new(Scratch), nil, sealAs(t, s, []byte("x"), NextHeaderIPv4, seq)); err != nil {
				t.Fatalf("%s: sequence number %#x: %v", a.name, seq, err)
			}
		}
		// The same low bits of another subspace must not authenticate.
		if _, err := o.Open(new(Scratch), nil, sealAs(t, s, []byte("x"), NextHeaderIPv4, 1<<33+6000)); err == nil {
			t.Fatalf("%s: a packet of a later subspace was taken for one of this", a.name)
		}
	}
}

func TestClosedSA(t *testing.T) {
	for _, a := range testAlgorithms {
		s, o := a.pair(t, false)
		pkt := sealOne(t, s, []byte("x"), NextHeaderIPv4)
		s.Close()
		o.Close()
		if _, err := o.Open(new(Scratch), nil, pkt); !errors.Is(err, ErrClosed) {
			t.Fatalf("%s: open after close: %v", a.name, err)
		}
		buf := make([]byte, 256)
		if _, err := s.Seal(new(Scratch), buf, 64, 10, NextHeaderIPv4, 2); !errors.Is(err, ErrClosed) {
			t.Fatalf("%s: seal after close: %v", a.name, err)
		}
	}
}

func TestKeysAreChecked(t *testing.T) {
	for _, a := range testAlgorithms {
		for _, change := range []func(*SA){
			func(sa *SA) { sa.EncrKey = sa.EncrKey[1:] },
			func(sa *SA) { sa.EncrKey = append(sa.EncrKey, 0) },
			func(sa *SA) { sa.IntegKey = append(sa.IntegKey, 0) },
			func(sa *SA) { sa.SPI = 255 },
			func(sa *SA) { sa.SPI = 0 },
			func(sa *SA) { sa.Encr.ID = 3 },
			func(sa *SA) { sa.Integ = 2 },
		} {
			sa := a.sa(0x1000, false)
			change(sa)
			if _, err := NewSealer(sa, Lifetime{}, testRand()); err == nil {
				t.Errorf("%s: sealer made from %v", a.name, sa.SPI)
			}
			if _, err := NewOpener(sa, Lifetime{}, 0); err == nil {
				t.Errorf("%s: opener made from %v", a.name, sa.SPI)
			}
		}
	}
}

func TestBuffersAreChecked(t *testing.T) {
	for _, a := range testAlgorithms {
		s, o := a.pair(t, false)
		room := s.Layout().Headroom()
		need := s.Layout().SealedLen(10)
		for _, v := range []struct{ off, n, size int }{{room - 1, 10, need}, {room, 10, need - 1}, {room, -1, need}, {0, 10, need}} {
			if _, err := s.Seal(new(Scratch), make([]byte, v.size), v.off, v.n, 4, 1); !errors.Is(err, ErrBufferTooSmall) {
				t.Errorf("%s: %+v: %v", a.name, v, err)
			}
		}
		pkt := sealOne(t, s, []byte("0123456789"), 4)
		if _, err := o.Open(new(Scratch), make([]byte, 0, 4), pkt); !errors.Is(err, ErrBufferTooSmall) {
			t.Errorf("%s: small destination: %v", a.name, err)
		}
	}
}

// TestCBCIVs makes sure that IVs neither repeat nor follow from the key.
func TestCBCIVs(t *testing.T) {
	a := testAlgorithms[3]
	seen := map[string]bool{}
	for range 2 {
		s, err := NewSealer(a.sa(0x1000, false), Lifetime{}, testRand())
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			seen[string(sealOne(t, s, nil, 4)[8:24])] = true
		}
	}
	if len(seen) != 100 {
		t.Fatalf("%d IVs from 2 × 100 packets with equal randomness, want 100", len(seen))
	}
	other, err := NewSealer(a.sa(0x1000, false), Lifetime{}, mathrand.NewChaCha8([32]byte{2}))
	if err != nil {
		t.Fatal(err)
	}
	if seen[string(sealOne(t, other, nil, 4)[8:24])] {
		t.Fatal("the IV does not depend on randomness")
	}
}

func TestSealAndOpenDoNotAllocate(t *testing.T) {
	for _, a := range testAlgorithms {
		s, o := a.pair(t, true)
		scratch, buf := new(Scratch), make([]byte, 2048)
		allocs := testing.AllocsPerRun(500, func() {
			first, _, _ := s.Reserve(1, 1400)
			pkt, err := s.Seal(scratch, buf, MaxHeadroom, 1400, NextHeaderIPv4, first)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := o.Open(scratch, nil, pkt); err != nil {
				t.Fatal(err)
			}
		})
		if allocs >= 0.5 && !raceEnabled {
			t.Errorf("%s: %.1f allocations per packet", a.name, allocs)
		}
	}
}

func TestRekeyAfter(t *testing.T) {
	for _, tt := range []struct {
		bytes, packets uint64
		want           Lifetime
	}{
		{0, 0, Lifetime{}},
		{1000, 0, Lifetime{SoftBytes: 1000, HardBytes: 2000}},
		{0, 10, Lifetime{SoftPackets: 10, HardPackets: 20}},
		{1 << 63, math.MaxUint64, Lifetime{SoftBytes: 1 << 63, HardBytes: math.MaxUint64, SoftPackets: math.MaxUint64, HardPackets: math.MaxUint64}},
	} {
		if got := RekeyAfter(tt.bytes, tt.packets); got != tt.want {
			t.Errorf("%d octets, %d packets: %+v", tt.bytes, tt.packets, got)
		}
	}
}
