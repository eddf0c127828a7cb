package tun

import (
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

// TestSparing: a host that has been silent for long is sent one packet a second, until it
// is heard of.
func TestSparing(t *testing.T) {
	clock := &fakeClock{now: time.Unix(1_800_000_000, 0)}
	a, b := tunnel(t, true, func(c *Config) { c.Now = clock.Now })
	add(a, b, algorithms[0], 1)
	second := func() (arrived int) {
		for range 100 {
			clock.advance(10 * time.Millisecond)
			a.push(udpPacket("10.0.0.1", "10.1.0.1", 1))
			arrived += len(carry(a, b))
		}
		return arrived
	}
	a.must(a.dp.MoveHost(theHost, esp.Path{Pair: pairAB, UDP: true, Sparing: true}))
	for range 3 {
		if n := second(); n != 1 {
			t.Fatalf("%d packets in a second", n)
		}
	}
	if n := a.dp.Counters().OutAway; n != 297 {
		t.Errorf("%d packets counted", n)
	}
	b.push(udpPacket("10.1.0.1", "10.0.0.1", 1))
	forged := b.sender.take()[0].pkts[0]
	forged[len(forged)-1] ^= 1
	a.receive(pairAB, true, forged)
	if n := second(); n != 1 {
		t.Fatalf("%d packets in a second after a forged one came", n)
	}
	b.push(udpPacket("10.1.0.1", "10.0.0.1", 1))
	if len(carry(b, a)) != 1 {
		t.Fatal("nothing comes from the other side")
	}
	if n := second(); n != 100 {
		t.Errorf("%d of 100 packets after it was heard of", n)
	}
}
