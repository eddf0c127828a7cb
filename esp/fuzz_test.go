package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// FuzzOpen gives the opener two kinds of packets: the input as it is, and the input
// as a plaintext sealed with the right key, so that what lies behind the ICV is
// reached too.
func FuzzOpen(f *testing.F) {
	f.Add(byte(0), []byte{0, 0, 0x10, 0, 0, 0, 0, 1})
	f.Add(byte(3), bytes.Repeat([]byte{1}, 59))
	f.Add(byte(1), []byte{0x45, 0, 0, 20, 1, 2, 2, 4})
	f.Add(byte(4), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 14, 59})
	f.Add(byte(0x85), bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, kind byte, input []byte) {
		if len(input) > 4096 {
			return
		}
		a, esn := testAlgorithms[int(kind&0x7f)%len(testAlgorithms)], kind&0x80 != 0
		s, o := a.pair(t, esn)

		raw := bytes.Clone(input)
		if _, err := o.Open(new(Scratch), nil, raw); err == nil {
			t.Fatal("a packet without the key was accepted")
		}
		if o.Top() != 0 {
			t.Fatal("a packet without the key moved the window")
		}

		plain := input[:len(input)-len(input)%s.layout.Align]
		if len(plain) == 0 {
			return
		}
		checkPlain(t, s, o, plain)
	})
}

func checkPlain(t *testing.T, s *Sealer, o *Opener, plain []byte) {
	dst := make([]byte, 0, len(plain))
	opened, err := o.Open(new(Scratch), dst, sealPlain(t, s, plain, 1))
	if errors.Is(err, ErrAuthentication) || errors.Is(err, ErrReplayed) || errors.Is(err, ErrTruncated) {
		t.Fatalf("an authentic packet was refused: %v", err)
	}
	if o.Top() != 1 {
		t.Fatal("an authentic packet did not move the window")
	}
	if err != nil {
		return
	}
	pad := int(plain[len(plain)-2])
	if want := plain[:len(plain)-2-pad]; !bytes.Equal(opened.Payload, want) || opened.NextHeader != plain[len(plain)-1] {
		t.Fatalf("opened %x %d out of %x", opened.Payload, opened.NextHeader, plain)
	}
	var in Inner
	if in.Parse(opened.Payload) == nil && in.Length > len(opened.Payload) {
		t.Fatal("inner packet is longer than its payload")
	}
}

// FuzzSeal checks that every payload survives, and what the packet looks like.
func FuzzSeal(f *testing.F) {
	f.Add(byte(0), uint32(1), []byte{})
	f.Add(byte(3), uint32(0xffffffff), []byte("0123456789abcd"))
	f.Add(byte(0x82), uint32(77), bytes.Repeat([]byte{9}, 1400))
	f.Fuzz(func(t *testing.T, kind byte, seq uint32, payload []byte) {
		if seq == 0 || seq >= 1<<31 && kind&0x80 != 0 || len(payload) > 1<<15 {
			return // with ESN a first packet far ahead belongs to no subspace
		}
		a, esn := testAlgorithms[int(kind&0x7f)%len(testAlgorithms)], kind&0x80 != 0
		s, o := a.pair(t, esn)
		pkt := sealAs(t, s, payload, NextHeaderIPv6, uint64(seq))
		if binary.BigEndian.Uint32(pkt) != s.SPI() || binary.BigEndian.Uint32(pkt[4:]) != seq {
			t.Fatalf("header %x", pkt[:8])
		}
		opened, err := o.Open(new(Scratch), nil, pkt)
		if err != nil || !bytes.Equal(opened.Payload, payload) || opened.NextHeader != NextHeaderIPv6 {
			t.Fatalf("%v", err)
		}
	})
}
