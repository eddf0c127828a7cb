package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

func TestRoundTrip(t *testing.T) {
	for _, alg := range algorithms {
		for _, udp := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s udp=%v", alg.name, udp), func(t *testing.T) {
				a, b := tunnel(t, udp)
				add(a, b, alg, 7)
				var want [][]byte
				for n := range 60 {
					want = append(want, udpPacket("10.0.0.1", "10.1.0.1", n*20), udpPacket("fd00:a::1", "fd00:b::1", n))
				}
				a.push(want...)
				got := carry(a, b)
				if len(got) != len(want) {
					t.Fatalf("%d packets of %d arrived", len(got), len(want))
				}
				for i := range got {
					if !bytes.Equal(got[i], want[i]) {
						t.Fatalf("packet %d is %x, want %x", i, got[i], want[i])
					}
				}
				back := udpPacket("10.1.0.1", "10.0.0.1", 10)
				b.push(back)
				if got := carry(b, a); len(got) != 1 || !bytes.Equal(got[0], back) {
					t.Fatalf("back: %x", got)
				}
			})
		}
	}
}

func TestNothingLeavesInClear(t *testing.T) {
	a, b := tunnel(t, true)
	secret := udpPacket("10.0.0.1", "10.1.0.1", 400)
	send := func() []sent {
		a.push(secret)
		return a.sender.take()
	}
	if s := send(); s != nil {
		t.Fatalf("sent without a child: %v", s)
	}
	forA, forB := algorithms[0].children(1)
	a.must(a.dp.AddChild(forA))
	b.must(b.dp.AddChild(forB))
	if s := send(); s != nil {
		t.Fatalf("sent on a child that is not active: %v", s)
	}
	a.must(a.dp.ActivateChild(1))
	s := send()
	if len(s) != 1 || bytes.Contains(s[0].pkts[0], secret[28:60]) {
		t.Fatalf("not sealed: %v", s)
	}
	a.push(udpPacket("10.0.0.1", "10.9.0.1", 10)) // nobody's
	a.must(a.dp.RemoveChild(1))
	if s := send(); s != nil {
		t.Fatalf("sent after the child was removed: %v", s)
	}
	if n := a.dp.Counters().OutNoChild; n != 4 {
		t.Errorf("%d packets counted without a child, want 4", n)
	}
}

func TestLastActivatedChildWins(t *testing.T) {
	a, b := tunnel(t, true)
	spi := func() uint32 {
		a.push(udpPacket("10.0.0.1", "10.1.0.1", 1))
		s := a.sender.take()
		if len(s) != 1 {
			t.Fatalf("%d sends", len(s))
		}
		return binary.BigEndian.Uint32(s[0].pkts[0])
	}
	for id := esp.ChildID(1); id <= 3; id++ {
		forA, forB := algorithms[0].children(id)
		a.must(a.dp.AddChild(forA))
		b.must(b.dp.AddChild(forB))
	}
	for _, step := range []struct {
		do   func() error
		want uint32
	}{
		{func() error { return a.dp.ActivateChild(2) }, 0x10002},
		{func() error { return a.dp.ActivateChild(1) }, 0x10001},
		{func() error { return a.dp.ActivateChild(3) }, 0x10003},
		{func() error { return a.dp.RemoveChild(1) }, 0x10003},
		{func() error { return a.dp.ActivateChild(2) }, 0x10002},
		{func() error { return a.dp.RemoveChild(2) }, 0x10003},
	} {
		a.must(step.do())
		if got := spi(); got != step.want {
			t.Fatalf("sent on %#x, want %#x", got, step.want)
		}
	}
}

