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

// TestPeerStaysOnTheIKEPort has an answer arrive without NAT detection, which a peer that
// cannot do it looks like: the client stays on port 500 although the gateway has heard that
// it takes part. ESP in UDP must not come there (RFC 7296 §2.23), nor keepalives.
func TestPeerStaysOnTheIKEPort(t *testing.T) {
	l := newLab(t, 1, clientPolicy(), serverPolicy())
	l.filter = func(d datagram) bool {
		h, _ := message.ParseHeader(d.data)
		if h.Exchange == message.IKESAInit && h.Response() {
			l.client.engine.Receive(l.now, d.pair.Reverse(), withoutNotify(t, d.data, message.NATDetectionDestinationIP))
			return false
		}
		return !h.Response() // with IKE_AUTH the client would find out that its answer was another
	}
	l.run()
	i := l.serverInfo()
	if pair := i.Path.Pair; i.State != Up || pair.Local.Port() != 500 || pair.Remote.Port() != 500 {
		t.Fatalf("the gateway's session is %v on %v", i.State, pair)
	}
	if p := l.server.hosts[i.ID]; p.UDP || p.Keepalive != 0 {
		t.Errorf("the gateway sends ESP on the IKE port: %+v", p)
	}
	s := l.server.engine.sessions[i.ID]
	s.nat.local = true
	if p := s.espPath(); p.UDP || p.Keepalive != 0 {
		t.Errorf("behind a NAT, too: %+v", p)
	}
	natt := locator.Pair{Local: netip.AddrPortFrom(serverAddr.Addr(), NATTPort), Remote: clientAddr}
	if p := s.pathFor(natt); !p.UDP || p.Keepalive == 0 {
		t.Errorf("no ESP in UDP or no keepalives on the port for it: %+v", p)
	}
}

// withoutNotify is a copy of an unprotected message in which a notify has become another,
// which nobody knows.
func withoutNotify(t *testing.T, m []byte, kind message.NotifyType) []byte {
	t.Helper()
	head := func(k message.NotifyType) []byte { return []byte{0, 0, byte(k >> 8), byte(k)} } // no protocol, no SPI
	if bytes.Count(m, head(kind)) != 1 {
		t.Fatalf("%v is not in the message once", kind)
	}
	return bytes.Replace(m, head(kind), head(0x6fff), 1)
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
