package ike

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// arena is a client and gateways at several addresses, one engine each.
type arena struct {
	*wire
	client   *peer
	gateways []*peer
	race     Race
	auths    int  // IKE_AUTH requests
	late     bool // answers of the first gateway come after those of the others
}

func newArena(t *testing.T, gateways int, change func(i int, c *ResponderConfig)) *arena {
	a := &arena{wire: newWire(t)}
	a.client = a.add("client", clientAddr.Addr(), 1, Config{})
	for i := range gateways {
		c := &ResponderConfig{Policy: serverPolicy()}
		if change != nil {
			change(i, c)
		}
		at := netip.AddrFrom4([4]byte{203, 0, 113, byte(10 + i)})
		a.gateways = append(a.gateways, a.add("gateway", at, uint64(i+2), Config{Responder: c}))
	}
	a.filter = func(d datagram) bool {
		h, err := message.ParseHeader(d.data)
		if err == nil && h.Exchange == message.IKEAuth && !h.Response() {
			a.auths++
		}
		if a.late && d.from == a.gateways[0] {
			a.late = false
			a.queue = append(a.queue, d) // behind everything that is under way
			return false
		}
		return true
	}
	return a
}

func (a *arena) compete(i int) SessionID {
	a.t.Helper()
	id, err := a.client.engine.Compete(a.now, &a.race, clientPolicy(), locator.Pair{Local: clientAddr, Remote: netip.AddrPortFrom(a.gateways[i].addr, 500)})
	if err != nil {
		a.t.Fatal(err)
	}
	return id
}

func (a *arena) wantWinner(id SessionID, losers int) {
	a.t.Helper()
	if len(a.client.established) != 1 || a.client.established[0].Session != id || a.auths != 1 {
		a.t.Fatalf("established %v, %d IKE_AUTH; want session %d and one", a.client.established, a.auths, id)
	}
	lost := 0
	for _, c := range a.client.closed {
		if c.Reason == reason.OtherAddressAnswered {
			lost++
		}
	}
	if lost != losers || len(a.client.engine.sessions) != 1 || len(a.client.engine.sas) != 1 {
		a.t.Errorf("%d losers, want %d; %d sessions, %d IKE SAs left", lost, losers, len(a.client.engine.sessions), len(a.client.engine.sas))
	}
}

func (a *arena) wantNothingHalfOpen() {
	a.t.Helper()
	a.advance(DefaultHalfOpenTimeout + time.Second)
	for i, g := range a.gateways {
		if half, _ := g.engine.Counts(); half != 0 {
			a.t.Errorf("gateway %d keeps %d half-open SAs", i, half)
		}
	}
}

// TestRaceHasOneWinner: all are asked in the same instant, all answer, one goes on.
func TestRaceHasOneWinner(t *testing.T) {
	a := newArena(t, 3, nil)
	first := a.compete(0)
	a.compete(1)
	a.compete(2)
	a.advance(time.Second)
	a.wantWinner(first, 2)
	if _, err := a.client.engine.Compete(a.now, &a.race, clientPolicy(), locator.Pair{Local: clientAddr, Remote: serverAddr}); !errors.Is(err, ErrRaceDecided) {
		t.Errorf("a late rival: %v", err)
	}
	a.wantNothingHalfOpen()
}

func TestRaceIsWonByTheFirstAnswer(t *testing.T) {
	a := newArena(t, 2, nil)
	a.late = true
	a.compete(0)
	second := a.compete(1)
	a.advance(time.Second)
	a.wantWinner(second, 1)
}

// TestRaceSurvivesFailures: the first is a black hole, the second has nothing in
// common with us. Their ends are their own.
func TestRaceSurvivesFailures(t *testing.T) {
	a := newArena(t, 3, func(i int, c *ResponderConfig) {
		if i == 1 {
			c.Policy.IKE = mustIKE("aes128gcm16-prfsha256-ecp384")
		}
	})
	deliver := a.filter
	a.filter = func(d datagram) bool { return d.pair.Remote.Addr() != a.gateways[0].addr && deliver(d) }
	a.compete(0)
	refused := a.compete(1)
	a.advance(250 * time.Millisecond)
	wantClosed(t, a.client, reason.NoProposalChosen, message.NoProposalChosen)
	if a.client.closed[0].Session != refused {
		t.Errorf("closed %v", a.client.closed)
	}
	third := a.compete(2)
	a.advance(time.Second)
	a.wantWinner(third, 1)
	a.wantNothingHalfOpen()
}

// TestCookieIsNoVictory: a gateway that wants a cookie first has not answered yet.
func TestCookieIsNoVictory(t *testing.T) {
	a := newArena(t, 2, func(i int, c *ResponderConfig) {
		if i == 0 {
			c.CookieThreshold = 1
		}
	})
	// Somebody else keeps the first gateway busy.
	other := a.add("other", netip.MustParseAddr("192.0.2.99"), 9, Config{})
	held := 0
	a.gateways[0].hold = func(Work) bool { held++; return held == 1 }
	if _, err := other.engine.Initiate(a.now, clientPolicy(), locator.Pair{Local: netip.MustParseAddrPort("192.0.2.99:500"), Remote: netip.AddrPortFrom(a.gateways[0].addr, 500)}); err != nil {
		t.Fatal(err)
	}
	a.run()
	a.compete(0)
	second := a.compete(1)
	a.advance(time.Second)
	a.wantWinner(second, 1)
}

// TestSounding finds out that somebody is there, and leaves nothing behind.
func TestSounding(t *testing.T) {
	a := newArena(t, 2, nil)
	a.race.Sound = true
	first := a.compete(0)
	a.compete(1)
	a.advance(time.Second)
	answered := 0
	for _, c := range a.client.closed {
		if c.Reason == reason.PeerAnswered && c.Session == first {
			answered++
		}
	}
	if answered != 1 || a.auths != 0 || len(a.client.closed) != 2 || len(a.client.engine.sessions)+len(a.client.engine.sas) != 0 {
		t.Errorf("closed %v, %d IKE_AUTH", a.client.closed, a.auths)
	}
	a.wantNothingHalfOpen()
}