// TestRekeyWithoutLoss runs the order of RFC 7296 §2.8 again and again under
// traffic in both directions: the initiator of the rekey adds and activates, the
// responder adds and activates on the first packet, then the old SA goes.
func TestRekeyWithoutLoss(t *testing.T) {
	const rekeys, batch = 30, 5
	a, b := tunnel(t, true)
	a.dev.discard, b.dev.discard = true, true
	deliver := func(s *side) func(locator.Pair, bool, []transport.Train) {
		return func(pair locator.Pair, udp bool, trains []transport.Train) {
			s.dp.HandleESP(arrived(pair.Reverse(), udp, trains))
		}
	}
	a.sender.deliver, b.sender.deliver = deliver(b), deliver(a)

	activate := make(chan esp.ChildID, 16)
	b.dp.cfg.Events = func(e esp.Event) {
		if e.Kind == esp.FirstInbound {
			activate <- e.Child
		}
	}
	add(a, b, algorithms[0], 1)

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var pushed [2]int
	for i, s := range []*side{a, b} {
		src, dst := "10.0.0.1", "10.1.0.1"
		if s == b {
			src, dst = dst, src
		}
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var pkts [][]byte
				for range batch {
					pkts = append(pkts, udpPacket(src, dst, 100))
				}
				s.push(pkts...)
				pushed[i] += batch
			}
		})
	}
	<-activate // of the first child
	for id := esp.ChildID(2); id < rekeys; id++ {
		forA, forB := algorithms[int(id)%len(algorithms)].children(id)
		b.must(b.dp.AddChild(forB)) // the responder first: it must accept what follows its answer
		a.must(a.dp.AddChild(forA))
		a.must(a.dp.ActivateChild(id))
		if got := <-activate; got != id {
			t.Errorf("first packet on child %d, want %d", got, id)
		}
		b.must(b.dp.ActivateChild(id))
		// Both sides have moved on; what was sealed before is delivered, since the fake
		// network has no delay. Each side stops sending on the old SA before the other
		// stops receiving on it.
		a.drainSends()
		b.drainSends()
		a.must(a.dp.RemoveChild(id - 1))
		b.must(b.dp.RemoveChild(id - 1))
	}
	close(stop)
	wg.Wait()

	sa, err := a.dp.QueryHost(theHost)
	a.must(err)
	sb, err := b.dp.QueryHost(theHost)
	b.must(err)
	if int(sa.OutPackets) != pushed[0] || int(sb.OutPackets) != pushed[1] {
		t.Errorf("sealed %d and %d packets of %v", sa.OutPackets, sb.OutPackets, pushed)
	}
	if sb.InPackets != sa.OutPackets || sa.InPackets != sb.OutPackets {
		t.Errorf("lost packets: a sent %d, b got %d; b sent %d, a got %d", sa.OutPackets, sb.InPackets, sb.OutPackets, sa.InPackets)
	}
	for _, s := range []*side{a, b} {
		if c := s.dp.Counters(); c != (Counters{}) {
			t.Errorf("drops: %+v", c)
		}
	}
}

// drainSends returns when the batch that is now on its way has been delivered.
func (s *side) drainSends() {
	s.pushing.Lock()
	//lint:ignore SA2001 empty on purpose: a fence
	s.pushing.Unlock()
}

func TestMoveHost(t *testing.T) {
	a, b := tunnel(t, true)
	for id := esp.ChildID(1); id <= 2; id++ {
		add(a, b, algorithms[0], id)
	}
	moved := esp.Path{Pair: pairA2, UDP: false}
	a.must(a.dp.MoveHost(theHost, moved))
	a.push(udpPacket("10.0.0.1", "10.1.0.1", 1))
	s := a.sender.take()
	if len(s) != 1 || s[0].pair != pairA2 || s[0].udp {
		t.Fatalf("sent %+v", s)
	}
	// Packets from the old path stay valid.
	b.push(udpPacket("10.1.0.1", "10.0.0.1", 1))
	if got := carry(b, a); len(got) != 1 {
		t.Fatal("a packet from the old path was dropped")
	}
	if err := a.dp.MoveHost(99, moved); !errors.Is(err, esp.ErrUnknownHost) {
		t.Errorf("moving nobody: %v", err)
	}
	if err := a.dp.MoveHost(theHost, esp.Path{}); err == nil {
		t.Error("moved to nowhere")
	}
}

