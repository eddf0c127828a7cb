package tun

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// keepaliveTimes runs for a while and returns when keepalives were sent, in whole
// seconds since the start.
func keepaliveTimes(s *side, d time.Duration, each func(elapsed time.Duration)) (at []int, pairs []locator.Pair) {
	start := time.Now()
	for time.Since(start) < d {
		time.Sleep(time.Second)
		synctest.Wait()
		elapsed := time.Since(start)
		for _, p := range s.sender.takeKeepalives() {
			at, pairs = append(at, int(elapsed/time.Second)), append(pairs, p)
		}
		if each != nil {
			each(elapsed)
		}
	}
	return at, pairs
}

func equalInts(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestKeepaliveWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSide(t)
		a.must(a.dp.AddHost(theHost, esp.Path{Pair: pairAB, UDP: true, Keepalive: 20 * time.Second}))
		at, pairs := keepaliveTimes(a, 70*time.Second, nil)
		if !equalInts(at, []int{20, 40, 60}) || pairs[0] != pairAB {
			t.Errorf("keepalives at %v to %v", at, pairs)
		}
		if n := a.dp.Counters().Keepalives; n != 3 {
			t.Errorf("%d counted", n)
		}
	})
}

func TestTrafficPutsKeepaliveOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := tunnel(t, true)
		add(a, b, algorithms[0], 1)
		a.must(a.dp.MoveHost(theHost, esp.Path{Pair: pairAB, UDP: true, Keepalive: 20 * time.Second}))
		at, _ := keepaliveTimes(a, 100*time.Second, func(elapsed time.Duration) {
			if elapsed <= 50*time.Second {
				a.push(udpPacket("10.0.0.1", "10.1.0.1", 1))
			}
		})
		if !equalInts(at, []int{70, 90}) {
			t.Errorf("keepalives at %v, want 20 seconds after the last packet", at)
		}
	})
}

func TestKeepaliveFollowsThePath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSide(t)
		a.must(a.dp.AddHost(theHost, esp.Path{Pair: pairAB, UDP: true}))
		a.must(a.dp.AddHost(2, esp.Path{Pair: pairAB, Keepalive: time.Second})) // protocol 50 has none
		at, _ := keepaliveTimes(a, 60*time.Second, nil)
		if at != nil {
			t.Fatalf("keepalives at %v without being asked", at)
		}
		a.must(a.dp.MoveHost(theHost, esp.Path{Pair: pairA2, UDP: true, Keepalive: 30 * time.Second}))
		at, pairs := keepaliveTimes(a, 60*time.Second, nil)
		if !equalInts(at, []int{30, 60}) || pairs[0] != pairA2 {
			t.Errorf("keepalives at %v to %v", at, pairs)
		}
		a.must(a.dp.RemoveHost(theHost))
		if at, _ := keepaliveTimes(a, 60*time.Second, nil); at != nil {
			t.Errorf("keepalives at %v after the host was removed", at)
		}
	})
}

func TestKeepalivesShareWakeUps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newSide(t)
		for id := range esp.HostID(50) {
			a.must(a.dp.AddHost(id+1, esp.Path{Pair: pairAB, UDP: true, Keepalive: 10 * time.Second}))
			time.Sleep(3 * time.Millisecond)
		}
		at, _ := keepaliveTimes(a, 35*time.Second, nil)
		if len(at) != 150 {
			t.Errorf("%d keepalives for 50 hosts in 35 seconds, want 150", len(at))
		}
	})
}
