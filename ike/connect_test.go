package ike

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

func TestConnectPSK(t *testing.T) {
	l := connected(t, clientPolicy(), serverPolicy())
	c, s := l.clientInfo(), l.serverInfo()
	if c.State != Up || s.State != Up {
		t.Errorf("states %v %v", c.State, s.State)
	}
	if len(c.Config.Addresses) != 1 || c.Config.Addresses[0] != innerAddr {
		t.Errorf("client was assigned %v", c.Config.Addresses)
	}
	if got := c.Children[0].Local; len(got) != 1 || got[0] != SelectAddress(innerAddr) {
		t.Errorf("client's local selectors %v", got)
	}
	if got := s.Children[0].Remote; len(got) != 1 || got[0] != SelectAddress(innerAddr) {
		t.Errorf("server's remote selectors %v", got)
	}
	if !c.Path.UDP || c.Path.Pair.Remote.Port() != 4500 || s.Path.Pair.Local.Port() != 4500 {
		t.Errorf("paths %+v %+v, want UDP on 4500", c.Path, s.Path)
	}
	if c.NATLocal || c.Path.Keepalive != 0 {
		t.Errorf("client sees a NAT before itself where there is none")
	}
	if s.Peer.String() != "laptop@example.test" || c.Peer.String() != "vpn.example.test" {
		t.Errorf("peers %s and %s", s.Peer, c.Peer)
	}
	if h, up := l.server.engine.Counts(); h != 0 || up != 1 {
		t.Errorf("server counts %d half-open, %d up", h, up)
	}
}

func TestAlgorithms(t *testing.T) {
	ikes := []string{
		"aes128gcm16-prfsha256-x25519", "aes256gcm16-prfsha384-ecp384", "chacha20poly1305-prfsha512-ecp521",
		"aes128-sha256-modp2048", "aes256-sha384-ecp256", "aes256-sha512-modp3072", "aes256-sha256-modp4096",
	}
	esps := []string{"aes128gcm16", "aes256gcm16-ecp256", "chacha20poly1305", "aes128-sha256", "aes256-sha384-modp2048", "aes256-sha512-esn"}
	for i, ike := range ikes {
		e := esps[i%len(esps)]
		t.Run(ike+"/"+e, func(t *testing.T) {
			cp, sp := clientPolicy(), serverPolicy()
			cp.IKE, sp.IKE = mustIKE(ike), mustIKE(ike)
			cp.ESP, sp.ESP = mustESP(e), mustESP(e)
			l := connected(t, cp, sp)
			if err := l.client.engine.RekeyChild(l.now, l.id, l.clientInfo().Children[0].ID); err != nil {
				t.Fatal(err)
			}
			l.advance(5 * time.Second)
			l.agree()
			if err := l.server.engine.RekeyIKE(l.now, l.serverInfo().ID); err != nil {
				t.Fatal(err)
			}
			l.advance(5 * time.Second)
			l.agree()
			if len(l.client.rekeyed) != 2 {
				t.Errorf("client saw %d rekeyings", len(l.client.rekeyed))
			}
		})
	}
}

func TestWrongPSK(t *testing.T) {
	cp := clientPolicy()
	cp.Local.PSK = []byte("not the secret")
	l := newLab(t, 1, cp, serverPolicy())
	l.run()
	wantClosed(t, l.server, reason.AuthFailedPSK, message.AuthenticationFailed)
	wantClosed(t, l.client, reason.AuthFailed, message.AuthenticationFailed)
	l.advance(time.Minute)
	if len(l.server.engine.sas) != 0 || l.server.engine.nHalf != 0 {
		t.Errorf("server keeps %d SAs, %d half-open", len(l.server.engine.sas), l.server.engine.nHalf)
	}
}

func TestWrongServerPSK(t *testing.T) {
	cp := clientPolicy()
	cp.Remote.PSK = pskOf("another")
	l := newLab(t, 1, cp, serverPolicy())
	l.advance(5 * time.Second)
	wantClosed(t, l.client, reason.AuthFailedPSK, message.AuthenticationFailed)
	wantClosed(t, l.server, reason.AuthFailed, message.AuthenticationFailed)
}

