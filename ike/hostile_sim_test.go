package ike

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// simAttacker sees everything that arrives at a machine, and sends what it likes
// from any address: replays, from the true source and from foreign ones, changed,
// cut and padded copies, messages made up for IKE SAs that exist, requests for new
// IKE SAs. It cannot break ciphers.
type simAttacker struct {
	w        *simWorld
	captures []simCapture
	end      time.Time
	client   *Engine // makes requests for new IKE SAs
}

type simCapture struct {
	at   *simNode
	pair locator.Pair
	data []byte
}

func newSimAttacker(w *simWorld) *simAttacker {
	a := &simAttacker{w: w}
	var id SessionID
	a.client = NewEngine(Config{Rand: w.net.Reader("attacker"), NewSessionID: func() SessionID { id++; return id }})
	return a
}

// capture keeps some of the datagrams, old and new.
func (a *simAttacker) capture(n *simNode, pair locator.Pair, data []byte) {
	c := simCapture{n, pair, bytes.Clone(data)}
	if len(a.captures) < 400 {
		a.captures = append(a.captures, c)
		return
	}
	a.captures[a.w.rng.IntN(len(a.captures))] = c
}

func (a *simAttacker) begin(end time.Time) {
	a.end = end
	a.w.net.After(time.Millisecond, a.strike)
}

func (a *simAttacker) strike() {
	if a.w.net.Now().After(a.end) {
		return
	}
	for range 1 + a.w.rng.IntN(8) {
		a.once()
	}
	a.w.net.After(time.Duration(a.w.rng.Int64N(int64(600*time.Millisecond))), a.strike)
}

// inject hands a datagram to a machine as if it had come from the network.
func (a *simAttacker) inject(n *simNode, pair locator.Pair, data []byte) {
	a.w.ledger.counts.Injected++
	n.injected = true
	n.Receive(a.w.net.Now(), pair, bytes.Clone(data))
	n.injected = false
}

// foreign is an address that belongs to none of the machines.
func (a *simAttacker) foreign() netip.AddrPort {
	r := a.w.rng
	addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + r.IntN(250))})
	if a.w.setup.V6 {
		b := netip.MustParseAddr("2001:db8:bad::").As16()
		b[7], b[15] = byte(r.IntN(256)), byte(r.IntN(256))
		addr = netip.AddrFrom16(b)
	}
	return netip.AddrPortFrom(addr, uint16(1024+r.IntN(60000)))
}

func (a *simAttacker) once() {
	r := a.w.rng
	if r.IntN(12) == 0 {
		a.newSA()
		return
	}
	if len(a.captures) == 0 {
		return
	}
	c := a.captures[r.IntN(len(a.captures))]
	if r.IntN(2) == 0 {
		c.pair.Remote = a.foreign()
	}
	a.inject(c.at, c.pair, a.spoil(c))
}

// spoil makes something of a captured datagram.
func (a *simAttacker) spoil(c simCapture) []byte {
	r := a.w.rng
	b := bytes.Clone(c.data)
	switch r.IntN(9) {
	case 0, 1, 2: // a replay
	case 3:
		for range 1 + r.IntN(8) {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
	case 4:
		b = b[:r.IntN(len(b))]
	case 5:
		b = append(b, make([]byte, 1+r.IntN(2000))...)
	case 6: // SPI and a fresh sequence number, but too short or without ICV
		b = append(b[:min(8, len(b))], make([]byte, r.IntN(60))...)
		if len(b) >= 8 {
			b[6] ^= byte(1 + r.IntN(255))
		}
	case 7:
		return a.madeUp(c)
	case 8: // the marker on the other port, or none on this
		if kind, body := simClassify(c.pair.Local.Port(), b); kind == simIKE && len(body) < len(b) {
			return body
		}
		b = append(make([]byte, 4), b...)
	}
	return b
}

// madeUp is an unprotected message for the IKE SA of a captured one.
func (a *simAttacker) madeUp(c simCapture) []byte {
	r := a.w.rng
	kind, body := simClassify(c.pair.Local.Port(), c.data)
	if kind != simIKE {
		return c.data
	}
	h, err := message.ParseHeader(body)
	if err != nil {
		return c.data
	}
	h.NextPayload = 0
	h.Exchange = []message.ExchangeType{message.IKESAInit, message.IKEAuth, message.CreateChildSA, message.Informational}[r.IntN(4)]
	h.MessageID = uint32(r.IntN(4))
	h.Flags = message.Flags(r.IntN(8) << 3)
	notifies := []message.NotifyType{message.AuthenticationFailed, message.InvalidSyntax, message.NoProposalChosen,
		message.InvalidIKESPI, message.InvalidMajorVersion, message.TemporaryFailure, message.ChildSANotFound}
	m := message.Message{Header: h, Payloads: []message.Payload{
		&message.Notify{Kind: notifies[r.IntN(len(notifies))]}, &message.Delete{Protocol: message.ProtoIKE},
	}}
	b, err := m.Append(nil)
	if err != nil {
		return c.data
	}
	return append(bytes.Clone(c.data[:len(c.data)-len(body)]), b...)
}

// newSA sends a well-made request for a new IKE SA from a foreign address,
// sometimes twice, sometimes with a message ID that is not zero.
func (a *simAttacker) newSA() {
	r := a.w.rng
	server := a.w.server
	now := a.w.net.Now()
	pair := locator.Pair{Local: netip.AddrPortFrom(server.addr, 500), Remote: a.foreign()}
	id, err := a.client.Initiate(now, a.w.clients[0].policy, pair.Reverse())
	if err != nil {
		a.w.ledger.fail("attacker: %v", err)
		return
	}
	var request []byte
	for request == nil {
		for _, x := range append([]Action(nil), a.client.Actions()...) {
			switch x := x.(type) {
			case Work:
				a.client.Complete(now, x.ID, x.Run())
			case Send:
				request = x.Data
			}
		}
	}
	a.client.Abort(now, id, "attack")
	a.client.Actions()
	if r.IntN(4) == 0 {
		request[23] = byte(1 + r.IntN(255)) // message ID
	}
	for range 1 + r.IntN(2) {
		a.inject(server, pair, request)
	}
}
