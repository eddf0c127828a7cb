package ike

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

var fuzzForeign = netip.MustParseAddrPort("198.51.100.66:4500")

// fuzzEngines are the machines that FuzzEngineReceive throws datagrams at. They are
// used again and again: what is not authentic leaves no trace.
type fuzzEngines struct {
	*lab
	client0, server0 SessionInfo
	half             SessionInfo // at the server, IKE_AUTH outstanding
	sessions         int         // at the server
}

func newFuzzEngines(t testing.TB) *fuzzEngines {
	f := &fuzzEngines{lab: connected(t, clientPolicy(), serverPolicy())}
	f.client0, f.server0 = f.clientInfo(), f.serverInfo()
	flood(f.wire, f.server, 1)
	for _, s := range f.server.engine.Sessions() {
		if s.State == Connecting {
			f.half = s
		}
	}
	f.sessions = len(f.server.engine.sessions)
	return f
}

// aim writes the SPIs of an IKE SA and, to get further, the message ID that its
// owner expects.
func (f *fuzzEngines) aim(data []byte, target byte) {
	if len(data) < message.HeaderLen {
		return
	}
	s, next := f.server0, uint32(2)
	if target&1 != 0 {
		s, next = f.half, 1
	}
	copy(data, appendIKESPI(appendIKESPI(nil, s.SPIi), s.SPIr))
	if target&2 != 0 {
		copy(data[20:], appendSPI(nil, next))
		copy(data[24:], appendSPI(nil, uint32(len(data))))
	}
}

func appendIKESPI(b []byte, spi message.SPI) []byte {
	return appendSPI(appendSPI(b, uint32(spi>>32)), uint32(spi))
}

// throw hands a datagram to a machine and looks at what it does about it.
func (f *fuzzEngines) throw(t *testing.T, p *peer, pair locator.Pair, data []byte) {
	p.engine.Receive(f.now, pair, bytes.Clone(data))
	answers := 0
	for range 10 {
		for _, a := range append([]Action(nil), p.engine.Actions()...) {
			switch a := a.(type) {
			case Work:
				p.engine.Complete(f.now, a.ID, a.Run())
			case Send:
				answers++
				f.judge(t, pair, data, a)
			case Refused:
			case Closed:
				if a.Session == f.server0.ID || a.Session == f.half.ID || p == f.client {
					t.Fatalf("a datagram without protection ended session %d: %s %s", a.Session, a.Reason, a.Detail)
				}
			default:
				t.Fatalf("a datagram without protection caused %T", a)
			}
		}
	}
	if answers > 1 {
		t.Fatalf("%d answers to one datagram", answers)
	}
}

// judge allows the answers that need no authentication.
func (f *fuzzEngines) judge(t *testing.T, pair locator.Pair, data []byte, a Send) {
	if a.Pair.Remote != pair.Remote {
		t.Fatalf("answer to %v for a datagram from %v", a.Pair.Remote, pair.Remote)
	}
	m, err := message.Parse(a.Data)
	if err != nil {
		t.Fatalf("the answer does not parse: %v", err)
	}
	version := message.FindNotify(m.Payloads, message.InvalidMajorVersion) != nil
	if !m.Response() || (m.Exchange != message.IKESAInit && !version) {
		t.Fatalf("answer %v to a datagram without protection", m.Exchange)
	}
	if version && data[17]>>4 <= 2 {
		t.Fatalf("INVALID_MAJOR_VERSION to version %x", data[17])
	}
}