func TestIdentityMismatch(t *testing.T) {
	t.Run("the client asks for another server", func(t *testing.T) {
		cp := clientPolicy()
		cp.Remote.ID = mustPattern("other.example.test")
		l := newLab(t, 1, cp, serverPolicy())
		l.run()
		wantClosed(t, l.server, reason.IDMismatch, message.AuthenticationFailed)
		wantClosed(t, l.client, reason.AuthFailed, message.AuthenticationFailed)
	})
	t.Run("the server does not know the client", func(t *testing.T) {
		sp := serverPolicy()
		sp.Remote.ID = mustPattern("someone@example.test")
		l := newLab(t, 1, clientPolicy(), sp)
		l.run()
		wantClosed(t, l.server, reason.IDMismatch, message.AuthenticationFailed)
	})
	t.Run("the client does not accept the server's name", func(t *testing.T) {
		cp := clientPolicy()
		cp.Remote.ID = mustPattern("*.elsewhere.test")
		l := newLab(t, 1, cp, serverPolicy())
		l.advance(5 * time.Second)
		wantClosed(t, l.client, reason.IDMismatch, message.AuthenticationFailed)
		wantClosed(t, l.server, reason.AuthFailed, message.AuthenticationFailed)
	})
}

func TestNoProposalChosen(t *testing.T) {
	cp := clientPolicy()
	cp.IKE = mustIKE("aes128-sha256-modp2048")
	l := newLab(t, 1, cp, serverPolicy())
	l.run()
	wantClosed(t, l.client, reason.NoProposalChosen, message.NoProposalChosen)
	if len(l.server.engine.sessions) != 0 || len(l.server.refused) != 1 {
		t.Errorf("server has %d sessions, refused %d", len(l.server.engine.sessions), len(l.server.refused))
	}
}

func TestNoESPProposal(t *testing.T) {
	cp := clientPolicy()
	cp.ESP = mustESP("aes128-sha256")
	l := newLab(t, 1, cp, serverPolicy())
	l.advance(10 * time.Second)
	wantClosed(t, l.client, reason.NoProposalChosen, message.NoProposalChosen)
	wantClosed(t, l.server, reason.PeerDeleted, 0)
}

func TestSelectorsUnacceptable(t *testing.T) {
	cp := clientPolicy()
	cp.RemoteSelectors = []esp.Selector{esp.PrefixSelector(netip.MustParsePrefix("172.16.0.0/12"))}
	l := newLab(t, 1, cp, serverPolicy())
	l.advance(10 * time.Second)
	wantClosed(t, l.client, reason.TSUnacceptable, message.TSUnacceptable)
}

func TestSelectorsNarrowed(t *testing.T) {
	cp := clientPolicy()
	cp.RemoteSelectors = nil // everything
	l := connected(t, cp, serverPolicy())
	if got := l.clientInfo().Children[0].Remote; len(got) != 1 || got[0] != esp.PrefixSelector(innerNet) {
		t.Errorf("narrowed to %v, want %v", got, innerNet)
	}
}

func TestPoolExhausted(t *testing.T) {
	l := newLab(t, 1, clientPolicy(), serverPolicy())
	l.server.grant = func(AuthorizeRequest) Grant { return Grant{Refuse: reason.PoolExhausted} }
	l.advance(10 * time.Second)
	wantClosed(t, l.client, reason.NoAddressAssigned, message.InternalAddressFailure)
}

func TestRefusedByAuthorization(t *testing.T) {
	l := newLab(t, 1, clientPolicy(), serverPolicy())
	l.server.grant = func(AuthorizeRequest) Grant { return Grant{Refuse: reason.UserUnknown} }
	l.run()
	wantClosed(t, l.client, reason.AuthFailed, message.AuthenticationFailed)
	wantClosed(t, l.server, reason.UserUnknown, message.AuthenticationFailed)
}

