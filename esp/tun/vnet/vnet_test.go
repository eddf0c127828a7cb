package vnet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// plainSum is a checksum by the letter of RFC 1071, to check the fast one with.
func plainSum(b []byte) uint16 {
	var v uint64
	for i := 0; i+1 < len(b); i += 2 {
		v += uint64(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 != 0 {
		v += uint64(b[len(b)-1]) << 8
	}
	for v > 0xffff {
		v = v&0xffff + v>>16
	}
	return uint16(v)
}

func TestSumAgreesWithTheLetterOfTheRFC(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 600 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
			if n%7 == 0 {
				b[i] = 0xff // carries everywhere
			}
		}
		var got [2]byte
		binary.LittleEndian.PutUint16(got[:], fold(sum(b, 0)))
		if want := plainSum(b); binary.BigEndian.Uint16(got[:]) != want && !(n > 0 && want%0xffff == 0) {
			t.Fatalf("%d octets: sum %x, want %x", n, got, want)
		}
	}
}

// stream describes the packets of one flow.
type stream struct {
	v6, udp      bool
	port         uint16
	options      int // octets of TCP options
	id           uint16
	seq          uint32
	dontFragment bool
}

// packet builds a whole packet with right checksums.
func (s *stream) packet(flags byte, payload []byte) []byte {
	var ip, upper []byte
	if s.udp {
		upper = make([]byte, udpLen)
		binary.BigEndian.PutUint16(upper[udpLength:], uint16(udpLen+len(payload)))
	} else {
		upper = make([]byte, tcpLen+s.options)
		for i := tcpLen; i < len(upper); i++ {
			upper[i] = 1 // no operation
		}
		binary.BigEndian.PutUint32(upper[tcpSeq:], s.seq)
		binary.BigEndian.PutUint32(upper[tcpAck:], 77)
		upper[tcpOffset] = byte(len(upper)/4) << 4
		upper[tcpFlags] = flags
		binary.BigEndian.PutUint16(upper[tcpWindow:], 500)
	}
	binary.BigEndian.PutUint16(upper, s.port)
	binary.BigEndian.PutUint16(upper[2:], 443)
	s.seq += uint32(len(payload))
	upper = append(upper, payload...)
	protocol, at := byte(protoTCP), tcpChecksum
	if s.udp {
		protocol, at = protoUDP, udpChecksum
	}
	if s.v6 {
		ip = make([]byte, ipv6Len)
		ip[0] = 0x60
		binary.BigEndian.PutUint16(ip[ipv6Payload:], uint16(len(upper)))
		ip[ipv6Next], ip[7] = protocol, 64
		ip[8], ip[23], ip[24], ip[39] = 0xfd, 1, 0xfd, 2
	} else {
		ip = make([]byte, ipv4Len)
		ip[0] = 0x45
		binary.BigEndian.PutUint16(ip[ipv4TotalLen:], uint16(ipv4Len+len(upper)))
		binary.BigEndian.PutUint16(ip[ipv4ID:], s.id)
		if s.dontFragment {
			ip[ipv4Fragment] = ipv4DontFrag
		}
		s.id++
		ip[ipv4TTL], ip[ipv4Protocol] = 64, protocol
		copy(ip[ipv4Addresses:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
		binary.BigEndian.PutUint16(ip[ipv4Checksum:], ^plainSum(ip))
	}
	binary.BigEndian.PutUint16(upper[at:], ^plainSum(append(plainPseudo(ip, protocol, len(upper)), upper...)))
	return append(ip, upper...)
}

func plainPseudo(ip []byte, protocol byte, n int) []byte {
	var out []byte
	if ip[0]>>4 == 4 {
		out = append(out, ip[12:20]...)
	} else {
		out = append(out, ip[8:40]...)
	}
	return append(out, 0, protocol, byte(n>>8), byte(n))
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)*3 + seed
	}
	return b
}

// frames collects what a joiner writes, in one piece each.
func frames(udp bool, pkts ...[]byte) (out [][]byte) {
	j := NewJoiner(func(pieces [][]byte) { out = append(out, bytes.Join(pieces, nil)) }, udp)
	for _, p := range pkts {
		j.Add(p)
	}
	j.Flush()
	return out
}

// cut takes frames apart again.
func cut(t *testing.T, list [][]byte) (out [][]byte) {
	t.Helper()
	for _, f := range list {
		var s Super
		room := append(bytes.Clone(f), make([]byte, 64)...)
		if err := s.Parse(room[:len(f)]); err != nil {
			t.Fatalf("parse: %v", err)
		}
		octets := 0
		for i := range s.Segments() {
			out = append(out, bytes.Clone(s.Segment(i)))
			octets += len(out[len(out)-1])
		}
		if octets != s.Octets() {
			t.Errorf("%d segments of %d octets, announced %d", s.Segments(), octets, s.Octets())
		}
	}
	return out
}

func clones(list [][]byte) (out [][]byte) {
	for _, b := range list {
		out = append(out, bytes.Clone(b))
	}
	return out
}