// FuzzEngineReceive throws raw datagrams at engines with an established session,
// a half-open one and one that waits for an answer: they must not panic, and
// nothing may come of it but answers to requests for new IKE SAs.
func FuzzEngineReceive(f *testing.F) {
	w := newLab(f, 3, clientPolicy(), serverPolicy()) // other keys than the target
	w.filter = func(d datagram) bool {
		for target := range byte(8) {
			f.Add(target, d.data)
		}
		return true
	}
	w.run()
	_ = w.client.engine.RekeyIKE(w.now, w.id)
	w.run()
	for _, m := range []*message.Message{
		{Payloads: []message.Payload{&message.Notify{Kind: message.Cookie, Data: []byte("cookie")}}},
		{Payloads: []message.Payload{message.NewInvalidKE(19)}},
		{Payloads: []message.Payload{&message.Notify{Kind: message.InvalidMajorVersion}, &message.Delete{Protocol: message.ProtoIKE}}},
	} {
		m.Header = message.Header{SPIi: 1, Major: 2, Exchange: message.IKESAInit, Flags: message.FlagResponse}
		b, err := m.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(4), b)
		b[17] = 0x30
		f.Add(byte(0), b)
	}
	var e *fuzzEngines
	used := 0
	f.Fuzz(func(t *testing.T, target byte, data []byte) {
		if len(data) > 70000 {
			return
		}
		if e == nil || used%2000 == 0 {
			e = newFuzzEngines(t)
		}
		used++
		e.now = e.now.Add(50 * time.Millisecond)
		if target&4 != 0 {
			fuzzConnecting(t, data, target)
			return
		}
		if target&3 != 0 {
			data = bytes.Clone(data)
			e.aim(data, target)
		}
		for _, from := range []netip.AddrPort{fuzzForeign, e.server0.Path.Pair.Remote} {
			e.throw(t, e.server, locator.Pair{Local: e.server0.Path.Pair.Local, Remote: from}, data)
		}
		e.throw(t, e.client, e.client0.Path.Pair, data)
		e.unharmed(t)
	})
}

// unharmed compares the sessions with what they were, and forgets the half-open
// ones that a datagram made.
func (f *fuzzEngines) unharmed(t *testing.T) {
	if n := len(f.server.engine.sessions); n > f.sessions+2 {
		t.Fatalf("%d sessions more than before", n-f.sessions)
	}
	for id := range f.server.engine.sessions {
		if id != f.server0.ID && id != f.half.ID {
			f.server.engine.Abort(f.now, id, "test")
		}
	}
	f.server.engine.Actions()
	c, _ := f.client.engine.Session(f.id)
	s, _ := f.server.engine.Session(f.server0.ID)
	h, _ := f.server.engine.Session(f.half.ID)
	if !reflect.DeepEqual(c, f.client0) || !reflect.DeepEqual(s, f.server0) || !reflect.DeepEqual(h, f.half) {
		t.Fatalf("a session has changed:\n%+v\n%+v\n%+v", c, s, h)
	}
	if len(f.server.engine.sas) != f.sessions || len(f.server.engine.work) != 0 || f.server.engine.nHalf != 1 {
		t.Fatalf("%d IKE SAs, %d Work, %d half-open are left", len(f.server.engine.sas), len(f.server.engine.work), f.server.engine.nHalf)
	}
}

// fuzzConnecting gives the datagram to a client that waits for the answer to its
// IKE_SA_INIT. That may fail the attempt, which nothing protects, but no more.
func fuzzConnecting(t *testing.T, data []byte, target byte) {
	l := newLab(t, 1, clientPolicy(), serverPolicy())
	l.client.settle()
	l.queue = nil
	info := l.clientInfo()
	if target&1 != 0 && len(data) >= 8 {
		data = bytes.Clone(data)
		copy(data, appendIKESPI(nil, info.SPIi))
	}
	l.client.engine.Receive(l.now, locator.Pair{Local: clientAddr, Remote: serverAddr}, data)
	l.client.settle()
	if len(l.client.established) != 0 || len(l.client.childs) != 0 {
		t.Fatal("established without IKE_AUTH")
	}
	l.queue = nil
	l.filter = func(datagram) bool { return false }
	l.advance(3 * DefaultConnectTimeout)
	if err := l.client.engine.leftovers(); err != nil {
		t.Fatal(err)
	}
}

// fuzzState is a pair of machines at the moment when a protected message is on its
// way from one to the other: its content can be replaced.
type fuzzState struct {
	*lab
	target *peer
	pair   locator.Pair // as the target sees it
	sender *ikeSA
	header message.Header
	first  message.PayloadType
	inner  []byte // what the message has inside
}

