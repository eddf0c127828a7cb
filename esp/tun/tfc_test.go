package tun

import (
	"bytes"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

// With TFC padding all packets outside are equally long, and come out as they went in.
func TestTFCPadding(t *testing.T) {
	for _, alg := range algorithms {
		for _, tc := range []struct{ ours, theirs, padded bool }{
			{true, true, true}, {true, false, false}, {false, true, false},
		} {
			a, b := tunnel(t, true, func(c *Config) { c.TFC = tc.ours })
			add(a, b, alg, 1, func(c *esp.Child) { c.TFC = tc.theirs })
			a.must(a.dp.MoveHost(theHost, esp.Path{Pair: pairAB, UDP: true, MTU: 1400}))
			pkts := [][]byte{
				udpPacket("10.0.0.1", "10.1.0.1", 0), udpPacket("fd00:a::1", "fd00:b::1", 1), udpPacket("10.0.0.1", "10.1.0.1", 700),
				udpPacket("fd00:a::1", "fd00:b::1", 1200), udpPacket("10.0.0.1", "10.1.0.1", 33),
			}
			a.push(pkts...)
			lengths := map[int]bool{}
			var sealed [][]byte
			for _, s := range a.sender.take() {
				sealed = append(sealed, s.pkts...)
			}
			for _, p := range sealed {
				lengths[len(p)] = true
				if 20+8+len(p) > 1400 {
					t.Errorf("%v: a packet of %d octets is larger than the path", alg, 28+len(p))
				}
			}
			if (len(lengths) == 1) != tc.padded {
				t.Errorf("%v, %+v: lengths %v", alg, tc, lengths)
			}
			b.receive(pairBA, true, sealed...)
			out := b.dev.take()
			if len(out) != len(pkts) {
				t.Fatalf("%v: %d packets came out", alg, len(out))
			}
			for i := range out {
				if !bytes.Equal(out[i], pkts[i]) {
					t.Errorf("%v: packet %d came out as %x", alg, i, out[i])
				}
			}
		}
	}
}