func TestManyHostsInOneBatch(t *testing.T) {
	a := newSide(t)
	var pkts [][]byte
	for i := range 8 {
		id := esp.HostID(i + 1)
		pair := pairAB
		pair.Remote = netip.AddrPortFrom(pair.Remote.Addr(), uint16(5000+i))
		a.must(a.dp.AddHost(id, esp.Path{Pair: pair, UDP: true}))
		child, _ := algorithms[0].children(esp.ChildID(i + 1))
		child.Host = id
		child.Remote = []esp.Selector{hostSelector(fmt.Sprintf("10.1.0.%d", i))}
		a.must(a.dp.AddChild(child))
		a.must(a.dp.ActivateChild(child.ID))
	}
	for _, i := range []int{0, 0, 1, 1, 1, 0, 7, 7} {
		pkts = append(pkts, udpPacket("10.0.0.1", fmt.Sprintf("10.1.0.%d", i), 10))
	}
	a.push(pkts...)
	want := []struct {
		port uint16
		n    int
	}{{5000, 2}, {5001, 3}, {5000, 1}, {5007, 2}}
	got := a.sender.take()
	if len(got) != len(want) {
		t.Fatalf("%d trains, want %d", len(got), len(want))
	}
	for i, w := range want {
		if got[i].pair.Remote.Port() != w.port || len(got[i].pkts) != w.n {
			t.Errorf("train %d: %d packets to %v, want %+v", i, len(got[i].pkts), got[i].pair, w)
		}
	}
}

func TestInboundSelectors(t *testing.T) {
	a, b := tunnel(t, true)
	// The sender allows everything, so that what the receiver refuses gets there.
	forA, forB := algorithms[0].children(1)
	forA.Local = append(netA, hostSelector("0.0.0.0/0"), hostSelector("::/0"))
	forA.Remote = append(netB, hostSelector("0.0.0.0/0"), hostSelector("::/0"))
	a.must(a.dp.AddChild(forA))
	b.must(b.dp.AddChild(forB))
	a.must(a.dp.ActivateChild(1))
	bad := [][]byte{
		udpPacket("10.0.1.1", "10.1.0.1", 1),
		udpPacket("10.0.0.1", "10.2.0.1", 1),
		udpPacket("10.1.0.1", "10.0.0.1", 1),
		udpPacket("fd00:c::1", "fd00:b::1", 1),
		udpPacket("fd00:a::1", "fd00:a::2", 1),
	}
	a.push(bad...)
	if got := carry(a, b); got != nil {
		t.Fatalf("accepted %x", got)
	}
	a.push(udpPacket("10.0.0.1", "10.1.0.1", 1))
	if got := carry(a, b); len(got) != 1 {
		t.Fatal("the good packet was dropped")
	}
	st, err := b.dp.QueryChild(1)
	b.must(err)
	if st.SelectorMismatch != uint64(len(bad)) || st.InPackets != uint64(len(bad))+1 {
		t.Errorf("%+v", st)
	}
}

// sealFor seals a payload for b as the peer would, with any next header.
func sealFor(t *testing.T, s *esp.Sealer, payload []byte, nextHeader byte) []byte {
	t.Helper()
	buf := make([]byte, esp.MaxHeadroom+len(payload)+esp.MaxTailroom)
	copy(buf[esp.MaxHeadroom:], payload)
	seq, _, _ := s.Reserve(1, len(payload))
	pkt, err := s.Seal(new(esp.Scratch), buf, esp.MaxHeadroom, len(payload), nextHeader, seq)
	if err != nil {
		t.Fatal(err)
	}
	return pkt
}

