package ike

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// TestEncapsulationIsAgreed has ESP in UDP on a path without NAT, and neither side
// believes in one.
func TestEncapsulationIsAgreed(t *testing.T) {
	for _, tc := range []struct {
		name           string
		client, server bool // want native ESP
		udp            bool
	}{
		{"nobody wants native ESP", false, false, true},
		{"the client does", true, false, true},
		{"the gateway does", false, true, true},
		{"both do", true, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cp, sp := clientPolicy(), serverPolicy()
			cp.NativeESP, sp.NativeESP = tc.client, tc.server
			l := connected(t, cp, sp)
			for side, i := range map[string]SessionInfo{"client": l.clientInfo(), "server": l.serverInfo()} {
				if i.Path.UDP != tc.udp {
					t.Errorf("%s: ESP in UDP %v, want %v", side, i.Path.UDP, tc.udp)
				}
				if i.NATLocal || i.NATPeer || i.Path.Keepalive != 0 {
					t.Errorf("%s: sees a NAT where there is none: %+v", side, i)
				}
			}
		})
	}
}

// TestProhibitNAT switches NAT traversal off on one side: native ESP on the IKE port.
func TestProhibitNAT(t *testing.T) {
	cp, sp := clientPolicy(), serverPolicy()
	cp.NativeESP, cp.ProhibitNAT, sp.NativeESP = true, true, true
	l := connected(t, cp, sp)
	for side, i := range map[string]SessionInfo{"client": l.clientInfo(), "server": l.serverInfo()} {
		if i.Path.UDP || i.Path.Pair.Local.Port() != 500 || i.Path.Pair.Remote.Port() != 500 {
			t.Errorf("%s: path %+v", side, i.Path)
		}
	}
}

// TestStandardPeersAreShownANAT looks at what is sent to peers that do not know
// UDP_ENCAPSULATION, or use its number for something else.
func TestStandardPeersAreShownANAT(t *testing.T) {
	pair := locator.Pair{Local: netip.MustParseAddrPort("192.0.2.1:500"), Remote: netip.MustParseAddrPort("203.0.113.1:500")}
	for _, tc := range []struct {
		name   string
		notify []byte
		source []byte
		open   bool
	}{
		{"no such notify", nil, bytes.Repeat([]byte{1}, 20), false},
		{"another meaning", bytes.Repeat([]byte{2}, 20), bytes.Repeat([]byte{1}, 20), false},
		{"another length", []byte{1, 2, 3}, bytes.Repeat([]byte{1}, 20), false},
		{"our kind", bytes.Repeat([]byte{1}, 20), bytes.Repeat([]byte{1}, 20), true},
		{"our kind, native", []byte{}, bytes.Repeat([]byte{1}, 20), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t, 1, clientPolicy(), serverPolicy())
			s := l.client.engine.sessions[l.id]
			in := []message.Payload{
				&message.Notify{Kind: message.NATDetectionSourceIP, Data: tc.source},
				&message.Notify{Kind: message.NATDetectionDestinationIP, Data: natHash(s.sa.spii, 0, pair.Local)},
			}
			if tc.notify != nil {
				in = append(in, &message.Notify{Kind: message.UDPEncapsulation, Data: tc.notify})
			}
			x := &Exchange{Type: message.IKESAInit, Session: s, Now: l.now, Pair: pair, In: in}
			if err := (natTask{}).HandleResponse(x); err != nil {
				t.Fatal(err)
			}
			if s.nat.open != tc.open || s.nat.local || !s.nat.supported {
				t.Errorf("nat state %+v, want open %v", s.nat, tc.open)
			}
			x.addNATDetection()
			shown := x.Out[0].(*message.Notify).Data
			if truth := bytes.Equal(shown, natHash(s.sa.spii, s.sa.spir, pair.Local)); truth != tc.open {
				t.Errorf("the source hash is true: %v, want %v", truth, tc.open)
			}
		})
	}
}