func TestConfigRequired(t *testing.T) {
	cp := clientPolicy()
	cp.RequestIPv4 = false
	l := newLab(t, 1, cp, serverPolicy())
	l.advance(10 * time.Second)
	wantClosed(t, l.client, reason.ConfigRequired, message.FailedCPRequired)
}

func TestInvalidKE(t *testing.T) {
	cp, sp := clientPolicy(), serverPolicy()
	cp.IKE = mustIKE("aes256-sha256-x25519-ecp384")
	sp.IKE = mustIKE("aes256-sha256-ecp384")
	l := connected(t, cp, sp)
	if got := l.clientInfo().Algorithms.KE; got != suite.KEP384 {
		t.Errorf("agreed on %v", got)
	}
}

func TestInvalidKEOfAGroupNotOffered(t *testing.T) {
	l := newLab(t, 1, clientPolicy(), serverPolicy())
	l.client.settle()
	first := l.queue[0]
	l.queue = nil
	h, _ := message.ParseHeader(first.data)
	m := message.Message{Header: message.Header{SPIi: h.SPIi, Major: 2, Exchange: message.IKESAInit, Flags: message.FlagResponse},
		Payloads: []message.Payload{message.NewInvalidKE(suite.KEModp2048)}}
	b, _ := m.Append(nil)
	l.client.engine.Receive(l.now, locator.Pair{Local: clientAddr, Remote: serverAddr}, b)
	l.client.settle()
	wantClosed(t, l.client, reason.NoProposalChosen, message.InvalidKEPayload)
}

func TestCookie(t *testing.T) {
	l := newLab(t, 1, clientPolicy(), serverPolicy())
	l.server.engine.responder.CookieThreshold = 1
	flood(l.wire, l.server, 1)
	l.run()
	if len(l.client.established) != 1 {
		t.Fatalf("not connected: %s", describeClosed(l.client))
	}
}

// A slow responder answers every copy of a request, each with a cookie of its own. Only
// the first is followed: the responder goes by the first request that brings its
// cookie back, and AUTH must sign that one. A cookie that answers the new request is
// followed again.
func TestCookiesForCopies(t *testing.T) {
	l := newLab(t, 1, clientPolicy(), serverPolicy())
	l.client.settle()
	h, _ := message.ParseHeader(l.queue[0].data)
	l.filter = func(datagram) bool { return false }
	l.advance(600 * time.Millisecond) // one retransmission
	l.queue = nil
	answer := func(cookie string) (sent []datagram) {
		m := message.Message{Header: message.Header{SPIi: h.SPIi, Major: 2, Exchange: message.IKESAInit, Flags: message.FlagResponse},
			Payloads: []message.Payload{&message.Notify{Kind: message.Cookie, Data: []byte(cookie)}}}
		b, _ := m.Append(nil)
		l.client.engine.Receive(l.now, locator.Pair{Local: clientAddr, Remote: serverAddr}, b)
		l.client.settle()
		sent, l.queue = l.queue, nil
		return sent
	}
	for i, want := range []int{1, 0, 1} {
		sent := answer(fmt.Sprintf("cookie %d", i))
		if len(sent) != want {
			t.Fatalf("cookie %d: %d requests follow, want %d", i, len(sent), want)
		}
		if want == 0 {
			continue
		}
		m, err := message.Parse(sent[0].data)
		if err != nil {
			t.Fatal(err)
		}
		if n := message.FindNotify(m.Payloads, message.Cookie); n == nil || string(n.Data) != fmt.Sprintf("cookie %d", i) {
			t.Errorf("request after cookie %d brings back %v", i, n)
		}
	}
}

