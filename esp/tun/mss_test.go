package tun

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

// synPacket builds a TCP segment with a valid checksum.
func synPacket(src, dst string, flags byte, options ...byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	tcp := make([]byte, 20, 20+len(options))
	binary.BigEndian.PutUint16(tcp, 1000)
	binary.BigEndian.PutUint16(tcp[2:], 80)
	tcp[12], tcp[13] = byte((20+len(options))/4)<<4, flags
	tcp = append(tcp, options...)
	pkt := ipPacket(src, dst, 6, tcp)
	header, upper := pseudo(pkt)
	binary.BigEndian.PutUint16(upper[16:], sum(header, upper))
	return pkt
}

func mss(v uint16) []byte { return []byte{2, 4, byte(v >> 8), byte(v)} }

func TestClampMSS(t *testing.T) {
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, v := range []struct {
		name    string
		v6      bool
		flags   byte
		options []byte
		mtu     int
		want    uint16 // zero: unchanged
	}{
		{"syn", false, 2, mss(1460), 1400, 1360},
		{"syn ack", false, 0x12, mss(1460), 1400, 1360},
		{"v6", true, 2, mss(1440), 1400, 1340},
		{"v6 below what packets need not be", true, 2, mss(1440), 600, 540},
		{"small enough", false, 2, mss(1360), 1400, 0},
		{"no syn", false, 0x10, mss(1460), 1400, 0},
		{"no options", false, 2, nil, 1400, 0},
		{"behind others", false, 2, cat([]byte{4, 2, 3, 3, 7}, mss(8960)), 1400, 1360},
		{"at an odd place", false, 2, cat([]byte{1}, mss(1460), []byte{3, 3, 7}), 1400, 1360},
		{"after the end", false, 2, cat([]byte{0}, mss(1460)), 1400, 0},
		{"length 3", false, 2, []byte{2, 3, 5, 180}, 1400, 0},
		{"length 0", false, 2, []byte{8, 0, 2, 4, 5, 180}, 1400, 0},
		{"length beyond the header", false, 2, []byte{1, 1, 2, 40}, 1400, 0},
		{"tiny mtu", false, 2, mss(1460), 80, 0},
	} {
		t.Run(v.name, func(t *testing.T) {
			src, dst := "10.0.0.1", "10.1.0.1"
			if v.v6 {
				src, dst = "fd00:a::1", "fd00:b::1"
			}
			pkt := synPacket(src, dst, v.flags, v.options...)
			before := bytes.Clone(pkt)
			var in esp.Inner
			if err := in.Parse(pkt); err != nil {
				t.Fatal(err)
			}
			changed := clampMSS(pkt, &in, v.mtu)
			if changed != (v.want != 0) || changed == bytes.Equal(before, pkt) {
				t.Fatalf("changed: %v", changed)
			}
			if !changed {
				return
			}
			if header, upper := pseudo(pkt); sum(header, upper) != 0 {
				t.Error("the checksum is wrong")
			}
			at := findMSS(pkt[in.IPLen:])
			if got := binary.BigEndian.Uint16(pkt[in.IPLen+at:]); got != v.want {
				t.Errorf("MSS %d, want %d", got, v.want)
			}
		})
	}
}

func TestClampKeepsABrokenChecksumBroken(t *testing.T) {
	pkt := synPacket("10.0.0.1", "10.1.0.1", 2, mss(1460)...)
	pkt[20+16] ^= 0x40
	var in esp.Inner
	if err := in.Parse(pkt); err != nil || !clampMSS(pkt, &in, 1400) {
		t.Fatal(err)
	}
	if header, upper := pseudo(pkt); sum(header, upper) == 0 {
		t.Error("a broken segment was repaired")
	}
}

func TestClampBothDirections(t *testing.T) {
	a, b := tunnel(t, true)
	add(a, b, algorithms[0], 1)
	b.must(b.dp.MoveHost(theHost, esp.Path{Pair: pairBA, UDP: true, MTU: 1300}))
	read := func(pkts [][]byte) uint16 {
		t.Helper()
		if len(pkts) != 1 {
			t.Fatalf("%d packets", len(pkts))
		}
		if header, upper := pseudo(pkts[0]); sum(header, upper) != 0 {
			t.Error("the checksum is wrong")
		}
		return binary.BigEndian.Uint16(pkts[0][20+findMSS(pkts[0][20:]):])
	}
	// 1300-20-8-8-8-16 = 1240, less 2 for the trailer, less 40.
	a.push(synPacket("10.0.0.1", "10.1.0.1", 2, mss(1460)...))
	if got := read(carry(a, b)); got != 1198 {
		t.Errorf("inbound MSS %d", got)
	}
	b.push(synPacket("10.1.0.1", "10.0.0.1", 0x12, mss(1460)...))
	if got := read(carry(b, a)); got != 1198 {
		t.Errorf("outbound MSS %d", got)
	}
	if n := a.dp.Counters().MSSClamped; n != 1 {
		t.Errorf("a clamped %d, want 1: what it got fitted", n)
	}
	if n := b.dp.Counters().MSSClamped; n != 2 {
		t.Errorf("b clamped %d, want 2", n)
	}
}

// FuzzClampMSS checks that clamping stays inside the packet, changes nothing but
// the option and the checksum, and leaves a valid checksum valid.
func FuzzClampMSS(f *testing.F) {
	f.Add([]byte{2, 4, 5, 180}, byte(2), uint16(1400), false)
	f.Add([]byte{1, 2, 4, 0xff, 0xff, 3, 3, 7}, byte(0x12), uint16(1280), true)
	f.Add([]byte{8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 35, 0}, byte(2), uint16(500), false)
	f.Fuzz(func(t *testing.T, options []byte, flags byte, mtu uint16, v6 bool) {
		if len(options) > 40 {
			return
		}
		src, dst := "10.0.0.1", "10.1.0.1"
		if v6 {
			src, dst = "fd00:a::1", "fd00:b::1"
		}
		pkt := synPacket(src, dst, flags, options...)
		before := bytes.Clone(pkt)
		var in esp.Inner
		if err := in.Parse(pkt); err != nil {
			t.Fatal(err)
		}
		changed := clampMSS(pkt, &in, int(mtu))
		if changed == bytes.Equal(pkt, before) {
			t.Fatalf("changed %v", changed)
		}
		if header, upper := pseudo(pkt); sum(header, upper) != 0 {
			t.Fatal("the checksum is wrong")
		}
		differing := 0
		for i := range pkt {
			if pkt[i] != before[i] {
				differing++
			}
		}
		if differing > 4 {
			t.Fatalf("%d octets changed", differing)
		}
	})
}