// fuzzMoments are the moments: who does what before, and which message is caught.
// None of them is fragmented.
var fuzzMoments = []struct {
	name     string
	before   func(l *lab)
	toServer bool
	exchange message.ExchangeType
	response bool
}{
	{"IKE_AUTH request", nil, true, message.IKEAuth, false},
	{"IKE_AUTH response", nil, false, message.IKEAuth, true},
	{"rekey of a Child SA", rekeysChild, true, message.CreateChildSA, false},
	{"answer to a rekey of a Child SA", rekeysChild, false, message.CreateChildSA, true},
	{"rekey of the IKE SA", rekeysIKE, true, message.CreateChildSA, false},
	{"answer to a rekey of the IKE SA", rekeysIKE, false, message.CreateChildSA, true},
	{"new Child SA", createsChild, true, message.CreateChildSA, false},
	{"answer to a new Child SA", createsChild, false, message.CreateChildSA, true},
	{"Delete", func(l *lab) { l.client.engine.Close(l.now, l.id, "user-disconnect") }, true, message.Informational, false},
	{"answer to a Delete", func(l *lab) { l.client.engine.Close(l.now, l.id, "user-disconnect") }, false, message.Informational, true},
	{"liveness check by the gateway", serverAsks, false, message.Informational, false},
	{"answer to the gateway's liveness check", serverAsks, true, message.Informational, true},
	{"rekey of a Child SA by both", bothRekeyChild, true, message.CreateChildSA, false},
	{"answer, both rekey a Child SA", bothRekeyChild, true, message.CreateChildSA, true},
	{"rekey of the IKE SA by both", bothRekeyIKE, true, message.CreateChildSA, false},
	{"answer, both rekey the IKE SA", bothRekeyIKE, true, message.CreateChildSA, true},
}

func rekeysChild(l *lab) { _ = l.client.engine.RekeyChild(l.now, l.id, l.clientInfo().Children[0].ID) }
func rekeysIKE(l *lab)   { _ = l.client.engine.RekeyIKE(l.now, l.id) }
func createsChild(l *lab) {
	_ = l.client.engine.CreateChild(l.now, l.id, nil, []esp.Selector{esp.PrefixSelector(innerNet)})
}
func serverAsks(l *lab) { _ = l.server.engine.CheckLiveness(l.now, l.serverInfo().ID) }
func bothRekeyChild(l *lab) {
	rekeysChild(l)
	s := l.serverInfo()
	_ = l.server.engine.RekeyChild(l.now, s.ID, s.Children[0].ID)
	l.client.settle()
	l.server.settle()
}
func bothRekeyIKE(l *lab) {
	rekeysIKE(l)
	_ = l.server.engine.RekeyIKE(l.now, l.serverInfo().ID)
	l.client.settle()
	l.server.settle()
}

// catch plays until the message of a moment is on its way, and opens it.
func catch(t testing.TB, moment int) *fuzzState {
	m := fuzzMoments[moment]
	cp, sp := clientPolicy(), serverPolicy()
	cp.Fragmentation, sp.Fragmentation = true, true
	s := &fuzzState{lab: newLab(t, 1, cp, sp)}
	if m.before != nil {
		s.run()
		m.before(s.lab)
	}
	s.filter = func(d datagram) bool {
		h, err := message.ParseHeader(d.data)
		if err != nil || s.target != nil || (d.from == s.client) != m.toServer || h.Exchange != m.exchange || h.Response() != m.response {
			return s.target == nil
		}
		s.hold(t, d, h)
		return false
	}
	s.run()
	s.filter = nil
	if s.target == nil {
		t.Fatalf("%s: no such message", m.name)
	}
	return s
}