var kinds = []stream{
	{}, {dontFragment: true}, {options: 12}, {v6: true}, {v6: true, options: 12}, {udp: true}, {udp: true, v6: true},
}

// What was joined is cut into the very packets that came in: neither end can tell
// that there was a tunnel.
func TestJoinedPacketsAreCutAsTheyWere(t *testing.T) {
	for _, kind := range kinds {
		for _, size := range []int{1, 8, 100, 1000, 1399} {
			t.Run(fmt.Sprintf("%+v/%d", kind, size), func(t *testing.T) {
				s := kind
				s.port, s.seq, s.id = 1000, 1<<32-1500, 65530
				var pkts [][]byte
				for i := range 20 {
					pkts = append(pkts, s.packet(flagACK, pattern(size, byte(i))))
				}
				last := pattern(max(1, size/2), 99)
				pkts = append(pkts, s.packet(flagACK|flagPSH, last))
				want := clones(pkts)
				joined := frames(true, pkts...)
				if len(joined) != 1 {
					t.Fatalf("%d frames for one flow of 21 packets", len(joined))
				}
				got := cut(t, joined)
				if len(got) != len(want) {
					t.Fatalf("%d packets, want %d", len(got), len(want))
				}
				for i := range want {
					if !bytes.Equal(got[i], want[i]) {
						t.Fatalf("packet %d:\n%x\nwant\n%x", i, got[i], want[i])
					}
				}
			})
		}
	}
}

func TestWhatIsNotJoined(t *testing.T) {
	change := map[string]func(p []byte){
		"sequence gap":    func(p []byte) { p[20+tcpSeq+3]++ },
		"other ack":       func(p []byte) { p[20+tcpAck+3]++ },
		"other window":    func(p []byte) { p[20+tcpWindow+1]++ },
		"urgent":          func(p []byte) { p[20+tcpFlags] |= 0x20 },
		"reset":           func(p []byte) { p[20+tcpFlags] |= 0x04 },
		"congestion":      func(p []byte) { p[20+tcpFlags] |= 0x40 },
		"hop limit":       func(p []byte) { p[ipv4TTL]-- },
		"type of service": func(p []byte) { p[ipv4TOS] = 3 },
		"identification":  func(p []byte) { p[ipv4ID]++ },
		"fragment":        func(p []byte) { p[ipv4Fragment] |= 0x20 },
		"IP options":      func(p []byte) { p[0]++ },
	}
	for name, edit := range change {
		t.Run(name, func(t *testing.T) {
			s := stream{port: 9, seq: 5, id: 5}
			a, b := s.packet(flagACK, pattern(100, 1)), s.packet(flagACK, pattern(100, 2))
			edit(b)
			fix(b)
			if got := frames(true, a, b); len(got) != 2 {
				t.Errorf("%d frames, want each packet in its own", len(got))
			}
		})
	}
	for _, at := range []int{ipv4Checksum, 20 + tcpChecksum, 20 + tcpLen} {
		for which := range 2 {
			s := stream{port: 9, seq: 5, id: 5}
			pkts := [][]byte{s.packet(flagACK, pattern(100, 1)), s.packet(flagACK, pattern(100, 2))}
			pkts[which][at] ^= 0x10
			want := clones(pkts)
			got := frames(true, pkts...)
			if len(got) != 2 {
				t.Fatalf("broken octet %d of packet %d: %d frames", at, which, len(got))
			}
			for i := range got {
				if !bytes.Equal(got[i][HeaderLen:], want[i]) || !bytes.Equal(got[i][:HeaderLen], make([]byte, HeaderLen)) {
					t.Errorf("broken octet %d of packet %d: packet %d was mended", at, which, i)
				}
			}
		}
	}
	s := stream{udp: true, port: 9}
	if got := frames(false, s.packet(0, pattern(10, 1)), s.packet(0, pattern(10, 1))); len(got) != 2 {
		t.Error("UDP was joined for a kernel that does not take it")
	}
}

// fix makes the checksums right again after a change.
func fix(p []byte) {
	if p[0] != 0x45 {
		return
	}
	clear(p[ipv4Checksum : ipv4Checksum+2])
	binary.BigEndian.PutUint16(p[ipv4Checksum:], ^plainSum(p[:20]))
	upper := p[20:]
	clear(upper[tcpChecksum : tcpChecksum+2])
	binary.BigEndian.PutUint16(upper[tcpChecksum:], ^plainSum(append(plainPseudo(p, protoTCP, len(upper)), upper...)))
}