// flood opens half-open SAs from n addresses.
func flood(w *wire, to *peer, n int) {
	for i := range n {
		x := w.add("flood", netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), uint64(i), Config{})
		_, err := x.engine.Initiate(w.now, clientPolicy(), locator.Pair{Local: netip.AddrPortFrom(x.addr, 500), Remote: netip.AddrPortFrom(to.addr, 500)})
		if err != nil {
			w.t.Fatal(err)
		}
		x.settle()
		x.addr = netip.Addr{} // hears nothing
	}
	for len(w.queue) > 0 {
		d := w.queue[0]
		w.queue = w.queue[1:]
		w.deliver(d)
	}
}

func TestHalfOpenIsBounded(t *testing.T) {
	w := newWire(t)
	server := w.add("server", serverAddr.Addr(), 1, Config{Responder: &ResponderConfig{Policy: serverPolicy(), CookieThreshold: 10}})
	flood(w, server, 300)
	if half, _ := server.engine.Counts(); half != 10 || len(server.engine.sessions) != 10 {
		t.Errorf("%d half-open, %d sessions, want 10", half, len(server.engine.sessions))
	}
	w.peers = w.peers[:1]
	w.advance(time.Minute)
	if half, _ := server.engine.Counts(); half != 0 || len(server.engine.sas) != 0 || len(server.engine.initial) != 0 || len(server.engine.halfOpen) != 0 {
		t.Errorf("left over: %d half-open, %d SAs", half, len(server.engine.sas))
	}
}

func TestCookieJar(t *testing.T) {
	var j cookieJar
	n := byte(0)
	random := func(k int) []byte { n++; b := make([]byte, k); b[0] = n; return b }
	now := testStart
	j.rotate(now, random)
	ni := []byte("0123456789abcdef")
	c := j.make(clientAddr, 7, ni)
	other := netip.MustParseAddrPort("192.0.2.11:500")
	for _, tc := range []struct {
		name string
		ok   bool
		got  bool
	}{
		{"fits", true, j.check(c, clientAddr, 7, ni)},
		{"another address", false, j.check(c, other, 7, ni)},
		{"another port", false, j.check(c, netip.AddrPortFrom(clientAddr.Addr(), 501), 7, ni)},
		{"another SPI", false, j.check(c, clientAddr, 8, ni)},
		{"another nonce", false, j.check(c, clientAddr, 7, []byte("0123456789abcdeX"))},
		{"cut", false, j.check(c[:cookieLen-1], clientAddr, 7, ni)},
		{"empty", false, j.check(nil, clientAddr, 7, ni)},
	} {
		if tc.got != tc.ok {
			t.Errorf("%s: %v", tc.name, tc.got)
		}
	}
	j.rotate(now.Add(cookieLifetime), random)
	if !j.check(c, clientAddr, 7, ni) {
		t.Error("a cookie of the previous secret is refused")
	}
	j.rotate(now.Add(2*cookieLifetime), random)
	if j.check(c, clientAddr, 7, ni) {
		t.Error("a cookie two secrets old is accepted")
	}
}

func TestNoAnswer(t *testing.T) {
	l := newLab(t, 1, clientPolicy(), serverPolicy())
	sends := 0
	l.filter = func(datagram) bool { sends++; return false }
	l.advance(DefaultConnectTimeout + time.Second)
	wantClosed(t, l.client, reason.NoAnswer, 0)
	if sends < 6 || sends > 12 {
		t.Errorf("%d transmissions in %v", sends, DefaultConnectTimeout)
	}
}

// TestRepeat: a request whose back-off has grown long is sent at once when asked for.
func TestRepeat(t *testing.T) {
	l := newLab(t, 1, clientPolicy(), serverPolicy())
	l.filter = func(datagram) bool { return false }
	l.advance(12 * time.Second)
	l.filter = nil
	l.client.engine.Repeat(l.now, l.id)
	l.client.engine.Repeat(l.now, 4711)
	l.run()
	if len(l.client.established) != 1 {
		t.Errorf("not connected: %s", describeClosed(l.client))
	}
}

