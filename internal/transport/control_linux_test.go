package transport

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// cmsg builds one control message with the given content.
func cmsg(level, typ int32, content ...byte) []byte {
	b, data := appendCmsg(make([]byte, 0, unix.CmsgSpace(len(content))), level, typ, len(content))
	copy(data, content)
	return b
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func TestParseControl(t *testing.T) {
	v4 := cmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, append(native32(3), 192, 0, 2, 1, 192, 0, 2, 1)...)
	group := cmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, append(native32(3), 192, 0, 2, 1, 224, 0, 0, 1)...)
	broadcast := cmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, append(native32(3), 192, 0, 2, 1, 192, 0, 2, 255)...)
	addr6 := netip.MustParseAddr("2001:db8::1")
	group6 := netip.MustParseAddr("ff02::1")
	v6 := cmsg(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, append(addr6.AsSlice(), native32(7)...)...)
	multi6 := cmsg(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, append(group6.AsSlice(), native32(7)...)...)
	gro := cmsg(unix.SOL_UDP, unix.UDP_GRO, native32(1400)...)
	gro16 := cmsg(unix.SOL_UDP, unix.UDP_GRO, binary.NativeEndian.AppendUint16(nil, 1400)...)
	drops := cmsg(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, native32(9)...)
	unknown := cmsg(99, 99, 1, 2, 3)
	addr4 := netip.MustParseAddr("192.0.2.1")

	tests := []struct {
		name string
		in   [][]byte
		want packetInfo
	}{
		{"nothing", nil, packetInfo{}},
		{"IPv4", [][]byte{v4}, packetInfo{local: addr4, unicast: true, ifindex: 3}},
		{"IPv4 multicast", [][]byte{group}, packetInfo{local: netip.MustParseAddr("224.0.0.1"), ifindex: 3}},
		{"IPv4 broadcast", [][]byte{broadcast}, packetInfo{local: netip.MustParseAddr("192.0.2.255"), ifindex: 3}},
		{"IPv6", [][]byte{v6}, packetInfo{local: addr6, unicast: true, ifindex: 7}},
		{"IPv6 multicast", [][]byte{multi6}, packetInfo{local: group6, ifindex: 7}},
		{"all together", [][]byte{drops, unknown, gro, v4},
			packetInfo{local: addr4, unicast: true, ifindex: 3, segment: 1400, drops: 9, counted: true}},
		{"segment of 16 bits", [][]byte{gro16}, packetInfo{segment: 1400}},
	}
	for _, tt := range tests {
		if got := parseControl(bytes.Join(tt.in, nil)); got != tt.want {
			t.Errorf("%s: parseControl = %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// TestParseControlCut cuts two messages at every length: what is read is what is
// whole.
func TestParseControlCut(t *testing.T) {
	gro := cmsg(unix.SOL_UDP, unix.UDP_GRO, native32(1400)...)
	v4 := cmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, append(native32(3), 192, 0, 2, 1, 192, 0, 2, 1)...)
	all := append(bytes.Clone(gro), v4...)
	for n := range all {
		info := parseControl(all[:n:n])
		wantGRO := n >= unix.CmsgLen(4)
		wantLocal := n >= len(gro)+unix.CmsgLen(pktinfo4Len)
		if (info.segment == 1400) != wantGRO || info.local.IsValid() != wantLocal {
			t.Errorf("cut at %d: %+v", n, info)
		}
	}
}

func TestAppendSource(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	tests := []struct {
		name    string
		ipv6    bool
		local   netip.Addr
		ifindex int
		content []byte
	}{
		{"nothing wanted", false, netip.Addr{}, 0, nil},
		{"unspecified", true, netip.IPv6Unspecified(), 0, nil},
		{"address", false, v4, 0, append(native32(0), 192, 0, 2, 7, 0, 0, 0, 0)},
		{"interface alone", false, netip.IPv4Unspecified(), 5, append(native32(5), make([]byte, 8)...)},
		{"IPv6 address and interface", true, v6, 5, append(v6.AsSlice(), native32(5)...)},
		{"IPv6 interface alone", true, netip.Addr{}, 5, append(make([]byte, 16), native32(5)...)},
	}
	for _, tt := range tests {
		got := appendSource(make([]byte, 0, sendControlLen), tt.ipv6, tt.local, tt.ifindex)
		var want []byte
		if tt.content != nil {
			level, typ := int32(unix.IPPROTO_IP), int32(unix.IP_PKTINFO)
			if tt.ipv6 {
				level, typ = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
			}
			want = cmsg(level, typ, tt.content...)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: % x, want % x", tt.name, got, want)
		}
	}
}

func FuzzParseControl(f *testing.F) {
	f.Add(cmsg(unix.SOL_UDP, unix.UDP_GRO, native32(1400)...))
	f.Add(cmsg(unix.IPPROTO_IP, unix.IP_PKTINFO, append(native32(3), 192, 0, 2, 1, 192, 0, 2, 1)...))
	f.Add(cmsg(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, make([]byte, 20)...))
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		info := parseControl(b)
		if !bytes.Equal(before, b) {
			t.Error("parseControl changed its input")
		}
		if info.unicast && (!info.local.IsValid() || info.local.IsMulticast()) {
			t.Errorf("unicast to %s", info.local)
		}
	})
}
