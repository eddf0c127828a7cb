package ike

import (
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// release runs the Work that was held back, and holds no more.
func (p *peer) release() {
	p.hold = nil
	held := p.held
	p.held = nil
	for _, w := range held {
		p.engine.Complete(p.wire.now, w.ID, w.Run())
	}
}

// holdNext keeps the next Work of a peer back.
func (p *peer) holdNext() {
	p.hold = func(Work) bool { return len(p.held) == 0 }
}

// childExchanges are our exchanges that make a Child SA.
var childExchanges = map[string]func(l *lab, p *peer, id SessionID) error{
	"rekey": func(l *lab, p *peer, id SessionID) error {
		info, _ := p.engine.Session(id)
		return p.engine.RekeyChild(l.now, id, info.Children[0].ID)
	},
	"new": func(l *lab, p *peer, id SessionID) error {
		return p.engine.CreateChild(l.now, id, []esp.Selector{esp.PrefixSelector(innerNet)}, nil)
	},
}

// TestIKERekeyWhileChildRequestIsPrepared: the gateway computes a key share for a Child
// SA when the client renews the IKE SA.
func TestIKERekeyWhileChildRequestIsPrepared(t *testing.T) {
	for name, begin := range childExchanges {
		t.Run(name, func(t *testing.T) {
			l := connected(t, clientPolicy(), serverPolicy())
			id := l.serverInfo().ID
			l.server.holdNext()
			if err := begin(l, l.server, id); err != nil {
				t.Fatal(err)
			}
			l.server.settle()
			if len(l.server.held) != 1 {
				t.Fatal("no key share is computed")
			}
			if err := l.client.engine.RekeyIKE(l.now, l.id); err != nil {
				t.Fatal(err)
			}
			l.run()
			if len(l.client.rekeyed) != 0 {
				t.Error("the IKE SA was replaced under an exchange for a Child SA")
			}
			l.server.release()
			l.advance(time.Minute)
			l.wantRenewed(name)
		})
	}
}

// TestChildRequestWhileIKERekeyIsServed: the gateway answers the client's rekey of the
// IKE SA, which takes a while, and begins an exchange for a Child SA meanwhile.
func TestChildRequestWhileIKERekeyIsServed(t *testing.T) {
	for name, begin := range childExchanges {
		for _, sent := range []bool{false, true} {
			l := connected(t, clientPolicy(), serverPolicy())
			id := l.serverInfo().ID
			l.server.holdNext()
			if err := l.client.engine.RekeyIKE(l.now, l.id); err != nil {
				t.Fatal(err)
			}
			l.run()
			if len(l.server.held) != 1 {
				t.Fatal("the rekey is not being served")
			}
			serve := l.server.held[0]
			if !sent {
				l.server.hold = func(Work) bool { return true }
			}
			if err := begin(l, l.server, id); err != nil {
				t.Fatal(err)
			}
			l.server.settle() // the request leaves, or its key share is being made
			l.server.engine.Complete(l.now, serve.ID, serve.Run())
			l.server.held = l.server.held[1:]
			l.run()
			l.server.release()
			l.advance(time.Minute)
			l.wantRenewed(name)
			if t.Failed() {
				t.Fatalf("%s, sent: %v", name, sent)
			}
		}
	}
}

// wantRenewed checks that both the IKE SA and the Child SA exchange came to their ends.
func (l *lab) wantRenewed(exchange string) {
	l.t.Helper()
	l.agree()
	l.carries()
	ike, child := l.server.renewals()
	if ike != 1 {
		l.t.Errorf("the IKE SA was renewed %d times", ike)
	}
	switch n := len(l.serverInfo().Children); {
	case exchange == "rekey" && (child != 1 || n != 1):
		l.t.Errorf("the Child SA was renewed %d times, %d are left", child, n)
	case exchange == "new" && n != 2:
		l.t.Errorf("%d Child SAs, want two", n)
	}
	for _, p := range l.peers {
		for _, s := range p.engine.sessions {
			for _, c := range s.children {
				if c.ours != nil {
					l.t.Errorf("%s: the renewal of Child SA %d never ends", p.name, c.id)
				}
			}
		}
	}
}

// TestPreparedRequestMovesToSuccessor: should another IKE SA take the place of the one
// that a request is prepared for, the request goes out on the new one, whether the old
// one is there still or not.
func TestPreparedRequestMovesToSuccessor(t *testing.T) {
	for name, begin := range childExchanges {
		for _, dropped := range []bool{false, true} {
			l := connected(t, clientPolicy(), serverPolicy())
			l.server.holdNext()
			if err := begin(l, l.server, l.serverInfo().ID); err != nil {
				t.Fatal(err)
			}
			l.server.settle()
			s := l.server.engine.sessions[l.serverInfo().ID]
			if err := l.replaceIKE(); err != nil {
				t.Fatal(err)
			}
			if dropped {
				s.dropRetired(l.now, s.retired[0])
			}
			l.server.release()
			l.run()
			l.wantRenewed(name)
			if t.Failed() {
				t.Fatalf("%s, dropped: %v", name, dropped)
			}
		}
	}
}

// replaceIKE gives both sides the same new IKE SA, without a message.
func (l *lab) replaceIKE() error {
	spii, spir := l.client.engine.newSPI(), l.server.engine.newSPI()
	for _, p := range l.peers {
		for _, s := range p.engine.sessions {
			next := &ikeSA{session: s, role: s.role, state: saUp, alg: s.sa.alg, spii: spii, spir: spir}
			if err := next.inherit(s.sa, []byte("secret of a test"), nonces{make([]byte, nonceLen), make([]byte, nonceLen)}); err != nil {
				return err
			}
			s.adopt(l.now, next)
			p.engine.reschedule(s)
		}
	}
	return nil
}

// TestSecretAfterTheIKESAIsGone: the secret of an exchange is computed when the IKE SA
// that it belongs to has been deleted and forgotten.
func TestSecretAfterTheIKESAIsGone(t *testing.T) {
	begin := map[string]func(l *lab) error{
		"IKE": func(l *lab) error { return l.client.engine.RekeyIKE(l.now, l.id) },
		"child": func(l *lab) error {
			return l.client.engine.RekeyChild(l.now, l.id, l.clientInfo().Children[0].ID)
		},
	}
	for name, begin := range begin {
		t.Run(name, func(t *testing.T) {
			l := connected(t, clientPolicy(), serverPolicy())
			if err := begin(l); err != nil {
				t.Fatal(err)
			}
			l.client.settle() // the request is on its way
			l.client.holdNext()
			l.run()
			if len(l.client.held) != 1 {
				t.Fatal("no secret is computed")
			}
			s := l.client.engine.sessions[l.id]
			old := s.sa
			if err := l.replaceIKE(); err != nil {
				t.Fatal(err)
			}
			s.dropRetired(l.now, old)
			l.client.release()
			l.client.settle()
			if s.state != Up || s.sa.state != saUp {
				t.Errorf("session %v, IKE SA %v", s.state, s.sa.state)
			}
			if n := len(l.clientInfo().Children); n != 1 {
				t.Errorf("%d Child SAs", n)
			}
		})
	}
}

// TestTokenOfReplacedIKESAIsNotTold: a crash token belongs to one IKE SA, and does not
// go out on its successor.
func TestTokenOfReplacedIKESAIsNotTold(t *testing.T) {
	for _, sent := range []bool{false, true} {
		w := newWire(t)
		l := &lab{wire: w}
		secret := make([]byte, 32)
		l.client = w.add("client", clientAddr.Addr(), 1, Config{})
		l.server = w.add("server", serverAddr.Addr(), 1, Config{CrashSecret: secret, Responder: &ResponderConfig{Policy: serverPolicy()}})
		var err error
		if l.id, err = l.client.engine.Initiate(w.now, clientPolicy(), locator.Pair{Local: clientAddr, Remote: serverAddr}); err != nil {
			t.Fatal(err)
		}
		l.run()
		l.agree()
		id := l.serverInfo().ID
		s := l.server.engine.sessions[id]
		// The token of the gateway's new IKE SA does not arrive, or waits for its turn.
		l.filter = func(d datagram) bool {
			return !(d.from == l.server && isRequest(d) && s.sa.tokenUnderWay())
		}
		if sent {
			if err := l.server.engine.RekeyIKE(l.now, id); err != nil {
				t.Fatal(err)
			}
			l.run()
		} else {
			l.filter = func(d datagram) bool { return d.from != l.client || isRequest(d) }
			s.sa.enqueue(l.now, &livenessRequest{})
			l.run()
			s.sa.announceToken(l.now)
		}
		if !s.sa.tokenUnderWay() {
			t.Fatal("the token is not under way")
		}
		l.filter = nil
		l.wire.queue = nil
		old := s.sa
		if err := l.client.engine.RekeyIKE(l.now, l.id); err != nil {
			t.Fatal(err)
		}
		l.run()
		l.advance(time.Minute)
		if s.sa == old {
			t.Fatal("the client's rekey failed")
		}
		l.agree()
		want := string(l.server.engine.crash.token(s.sa.spii, s.sa.spir))
		if got := string(l.client.engine.sessions[l.id].sa.crashToken); got != want {
			t.Errorf("sent: %v: the client holds token %x, that of its IKE SA is %x", sent, got, want)
		}
	}
}

// tokenUnderWay says whether a crash token is in flight or waits.
func (sa *ikeSA) tokenUnderWay() bool {
	for _, r := range append([]request{sa.current}, sa.queue...) {
		if _, ok := r.(tokenRequest); ok {
			return true
		}
	}
	return false
}
