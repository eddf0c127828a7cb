package ike

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// floodMaker makes hostile datagrams from captures of real ones.
type floodMaker struct {
	rng      *rand.Rand
	captures []datagram // towards the gateway
	init     []byte
	buf      []byte
}

// next returns a datagram and the address it claims to come from. The slice is
// used again.
func (m *floodMaker) next() ([]byte, netip.AddrPort) {
	r := m.rng
	from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, byte(18 + r.IntN(2)), byte(r.IntN(256)), byte(r.IntN(256))}), uint16(1+r.IntN(65535)))
	c := m.captures[r.IntN(len(m.captures))]
	b := append(m.buf[:0], c.data...)
	switch r.IntN(10) {
	case 0: // a request for a new IKE SA, from nowhere
		b = append(b[:0], m.init...)
		binary.BigEndian.PutUint64(b, r.Uint64())
	case 1: // the same with a message ID that is not zero
		b = append(b[:0], m.init...)
		binary.BigEndian.PutUint64(b, r.Uint64())
		b[23] = byte(1 + r.IntN(255))
	case 2: // noise
		b = b[:r.IntN(len(b)+1)]
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	case 3: // cut
		b = b[:r.IntN(len(b))]
	case 4: // one bit
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	case 5: // too long, with a length that says so
		b = append(b, make([]byte, 60000)...)
		binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
	case 6: // unprotected, for the established IKE SA
		b = b[:message.HeaderLen]
		b[16], b[18], b[19] = 0, byte(34+r.IntN(4)), byte(r.IntN(8)<<3)
		binary.BigEndian.PutUint32(b[20:], uint32(r.IntN(5)))
		binary.BigEndian.PutUint32(b[24:], message.HeaderLen)
	case 7: // a forged message with the ID that is expected
		binary.BigEndian.PutUint32(b[20:], uint32(r.IntN(5)))
	case 8: // a replay from the true source
		from = c.pair.Local
	case 9: // a replay from a foreign one
	}
	m.buf = b
	return b, from
}

// TestMillionHostileDatagrams: no effect on the session, nothing for the senders
// but answers to requests for new IKE SAs, flat memory, and a client that comes in
// the midst of it connects at once.
func TestMillionHostileDatagrams(t *testing.T) {
	total := 1_000_000
	if testing.Short() || raceDetector {
		total /= 10
	}
	l := newLab(t, 1, clientPolicy(), serverPolicy())
	maker := &floodMaker{rng: rand.New(rand.NewPCG(1, 2))}
	l.filter = func(d datagram) bool {
		if d.from == l.client {
			maker.captures = append(maker.captures, datagram{pair: d.pair, data: bytes.Clone(d.data)})
		}
		return true
	}
	l.run()
	for range 3 {
		_ = l.client.engine.RekeyChild(l.now, l.id, l.clientInfo().Children[0].ID)
		l.advance(5 * time.Second)
	}
	l.filter = nil
	l.log = nil
	maker.init = maker.captures[0].data
	before := l.serverInfo()

	start := heapInUse()
	var in, out, answers, versions int
	e := l.server.engine
	for n := range total {
		l.now = l.now.Add(100 * time.Microsecond)
		data, from := maker.next()
		e.Tick(l.now)
		e.Receive(l.now, locator.Pair{Local: before.Path.Pair.Local, Remote: from}, data)
		for actions := e.Actions(); len(actions) > 0; actions = e.Actions() {
			for _, a := range actions {
				switch a := a.(type) {
				case Work:
					e.Complete(l.now, a.ID, a.Run())
				case Send:
					answers++
					in, out = in+len(data), out+len(a.Data)
					if refusesVersion(a.Data) {
						versions++
					} else if x := message.ExchangeType(a.Data[18]); a.Pair.Remote.Addr() != clientAddr.Addr() && x != message.IKESAInit {
						t.Fatalf("datagram %d: answer %v to %v", n, x, a.Pair.Remote)
					}
				case Closed:
					if a.Session == before.ID {
						t.Fatalf("datagram %d ended the session: %s %s", n, a.Reason, a.Detail)
					}
				case Refused:
				default:
					t.Fatalf("datagram %d caused %T", n, a)
				}
			}
		}
		if n%100_000 == 0 {
			if half, _ := e.Counts(); half > DefaultCookieThreshold {
				t.Fatalf("%d half-open SAs", half)
			}
		}
	}
	grown := int64(heapInUse()) - int64(start)
	t.Logf("%d datagrams; %d answers of %d octets to requests of %d; heap grew by %d KiB", total, answers, out, in, grown>>10)
	if grown > 2<<20 {
		t.Errorf("the heap grew by %d octets", grown)
	}
	if answers == 0 || out > in {
		t.Errorf("%d answers of %d octets to requests of %d", answers, out, in)
	}

	if most := 3 + total/10_000; versions > most {
		t.Errorf("%d times INVALID_MAJOR_VERSION in %d seconds", versions, total/10_000)
	}

	after := l.server.engine.sessions[before.ID].info()
	if after.SPIi != before.SPIi || after.Path != before.Path || after.State != Up || !after.LastIKEInbound.Equal(before.LastIKEInbound) {
		t.Errorf("the session has changed: %+v, was %+v", after, before)
	}
	l.connectsAmidFlood()
	l.advance(time.Minute)
	_ = l.client.engine.CheckLiveness(l.now, l.id)
	l.advance(time.Second)
	if i := l.clientInfo(); i.LastIKEInbound.Add(time.Second).Before(l.now) {
		t.Errorf("the client has heard nothing since %v", i.LastIKEInbound)
	}
}

