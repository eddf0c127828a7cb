package ike

import (
	"errors"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
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
