package tun

import (
	"testing"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
)

// A transport is what carries the packets of a data path.
var (
	_ Sender                                       = (*transport.Transport)(nil)
	_ interface{ HandleESP([]transport.ESPTrain) } = (*DataPath)(nil)
)

// FuzzInbound gives a live data path the input as a datagram with a live SPI, and
// then as the payload of a packet sealed with the right key. Whatever comes out of
// the device must be a packet that the selectors allow.
func FuzzInbound(f *testing.F) {
	f.Add([]byte{}, byte(4))
	f.Add(udpPacket("10.0.0.1", "10.1.0.1", 10), byte(4))
	f.Add(udpPacket("fd00:a::1", "fd00:b::1", 10), byte(41))
	f.Add(synPacket("10.0.0.1", "10.1.0.1", 2, mss(1460)...), byte(4))
	f.Add(synPacket("fd00:a::1", "fd00:b::1", 2, mss(1460)...), byte(41))
	f.Add([]byte{0x45, 0, 0, 20}, byte(59))
	_, forB := algorithms[0].children(1)
	selectors, err := esp.NewSelectors(forB.Local, forB.Remote)
	if err != nil {
		f.Fatal(err)
	}
	b := newSide(f)
	b.must(b.dp.AddHost(theHost, esp.Path{Pair: pairBA, UDP: true}))
	b.must(b.dp.AddChild(forB))
	peer, err := esp.NewSealer(&forB.In, esp.Lifetime{}, nil)
	b.must(err)
	f.Fuzz(func(t *testing.T, input []byte, nextHeader byte) {
		if len(input) > 4096 {
			return
		}
		b.receive(pairBA, true, append([]byte{0, 1, 0, 1}, input...))
		if got := b.dev.take(); got != nil {
			t.Fatalf("a packet without the key came out: %x", got)
		}
		b.receive(pairBA, true, sealFor(t, peer, input, nextHeader))
		for _, pkt := range b.dev.take() {
			var in esp.Inner
			if err := in.Parse(pkt); err != nil || in.Length != len(pkt) || !selectors.Inbound(&in) {
				t.Fatalf("%x came out: %v", pkt, err)
			}
		}
	})
}

// FuzzOutbound reads the input from the device. Nothing may be sent that is not
// sealed, and only what the selectors allow.
func FuzzOutbound(f *testing.F) {
	f.Add(udpPacket("10.0.0.1", "10.1.0.1", 10))
	f.Add(udpPacket("fd00:a::1", "fd00:b::1", 1400))
	f.Add(synPacket("10.0.0.1", "10.1.0.1", 2, mss(1460)...))
	f.Add(udpPacket("10.9.0.1", "10.1.0.1", 10))
	forA, _ := algorithms[0].children(1)
	selectors, err := esp.NewSelectors(forA.Local, forA.Remote)
	if err != nil {
		f.Fatal(err)
	}
	a := newSide(f)
	a.must(a.dp.AddHost(theHost, esp.Path{Pair: pairAB, UDP: true, MTU: 1300}))
	a.must(a.dp.AddChild(forA))
	a.must(a.dp.ActivateChild(1))
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) > 4096 {
			return
		}
		var in esp.Inner
		allowed := in.Parse(input) == nil && selectors.Outbound(&in)
		a.push(input)
		for _, s := range a.sender.take() {
			if !allowed || len(s.pkts) != 1 || len(s.pkts[0]) < 8+8+in.Length+16 {
				t.Fatalf("sent %v for %x", s, input)
			}
		}
		for _, reply := range a.dev.take() {
			var r esp.Inner
			if !allowed || r.Parse(reply) != nil || r.Dst() != in.Src() {
				t.Fatalf("replied %x to %x", reply, input)
			}
		}
	})
}
