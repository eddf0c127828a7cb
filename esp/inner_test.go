package esp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
)

func v4Packet(proto uint8, src, dst string, frag uint16, upper ...byte) []byte {
	b := make([]byte, 20, 20+len(upper))
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(upper)))
	binary.BigEndian.PutUint16(b[6:], frag)
	copy(b[12:], netip.MustParseAddr(src).AsSlice())
	copy(b[16:], netip.MustParseAddr(dst).AsSlice())
	return append(b, upper...)
}

func v6Packet(next uint8, src, dst string, rest ...byte) []byte {
	b := make([]byte, 40, 40+len(rest))
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(rest)))
	copy(b[8:], netip.MustParseAddr(src).AsSlice())
	copy(b[24:], netip.MustParseAddr(dst).AsSlice())
	return append(b, rest...)
}

var udp53 = []byte{0x30, 0x39, 0, 53, 0, 8, 0, 0} // from port 12345

func ext(next uint8, units uint8) []byte {
	b := make([]byte, (int(units)+1)*8)
	b[0], b[1] = next, units
	return b
}

func join(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func TestParseInner(t *testing.T) {
	type want struct {
		proto                 uint8
		protoKnown, portKnown bool
		src, dst              uint16
		ipLen                 int
		later, more, df       bool
	}
	frag6 := func(next uint8, off uint16) []byte {
		b := make([]byte, 8)
		b[0] = next
		binary.BigEndian.PutUint16(b[2:], off)
		return b
	}
	for _, v := range []struct {
		name string
		pkt  []byte
		want want
	}{
		{"udp", v4Packet(17, "10.0.0.1", "10.0.0.2", 0, udp53...), want{17, true, true, 12345, 53, 20, false, false, false}},
		{"df", v4Packet(17, "10.0.0.1", "10.0.0.2", 0x4000, udp53...), want{17, true, true, 12345, 53, 20, false, false, true}},
		{"first fragment", v4Packet(17, "10.0.0.1", "10.0.0.2", 0x2000, udp53...), want{17, true, true, 12345, 53, 20, false, true, false}},
		{"last fragment", v4Packet(17, "10.0.0.1", "10.0.0.2", 1, udp53...), want{17, true, false, 0, 0, 20, true, false, false}},
		{"tiny first fragment", v4Packet(6, "10.0.0.1", "10.0.0.2", 0x2000, 1, 2, 3), want{6, true, false, 0, 0, 20, false, true, false}},
		{"ping", v4Packet(1, "10.0.0.1", "10.0.0.2", 0, 8, 0), want{1, true, true, 0x800, 0x800, 20, false, false, false}},
		{"gre", v4Packet(47, "10.0.0.1", "10.0.0.2", 0, 1, 2, 3, 4), want{47, true, false, 0, 0, 20, false, false, false}},
		{"no payload", v4Packet(6, "10.0.0.1", "10.0.0.2", 0), want{6, true, false, 0, 0, 20, false, false, false}},
		{"v6 udp", v6Packet(17, "fd00::1", "fd00::2", udp53...), want{17, true, true, 12345, 53, 40, false, false, true}},
		{"v6 extensions", v6Packet(0, "fd00::1", "fd00::2", join(ext(60, 1), ext(43, 0), ext(17, 0), udp53)...), want{17, true, true, 12345, 53, 72, false, false, true}},
		{"v6 first fragment", v6Packet(44, "fd00::1", "fd00::2", join(frag6(17, 1), udp53)...), want{17, true, true, 12345, 53, 48, false, true, true}},
		{"v6 later fragment", v6Packet(44, "fd00::1", "fd00::2", join(frag6(17, 8), udp53)...), want{17, true, false, 0, 0, 48, true, false, true}},
		{"v6 later fragment of unknown kind", v6Packet(44, "fd00::1", "fd00::2", join(frag6(60, 9), udp53)...), want{60, false, false, 0, 0, 48, true, true, true}},
		{"v6 echo", v6Packet(58, "fd00::1", "fd00::2", 128, 0, 0, 0), want{58, true, true, 0x8000, 0x8000, 40, false, false, true}},
		{"mobility header", v6Packet(135, "fd00::1", "fd00::2", 59, 0, 5, 0), want{135, true, true, 0x500, 0x500, 40, false, false, true}},
		{"no next header", v6Packet(59, "fd00::1", "fd00::2"), want{59, true, false, 0, 0, 40, false, false, true}},
	} {
		t.Run(v.name, func(t *testing.T) {
			var p Inner
			padded := append(append([]byte(nil), v.pkt...), 0, 0, 0) // TFC padding
			if err := p.Parse(padded); err != nil {
				t.Fatal(err)
			}
			got := want{p.Protocol, p.ProtoKnown, p.PortsKnown, p.SrcPort, p.DstPort, p.IPLen, p.LaterPart, p.MoreParts, p.DontFragment}
			if got != v.want || p.Length != len(v.pkt) {
				t.Fatalf("got %+v length %d, want %+v length %d", got, p.Length, v.want, len(v.pkt))
			}
			wantSrc, wantDst := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
			if p.V6 {
				wantSrc, wantDst = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
			}
			if p.Src() != wantSrc || p.Dst() != wantDst {
				t.Fatalf("from %v to %v", p.Src(), p.Dst())
			}
			for cut := range len(v.pkt) {
				if err := p.Parse(v.pkt[:cut]); !errors.Is(err, ErrInnerPacket) {
					t.Fatalf("cut to %d octets: %v", cut, err)
				}
			}
		})
	}
}

func TestParseInnerRefuses(t *testing.T) {
	badIHL := v4Packet(17, "10.0.0.1", "10.0.0.2", 0, udp53...)
	badIHL[0] = 0x44
	longIHL := v4Packet(17, "10.0.0.1", "10.0.0.2", 0)
	longIHL[0] = 0x46
	shortTotal := v4Packet(17, "10.0.0.1", "10.0.0.2", 0, udp53...)
	shortTotal[3] = 19
	version5 := v4Packet(17, "10.0.0.1", "10.0.0.2", 0, udp53...)
	version5[0] = 0x55
	chain := udp53
	for range maxExtensions {
		chain = join(ext(60, 0), chain)
	}
	for name, pkt := range map[string][]byte{
		"empty":                     nil,
		"header length below 20":    badIHL,
		"header longer than packet": longIHL,
		"total length below header": shortTotal,
		"version 5":                 version5,
		"endless extensions":        v6Packet(60, "fd00::1", "fd00::2", chain...),
		"extension beyond the end":  v6Packet(0, "fd00::1", "fd00::2", 17, 1, 0, 0, 0, 0, 0, 0),
		"two fragment headers":      v6Packet(44, "fd00::1", "fd00::2", join([]byte{44, 0, 0, 1, 0, 0, 0, 0}, []byte{17, 0, 0, 1, 0, 0, 0, 0}, udp53)...),
	} {
		var p Inner
		if err := p.Parse(pkt); !errors.Is(err, ErrInnerPacket) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzInner checks that whatever parses has its lengths inside the buffer.
func FuzzInner(f *testing.F) {
	f.Add(v4Packet(17, "10.0.0.1", "10.0.0.2", 0, udp53...))
	f.Add(v4Packet(6, "10.0.0.1", "10.0.0.2", 0x2000, 1, 2, 3))
	f.Add(v6Packet(0, "fd00::1", "fd00::2", join(ext(60, 1), ext(43, 0), ext(17, 0), udp53)...))
	f.Add(v6Packet(44, "fd00::1", "fd00::2", join([]byte{58, 0, 0, 1, 0, 0, 0, 0}, []byte{128, 0, 1, 2})...))
	selectors, err := NewSelectors(
		[]Selector{PrefixSelector(netip.MustParsePrefix("10.0.0.0/8")), PrefixSelector(netip.MustParsePrefix("fd00::/8"))},
		[]Selector{{Protocol: 17, StartPort: 53, EndPort: 53, Start: netip.MustParseAddr("0.0.0.0"), End: netip.MustParseAddr("255.255.255.255")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Inner
		if p.Parse(b) != nil {
			return
		}
		if p.Length > len(b) || p.IPLen > p.Length || p.IPLen < 20 || p.FragmentAt > p.IPLen {
			t.Fatalf("lengths outside of %d octets: %+v", len(b), p)
		}
		if p.LaterPart && p.PortsKnown {
			t.Fatal("ports read out of a later fragment")
		}
		if p.V6 != (b[0]>>4 == 6) || p.Src().Is6() != p.V6 || p.Dst().Is6() != p.V6 {
			t.Fatalf("family: %+v", p)
		}
		selectors.Outbound(&p)
		var again Inner
		if err := again.Parse(b[:p.Length]); err != nil || again != p {
			t.Fatalf("without padding: %+v, %v", again, err)
		}
	})
}
