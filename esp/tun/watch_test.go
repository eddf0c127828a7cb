package tun

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

func TestUnansweredTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := tunnel(t, true)
		add(a, b, algorithms[0], 1)
		a.must(a.dp.MoveHost(theHost, esp.Path{Pair: pairAB, UDP: true, UnansweredAfter: 300 * time.Millisecond}))
		unanswered := func() (out []esp.Event) {
			synctest.Wait()
			for _, e := range a.events.take() {
				if e.Kind == esp.Unanswered {
					out = append(out, e)
				}
			}
			return out
		}
		time.Sleep(10 * time.Second)
		if got := unanswered(); len(got) != 0 {
			t.Fatalf("silence raised %v", got)
		}
		for range 50 { // answered traffic
			a.push(udpPacket("10.0.0.1", "10.1.0.1", 1))
			carry(a, b)
			b.push(udpPacket("10.1.0.1", "10.0.0.1", 1))
			carry(b, a)
			time.Sleep(20 * time.Millisecond)
		}
		if got := unanswered(); len(got) != 0 {
			t.Fatalf("answered traffic raised %v", got)
		}
		start := time.Now()
		for range 100 { // a second without answers
			a.push(udpPacket("10.0.0.1", "10.1.0.1", 1))
			time.Sleep(10 * time.Millisecond)
		}
		got := unanswered()
		if len(got) < 2 || len(got) > 3 {
			t.Fatalf("%d events in a second, want one each 300 ms: %v", len(got), got)
		}
		if d := got[0].Since.Sub(start); got[0].Host != theHost || d < 0 || d > time.Millisecond {
			t.Errorf("first event %+v, %v after the first packet", got[0], d)
		}
		carry(a, b)
		b.push(udpPacket("10.1.0.1", "10.0.0.1", 1))
		carry(b, a)
		time.Sleep(5 * time.Second)
		if got := unanswered(); len(got) != 0 {
			t.Errorf("an answer does not end it: %v", got)
		}
	})
}

func TestAnswersFromElsewhereDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := tunnel(t, true)
		add(a, b, algorithms[0], 1)
		a.must(a.dp.MoveHost(theHost, esp.Path{Pair: pairA2, UDP: true, UnansweredAfter: 300 * time.Millisecond}))
		for range 100 {
			a.push(udpPacket("10.0.0.1", "10.1.0.1", 1))
			b.push(udpPacket("10.1.0.1", "10.0.0.1", 1))
			carry(b, a) // arrives from the old path
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		n := 0
		for _, e := range a.events.take() {
			if e.Kind == esp.Unanswered {
				n++
			}
		}
		if n < 2 {
			t.Errorf("%d events although nothing came over the path in use", n)
		}
	})
}
