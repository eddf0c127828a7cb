package tun

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

// narrow makes a side whose path carries 1300 octets: 1238 inside.
func narrow(t *testing.T) (*side, *fakeClock) {
	clock := newFakeClock()
	a, b := tunnel(t, true, func(c *Config) { c.Now = clock.Now })
	add(a, b, algorithms[0], 1)
	a.must(a.dp.MoveHost(theHost, esp.Path{Pair: pairAB, UDP: true, MTU: 1300}))
	return a, clock
}

func TestTooBigV4(t *testing.T) {
	a, _ := narrow(t)
	fits, big := udpPacket("10.0.0.1", "10.1.0.1", 1238-28), udpPacket("10.0.0.1", "10.1.0.1", 1239-28)
	a.push(fits)
	if s := a.sender.take(); len(s) != 1 || a.dev.take() != nil {
		t.Fatal("a packet of just the MTU was not sent")
	} else if n := len(s[0].pkts[0]) + 28; n > 1300 {
		t.Fatalf("its outer packet has %d octets", n)
	}
	a.push(big)
	if a.sender.take() != nil {
		t.Fatal("a packet that is too big was sent")
	}
	replies := a.dev.take()
	if len(replies) != 1 {
		t.Fatalf("%d replies", len(replies))
	}
	r := replies[0]
	if len(r) != 576 || r[9] != 1 || r[20] != 3 || r[21] != 4 || binary.BigEndian.Uint16(r[26:]) != 1238 {
		t.Errorf("reply % x", r[:28])
	}
	if !bytes.Equal(r[12:16], big[16:20]) || !bytes.Equal(r[16:20], big[12:16]) || !bytes.Equal(r[28:], big[:548]) {
		t.Error("addresses or quotation are wrong")
	}
	if sum(r[:20]) != 0 || sum(r[20:]) != 0 {
		t.Error("a checksum is wrong")
	}
}

func TestTooBigV6(t *testing.T) {
	a, _ := narrow(t)
	a.must(a.dp.MoveHost(theHost, esp.Path{Pair: pairAB, UDP: true, MTU: 1400}))
	big := udpPacket("fd00:a::1", "fd00:b::1", 1360-48)
	a.push(big)
	replies := a.dev.take()
	if a.sender.take() != nil || len(replies) != 1 {
		t.Fatalf("%d replies", len(replies))
	}
	r := replies[0]
	if len(r) != 1280 || r[6] != 58 || r[40] != 2 || binary.BigEndian.Uint32(r[44:]) != 1338 {
		t.Errorf("reply % x", r[:48])
	}
	if !bytes.Equal(r[8:24], big[24:40]) || !bytes.Equal(r[24:40], big[8:24]) || !bytes.Equal(r[48:], big[:1232]) {
		t.Error("addresses or quotation are wrong")
	}
	if header, upper := pseudo(r); sum(header, upper) != 0 {
		t.Error("the checksum is wrong")
	}
}

func TestNoTooBig(t *testing.T) {
	icmp := func(kind byte) []byte {
		return ipPacket("10.0.0.1", "10.1.0.1", 1, append([]byte{kind, 0}, make([]byte, 1300)...))
	}
	fragmentable := udpPacket("10.0.0.1", "10.1.0.1", 1300)
	fragmentable[6] = 0
	later := udpPacket("10.0.0.1", "10.1.0.1", 1300)
	later[7] = 1
	for _, v := range []struct {
		name          string
		pkt           []byte
		sent, replied bool
	}{
		{"may be fragmented", fragmentable, true, false},
		{"IPv6 up to 1280 octets", udpPacket("fd00:a::1", "fd00:b::1", 1280-48), true, false},
		{"IPv6 beyond", udpPacket("fd00:a::1", "fd00:b::1", 1281-48), false, true},
		{"echo request", icmp(8), false, true},
		{"destination unreachable", icmp(3), false, false},
		{"time exceeded", icmp(11), false, false},
		{"later fragment", later, false, false},
		{"ICMPv6 error", ipPacket("fd00:a::1", "fd00:b::1", 58, append([]byte{1, 0}, make([]byte, 1300)...)), false, false},
		{"ICMPv6 echo", ipPacket("fd00:a::1", "fd00:b::1", 58, append([]byte{128, 0}, make([]byte, 1300)...)), false, true},
	} {
		t.Run(v.name, func(t *testing.T) {
			a, _ := narrow(t)
			a.push(v.pkt)
			if s := a.sender.take(); (s != nil) != v.sent {
				t.Errorf("sent: %v", s != nil)
			}
			if r := a.dev.take(); (r != nil) != v.replied {
				t.Errorf("replied: %v", r != nil)
			}
		})
	}
}

func TestTooBigIsRateLimited(t *testing.T) {
	a, clock := narrow(t)
	big := udpPacket("10.0.0.1", "10.1.0.1", 1300)
	for range 1000 {
		a.push(big)
	}
	if n := len(a.dev.take()); n == 0 || n > 100 {
		t.Errorf("%d replies at one instant", n)
	}
	clock.advance(time.Minute)
	a.push(big, big, big, big, big, big, big, big)
	if n := len(a.dev.take()); n == 0 || n > maxReplies {
		t.Errorf("%d replies to one read", n)
	}
	if n := a.dp.Counters().OutTooBig; n != 1008 {
		t.Errorf("%d packets counted as too big", n)
	}
}

// TestUnknownPathMTU: while nobody has measured the path, its packets are sent and
// the outer ones fragmented if need be.
func TestUnknownPathMTU(t *testing.T) {
	a, b := tunnel(t, true)
	add(a, b, algorithms[0], 1)
	a.push(udpPacket("10.0.0.1", "10.1.0.1", 3000))
	if s := a.sender.take(); len(s) != 1 {
		t.Error("not sent")
	}
	if r := a.dev.take(); r != nil {
		t.Error("refused")
	}
}