func TestMalformedPackets(t *testing.T) {
	for _, alg := range algorithms {
		t.Run(alg.name, func(t *testing.T) {
			b := newSide(t)
			b.must(b.dp.AddHost(theHost, esp.Path{Pair: pairBA, UDP: true}))
			_, forB := alg.children(1)
			b.must(b.dp.AddChild(forB))
			peer, err := esp.NewSealer(&forB.In, esp.Lifetime{}, zeroReader{})
			b.must(err)

			var short [][]byte
			for n := 1; n < 60; n++ { // a live SPI and a fresh sequence number
				pkt := make([]byte, n)
				copy(pkt, []byte{0, 1, 0, 1, 0, 0, 0, byte(n)})
				short = append(short, pkt)
			}
			b.receive(pairBA, true, short...)
			good := udpPacket("10.0.0.1", "10.1.0.1", 100)
			v6 := udpPacket("fd00:a::1", "fd00:b::1", 10)
			b.receive(pairBA, true,
				sealFor(t, peer, nil, 4),
				sealFor(t, peer, good[:19], 4),
				sealFor(t, peer, good[:60], 4), // truncated
				sealFor(t, peer, good, 41),     // the family does not agree
				sealFor(t, peer, v6, 4),
				sealFor(t, peer, good, 17),
				sealFor(t, peer, good, 0),
				sealFor(t, peer, good, 255),
				sealFor(t, peer, good, 59), // dummy
			)
			if got := b.dev.take(); got != nil {
				t.Fatalf("accepted %x", got)
			}
			padded := append(bytes.Clone(good), make([]byte, 33)...) // TFC padding
			b.receive(pairBA, true, sealFor(t, peer, padded, 4))
			if got := b.dev.take(); len(got) != 1 || !bytes.Equal(got[0], good) {
				t.Fatalf("good packet with TFC padding came out as %x", got)
			}
			c := b.dp.Counters()
			st, err := b.dp.QueryChild(1)
			b.must(err)
			if c.InDummy != 1 || st.InPackets != 10 || c.InMalformed+st.AuthFailed+c.InUnknownSPI+st.Replayed != 59+8 {
				t.Errorf("%+v %+v", c, st)
			}
			b.expectEvents(esp.FirstInbound)
		})
	}
}

func TestReplayIsDropped(t *testing.T) {
	a, b := tunnel(t, true)
	add(a, b, algorithms[0], 1)
	a.push(udpPacket("10.0.0.1", "10.1.0.1", 1), udpPacket("10.0.0.1", "10.1.0.1", 2))
	s := a.sender.take()[0]
	for range 3 {
		b.receive(pairBA, true, s.pkts...)
		b.receive(pairBA, true, s.pkts[1], s.pkts[0])
	}
	if got := b.dev.take(); len(got) != 2 {
		t.Fatalf("%d packets came out", len(got))
	}
	if st, _ := b.dp.QueryChild(1); st.Replayed != 10 || st.InPackets != 2 {
		t.Errorf("%+v", st)
	}
}

func TestEvents(t *testing.T) {
	clock := newFakeClock()
	a, b := tunnel(t, true, func(c *Config) { c.Now = clock.Now })
	add(a, b, algorithms[0], 1)
	send := func() [][]byte {
		a.push(udpPacket("10.0.0.1", "10.1.0.1", 1))
		return a.sender.take()[0].pkts
	}

	b.receive(pairBA, true, send()...)
	b.expectEvents(esp.FirstInbound)
	b.receive(pairBA, true, send()...)
	b.expectEvents()

	other := pairBA
	other.Remote = netip.AddrPortFrom(pairBA.Remote.Addr(), 1024)
	late := send()
	b.receive(other, true, send()...)
	got := b.events.take()
	if len(got) != 1 || got[0].Kind != esp.SourceChanged || got[0].Observed != other || got[0].Host != theHost || got[0].Child != 1 {
		t.Fatalf("%+v", got)
	}
	b.receive(other, true, send()...)
	b.expectEvents() // rate limit
	clock.advance(2 * time.Second)
	b.receive(other, true, late...)
	b.expectEvents() // valid but not the newest: perhaps only late
	b.receive(pairBA, true, send()...)
	b.expectEvents() // from the path
	b.receive(other, true, send()...)
	b.expectEvents(esp.SourceChanged)
	b.must(b.dp.MoveHost(theHost, esp.Path{Pair: other, UDP: true}))
	clock.advance(2 * time.Second)
	b.receive(other, true, send()...)
	b.expectEvents()

	stranger := []byte{1, 2, 3, 4, 0, 0, 0, 1}
	for range 100 {
		b.receive(other, true, stranger)
	}
	got = b.events.take()
	if len(got) == 0 || len(got) > 20 || got[0].Kind != esp.UnknownSPI || got[0].SPI != 0x01020304 || got[0].Observed != other {
		t.Fatalf("%d events of unknown SPIs: %+v", len(got), got)
	}
	st, err := b.dp.QueryChild(1)
	b.must(err)
	if !st.LastIn.Equal(clock.Now()) || !st.LastOut.IsZero() {
		t.Errorf("%+v", st)
	}
}