func TestLostMessages(t *testing.T) {
	// Each of the first eight datagrams is lost once; the session comes up all the same.
	for lost := range 8 {
		l := newLab(t, 1, clientPolicy(), serverPolicy())
		n := 0
		l.filter = func(datagram) bool { n++; return n-1 != lost }
		l.advance(5 * time.Second)
		if len(l.client.established) != 1 || len(l.server.established) != 1 {
			t.Fatalf("datagram %d lost: not connected", lost)
		}
		l.agree()
	}
}

func TestLostRefusalIsRepeated(t *testing.T) {
	cp := clientPolicy()
	cp.Local.PSK = []byte("wrong")
	l := newLab(t, 1, cp, serverPolicy())
	n := 0
	l.filter = func(datagram) bool { n++; return n != 4 } // the IKE_AUTH response
	l.advance(5 * time.Second)
	wantClosed(t, l.client, reason.AuthFailed, message.AuthenticationFailed)
	if len(l.server.closed) != 1 {
		t.Errorf("server closed %d sessions", len(l.server.closed))
	}
}

func TestFragmentation(t *testing.T) {
	cp, sp := clientPolicy(), serverPolicy()
	cp.FragmentSize, sp.FragmentSize = 200, 200
	l := newLab(t, 1, cp, sp)
	fragments := 0
	l.filter = func(d datagram) bool {
		if message.PayloadType(d.data[16]) == message.TypeSKF {
			fragments++
			if len(d.data) > 200-28-4 {
				t.Errorf("fragment of %d octets", len(d.data))
			}
		}
		return true
	}
	l.run()
	if len(l.client.established) != 1 || fragments < 4 {
		t.Fatalf("%d fragments, established %d", fragments, len(l.client.established))
	}
	l.agree()
}

func TestFragmentsLostAndDoubled(t *testing.T) {
	cp, sp := clientPolicy(), serverPolicy()
	cp.FragmentSize, sp.FragmentSize = 200, 200
	for lost := 2; lost < 8; lost++ {
		l := newLab(t, 1, cp, sp)
		n := 0
		l.filter = func(d datagram) bool {
			n++
			if n%3 == 0 { // doubled
				l.server.engine.Receive(l.now, d.pair.Reverse(), d.data)
			}
			return n != lost
		}
		l.advance(5 * time.Second)
		if len(l.client.established) != 1 {
			t.Fatalf("datagram %d lost: not connected: %s", lost, describeClosed(l.client))
		}
	}
}

func TestDeleteByClient(t *testing.T) {
	l := connected(t, clientPolicy(), serverPolicy())
	l.client.engine.Close(l.now, l.id, reason.UserDisconnect)
	l.run()
	wantClosed(t, l.client, reason.UserDisconnect, 0)
	wantClosed(t, l.server, reason.PeerDeleted, 0)
	if _, up := l.server.engine.Counts(); up != 0 {
		t.Errorf("%d sessions up", up)
	}
	l.advance(time.Minute)
	for _, p := range l.peers {
		if len(p.engine.sas) != 0 || len(p.engine.work) != 0 || len(p.engine.timers) != 0 {
			t.Errorf("%s keeps %d SAs, %d work, %d timers", p.name, len(p.engine.sas), len(p.engine.work), len(p.engine.timers))
		}
	}
}

func TestDeleteUnanswered(t *testing.T) {
	l := connected(t, clientPolicy(), serverPolicy())
	l.filter = func(datagram) bool { return false }
	l.client.engine.Close(l.now, l.id, reason.UserDisconnect)
	l.advance(closeTimeout + time.Millisecond)
	wantClosed(t, l.client, reason.UserDisconnect, 0)
}

func TestLiveness(t *testing.T) {
	cp := clientPolicy()
	cp.LivenessDelay = 10 * time.Second
	cp.PeerTimeout = 20 * time.Second
	l := connected(t, cp, serverPolicy())
	l.advance(time.Minute)
	if len(l.client.closed) != 0 {
		t.Fatalf("a living peer was given up: %s", describeClosed(l.client))
	}
	l.filter = func(datagram) bool { return false }
	l.advance(29 * time.Second)
	if len(l.client.closed) != 0 {
		t.Fatal("given up too early")
	}
	l.advance(2 * time.Second)
	wantClosed(t, l.client, reason.PeerDead, 0)
}

