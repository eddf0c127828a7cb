package ike

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// sending returns the outbound SPI that a peer would send on: that of the Child SA
// activated last.
func sending(p *peer) uint32 {
	var best esp.ChildID
	for id := range p.active {
		best = max(best, id)
	}
	return p.childs[best].Out.SPI
}

// carries checks that what one side sends the other can open.
func (l *lab) carries() {
	l.t.Helper()
	for _, d := range [][2]*peer{{l.client, l.server}, {l.server, l.client}} {
		spi, ok := sending(d[0]), false
		for _, c := range d[1].childs {
			ok = ok || c.In.SPI == spi
		}
		if !ok {
			l.t.Errorf("%s sends on SPI %x, which %s does not accept", d[0].name, spi, d[1].name)
		}
	}
}

// A peer that rekeys the IKE SA again and again without deleting the old ones is refused.
func TestRetiredIKESAsAreBounded(t *testing.T) {
	l := connected(t, clientPolicy(), serverPolicy())
	l.filter = func(d datagram) bool {
		h, _ := message.ParseHeader(d.data)
		return d.from != l.client || h.Response() || h.Exchange != message.Informational // never a Delete
	}
	for range 20 {
		if err := l.client.engine.RekeyIKE(l.now, l.id); err != nil {
			t.Fatal(err)
		}
		l.run()
		if n := len(l.server.engine.sas); n > maxRetired+1 {
			t.Fatalf("the gateway keeps %d IKE SAs", n)
		}
	}
	l.filter = nil
	l.advance(2 * retiredLife)
	if n := len(l.server.engine.sas); n != 1 || len(l.server.closed) != 0 {
		t.Errorf("the gateway keeps %d IKE SAs afterwards; closed: %v", n, l.server.closed)
	}
}

func TestRekeyChildIsLossless(t *testing.T) {
	for _, who := range []string{"client", "server"} {
		t.Run(who, func(t *testing.T) {
			l := connected(t, clientPolicy(), serverPolicy())
			l.filter = func(datagram) bool { l.carries(); return true }
			p, id := l.client, l.id
			if who == "server" {
				p, id = l.server, l.serverInfo().ID
			}
			info, _ := p.engine.Session(id)
			old := info.Children[0]
			if err := p.engine.RekeyChild(l.now, id, old.ID); err != nil {
				t.Fatal(err)
			}
			l.run()
			l.carries()
			l.agree()
			info, _ = p.engine.Session(id)
			if len(info.Children) != 1 || info.Children[0].SPIIn == old.SPIIn {
				t.Fatalf("children %+v", info.Children)
			}
			if len(l.client.childs) != 2 {
				t.Error("the old SA left the data path before packets on their way could arrive")
			}
			l.advance(removalDelay + time.Millisecond)
			if len(l.client.childs) != 1 || len(l.server.childs) != 1 {
				t.Errorf("client has %d, server %d Child SAs in the data path", len(l.client.childs), len(l.server.childs))
			}
			if len(l.client.rekeyed) != 1 || len(l.server.rekeyed) != 1 || len(l.client.down)+len(l.server.down) != 0 {
				t.Errorf("events: %v %v %v %v", l.client.rekeyed, l.server.rekeyed, l.client.down, l.server.down)
			}
		})
	}
}

// TestRekeyWithoutKeyExchange: the client offers rekeying with key exchange and, second,
// without, and sends a share along; a gateway that does without chooses the second.
func TestRekeyWithoutKeyExchange(t *testing.T) {
	sp := serverPolicy()
	sp.ESP = mustESP("aes256gcm16")
	l := connected(t, clientPolicy(), sp)
	l.filter = func(datagram) bool { l.carries(); return true }
	old := l.clientInfo().Children[0]
	if err := l.client.engine.RekeyChild(l.now, l.id, old.ID); err != nil {
		t.Fatal(err)
	}
	l.advance(removalDelay + time.Millisecond)
	l.agree()
	l.carries()
	if info := l.clientInfo(); len(info.Children) != 1 || info.Children[0].SPIIn == old.SPIIn {
		t.Fatalf("the Child SA was not renewed: %+v", info.Children)
	}
	l.filter = nil
	if err := l.client.engine.CreateChild(l.now, l.id, nil, nil); err != nil {
		t.Fatal(err)
	}
	l.run()
	l.agree()
	if n := len(l.clientInfo().Children); n != 2 {
		t.Errorf("%d Child SAs after another was asked for", n)
	}
}