func TestForgedPacketRaisesNoEvent(t *testing.T) {
	a, b := tunnel(t, true)
	add(a, b, algorithms[0], 1)
	a.push(udpPacket("10.0.0.1", "10.1.0.1", 1))
	forged := a.sender.take()[0].pkts[0]
	forged[len(forged)-1] ^= 1
	b.receive(pairA2, true, forged)
	b.expectEvents()
	if st, _ := b.dp.QueryChild(1); st.AuthFailed != 1 || !st.LastIn.IsZero() {
		t.Errorf("%+v", st)
	}
}

func TestLimits(t *testing.T) {
	a, b := tunnel(t, true)
	add(a, b, algorithms[0], 1, func(c *esp.Child) {
		c.Lifetime = esp.Lifetime{SoftPackets: 3, HardPackets: 5}
	})
	pkt := udpPacket("10.0.0.1", "10.1.0.1", 1)
	a.push(pkt, pkt)
	a.expectEvents()
	a.push(pkt)
	a.expectEvents(esp.SoftLimit)
	a.push(pkt, pkt, pkt, pkt)
	a.expectEvents(esp.HardLimit)
	a.push(pkt)
	a.expectEvents()
	if got := carry(a, b); len(got) != 5 {
		t.Errorf("%d packets came through, want 5", len(got))
	}
	b.expectEvents(esp.FirstInbound, esp.SoftLimit)
	if n := a.dp.Counters().OutExhausted; n != 3 {
		t.Errorf("%d packets counted as exhausted, want 3", n)
	}
	// A rekey revives the traffic.
	add(a, b, algorithms[0], 2)
	a.push(pkt)
	if got := carry(a, b); len(got) != 1 {
		t.Error("no traffic after the rekey")
	}
}

func TestQueryHostKeepsFormerChildren(t *testing.T) {
	a, b := tunnel(t, true)
	for id := esp.ChildID(1); id <= 3; id++ {
		add(a, b, algorithms[0], id)
		a.push(udpPacket("10.0.0.1", "10.1.0.1", 72))
		carry(a, b)
		if id > 1 {
			a.must(a.dp.RemoveChild(id - 1))
			b.must(b.dp.RemoveChild(id - 1))
		}
	}
	sa, err := a.dp.QueryHost(theHost)
	a.must(err)
	sb, err := b.dp.QueryHost(theHost)
	b.must(err)
	if sa.OutPackets != 3 || sa.OutBytes != 300 || sb.InPackets != 3 || sb.InBytes != 300 || sb.LastIn.IsZero() {
		t.Errorf("%+v %+v", sa, sb)
	}
	if _, err := a.dp.QueryChild(1); !errors.Is(err, esp.ErrUnknownChild) {
		t.Errorf("query of a removed child: %v", err)
	}
}

