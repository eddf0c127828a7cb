package xfrm

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

func watched(p esp.Path) esp.Path {
	p.UnansweredAfter = 300 * time.Millisecond
	return p
}

func TestFirstInboundIsNoticed(t *testing.T) {
	w := newWorld(t, nil)
	w.up(home)
	w.pass(time.Second)
	w.kernel.carry(t, w.in(1), 1)
	w.pass(50 * time.Millisecond)
	if got := w.kinds(); !slices.Equal(got, []esp.EventKind{esp.FirstInbound}) {
		t.Fatalf("events %v", got)
	}
	w.kernel.carry(t, w.in(1), 1)
	w.pass(time.Hour)
	if got := w.kinds(); len(got) != 0 {
		t.Errorf("again: %v", got)
	}
	if _, any := w.look(w.now); any {
		t.Error("the watch goes on though nobody waits for anything")
	}
}

func TestUnanswered(t *testing.T) {
	w := newWorld(t, nil)
	w.up(watched(home))
	w.kernel.carry(t, w.in(1), 1)
	w.pass(5 * time.Second) // at rest
	w.kinds()

	w.kernel.carry(t, w.out(1), 1)
	sent := w.now
	w.pass(250 * time.Millisecond)
	if got := w.kinds(); len(got) != 0 {
		t.Fatalf("too early: %v", got)
	}
	w.pass(500 * time.Millisecond)
	if len(w.events) == 0 || w.events[0].Kind != esp.Unanswered || w.events[0].Since.Before(sent) || w.events[0].Since.Sub(sent) > 250*time.Millisecond {
		t.Fatalf("events %+v, sent at %v", w.events, sent)
	}
	w.pass(time.Second)
	if n := len(w.kinds()); n < 2 || n > 6 {
		t.Errorf("raised %d times in 1.5 s", n)
	}
	w.kernel.carry(t, w.in(1), 1)
	w.pass(100 * time.Millisecond)
	w.kinds()
	w.pass(2 * time.Second)
	if got := w.kinds(); len(got) != 0 {
		t.Errorf("after the answer: %v", got)
	}
}

func TestAnsweredTrafficIsQuiet(t *testing.T) {
	w := newWorld(t, nil)
	w.up(watched(home))
	for range 100 {
		w.kernel.carry(t, w.out(1), 3)
		w.kernel.carry(t, w.in(1), 2)
		w.pass(30 * time.Millisecond)
	}
	if got := w.kinds(); !slices.Equal(got, []esp.EventKind{esp.FirstInbound}) {
		t.Errorf("events %v", got)
	}
}

func TestMovingForgetsWhatWasWaitedFor(t *testing.T) {
	w := newWorld(t, nil)
	w.up(watched(home))
	w.kernel.carry(t, w.out(1), 1)
	w.pass(280 * time.Millisecond)
	w.ok(w.MoveHost(1, watched(nat)))
	w.pass(250 * time.Millisecond)
	if got := w.kinds(); len(got) != 0 {
		t.Errorf("events %v", got)
	}
}

func TestMappingChange(t *testing.T) {
	w := newWorld(t, nil)
	w.up(home)
	elsewhere := netip.MustParseAddrPort("203.0.113.10:40001")
	for range 3 {
		w.kernelEvent(kernelEvent{kind: mappingChanged, id: w.in(1), source: elsewhere})
	}
	w.kernelEvent(kernelEvent{kind: mappingChanged, id: w.in(1), source: home.Pair.Remote}) // an old message
	want := locator.Pair{Local: home.Pair.Local, Remote: elsewhere}
	if len(w.events) != 1 || w.events[0].Kind != esp.SourceChanged || w.events[0].Observed != want {
		t.Fatalf("events %+v", w.events)
	}
	w.now = w.now.Add(time.Second)
	w.kernelEvent(kernelEvent{kind: mappingChanged, id: w.in(1), source: elsewhere})
	if len(w.events) != 2 {
		t.Errorf("events %+v", w.events)
	}
}

type keeper struct{ sent []locator.Pair }

func (k *keeper) SendKeepalive(p locator.Pair) error { k.sent = append(k.sent, p); return nil }

func TestKeepalives(t *testing.T) {
	w := newWorld(t, nil)
	k := &keeper{}
	w.SetSender(k)
	p := nat
	p.Keepalive = 20 * time.Second
	w.up(p)
	w.pass(19 * time.Second)
	if len(k.sent) != 0 {
		t.Errorf("%d too early", len(k.sent))
	}
	w.pass(42 * time.Second)
	if len(k.sent) != 3 || k.sent[0] != nat.Pair {
		t.Errorf("%d in a minute: %v", len(k.sent), k.sent)
	}
	w.ok(w.MoveHost(1, home))
	w.pass(time.Minute)
	if len(k.sent) != 3 {
		t.Error("a path that needs none has got one")
	}
}