// hold opens the datagram that was caught.
func (s *fuzzState) hold(t testing.TB, d datagram, h message.Header) {
	s.target, s.header = s.server, h
	if d.from == s.server {
		s.target = s.client
	}
	s.pair = d.pair.Reverse()
	own := h.SPIr
	if h.FromInitiator() {
		own = h.SPIi
	}
	s.sender = d.from.engine.sas[own]
	m, err := message.Parse(d.data)
	if err != nil {
		t.Fatal(err)
	}
	sealed := m.Payloads[len(m.Payloads)-1].(*message.Encrypted)
	out, _ := s.sender.protectors()
	if sealed.Total > 0 {
		t.Fatal("fragmented")
	}
	s.inner, err = out.Open(d.data[:sealed.Offset], sealed.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	s.first = sealed.Inner
}

// proof cuts the identity and AUTH payloads out of an IKE_AUTH message and puts
// them before other payloads, so that these get past the authentication.
func (s *fuzzState) proof(t testing.TB, first message.PayloadType, inner []byte) (message.PayloadType, []byte) {
	ps, err := message.ParsePayloads(s.first, s.inner)
	if err != nil {
		t.Fatal(err)
	}
	var keep []message.Payload
	for _, p := range ps {
		switch p := p.(type) {
		case *message.ID:
			if len(keep) == 0 {
				keep = append(keep, p)
			}
		case *message.Auth:
			keep = append(keep, p)
		}
	}
	start, b, err := message.AppendPayloads(nil, keep)
	if err != nil {
		t.Fatal(err)
	}
	last := int(b[2])<<8 | int(b[3]) // the second payload comes after the first
	b[last] = byte(first)
	return start, append(b, inner...)
}

// play sends the message with other content, lets both go on, and wants the
// engines to be consistent, bounded, and empty in the end.
func (s *fuzzState) play(t *testing.T, first message.PayloadType, inner []byte) {
	packet, err := s.sender.sealOne(s.header, &message.Encrypted{Inner: first}, inner)
	if err != nil {
		return // too long
	}
	s.target.engine.Receive(s.now, s.pair, packet)
	s.target.settle()
	s.consistent(t)
	s.advance(20 * time.Second)
	s.consistent(t)
	for _, p := range s.peers {
		for _, i := range p.engine.Sessions() {
			p.engine.Abort(s.now, i.ID, "test")
			p.settle()
		}
	}
	s.filter = func(datagram) bool { return false }
	s.advance(3 * time.Minute)
	for _, p := range s.peers {
		if err := p.engine.leftovers(); err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
		if len(p.childs) != 0 || len(p.hosts) != 0 {
			t.Fatalf("%s: the data path keeps %d Child SAs, %d hosts", p.name, len(p.childs), len(p.hosts))
		}
	}
}

// consistent checks what holds between the tables of an engine at any time.
func (s *fuzzState) consistent(t *testing.T) {
	t.Helper()
	for _, p := range s.peers {
		if err := p.engine.consistent(); err != nil {
			t.Fatalf("%s: %v", p.name, err)
		}
	}
}

func (e *Engine) consistent() error {
	if len(e.work) > 8 || len(e.sessions) > 8 || len(e.sas) > 32 {
		return fmt.Errorf("%d Work, %d sessions, %d IKE SAs", len(e.work), len(e.sessions), len(e.sas))
	}
	up, children := 0, 0
	for id, s := range e.sessions {
		if s.id != id || s.state == Gone || s.sa == nil || s.sa.state == saDead || e.sas[s.sa.ownSPI()] != s.sa {
			return fmt.Errorf("session %d: state %d without a living IKE SA", id, s.state)
		}
		if !s.up.IsZero() {
			up++
		}
		if len(s.children) > maxChildren+1 || len(s.retired) > 8 || len(s.sa.queue) > 64 {
			return fmt.Errorf("session %d: %d Child SAs, %d retired, %d requests", id, len(s.children), len(s.retired), len(s.sa.queue))
		}
		children += len(s.children)
		for _, c := range s.children {
			if e.children[c.id] != s {
				return fmt.Errorf("Child SA %d is not known to be of session %d", c.id, id)
			}
		}
	}
	if up != e.nUp || children != len(e.children) {
		return fmt.Errorf("%d sessions up, counted %d; %d Child SAs, known %d", up, e.nUp, children, len(e.children))
	}
	for spi, sa := range e.sas {
		if sa.ownSPI() != spi || sa.state == saDead || sa.keys == nil && sa.state != saInit {
			return fmt.Errorf("IKE SA %x: state %d", uint64(spi), sa.state)
		}
	}
	return nil
}

// FuzzDecrypted seals what it is given with the keys of a session, so that every
// handler behind the decryption is reached: IKE_AUTH on both sides, with and
// without a valid proof before it, CREATE_CHILD_SA and INFORMATIONAL, as request
// and as response.
func FuzzDecrypted(f *testing.F) {
	for i := range fuzzMoments {
		s := catch(f, i)
		f.Add(byte(i), byte(s.header.Exchange), byte(s.first), s.inner)
		f.Add(byte(i)|0x80, byte(s.header.Exchange), byte(s.first), s.inner)
	}
	for _, ps := range fuzzPayloads() {
		first, b, err := message.AppendPayloads(nil, ps)
		if err != nil {
			f.Fatal(err)
		}
		for i := range fuzzMoments {
			f.Add(byte(i), byte(fuzzMoments[i].exchange), byte(first), b)
			f.Add(byte(i)|0x80, byte(message.Informational), byte(first), b)
		}
	}
	f.Fuzz(func(t *testing.T, moment, exchange, first byte, inner []byte) {
		if len(inner) > 16<<10 {
			return
		}
		s := catch(t, int(moment&0x7f)%len(fuzzMoments))
		next := message.PayloadType(first)
		switch {
		case moment&0x80 == 0:
		case s.header.Exchange == message.IKEAuth:
			next, inner = s.proof(t, next, inner)
		default:
			s.header.Exchange = message.ExchangeType(exchange)
		}
		s.play(t, next, inner)
	})
}

// fuzzPayloads are contents that the moments do not have by themselves.
func fuzzPayloads() [][]message.Payload {
	n := func(k message.NotifyType, data ...byte) *message.Notify { return &message.Notify{Kind: k, Data: data} }
	return [][]message.Payload{
		{},
		{n(message.AuthenticationFailed)},
		{n(message.TemporaryFailure)},
		{n(message.InvalidKEPayload, 0, 31)},
		{n(message.NoAdditionalSAs), n(message.TSUnacceptable)},
		{&message.Notify{Kind: message.ChildSANotFound, Protocol: message.ProtoESP, SPI: []byte{0, 0, 0x10, 1}}},
		{&message.Delete{Protocol: message.ProtoIKE}},
		{&message.Delete{Protocol: message.ProtoESP, SPIs: []uint32{0x1001, 0x2001, 0x1001, 7}}},
		{n(message.UpdateSAAddresses), n(message.Cookie2, 1, 2, 3, 4, 5, 6, 7, 8)},
	}
}

// FuzzFragments sends fragments as the input says, sealed with the keys of a
// session (RFC 7383): what is kept of them is bounded, and the session goes on.
func FuzzFragments(f *testing.F) {
	f.Add([]byte{1, 2, 10, 0, 2, 2, 10, 0})
	f.Add([]byte{2, 3, 10, 0, 1, 3, 10, 0, 3, 3, 10, 0})
	f.Add([]byte{1, 2, 10, 0, 1, 3, 10, 0, 1, 2, 10, 0, 2, 3, 0, 0, 3, 3, 0, 0})
	f.Add([]byte{0, 0, 1, 0, 1, 0, 1, 0, 5, 4, 1, 0, 255, 255, 255, 255, 64, 64, 255, 0, 65, 65, 1, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 4*200 {
			return
		}
		s := catch(t, 10) // a request of the gateway
		sa := s.target.engine.sas[s.header.SPIi]
		for len(script) >= 4 {
			number, total, length, flags := script[0], script[1], script[2], script[3]
			script = script[4:]
			h := s.header
			h.MessageID += uint32(flags & 1)
			s.now = s.now.Add(time.Duration(flags>>1) * 50 * time.Millisecond)
			e := &message.Encrypted{Fragment: uint16(number), Total: uint16(total), Inner: message.TypeNotify}
			packet, err := s.sender.sealOne(h, e, bytes.Repeat([]byte{flags}, 8*int(length)))
			if err != nil {
				continue
			}
			s.target.engine.Receive(s.now, s.pair, packet)
			s.target.settle()
			if a := sa.assembly; len(a.parts) > maxFragments || a.size > maxAssembled || a.have > len(a.parts) {
				t.Fatalf("%d of %d fragments, %d octets kept", a.have, len(a.parts), a.size)
			}
		}
		if len(s.client.closed) != 0 {
			t.Fatalf("fragments ended the session: %s", describeClosed(s.client))
		}
		s.header.MessageID = sa.expectID
		s.play(t, s.first, s.inner)
	})
}
