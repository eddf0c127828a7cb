package ike

import (
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// ipSize is the length of the IPv4 packet that carries a datagram on port 4500.
func (d datagram) ipSize() int { return 20 + 8 + 4 + len(d.data) }

// narrowLab is a connected pair where the client probes its path, which drops what is
// larger than mtu.
type narrowLab struct {
	*lab
	mtu   int
	tries []int // sizes of the packets with the don't fragment bit
}

func newNarrowLab(t *testing.T, mtu int, ike string, tune ...func(*Policy)) *narrowLab {
	cp, sp := clientPolicy(), serverPolicy()
	for _, f := range tune {
		f(cp)
	}
	cp.IKE, cp.DiscoverPathMTU = mustIKE(ike), true
	n := &narrowLab{lab: newLab(t, 1, cp, sp), mtu: mtu}
	n.filter = func(d datagram) bool {
		if d.df {
			n.tries = append(n.tries, d.ipSize())
		}
		return d.ipSize() <= n.mtu
	}
	n.advance(10 * time.Second)
	return n
}

// unanswered is the client's data path saying so.
func (l *lab) unanswered() {
	l.client.engine.DataPathEvent(l.now, esp.Event{Kind: esp.Unanswered, Host: esp.HostID(l.id)})
}

func (n *narrowLab) found() int { return n.client.hosts[n.id].MTU }

func TestProbesHaveTheSizeAskedFor(t *testing.T) {
	for _, tc := range []struct {
		ike             string
		mtu, least, max int
	}{
		{"aes256gcm16-prfsha256-x25519", 1500, 1500, 1500},
		{"aes256gcm16-prfsha256-x25519", 1400, 1400, 1400},
		{"aes256gcm16-prfsha256-x25519", 1280, 1280, 1280},
		{"aes256gcm16-prfsha256-x25519", 576, 576, 576},
		{"aes256-sha256-x25519", 1500, 1485, 1500}, // blocks of 16
		{"aes256-sha256-x25519", 1400, 1377, 1400},
	} {
		n := newNarrowLab(t, tc.mtu, tc.ike)
		if got := n.found(); got < tc.least || got > tc.max {
			t.Errorf("%s: MTU %d found as %d", tc.ike, tc.mtu, got)
		}
		if n.tries[0] > 1500 || n.tries[0] < 1500-15 {
			t.Errorf("%s: first probe of %d octets", tc.ike, n.tries[0])
		}
		n.agree()
	}
}

// A probe for the largest packets there are still has a form for the smallest.
func TestProbesForTheLargestPackets(t *testing.T) {
	n := newNarrowLab(t, 65535, "aes256gcm16-prfsha256-x25519", func(p *Policy) { p.MaxPathMTU = 65535 })
	if n.found() < 16000 {
		t.Errorf("found %d", n.found())
	}
	n.agree()
}

// While a probe goes unanswered for its size, the peer is not taken for silent.
func TestLargeProbesAreNoSilence(t *testing.T) {
	n := newNarrowLab(t, 1500, "aes256gcm16-prfsha256-x25519")
	n.mtu = 1300
	n.unanswered()
	for range 20 {
		n.advance(20 * time.Millisecond)
		if u := n.clientInfo().Unanswered; u > 1 {
			t.Fatalf("%d unanswered", u)
		}
	}
	n.advance(10 * time.Second)
	if n.found() != 1300 {
		t.Errorf("found %d", n.found())
	}
}

// The round trip has become longer than the wait for answers: all sizes are sent before
// the first answer comes. Counting answers finds out that the large ones arrived.
func TestSlowAnswersProveLargePackets(t *testing.T) {
	n := newNarrowLab(t, 1500, "aes256gcm16-prfsha256-x25519")
	narrow := n.filter
	var held []datagram
	n.filter = func(d datagram) bool {
		if d.from == n.server {
			held = append(held, d)
			return false
		}
		return narrow(d)
	}
	n.tries = nil
	n.unanswered()
	n.advance(700 * time.Millisecond)
	if len(n.tries) < 4 || n.found() != 1500 {
		t.Fatalf("tries %v, found %d", n.tries, n.found())
	}
	n.filter = narrow
	for _, d := range held {
		n.queue = append(n.queue, d)
		n.advance(time.Millisecond)
	}
	n.advance(2 * time.Second)
	if n.found() != 1500 {
		t.Errorf("found %d", n.found())
	}
}

// Another request does not wait for a probe that goes unanswered.
func TestRequestsInterruptProbes(t *testing.T) {
	n := newNarrowLab(t, 1500, "aes256gcm16-prfsha256-x25519")
	n.mtu = 1300
	s := n.client.engine.sessions[n.id]
	n.unanswered()
	n.advance(time.Millisecond)
	if !s.Outstanding() {
		t.Fatal("no probe is under way")
	}
	answered := false
	s.Request(n.now, func(*Exchange) bool { return true }, func(*Exchange) { answered = true })
	n.run() // no time passes
	if !answered {
		t.Error("the request waits for the probe")
	}
	n.advance(20 * time.Second)
	if n.found() != 1300 {
		t.Errorf("found %d", n.found())
	}
}

// A peer that is told that traffic goes unanswered looks at its own direction.
func TestPeerLooksAtItsDirectionToo(t *testing.T) {
	cp, sp := clientPolicy(), serverPolicy()
	cp.DiscoverPathMTU, sp.DiscoverPathMTU = true, true
	l := newLab(t, 1, cp, sp)
	l.advance(5 * time.Second)
	down := 1500
	l.filter = func(d datagram) bool { return d.from == l.client || d.ipSize() <= down }
	down = 1400
	l.unanswered()
	l.advance(time.Second)
	if got := l.server.hosts[l.serverInfo().ID].MTU; got != 1400 {
		t.Errorf("the server found %d", got)
	}
	if got := l.client.hosts[l.id].MTU; got != 1500 {
		t.Errorf("the client found %d", got)
	}
}

// An initiator of an IKE SA that was rekeyed under a probe does not lose it for good.
func TestProbesSurviveRekeying(t *testing.T) {
	n := newNarrowLab(t, 1500, "aes256gcm16-prfsha256-x25519")
	for i := range 30 {
		n.mtu = 1500 - 10*i
		n.unanswered()
		n.advance(time.Duration(13*i) * time.Millisecond)
		who, id := n.client, n.id
		if i%2 == 0 {
			who, id = n.server, n.serverInfo().ID
		}
		if err := who.engine.RekeyIKE(n.now, id); err != nil {
			t.Fatal(err)
		}
		n.advance(20 * time.Second)
		if got := n.found(); got > n.mtu || got < n.mtu-10 {
			t.Fatalf("round %d: MTU %d found as %d", i, n.mtu, got)
		}
	}
	n.agree()
}

// The padding is nothing that a receiver has to know.
func TestPaddingIsAStatusType(t *testing.T) {
	if message.PathMTUPadding < 40960 {
		t.Errorf("%d is not of the private use range of status types (RFC 7296 §3.10.1)", message.PathMTUPadding)
	}
}

// A peer that does not take TFC padding says so for each Child SA (RFC 7296 §1.3.1).
func TestTFCPaddingNotSupported(t *testing.T) {
	refuse := func(p *Policy) { p.Extensions = []Extension{refusesTFC{}} }
	for _, tc := range []struct {
		client, server func(*Policy)
		forClient      bool
	}{
		{func(*Policy) {}, func(*Policy) {}, true},
		{func(*Policy) {}, refuse, false},
	} {
		cp, sp := clientPolicy(), serverPolicy()
		tc.client(cp)
		tc.server(sp)
		l := connected(t, cp, sp)
		for _, c := range l.client.childs {
			if c.TFC != tc.forClient {
				t.Errorf("client: TFC %v, want %v", c.TFC, tc.forClient)
			}
		}
		for _, c := range l.server.childs {
			if !c.TFC {
				t.Error("the server takes the client for one without TFC padding")
			}
		}
	}
}

// refusesTFC is a side without TFC padding.
type refusesTFC struct{}

func (refusesTFC) Name() string                   { return "no tfc" }
func (refusesTFC) Begin(*Session) Task            { return refusesTFC{} }
func (refusesTFC) HandleRequest(*Exchange) error  { return nil }
func (refusesTFC) HandleResponse(*Exchange) error { return nil }

func (refusesTFC) Request(x *Exchange) error { return refusesTFC{}.Respond(x) }

func (refusesTFC) Respond(x *Exchange) error {
	if x.Type == message.IKEAuth {
		x.Add(&message.Notify{Kind: message.ESPTFCPaddingNotSupported})
	}
	return nil
}