func TestResponderActivatesOnFirstPacket(t *testing.T) {
	l := connected(t, clientPolicy(), serverPolicy())
	old := sending(l.server)
	if err := l.client.engine.RekeyChild(l.now, l.id, l.clientInfo().Children[0].ID); err != nil {
		t.Fatal(err)
	}
	// Hold the Delete back.
	l.filter = func(d datagram) bool { return len(l.client.rekeyed) == 0 }
	l.run()
	if sending(l.server) != old {
		t.Fatal("the responder of the rekey sends on the new SA before it knows that the other side is ready")
	}
	next := l.serverInfo().Children[1].ID
	l.server.engine.DataPathEvent(l.now, esp.Event{Kind: esp.FirstInbound, Child: next})
	l.server.settle()
	if sending(l.server) == old {
		t.Error("the responder does not follow a packet on the new SA")
	}
}

// atOnce starts the same on both sides before any message arrives.
func (l *lab) atOnce(start func(p *peer, id SessionID, info SessionInfo)) {
	start(l.client, l.id, l.clientInfo())
	start(l.server, l.serverInfo().ID, l.serverInfo())
}

func TestRekeyChildAtOnce(t *testing.T) {
	for seed := range uint64(20) {
		l := newLab(t, seed, clientPolicy(), serverPolicy())
		l.run()
		l.filter = func(datagram) bool { l.carries(); return true }
		l.atOnce(func(p *peer, id SessionID, info SessionInfo) {
			if err := p.engine.RekeyChild(l.now, id, info.Children[0].ID); err != nil {
				t.Fatal(err)
			}
			p.settle()
		})
		l.advance(10 * time.Second)
		l.agree()
		l.carries()
		if n := len(l.clientInfo().Children); n != 1 {
			t.Errorf("seed %d: %d Child SAs left", seed, n)
		}
		if len(l.client.childs) != 1 || len(l.server.childs) != 1 || len(l.client.down)+len(l.server.down) != 0 {
			t.Errorf("seed %d: data paths have %d and %d Child SAs; down: %v %v", seed, len(l.client.childs), len(l.server.childs), l.client.down, l.server.down)
		}
	}
}

func TestRekeyIKE(t *testing.T) {
	for _, who := range []string{"client", "server"} {
		t.Run(who, func(t *testing.T) {
			l := connected(t, clientPolicy(), serverPolicy())
			before := l.clientInfo()
			p, id := l.client, l.id
			if who == "server" {
				p, id = l.server, l.serverInfo().ID
			}
			for range 3 { // the roles of the IKE SA change with who asks
				if err := p.engine.RekeyIKE(l.now, id); err != nil {
					t.Fatal(err)
				}
				l.run()
				l.agree()
			}
			after := l.clientInfo()
			if before.SPIi == after.SPIi || after.Children[0].ID != before.Children[0].ID {
				t.Errorf("before %+v after %+v", before, after)
			}
			if err := l.client.engine.RekeyChild(l.now, l.id, after.Children[0].ID); err != nil {
				t.Fatal(err)
			}
			l.advance(time.Minute)
			l.agree()
			if len(l.client.engine.sas) != 1 || len(l.server.engine.sas) != 1 {
				t.Errorf("IKE SAs left: %d and %d", len(l.client.engine.sas), len(l.server.engine.sas))
			}
			l.server.engine.Close(l.now, l.serverInfo().ID, reason.AdminDisconnect)
			l.run()
			wantClosed(t, l.client, reason.PeerDeleted, 0)
		})
	}
}

func TestRekeyIKEAtOnce(t *testing.T) {
	for seed := range uint64(20) {
		l := newLab(t, seed, clientPolicy(), serverPolicy())
		l.run()
		l.atOnce(func(p *peer, id SessionID, _ SessionInfo) {
			if err := p.engine.RekeyIKE(l.now, id); err != nil {
				t.Fatal(err)
			}
			p.settle()
		})
		l.advance(2 * time.Minute)
		l.agree()
		if len(l.client.engine.sas) != 1 || len(l.server.engine.sas) != 1 {
			t.Errorf("seed %d: IKE SAs left: %d and %d", seed, len(l.client.engine.sas), len(l.server.engine.sas))
		}
		if len(l.client.rekeyed) != 1 || len(l.server.rekeyed) != 1 {
			t.Errorf("seed %d: rekeyed %v %v", seed, l.client.rekeyed, l.server.rekeyed)
		}
	}
}

// TestRekeyMix lets both sides rekey IKE SA and Child SAs as chance has it, over a
// wire that loses, doubles and reorders and with computations that take long, and looks at the invariants all along.
func TestRekeyMix(t *testing.T) {
	rounds := uint64(500)
	if testing.Short() {
		rounds = 30
	}
	for seed := range rounds {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) { mixOnce(t, seed) })
		if !ok {
			t.FailNow()
		}
	}
}

