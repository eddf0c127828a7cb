package tun

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// marked is a UDP packet from side A's network to B's, with a TOS octet.
func marked(v6 bool, tos uint8) []byte {
	if v6 {
		pkt := udpPacket("fd00:a::1", "fd00:b::1", 100)
		pkt[0], pkt[1] = 0x60|tos>>4, pkt[1]&0x0f|tos<<4
		return pkt
	}
	pkt := udpPacket("10.0.0.1", "10.1.0.1", 100)
	pkt[1], pkt[10], pkt[11] = tos, 0, 0
	s := sum(pkt[:ipv4Header])
	pkt[10], pkt[11] = uint8(s>>8), uint8(s)
	return pkt
}

func tosOf(t *testing.T, pkt []byte) uint8 {
	t.Helper()
	var in esp.Inner
	if err := in.Parse(pkt); err != nil {
		t.Fatal(err)
	}
	if !in.V6 && sum(pkt[:ipv4Header]) != 0 {
		t.Error("the header's checksum is wrong")
	}
	return in.TOS
}

// recorded keeps the trains that a side sends.
func recorded(s *side) *[]transport.Train {
	var out []transport.Train
	s.sender.deliver = func(_ locator.Pair, _ bool, trains []transport.Train) {
		for _, t := range trains {
			t.Data = bytes.Clone(t.Data)
			out = append(out, t)
		}
	}
	return &out
}

func TestOuterTOSFollowsThePolicy(t *testing.T) {
	for _, dscp := range []esp.DSCP{0, 46, esp.CopyDSCP} {
		a, b := tunnel(t, true, func(c *Config) { c.DSCP = dscp })
		add(a, b, algorithms[0], 1)
		got := recorded(a)
		for _, v6 := range []bool{false, true} {
			for _, tos := range []uint8{0, 0xb8, 0x02, 0x2b} {
				*got = nil
				a.push(marked(v6, tos))
				if len(*got) != 1 || (*got)[0].TOS != dscp.Outer(tos) {
					t.Errorf("DSCP %v, inner %#x: %+v", dscp, tos, *got)
				}
			}
		}
	}
}

// Packets of one TOS make one train, however many; another TOS begins another.
func TestTrainsHaveOneTOS(t *testing.T) {
	a, b := tunnel(t, true)
	add(a, b, algorithms[0], 1)
	got := recorded(a)
	var pkts [][]byte
	for i := range 30 {
		tos := uint8(esp.ECT0)
		if i >= 20 {
			tos = esp.NotECT | 0xb8
		}
		pkts = append(pkts, marked(false, tos))
	}
	a.push(pkts...)
	var trains []string
	for _, t := range *got {
		trains = append(trains, fmt.Sprintf("%d:%d", t.Packets(), t.TOS))
	}
	if want := "[20:2 10:0]"; fmt.Sprint(trains) != want {
		t.Errorf("trains %v, want %s", trains, want)
	}
}

// What the network writes into outer headers comes out at the other end (RFC 6040).
func TestCongestionComesThrough(t *testing.T) {
	a, b := tunnel(t, true)
	add(a, b, algorithms[0], 1)
	got := recorded(a)
	dropped := uint64(0)
	for _, v6 := range []bool{false, true} {
		for inner := range uint8(4) {
			for outer := range uint8(4) {
				*got = nil
				a.push(marked(v6, 0xb8|inner))
				train := (*got)[0]
				train.TOS = 0x20 | outer // the network may change the DSCP as well
				b.dp.HandleESP([]transport.ESPTrain{{Pair: pairBA, UDP: true, Train: train}})
				out := b.dev.take()
				want, ok := esp.DecapsulateECN(inner, outer)
				if !ok {
					dropped++
				}
				switch {
				case ok != (len(out) == 1):
					t.Errorf("v6 %v, inner %d, outer %d: %d packets", v6, inner, outer, len(out))
				case ok && tosOf(t, out[0]) != 0xb8|want:
					t.Errorf("v6 %v, inner %d, outer %d: TOS %#x", v6, inner, outer, tosOf(t, out[0]))
				}
			}
		}
	}
	if n := b.dp.Counters().InCongested; n != dropped || n != 2 {
		t.Errorf("%d packets counted as dropped, want %d", n, dropped)
	}
}
