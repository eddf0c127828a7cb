package ike

import (
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

var crashSecret = []byte("0123456789abcdef0123456789abcdef")

// withCrashDetection is a lab whose server hands out tokens; restart gives it a new
// engine that knows nothing.
func withCrashDetection(t *testing.T) (l *lab, restart func(seed uint64)) {
	cp, sp := clientPolicy(), serverPolicy()
	cp.LivenessDelay = 10 * time.Second
	w := newWire(t)
	l = &lab{wire: w}
	l.client = w.add("client", clientAddr.Addr(), 1, Config{})
	cfg := Config{CrashSecret: crashSecret, Responder: &ResponderConfig{Policy: sp}}
	l.server = w.add("server", serverAddr.Addr(), 2, cfg)
	id, err := l.client.engine.Initiate(w.now, cp, locator.Pair{Local: clientAddr, Remote: serverAddr})
	if err != nil {
		t.Fatal(err)
	}
	l.id = id
	l.run()
	l.agree()
	return l, func(seed uint64) {
		w.peers = w.peers[:1]
		l.server = w.add("server", serverAddr.Addr(), seed, cfg)
	}
}

func TestPeerRestarted(t *testing.T) {
	rekeys := map[string]func(l *lab){
		"as connected": func(*lab) {},
		"after the client rekeyed": func(l *lab) {
			_ = l.client.engine.RekeyIKE(l.now, l.id)
		},
		"after the server rekeyed": func(l *lab) {
			_ = l.server.engine.RekeyIKE(l.now, l.serverInfo().ID)
		},
	}
	for name, rekey := range rekeys {
		t.Run(name, func(t *testing.T) {
			l, restart := withCrashDetection(t)
			rekey(l)
			l.advance(5 * time.Second)
			restart(99)
			l.advance(11 * time.Second)
			wantClosed(t, l.client, reason.PeerDead, 0)
		})
	}
}

func TestRestartAnswersSparingly(t *testing.T) {
	l, restart := withCrashDetection(t)
	var capture []datagram
	l.filter = func(d datagram) bool { capture = append(capture, d); return true }
	_ = l.client.engine.CheckLiveness(l.now, l.id)
	l.run()
	if len(capture) != 2 {
		t.Fatalf("%d messages", len(capture))
	}
	l.client.engine.Close(l.now, l.id, reason.UserDisconnect)
	l.advance(time.Minute)
	request := capture[0]
	sends := func() int {
		n := 0
		for _, a := range l.server.engine.Actions() {
			if _, ok := a.(Send); ok {
				n++
			}
		}
		return n
	}
	l.server.engine.Receive(l.now, request.pair.Reverse(), request.data)
	if n := sends(); n != 0 {
		t.Errorf("%d answers for an IKE SA of the present run", n)
	}
	restart(99)
	for range 1000 {
		l.server.engine.Receive(l.now, request.pair.Reverse(), request.data)
	}
	if n := sends(); n != 20 {
		t.Errorf("%d answers to a thousand requests, want 20", n)
	}
	l.now = l.now.Add(time.Minute)
	noise := append([]byte(nil), request.data...)
	noise[8] ^= 1 // an SPI that we never chose
	l.server.engine.Receive(l.now, request.pair.Reverse(), noise)
	if n := sends(); n != 0 {
		t.Errorf("%d answers for an SPI that is none of ours", n)
	}
}

func TestForgedRestartIsIgnored(t *testing.T) {
	l, _ := withCrashDetection(t)
	l.filter = func(datagram) bool { return false }
	_ = l.client.engine.CheckLiveness(l.now, l.id)
	l.client.settle()
	i := l.clientInfo()
	for _, token := range [][]byte{nil, {}, make([]byte, crashTokenLen), crashSecret} {
		m := message.Message{
			Header: message.Header{SPIi: i.SPIi, SPIr: i.SPIr, Major: 2, Exchange: message.Informational,
				Flags: message.FlagResponse, MessageID: l.client.engine.sessions[l.id].sa.out.id},
			Payloads: []message.Payload{
				&message.Notify{Protocol: message.ProtoIKE, Kind: message.InvalidIKESPI},
				&message.Notify{Protocol: message.ProtoIKE, Kind: message.QuickCrashDetection, Data: token},
			},
		}
		b, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		l.client.engine.Receive(l.now, i.Path.Pair, b)
	}
	l.client.settle()
	if len(l.client.closed) != 0 {
		t.Error("a forged token ended the session")
	}
}

// TestGivenUpLearnsIt: a gateway that gave a client up says so when it is back.
func TestGivenUpLearnsIt(t *testing.T) {
	l, _ := withCrashDetection(t)
	id := l.serverInfo().ID
	l.server.engine.sessions[id].policy.PeerTimeout = 30 * time.Second
	l.filter = func(datagram) bool { return false }
	if err := l.server.engine.CheckLiveness(l.now, id); err != nil {
		t.Fatal(err)
	}
	l.advance(time.Minute)
	wantClosed(t, l.server, reason.PeerDead, 0)
	if len(l.client.closed) != 0 {
		t.Fatal("the client has given up too")
	}
	l.filter = nil
	l.advance(maxRetransmit + time.Second)
	wantClosed(t, l.client, reason.PeerDead, 0)
}

// TestGivenUpIsBounded: clients that never come back do not fill the memory.
func TestGivenUpIsBounded(t *testing.T) {
	d := newCrashDetector(crashSecret, []byte("12345678"))
	for i := range 3 * maxGivenUp {
		d.giveUp(message.SPI(i))
	}
	if len(d.given) != maxGivenUp || !d.lost(3*maxGivenUp-1) {
		t.Errorf("%d remembered, the last one: %v", len(d.given), d.lost(3*maxGivenUp-1))
	}
}