func TestControlErrors(t *testing.T) {
	a := newSide(t)
	forA, _ := algorithms[0].children(1)
	if err := a.dp.AddChild(forA); !errors.Is(err, esp.ErrUnknownHost) {
		t.Errorf("child without host: %v", err)
	}
	a.must(a.dp.AddHost(theHost, esp.Path{Pair: pairAB, UDP: true}))
	if err := a.dp.AddHost(theHost, esp.Path{Pair: pairAB, UDP: true}); err == nil {
		t.Error("host added twice")
	}
	if err := a.dp.AddHost(2, esp.Path{UDP: true}); err == nil {
		t.Error("host without address added")
	}
	a.must(a.dp.AddChild(forA))
	if err := a.dp.AddChild(forA); err == nil {
		t.Error("child added twice")
	}
	same, _ := algorithms[0].children(2)
	same.In.SPI = forA.In.SPI
	if err := a.dp.AddChild(same); err == nil {
		t.Error("inbound SPI used twice")
	}
	bad, _ := algorithms[0].children(3)
	bad.Out.EncrKey = bad.Out.EncrKey[1:]
	if err := a.dp.AddChild(bad); err == nil {
		t.Error("short key accepted")
	}
	for name, err := range map[string]error{
		"activate": a.dp.ActivateChild(9), "remove": a.dp.RemoveChild(9), "remove host": a.dp.RemoveHost(9),
	} {
		if err == nil {
			t.Errorf("%s: no error for something unknown", name)
		}
	}
	a.must(a.dp.RemoveHost(theHost))
	if _, err := a.dp.QueryChild(1); err == nil {
		t.Error("the child outlived its host")
	}
	a.must(a.dp.AddHost(theHost, esp.Path{Pair: pairAB, UDP: true}))
	a.must(a.dp.AddChild(forA)) // everything was free again
	a.must(a.dp.Close())
	a.must(a.dp.Close())
	if err := a.dp.AddHost(5, esp.Path{Pair: pairAB, UDP: true}); !errors.Is(err, esp.ErrDataPathClosed) {
		t.Errorf("add after close: %v", err)
	}
	a.receive(pairAB, true, []byte{0, 2, 0, 1, 0, 0, 0, 1, 0, 0}) // must not panic
}

// TestCallerKeepsItsKeys: the data path takes its own copy and does not need the
// caller's any more.
func TestCallerKeepsItsKeys(t *testing.T) {
	for _, alg := range algorithms {
		a, b := tunnel(t, true)
		forA, forB := alg.children(1)
		before := bytes.Clone(forA.Out.EncrKey)
		a.must(a.dp.AddChild(forA))
		if !bytes.Equal(forA.Out.EncrKey, before) {
			t.Fatal("the caller's key was changed")
		}
		b.must(b.dp.AddChild(forB))
		for _, sa := range []*esp.SA{&forA.In, &forA.Out, &forB.In, &forB.Out} {
			sa.Zero()
		}
		a.must(a.dp.ActivateChild(1))
		a.push(udpPacket("10.0.0.1", "10.1.0.1", 1))
		if got := carry(a, b); len(got) != 1 {
			t.Errorf("%s: no traffic", alg.name)
		}
	}
}

func TestSenderErrorsAreCounted(t *testing.T) {
	a, b := tunnel(t, true)
	add(a, b, algorithms[0], 1)
	a.sender.err = errors.New("network is unreachable")
	a.push(udpPacket("10.0.0.1", "10.1.0.1", 1), udpPacket("10.0.0.1", "10.1.0.1", 1))
	if n := a.dp.Counters().OutUnsent; n != 2 {
		t.Errorf("%d packets counted as unsent", n)
	}
	if st, _ := a.dp.QueryChild(1); !st.LastOut.IsZero() {
		t.Error("LastOut moved although nothing was sent")
	}
}

func TestDeviceLoop(t *testing.T) {
	a, b := tunnel(t, true)
	add(a, b, algorithms[0], 1)
	trains := make(chan int, 4)
	a.sender.deliver = func(_ locator.Pair, _ bool, list []transport.Train) { trains <- list[0].Packets() }
	q := a.dev.queue
	pkt := udpPacket("10.0.0.1", "10.1.0.1", 2)
	q.arrivals <- framesOf(pkt, pkt, pkt)
	// What comes after a pause goes at once, what has gathered meanwhile together.
	if first, rest := <-trains, <-trains; first != 1 || rest != 2 {
		t.Fatalf("trains of %d and %d packets", first, rest)
	}
	if err := a.dp.Err(); err != nil {
		t.Fatal(err)
	}
	q.failing = errors.New("no such device")
	failures := make([][]byte, maxReadFailures-1)
	q.arrivals <- append(failures, framesOf(pkt)...) // it recovers
	<-trains
	q.arrivals <- make([][]byte, maxReadFailures) // for good
	<-a.dp.Done()
	if n := q.failures.Load(); n != 2*maxReadFailures-1 {
		t.Errorf("gave up after %d failures", n)
	}
	if err := a.dp.Err(); !errors.Is(err, q.failing) {
		t.Fatalf("reason: %v", err)
	}
	b.must(b.dp.Close())
	<-b.dp.Done()
	if err := b.dp.Err(); err != nil {
		t.Fatalf("after close: %v", err)
	}
}