// connectsAmidFlood lets another client connect while the half-open table is as
// full as it gets.
func (l *lab) connectsAmidFlood() {
	l.t.Helper()
	if half, _ := l.server.engine.Counts(); half < DefaultCookieThreshold {
		l.t.Fatalf("%d half-open SAs only", half)
	}
	c := l.add("late", netip.MustParseAddr("192.0.2.77"), 77, Config{})
	if _, err := c.engine.Initiate(l.now, clientPolicy(), locator.Pair{Local: netip.AddrPortFrom(c.addr, 500), Remote: serverAddr}); err != nil {
		l.t.Fatal(err)
	}
	l.run() // no time passes
	if len(c.established) != 1 {
		l.t.Errorf("a client does not connect during the flood: %s", describeClosed(c))
	}
}

// refusesVersion says whether a message is INVALID_MAJOR_VERSION, which is given
// at a low rate to whatever looks like a later version of IKE (RFC 7296 §2.5).
func refusesVersion(data []byte) bool {
	m, err := message.Parse(data)
	return err == nil && len(m.Payloads) == 1 && message.FindNotify(m.Payloads, message.InvalidMajorVersion) != nil
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestReplaysAreNoSignOfLife: whoever repeats what a dead gateway once sent does
// not keep its client from noticing.
func TestReplaysAreNoSignOfLife(t *testing.T) {
	cp := clientPolicy()
	cp.LivenessDelay, cp.PeerTimeout = 10*time.Second, 20*time.Second
	l := connected(t, cp, serverPolicy())
	var captures []datagram
	l.filter = func(d datagram) bool {
		if d.from == l.server {
			captures = append(captures, d)
		}
		return true
	}
	_ = l.server.engine.CheckLiveness(l.now, l.serverInfo().ID) // a request to replay
	_ = l.client.engine.CheckLiveness(l.now, l.id)              // and a response
	l.run()
	if len(captures) != 2 {
		t.Fatalf("%d captures", len(captures))
	}
	l.filter = func(datagram) bool { return false }
	for range 31 {
		l.advance(time.Second)
		for _, d := range captures {
			l.client.engine.Receive(l.now, d.pair.Reverse(), d.data)
			l.client.settle()
		}
	}
	wantClosed(t, l.client, reason.PeerDead, 0)
}
