package ike

import (
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// busyTask is a task whose deadline never passes.
type busyTask struct {
	idleTask
	since time.Time
	ticks int
}

type idleTask struct{}

func (idleTask) Request(*Exchange) error        { return nil }
func (idleTask) HandleRequest(*Exchange) error  { return nil }
func (idleTask) Respond(*Exchange) error        { return nil }
func (idleTask) HandleResponse(*Exchange) error { return nil }

func (b *busyTask) Name() string          { return "busy" }
func (b *busyTask) Begin(s *Session) Task { b.since = s.started; return b }
func (b *busyTask) Deadline() time.Time   { return b.since }
func (b *busyTask) Tick(time.Time)        { b.ticks++ }

// TestTickBoundsOneSession: a session that always has something to do keeps the engine
// neither in one Tick nor from the other sessions.
func TestTickBoundsOneSession(t *testing.T) {
	busy := &busyTask{}
	cp := clientPolicy()
	cp.Extensions = []Extension{busy}
	l := connected(t, cp, serverPolicy())
	other, err := l.client.engine.Initiate(l.now, clientPolicy(), locator.Pair{Local: clientAddr, Remote: mustAddrPort("198.51.100.1:500")})
	if err != nil {
		t.Fatal(err)
	}
	before := busy.ticks
	l.advance(10 * time.Second)
	if n := busy.ticks - before; n < 5 || n > 11*maxSpins {
		t.Errorf("%d ticks in ten seconds", n)
	}
	if s := l.client.engine.sessions[other]; s.sa.out == nil || s.sa.out.sent < 3 {
		t.Error("the other session does not repeat its request")
	}
}

// TestExpiryWhileLeaving: the end of a Child SA's life falls into the two seconds that
// the peer's rekey and Delete leave it in the data path.
func TestExpiryWhileLeaving(t *testing.T) {
	const rekey, life = 100 * time.Second, 180 * time.Second
	sp := serverPolicy()
	sp.RekeyChild = rekey
	l := connected(t, clientPolicy(), sp)
	old := l.server.engine.sessions[l.serverInfo().ID].children[0]
	old.rekeyAt = time.Time{} // the client is quicker
	if want := l.now.Add(life); !old.expireAt.Equal(want) {
		t.Fatalf("expires at %v, want %v", old.expireAt, want)
	}
	l.advance(life - time.Second)
	if err := l.client.engine.RekeyChild(l.now, l.id, l.clientInfo().Children[0].ID); err != nil {
		t.Fatal(err)
	}
	l.run()
	if len(l.server.childs) != 2 || !old.removeAt.After(old.expireAt) {
		t.Fatalf("the gateway has %d Child SAs, the old one goes at %v", len(l.server.childs), old.removeAt)
	}
	l.wantNoSpin()
	l.advance(removalDelay + time.Millisecond)
	l.agree()
	l.carries()
	if len(l.server.childs) != 1 || len(l.server.down) != 0 {
		t.Errorf("the gateway has %d Child SAs, %v", len(l.server.childs), l.server.down)
	}
}

// wantNoSpin fails if a Child SA that waits for its end has another deadline before.
func (l *lab) wantNoSpin() {
	l.t.Helper()
	for _, p := range l.peers {
		for _, s := range p.engine.sessions {
			for _, c := range s.children {
				if at := c.deadline(); !c.removeAt.IsZero() && at.Before(c.removeAt) {
					l.t.Errorf("%s: Child SA %d goes at %v but has something to do at %v", p.name, c.id, c.removeAt, at)
				}
			}
			if s.spun > 1 {
				l.t.Errorf("%s: %d ticks at one time", p.name, s.spun+1)
			}
		}
	}
}

// TestAwayPastTheLifeOfAChildSA: the peer is away for longer than a Child SA lives, so
// that its end is put off again and again, and renews it when it is back, at any
// distance from the next such moment.
func TestAwayPastTheLifeOfAChildSA(t *testing.T) {
	const rekey = 100 * time.Second
	for back := 200 * time.Second; back < 240*time.Second; back += 500 * time.Millisecond {
		cp, sp := clientPolicy(), serverPolicy()
		cp.RekeyChild, sp.RekeyChild = rekey, rekey
		cp.PeerTimeout, sp.PeerTimeout = time.Hour, time.Hour
		cp.Jitter = 0.1
		l := newLab(t, uint64(back), cp, sp)
		l.advance(50 * time.Second)
		l.filter = func(datagram) bool { return false }
		l.advance(back - 50*time.Second)
		l.filter = nil
		l.client.engine.Repeat(l.now, l.id)
		for range 40 {
			l.advance(100 * time.Millisecond)
			l.wantNoSpin()
		}
		l.agree()
		l.carries()
	}
}

// TestPauseIsForWhatWasRefused: after TEMPORARY_FAILURE a rekey waits, but nothing else.
func TestPauseIsForWhatWasRefused(t *testing.T) {
	l := connected(t, clientPolicy(), serverPolicy())
	s := l.client.engine.sessions[l.id]
	l.server.hold = func(Work) bool { return true } // its own rekey of the IKE SA is in flight
	id := l.serverInfo().ID
	if err := l.server.engine.RekeyIKE(l.now, id); err != nil {
		t.Fatal(err)
	}
	l.server.settle()
	l.server.release()
	l.filter = func(d datagram) bool { return d.from != l.server || !isRequest(d) }
	l.server.settle()
	if err := l.client.engine.RekeyChild(l.now, l.id, l.clientInfo().Children[0].ID); err != nil {
		t.Fatal(err)
	}
	l.run()
	if !s.sa.retryAt.After(l.now) || len(s.sa.queue) != 1 {
		t.Fatalf("the rekey was not put off: %v, %d requests wait", s.sa.retryAt, len(s.sa.queue))
	}
	if s.Waiting() {
		t.Error("what is put off counts as waiting for its turn")
	}
	asked := false
	s.Request(l.now, func(*Exchange) bool { return true }, func(*Exchange) { asked = true })
	l.run()
	if !asked {
		t.Error("a task's request waits for the pause to end")
	}
	if len(s.sa.queue) != 1 {
		t.Error("the rekey did not wait")
	}
	l.filter = nil
	l.advance(20 * time.Second)
	l.agree()
	if len(l.client.rekeyed) != 2 {
		t.Errorf("rekeyed: %+v, want the IKE SA and the Child SA", l.client.rekeyed)
	}
}

func isRequest(d datagram) bool {
	h, err := message.ParseHeader(d.data)
	return err == nil && !h.Response()
}
