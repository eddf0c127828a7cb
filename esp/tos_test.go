package esp

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// RFC 6040 §4.2, figure 4; rows are the inner field, columns the outer one, both in the
// order Not-ECT, ECT(0), ECT(1), CE.
func TestDecapsulateECN(t *testing.T) {
	const drop = 0xff
	order := []uint8{NotECT, ECT0, ECT1, CE}
	for i, row := range [][]uint8{
		{NotECT, NotECT, NotECT, drop},
		{ECT0, ECT0, ECT1, CE},
		{ECT1, ECT1, ECT1, CE},
		{CE, CE, CE, CE},
	} {
		for j, want := range row {
			got, ok := DecapsulateECN(order[i]|0xb8, order[j]|0x20) // DSCPs do not matter
			if !ok {
				got = drop
			}
			if got != want {
				t.Errorf("inner %d, outer %d: %d, want %d", order[i], order[j], got, want)
			}
		}
	}
}

func TestOuterTOS(t *testing.T) {
	for text, want := range map[string]uint8{"clear": 0x02, "0": 0x02, "copy": 0xba, "46": 46<<2 | 2, "63": 0xfe} {
		var d DSCP
		if err := d.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := d.Outer(0xba); got != want {
			t.Errorf("%s: %#x, want %#x", text, got, want)
		}
		var again DSCP
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%s became %s", text, d)
		}
	}
	for _, bad := range []string{"", "64", "-1", "256", "ef", "Copy"} {
		if err := new(DSCP).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestSetECN(t *testing.T) {
	for tos := range 256 {
		v4 := make([]byte, 40)
		v4[0], v4[1], v4[8], v4[9] = 0x45, uint8(tos), 64, ProtoUDP
		binary.BigEndian.PutUint16(v4[2:], 40)
		copy(v4[12:], netip.MustParseAddr("10.1.2.3").AsSlice())
		copy(v4[16:], netip.MustParseAddr("192.0.2.77").AsSlice())
		binary.BigEndian.PutUint16(v4[10:], ^onesSum(v4[:20]))
		v6 := make([]byte, 48)
		v6[0], v6[1], v6[2], v6[3], v6[5], v6[6] = 0x60|uint8(tos)>>4, uint8(tos)<<4|0x0c, 0xab, 0xcd, 8, ProtoUDP
		for ecn := range uint8(4) {
			SetECN(v4, ecn)
			SetECN(v6, ecn)
			var in4, in6 Inner
			if in4.Parse(v4) != nil || in6.Parse(v6) != nil {
				t.Fatal("not a packet any more")
			}
			want := uint8(tos)&^ECNMask | ecn
			if in4.TOS != want || in6.TOS != want {
				t.Fatalf("TOS %#x with ECN %d: %#x and %#x", tos, ecn, in4.TOS, in6.TOS)
			}
			if onesSum(v4[:20]) != 0xffff {
				t.Fatalf("TOS %#x with ECN %d: the checksum is wrong", tos, ecn)
			}
			if v6[1]&0x0f != 0x0c || v6[2] != 0xab || v6[3] != 0xcd || v6[0]>>4 != 6 {
				t.Fatalf("the flow label became %x", v6[:4])
			}
		}
	}
}

func onesSum(b []byte) uint16 {
	v := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		v += uint32(binary.BigEndian.Uint16(b))
	}
	for v>>16 != 0 {
		v = v&0xffff + v>>16
	}
	return uint16(v)
}