func TestLivenessByESP(t *testing.T) {
	cp := clientPolicy()
	cp.LivenessDelay = 10 * time.Second
	l := connected(t, cp, serverPolicy())
	l.client.engine.cfg.LastInbound = func(SessionID) time.Time { return l.now.Add(-time.Second) }
	sends := 0
	l.filter = func(datagram) bool { sends++; return true }
	l.advance(2 * time.Minute)
	if sends != 0 {
		t.Errorf("%d liveness messages although ESP arrives", sends)
	}
}

func TestBehindNAT(t *testing.T) {
	cp := clientPolicy()
	l := newLab(t, 1, cp, serverPolicy())
	// The NAT: what the client sends arrives from another address and port.
	public := netip.MustParseAddr("192.0.2.130")
	l.client.addr = public
	ports := map[uint16]uint16{500: 40000, 4500: 40001}
	back := map[uint16]uint16{40000: 500, 40001: 4500}
	l.filter = func(d datagram) bool {
		switch d.from {
		case l.client:
			d.pair.Local = netip.AddrPortFrom(public, ports[d.pair.Local.Port()])
			l.server.engine.Receive(l.now, d.pair.Reverse(), d.data)
			l.server.settle()
		case l.server:
			d.pair.Remote = netip.AddrPortFrom(clientAddr.Addr(), back[d.pair.Remote.Port()])
			l.client.engine.Receive(l.now, d.pair.Reverse(), d.data)
			l.client.settle()
		}
		return false
	}
	l.run()
	if len(l.client.established) != 1 {
		t.Fatalf("not connected: %s", describeClosed(l.client))
	}
	c, s := l.clientInfo(), l.serverInfo()
	if !c.NATLocal || !s.NATPeer || c.Path.Keepalive != DefaultKeepalive+keepaliveGrace {
		t.Errorf("NAT not seen: client %+v server %+v", c, s)
	}
	if want := netip.AddrPortFrom(public, 40001); s.Path.Pair.Remote != want {
		t.Errorf("server sends to %v, want %v", s.Path.Pair.Remote, want)
	}
}

func TestNativeESP(t *testing.T) {
	cp, sp := clientPolicy(), serverPolicy()
	cp.NativeESP, sp.NativeESP = true, true
	l := connected(t, cp, sp)
	if l.clientInfo().Path.UDP || l.serverInfo().Path.UDP {
		t.Error("ESP in UDP although both want it native and no NAT is there")
	}
	sp.NativeESP = false
	l = connected(t, cp, sp)
	if !l.clientInfo().Path.UDP || !l.serverInfo().Path.UDP {
		t.Error("native ESP although one side does not want it")
	}
}

func TestAdditionalChild(t *testing.T) {
	cp, sp := clientPolicy(), serverPolicy()
	sp.LocalSelectors = append(sp.LocalSelectors, esp.PrefixSelector(netip.MustParsePrefix("10.99.0.0/16")))
	l := connected(t, cp, sp)
	want := esp.PrefixSelector(netip.MustParsePrefix("10.99.1.0/24"))
	if err := l.client.engine.CreateChild(l.now, l.id, nil, []esp.Selector{want}); err != nil {
		t.Fatal(err)
	}
	l.run()
	l.agree()
	c := l.clientInfo()
	if len(c.Children) != 2 || c.Children[1].Remote[0] != want || !c.Children[1].Active {
		t.Errorf("children %+v", c.Children)
	}
}

func TestChildFailedInDataPath(t *testing.T) {
	l := connected(t, clientPolicy(), serverPolicy())
	s := l.serverInfo()
	l.server.engine.ChildFailed(l.now, s.ID, s.Children[0].ID, auth.ErrBadPEM)
	l.advance(10 * time.Second)
	wantClosed(t, l.client, reason.NoChildSA, 0)
	wantClosed(t, l.server, reason.PeerDeleted, 0)
}