func TestNoAllocationPerPacket(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop entries")
	}
	for _, alg := range algorithms {
		a, b := tunnel(t, true)
		add(a, b, alg, 1)
		b.dev.discard = true
		batch := make([]transport.ESPTrain, 0, 64)
		a.sender.deliver = func(_ locator.Pair, udp bool, trains []transport.Train) {
			batch = batch[:0]
			for _, t := range trains {
				batch = append(batch, transport.ESPTrain{Pair: pairBA, UDP: udp, Train: t})
			}
			b.dp.HandleESP(batch)
		}
		var pkts [][]byte
		for range 32 {
			pkts = append(pkts, udpPacket("10.0.0.1", "10.1.0.1", 1000))
		}
		frames := framesOf(pkts...)
		if n := testing.AllocsPerRun(testIters, func() { a.pushFrames(frames) }); n >= 1 {
			t.Errorf("%s: %.1f allocations per batch of 32", alg.name, n)
		}
		if st, _ := b.dp.QueryChild(1); st.InPackets != 32*(testIters+1) {
			t.Errorf("%s: %d packets arrived", alg.name, st.InPackets)
		}
	}
}

// TestRemoveWaitsForSealers replaces the Child SA as fast as possible under
// traffic: no packet may find that the keys it was about to use are gone.
// The answer of this machine to a single packet leaves in the call that wrote the
// packet: the fake device's queue wakes nobody.
func TestAnswerNeedsNoOtherThread(t *testing.T) {
	a, b := tunnel(t, true)
	add(a, b, algorithms[0], 7)
	answer := udpPacket("10.1.0.1", "10.0.0.1", 30)
	for _, n := range []int{1, 2} {
		var question [][]byte
		for range n {
			question = append(question, udpPacket("10.0.0.1", "10.1.0.1", 20))
		}
		a.push(question...)
		b.dev.answer = framesOf(answer)
		if out := carry(a, b); len(out) != n {
			t.Fatalf("%d packets came out of %d", len(out), n)
		}
		switch out := carry(b, a); {
		case n == 1 && (len(out) != 1 || !bytes.Equal(out[0], answer)):
			t.Fatalf("the answer to one packet: %x", out)
		case n > 1 && len(out) > 0:
			t.Fatalf("a batch took up the answer too, which has a thread of its own")
		}
	}
}

func TestRemoveWaitsForSealers(t *testing.T) {
	a, _ := tunnel(t, true)
	a.sender.deliver = func(locator.Pair, bool, []transport.Train) {}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	install := func(id esp.ChildID) {
		forA, _ := algorithms[int(id)%len(algorithms)].children(id)
		a.must(a.dp.AddChild(forA))
		a.must(a.dp.ActivateChild(id))
	}
	install(1)
	wg.Go(func() {
		var pkts [][]byte
		for range 20 {
			pkts = append(pkts, udpPacket("10.0.0.1", "10.1.0.1", 1000))
		}
		for {
			select {
			case <-stop:
				return
			default:
				a.push(pkts...)
			}
		}
	})
	for id := esp.ChildID(2); id < 1000; id++ {
		install(id)
		a.must(a.dp.RemoveChild(id - 1))
	}
	close(stop)
	wg.Wait()
	if c := a.dp.Counters(); c != (Counters{}) {
		t.Errorf("drops: %+v", c)
	}
}