func mixOnce(t *testing.T, seed uint64) {
	cp, sp := clientPolicy(), serverPolicy()
	l := newLab(t, seed, cp, sp)
	l.advance(5 * time.Second)
	if len(l.client.established) != 1 {
		t.Fatal("not connected")
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, line := range l.log {
				t.Log(line)
			}
		}
	})
	rng := rand.New(rand.NewPCG(seed, 7))
	l.filter = func(d datagram) bool {
		l.carries()
		switch n := rng.IntN(100); {
		case n < 20:
			return false
		case n < 30: // later
			l.queue = append(l.queue, d)
			return false
		case n < 35: // twice
			l.queue = append(l.queue, d)
		}
		return true
	}
	for range 12 {
		for _, p := range []*peer{l.client, l.server} {
			p.release()
			if rng.IntN(3) == 0 {
				p.hold = func(Work) bool { return rng.IntN(2) == 0 }
			}
			for _, s := range p.engine.Sessions() {
				switch rng.IntN(6) {
				case 0:
					_ = p.engine.RekeyIKE(l.now, s.ID)
				case 1:
					_ = p.engine.RekeyChild(l.now, s.ID, s.Children[rng.IntN(len(s.Children))].ID)
				case 2:
					_ = p.engine.CheckLiveness(l.now, s.ID)
				}
				if rng.IntN(2) == 0 {
					p.settle()
				}
			}
		}
		l.advance(time.Duration(rng.IntN(3000)) * time.Millisecond)
	}
	l.filter = nil
	for _, p := range l.peers {
		p.release()
	}
	l.advance(3 * time.Minute)
	l.agree()
	l.carries()
	if len(l.client.closed)+len(l.server.closed) != 0 {
		t.Errorf("sessions closed: %s %s", describeClosed(l.client), describeClosed(l.server))
	}
	for _, p := range l.peers {
		if len(p.engine.sas) != 1 || len(p.childs) != 1 {
			t.Errorf("%s has %d IKE SAs, %d Child SAs", p.name, len(p.engine.sas), len(p.childs))
		}
		if len(p.down) != 0 {
			t.Errorf("%s: %v", p.name, p.down)
		}
	}
}

func TestRekeyTimers(t *testing.T) {
	cp := clientPolicy()
	cp.RekeyChild, cp.RekeyIKE, cp.Jitter = 4*time.Second, 9*time.Second, 0.1
	l := connected(t, cp, serverPolicy())
	l.advance(60 * time.Second)
	l.agree()
	ike, child := l.client.renewals()
	if child < 12 || child > 20 || ike < 5 || ike > 9 {
		t.Errorf("%d child and %d IKE rekeyings in a minute", child, ike)
	}
}

func TestSoftAndHardLimits(t *testing.T) {
	l := connected(t, clientPolicy(), serverPolicy())
	first := l.clientInfo().Children[0].ID
	l.client.engine.DataPathEvent(l.now, esp.Event{Kind: esp.SoftLimit, Child: first})
	l.run()
	second := l.clientInfo().Children[0].ID
	if second == first {
		t.Fatal("the soft limit did not rekey")
	}
	l.advance(5 * time.Second)
	l.client.engine.DataPathEvent(l.now, esp.Event{Kind: esp.HardLimit, Child: second})
	l.advance(5 * time.Second)
	if len(l.client.down) != 1 || l.client.down[0].Reason != reason.LifetimeExpired {
		t.Errorf("down: %v", l.client.down)
	}
	wantClosed(t, l.client, reason.NoChildSA, 0)
}

func TestUnprotectedMessagesAreIgnored(t *testing.T) {
	l := connected(t, clientPolicy(), serverPolicy())
	s := l.serverInfo()
	for _, exchange := range []message.ExchangeType{message.IKESAInit, message.IKEAuth, message.CreateChildSA, message.Informational} {
		for _, flags := range []message.Flags{0, message.FlagResponse, message.FlagInitiator, message.FlagInitiator | message.FlagResponse} {
			for id := range uint32(4) {
				m := message.Message{
					Header:   message.Header{SPIi: s.SPIi, SPIr: s.SPIr, Major: 2, Exchange: exchange, Flags: flags, MessageID: id},
					Payloads: []message.Payload{&message.Notify{Kind: message.AuthenticationFailed}, &message.Delete{Protocol: message.ProtoIKE}},
				}
				b, err := m.Append(nil)
				if err != nil {
					t.Fatal(err)
				}
				l.server.engine.Receive(l.now, s.Path.Pair, b)
				l.client.engine.Receive(l.now, s.Path.Pair.Reverse(), b)
			}
		}
	}
	for _, p := range l.peers {
		for _, a := range p.engine.Actions() {
			if x, ok := a.(Send); ok {
				t.Errorf("%s answered an unprotected message: %x", p.name, x.Data)
			}
		}
	}
	l.agree()
}

