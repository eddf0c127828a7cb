package mobike

import (
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
)

// connectedToStranger is a laptop with two uplinks and a gateway of another kind:
// without NAT traversal it says nothing of itself.
func connectedToStranger(t *testing.T) *world {
	w := connected(t, 1, func(w *world) {
		w.tune = func(_, server *ike.Policy) { server.ProhibitNAT = true }
	})
	w.c.SetUp(true)
	w.client.changed()
	w.run(time.Second)
	return w
}

// TestPeerThatDoesNotFollow moves to a gateway that confirms, but whose Child SAs go on
// sending to where the client was: the client renews them, once.
func TestPeerThatDoesNotFollow(t *testing.T) {
	w := connectedToStranger(t)
	w.server.fixed = true
	w.a.SetUp(false)
	w.client.changed()
	w.run(3 * time.Second)
	w.alive(followWithin + 100*time.Millisecond)
	w.oneChild()
	if w.client.rekeys != 1 {
		t.Errorf("renewed %d times, want once", w.client.rekeys)
	}
}

// TestPeerThatDoesNotFollowQuietly: without traffic there is nothing to see. It begins
// later, and unanswered.
func TestPeerThatDoesNotFollowQuietly(t *testing.T) {
	w := connectedToStranger(t)
	w.server.fixed = true
	w.traffic = 0
	w.run(time.Second)
	w.a.SetUp(false)
	w.client.changed()
	w.run(3 * time.Second)
	if w.client.rekeys != 0 {
		t.Error("renewed without traffic")
	}
	w.talk(10 * time.Millisecond)
	w.run(3 * time.Second)
	w.alive(unansweredAfter + 100*time.Millisecond)
	if w.client.rekeys != 1 {
		t.Errorf("renewed %d times, want once", w.client.rekeys)
	}
}

// TestPeerThatFollows: where packets come to the new pair, nothing is renewed; and
// where none come because nobody answers, no more than once a move.
func TestPeerThatFollows(t *testing.T) {
	w := connectedToStranger(t)
	w.a.SetUp(false)
	w.client.changed()
	w.run(3 * time.Second)
	w.alive(100 * time.Millisecond)
	if w.client.rekeys != 0 {
		t.Errorf("renewed %d times without need", w.client.rekeys)
	}
	w.server.deaf = true
	w.a.SetUp(true)
	w.client.changed()
	w.run(2 * time.Minute)
	if len(w.client.changes) != 2 || w.client.rekeys > 1 {
		t.Errorf("%d moves and %d renewals, want 2 and 1", len(w.client.changes), w.client.rekeys)
	}
}
