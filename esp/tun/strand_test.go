package tun

import (
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

// TestStrandedPackets has an uplink go under traffic: what the kernel refused leaves over
// the next path, unless that comes too late, and no more than a bound.
func TestStrandedPackets(t *testing.T) {
	for _, tc := range []struct {
		name    string
		err     error
		packets int
		wait    time.Duration
		want    func(n int) bool
	}{
		{"at once", fmt.Errorf("send: %w", syscall.ENETUNREACH), 5, 20 * time.Millisecond, func(n int) bool { return n == 5 }},
		{"too late", syscall.EADDRNOTAVAIL, 5, 2 * time.Second, func(n int) bool { return n == 0 }},
		{"another error", syscall.EPERM, 5, 20 * time.Millisecond, func(n int) bool { return n == 0 }},
		{"a flood", syscall.EINVAL, 5000, 20 * time.Millisecond, func(n int) bool { return n > 100 && n*60 <= maxStranded }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := tunnel(t, true)
				add(a, b, algorithms[0], 1)
				a.sender.mu.Lock()
				a.sender.err = tc.err
				a.sender.mu.Unlock()
				for range tc.packets {
					a.push(udpPacket("10.0.0.1", "10.1.0.1", 1))
				}
				time.Sleep(tc.wait)
				a.sender.mu.Lock()
				a.sender.err = nil
				a.sender.mu.Unlock()
				a.must(a.dp.MoveHost(theHost, esp.Path{Pair: pairA2, UDP: true}))
				time.Sleep(2 * strandedWait)
				synctest.Wait()
				n := 0
				for _, s := range a.sender.take() {
					if s.pair != pairA2 || !s.udp {
						t.Errorf("sent over %v", s.pair)
					}
					n += len(s.pkts)
				}
				if !tc.want(n) {
					t.Errorf("%d of %d packets were sent over the new path", n, tc.packets)
				}
				a.must(a.dp.MoveHost(theHost, esp.Path{Pair: pairAB, UDP: true}))
				time.Sleep(2 * strandedWait)
				synctest.Wait()
				if again := a.sender.take(); len(again) != 0 {
					t.Errorf("sent again: %d", len(again))
				}
			})
		})
	}
}