func TestReplayedCapture(t *testing.T) {
	l := newLab(t, 1, clientPolicy(), serverPolicy())
	var capture []datagram
	l.filter = func(d datagram) bool { capture = append(capture, d); return true }
	l.run()
	_ = l.client.engine.RekeyChild(l.now, l.id, l.clientInfo().Children[0].ID)
	l.advance(10 * time.Second)
	l.filter = nil
	before := l.serverInfo()
	for _, d := range capture {
		pair := d.pair.Reverse()
		foreign := pair
		foreign.Remote = clientAddr
		foreign.Remote = mustAddrPort("198.51.100.66:4500")
		for _, p := range l.peers {
			p.engine.Receive(l.now, foreign, d.data)
			for _, a := range p.engine.Actions() {
				if x, ok := a.(Send); ok && x.Pair.Remote.Addr() == foreign.Remote.Addr() && message.ExchangeType(x.Data[18]) != message.IKESAInit {
					t.Errorf("%s answered a replay from a foreign source: %v", p.name, x.Pair)
				}
			}
			p.engine.Receive(l.now, pair, d.data)
			p.settle()
		}
	}
	l.advance(time.Minute)
	l.agree()
	if after := l.serverInfo(); after.SPIi != before.SPIi || after.Path != before.Path {
		t.Errorf("a replay changed the session: %+v, was %+v", after, before)
	}
}

// TestAnswerToIKERekeyLostForLong: the answer to a rekey of the IKE SA does not arrive,
// and nothing else does for minutes. The side that has asked knows the old IKE SA only.
func TestAnswerToIKERekeyLostForLong(t *testing.T) {
	for _, who := range []string{"client", "server"} {
		t.Run(who, func(t *testing.T) {
			cp, sp := clientPolicy(), serverPolicy()
			cp.PeerTimeout, sp.PeerTimeout = time.Hour, time.Hour
			l := connected(t, cp, sp)
			p, id := l.client, l.id
			if who == "server" {
				p, id = l.server, l.serverInfo().ID
			}
			if err := p.engine.RekeyIKE(l.now, id); err != nil {
				t.Fatal(err)
			}
			l.filter = func(d datagram) bool { return d.from == p && len(l.client.rekeyed)+len(l.server.rekeyed) == 0 }
			l.advance(10 * time.Minute)
			if len(p.rekeyed) != 0 || len(l.client.rekeyed)+len(l.server.rekeyed) != 1 {
				t.Fatalf("rekeyed: %v %v", l.client.rekeyed, l.server.rekeyed)
			}
			l.filter = nil
			l.advance(2 * time.Minute)
			l.agree()
			for _, p := range l.peers {
				if len(p.engine.sas) != 1 {
					t.Errorf("%s has %d IKE SAs", p.name, len(p.engine.sas))
				}
			}
		})
	}
}

// TestRekeyOfASuccessorBeforeTheDelete: the peer rekeys a Child SA, its Delete of the old
// one is late, and we rekey the new one meanwhile. Nothing is lost.
func TestRekeyOfASuccessorBeforeTheDelete(t *testing.T) {
	l := connected(t, clientPolicy(), serverPolicy())
	late := true
	l.filter = func(d datagram) bool {
		h, _ := message.ParseHeader(d.data)
		return !late || d.from != l.client || !isRequest(d) || h.Exchange != message.Informational
	}
	if err := l.client.engine.RekeyChild(l.now, l.id, l.clientInfo().Children[0].ID); err != nil {
		t.Fatal(err)
	}
	l.run()
	id := l.serverInfo().ID
	next := l.serverInfo().Children[1].ID
	l.server.engine.DataPathEvent(l.now, esp.Event{Kind: esp.FirstInbound, Child: next})
	if err := l.server.engine.RekeyChild(l.now, id, next); err != nil {
		t.Fatal(err)
	}
	l.advance(removalDelay + time.Millisecond)
	if l.server.engine.sessions[id].child(next) != nil {
		t.Fatal("the successor is still there")
	}
	late = false
	l.advance(time.Minute)
	l.agree()
	l.carries()
	if len(l.server.down)+len(l.client.down) != 0 || len(l.clientInfo().Children) != 1 {
		t.Errorf("lost: %v %v", l.server.down, l.client.down)
	}
}
