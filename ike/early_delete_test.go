package ike

import (
	"errors"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// TestDeleteOvertakesAnswer: the gateway cannot install a Child SA that it has just
// granted, and its Delete arrives before the answer that grants it.
func TestDeleteOvertakesAnswer(t *testing.T) {
	for name, begin := range map[string]func(l *lab){
		"new": func(l *lab) {
			_ = l.client.engine.CreateChild(l.now, l.id, nil, []esp.Selector{esp.PrefixSelector(innerNet)})
		},
		"rekey": func(l *lab) { _ = l.client.engine.RekeyChild(l.now, l.id, l.clientInfo().Children[0].ID) },
	} {
		t.Run(name, func(t *testing.T) {
			l := connected(t, clientPolicy(), serverPolicy())
			var answer *datagram
			l.filter = func(d datagram) bool {
				h, _ := message.ParseHeader(d.data)
				if h.Exchange != message.CreateChildSA || !h.Response() || answer != nil {
					return true
				}
				answer = &d
				children := l.server.engine.sessions[l.serverInfo().ID].children
				l.server.engine.ChildFailed(l.now, l.serverInfo().ID, children[len(children)-1].id, errors.New("no memory"))
				return false
			}
			begin(l)
			l.run()
			if answer == nil || len(l.server.childs) != 1 {
				t.Fatalf("the gateway has %d Child SAs, answered: %v", len(l.server.childs), answer != nil)
			}
			l.client.engine.Receive(l.now, answer.pair.Reverse(), answer.data)
			l.run()
			if len(l.client.childs) != 1 {
				t.Errorf("the client has %d Child SAs, the gateway one", len(l.client.childs))
			}
			l.carries()
			l.advance(30 * time.Second) // a rekey is tried again
			l.agree()
			l.carries()
		})
	}
}

// TestClientLeavesWhenItsLastChildSAIsGone: the gateway deletes the client's only Child
// SA while the client's rekey of it is under way, or refuses one in the place of one that
// was lost. Without a Child SA the session is of no use to the client.
func TestClientLeavesWhenItsLastChildSAIsGone(t *testing.T) {
	deleteAll := func(l *lab) {
		for _, c := range l.serverInfo().Children {
			l.server.engine.ChildFailed(l.now, l.serverInfo().ID, c.ID, errors.New("no memory"))
		}
	}
	rekey := func(l *lab) {
		if err := l.client.engine.RekeyChild(l.now, l.id, l.clientInfo().Children[0].ID); err != nil {
			l.t.Fatal(err)
		}
	}
	for name, play := range map[string]func(l *lab){
		"while the rekey is prepared": func(l *lab) {
			l.client.holdNext()
			rekey(l)
			l.client.settle()
			deleteAll(l)
			l.run()
			l.client.release()
		},
		"while the rekey is in flight": func(l *lab) {
			rekey(l)
			l.client.settle()
			deleteAll(l)
		},
		"in place of a lost one": func(l *lab) {
			l.server.engine.sessions[l.serverInfo().ID].children[0].spiOut++ // it does not know it
			l.server.engine.responder.Policy.LocalSelectors = []esp.Selector{esp.PrefixSelector(innerNet6)}
			rekey(l)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := connected(t, clientPolicy(), serverPolicy())
			play(l)
			l.advance(time.Minute)
			wantClosed(t, l.client, reason.NoChildSA, 0)
		})
	}
}