// Many flows mixed at random come out whole, each in its order.
func TestMixedFlowsKeepTheirOrder(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 7))
		flows := make([]stream, 12)
		for i := range flows {
			flows[i] = kinds[r.IntN(len(kinds))]
			flows[i].port = uint16(i + 1)
		}
		var pkts [][]byte
		want := map[uint16][][]byte{}
		at := 0
		for range 200 {
			if r.IntN(4) == 0 {
				at = r.IntN(len(flows))
			}
			size := []int{0, 10, 500, 500, 500, 500}[r.IntN(6)]
			flags := byte(flagACK)
			if r.IntN(10) == 0 {
				flags |= flagPSH
			}
			p := flows[at].packet(flags, pattern(size, byte(r.Uint32())))
			pkts = append(pkts, p)
			want[flows[at].port] = append(want[flows[at].port], bytes.Clone(p))
		}
		got := map[uint16][][]byte{}
		for _, p := range cut(t, frames(true, pkts...)) {
			ipLen := ipv4Len
			if p[0]>>4 == 6 {
				ipLen = ipv6Len
			}
			port := binary.BigEndian.Uint16(p[ipLen:])
			got[port] = append(got[port], p)
		}
		for port, list := range want {
			if len(got[port]) != len(list) {
				t.Fatalf("seed %d: flow %d: %d packets, want %d", seed, port, len(got[port]), len(list))
			}
			for i := range list {
				if !bytes.Equal(got[port][i], list[i]) {
					t.Fatalf("seed %d: flow %d: packet %d differs", seed, port, i)
				}
			}
		}
	}
}

// A kernel that leaves the checksum to the device gets it completed.
func TestChecksumIsCompleted(t *testing.T) {
	s := stream{port: 5}
	want := s.packet(flagACK, pattern(33, 4))
	frame := append(make([]byte, HeaderLen), want...)
	h := header{flags: needsChecksum, checksumFrom: 20, checksumAt: tcpChecksum}
	h.put(frame)
	pkt := frame[HeaderLen:]
	binary.LittleEndian.PutUint16(pkt[20+tcpChecksum:], fold(pseudo(pkt, protoTCP, len(pkt)-20)))
	var super Super
	if err := super.Parse(frame); err != nil {
		t.Fatal(err)
	}
	if got := super.Segment(0); !bytes.Equal(got, want) {
		t.Errorf("got %x\nwant %x", got, want)
	}
}

func TestFlagsOfSegments(t *testing.T) {
	s := stream{port: 5}
	pkt := s.packet(flagACK|flagPSH|flagFIN|flagCWR, pattern(250, 4))
	frame := append(make([]byte, HeaderLen), pkt...)
	h := header{flags: needsChecksum, gsoType: gsoTCPv4 | gsoECN, gsoSize: 100, checksumFrom: 20, checksumAt: tcpChecksum}
	h.put(frame)
	var super Super
	if err := super.Parse(frame); err != nil {
		t.Fatal(err)
	}
	for i, want := range []byte{flagACK | flagCWR, flagACK, flagACK | flagPSH | flagFIN} {
		seg := super.Segment(i)
		if got := seg[20+tcpFlags]; got != want {
			t.Errorf("segment %d has flags %#x, want %#x", i, got, want)
		}
		if !validChecksum(seg, &shape{ipLen: 20}) {
			t.Errorf("segment %d has a wrong checksum", i)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, kind := range kinds {
		s := kind
		var pkts [][]byte
		for i := range 5 {
			pkts = append(pkts, s.packet(flagACK, pattern(50, byte(i))))
		}
		for _, fr := range frames(true, pkts...) {
			f.Add(fr)
		}
	}
	f.Add(make([]byte, HeaderLen))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > HeaderLen+maxIPLen {
			return
		}
		room := append(bytes.Clone(frame), make([]byte, 64)...)
		var s Super
		if s.Parse(room[:len(frame)]) != nil {
			return
		}
		payload := 0
		for i := range s.Segments() {
			seg := s.Segment(i)
			if len(seg) > s.SegmentLen() {
				t.Fatalf("segment %d has %d octets, announced %d", i, len(seg), s.SegmentLen())
			}
			payload += len(seg)
		}
		if payload != s.Octets() {
			t.Fatalf("%d octets in all, announced %d", payload, s.Octets())
		}
		if !bytes.Equal(room[len(frame):], make([]byte, 64)) {
			t.Fatal("wrote behind the frame")
		}
	})
}

// FuzzJoin checks that what comes out is what went in, packet by packet of a flow,
// whatever the packets are.
func FuzzJoin(f *testing.F) {
	for _, kind := range kinds {
		s := kind
		var all []byte
		for i := range 4 {
			p := s.packet(flagACK, pattern(40, byte(i)))
			all = append(binary.BigEndian.AppendUint16(all, uint16(len(p))), p...)
		}
		f.Add(all)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var pkts [][]byte
		total := 0
		for len(data) >= 2 {
			n := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
			if n > 0 {
				pkts = append(pkts, bytes.Clone(data[2:2+n]))
				total++
			}
			data = data[2+n:]
		}
		joined := frames(true, pkts...)
		count := 0
		for _, fr := range joined {
			var s Super
			room := append(bytes.Clone(fr), make([]byte, 64)...)
			if err := s.Parse(room[:len(fr)]); err != nil {
				t.Fatalf("wrote a frame that cannot be read: %v", err)
			}
			count += s.Segments()
		}
		if count != total {
			t.Fatalf("%d packets went in, %d came out", total, count)
		}
	})
}

func BenchmarkSum(b *testing.B) {
	buf := pattern(1400, 1)
	b.SetBytes(1400)
	for b.Loop() {
		sum(buf, 0)
	}
}
