package ike

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

var (
	clientAddr = netip.MustParseAddrPort("192.0.2.10:500")
	serverAddr = netip.MustParseAddrPort("203.0.113.10:500")
	testStart  = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	innerAddr  = netip.MustParseAddr("10.30.0.1")
	innerNet   = netip.MustParsePrefix("10.20.0.0/24")
	innerNet6  = netip.MustParsePrefix("fd00:20::/64")
)

// peer is an engine with the least around it: actions are carried out at once,
// the data path is a map, packets wait in a queue of the wire.
type peer struct {
	t       testing.TB
	name    string
	engine  *Engine
	wire    *wire
	addr    netip.Addr // messages leave from here
	grant   func(AuthorizeRequest) Grant
	hold    func(Work) bool // keeps a Work back when true
	held    []Work
	hosts   map[SessionID]esp.Path
	childs  map[esp.ChildID]esp.Child
	active  map[esp.ChildID]bool
	removed int

	established []Established
	closed      []Closed
	rekeyed     []Rekeyed
	down        []ChildDown
	refused     []Refused
}

// renewals counts the rekeys that have come to their end.
func (p *peer) renewals() (ike, child int) {
	for _, r := range p.rekeyed {
		if r.IKE {
			ike++
		} else {
			child++
		}
	}
	return ike, child
}

// wire carries datagrams between peers, by address, one after the other.
type wire struct {
	t      testing.TB
	now    time.Time
	peers  []*peer
	queue  []datagram
	filter func(d datagram) bool // false drops
	log    []string
}

type datagram struct {
	from *peer
	pair locator.Pair // as the sender sees it
	data []byte
	df   bool // must not be fragmented
}

func newWire(t testing.TB) *wire { return &wire{t: t, now: testStart} }

func (w *wire) add(name string, addr netip.Addr, seed uint64, cfg Config) *peer {
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(len(w.peers))})
	p := &peer{t: w.t, name: name, wire: w, addr: addr,
		hosts: map[SessionID]esp.Path{}, childs: map[esp.ChildID]esp.Child{}, active: map[esp.ChildID]bool{}}
	var sessions SessionID
	var children esp.ChildID
	var spis uint32 = 0x1000 * uint32(len(w.peers)+1)
	cfg.Rand = rng
	cfg.NewSessionID = func() SessionID { sessions++; return sessions }
	cfg.NewChildID = func() esp.ChildID { children++; return children }
	cfg.NewESPSPI = func() uint32 { spis++; return spis }
	cfg.Log = slog.New(slog.DiscardHandler)
	p.engine = NewEngine(cfg)
	p.grant = func(AuthorizeRequest) Grant {
		return Grant{Config: Configuration{Addresses: []netip.Addr{innerAddr}, DNS: []netip.Addr{netip.MustParseAddr("10.20.0.2")}}}
	}
	w.peers = append(w.peers, p)
	return p
}

// settle carries out the actions of a peer.
func (p *peer) settle() {
	for {
		actions := append([]Action(nil), p.engine.Actions()...)
		if len(actions) == 0 {
			return
		}
		for _, a := range actions {
			p.carryOut(a)
		}
	}
}

func (p *peer) carryOut(a Action) {
	p.trace(a)
	switch a := a.(type) {
	case Send:
		p.wire.queue = append(p.wire.queue, datagram{p, a.Pair, a.Data, a.DontFragment})
	case Work:
		if p.hold != nil && p.hold(a) {
			p.held = append(p.held, a)
			return
		}
		p.engine.Complete(p.wire.now, a.ID, a.Run())
	case AuthorizeRequest:
		p.engine.Authorize(p.wire.now, a.Session, p.grant(a))
	case AddHost:
		p.hosts[a.Session] = a.Path
	case MoveHost:
		p.hosts[a.Session] = a.Path
	case RemoveHost:
		delete(p.hosts, a.Session)
	case AddChild:
		if _, dup := p.childs[a.Child.ID]; dup {
			p.t.Errorf("%s: Child SA %d installed twice", p.name, a.Child.ID)
		}
		if _, ok := p.hosts[SessionID(a.Child.Host)]; !ok {
			p.t.Errorf("%s: Child SA %d for an unknown host", p.name, a.Child.ID)
		}
		p.childs[a.Child.ID] = a.Child
	case ActivateChild:
		if _, ok := p.childs[a.Child]; !ok {
			p.t.Errorf("%s: Child SA %d activated but not installed", p.name, a.Child)
		}
		p.active[a.Child] = true
	case RemoveChild:
		delete(p.childs, a.Child)
		delete(p.active, a.Child)
		p.removed++
	case Established:
		p.established = append(p.established, a)
	case Closed:
		p.closed = append(p.closed, a)
	case Rekeyed:
		p.rekeyed = append(p.rekeyed, a)
	case ChildDown:
		p.down = append(p.down, a)
	case Refused:
		p.refused = append(p.refused, a)
	case PathMTUFound:
	default:
		p.t.Fatalf("%s: unknown action %T", p.name, a)
	}
}

// trace notes an action, to be printed when a test fails.
func (p *peer) trace(a Action) {
	line := fmt.Sprintf("%8v %s: %T", p.wire.now.Sub(testStart).Round(time.Millisecond), p.name, a)
	switch a := a.(type) {
	case Send:
		h, _ := message.ParseHeader(a.Data)
		line += fmt.Sprintf(" %v id %d response %v SPIi %v", h.Exchange, h.MessageID, h.Response(), h.SPIi)
	case AddChild:
		line += fmt.Sprintf(" %d in %x out %x", a.Child.ID, a.Child.In.SPI, a.Child.Out.SPI)
	case ActivateChild, RemoveChild, Rekeyed, ChildDown:
		line += fmt.Sprintf(" %+v", a)
	}
	p.wire.log = append(p.wire.log, line)
}

// deliver hands one datagram over.
func (w *wire) deliver(d datagram) {
	if w.filter != nil && !w.filter(d) {
		return
	}
	pair := d.pair
	if pair.Local.Addr().IsUnspecified() {
		pair.Local = netip.AddrPortFrom(d.from.addr, pair.Local.Port())
	}
	for _, p := range w.peers {
		if p.addr == pair.Remote.Addr() {
			p.engine.Receive(w.now, pair.Reverse(), append([]byte(nil), d.data...))
			p.settle()
		}
	}
}

// run delivers until nothing is under way.
func (w *wire) run() {
	for n := 0; ; n++ {
		for _, p := range w.peers {
			p.settle()
		}
		if len(w.queue) == 0 {
			return
		}
		if n > 10000 {
			w.t.Fatal("the peers keep talking")
		}
		d := w.queue[0]
		w.queue = w.queue[1:]
		w.deliver(d)
	}
}

// advance lets virtual time pass, running timers and packets in order.
func (w *wire) advance(d time.Duration) {
	end := w.now.Add(d)
	for {
		w.run()
		var next time.Time
		for _, p := range w.peers {
			if at, ok := p.engine.Deadline(); ok {
				next = earlier(next, at)
			}
		}
		if next.IsZero() || next.After(end) {
			w.now = end
			return
		}
		if next.After(w.now) {
			w.now = next
		}
		for _, p := range w.peers {
			p.engine.Tick(w.now)
		}
	}
}

func mustIdentity(s string) auth.Identity {
	id, err := auth.ParseIdentity(s)
	if err != nil {
		panic(err)
	}
	return id
}

func mustPattern(s string) auth.Pattern {
	p, err := auth.ParsePattern(s)
	if err != nil {
		panic(err)
	}
	return p
}

func mustIKE(s string) []suite.IKEProposal {
	p, err := suite.ParseIKEProposals(s)
	if err != nil {
		panic(err)
	}
	return p
}

func mustESP(s string) []suite.ESPProposal {
	p, err := suite.ParseESPProposals(s)
	if err != nil {
		panic(err)
	}
	return p
}

const testSecret = "lab-secret-of-the-day"

func pskOf(secret string) func(auth.Identity) ([]byte, bool) {
	return func(auth.Identity) ([]byte, bool) { return []byte(secret), true }
}

func serverPolicy() *Policy {
	return &Policy{
		Local:          auth.Local{ID: mustIdentity("vpn.example.test"), PSK: []byte(testSecret)},
		Remote:         auth.Remote{ID: mustPattern("*@example.test"), AllowPSK: true, PSK: pskOf(testSecret)},
		IKE:            mustIKE("aes256gcm16-prfsha256-x25519,aes256-sha256-x25519"),
		ESP:            mustESP("aes256gcm16-x25519,aes256gcm16"),
		LocalSelectors: []esp.Selector{esp.PrefixSelector(innerNet)},
		Fragmentation:  true, AssignAddresses: true,
	}
}

func clientPolicy() *Policy {
	return &Policy{
		Local:           auth.Local{ID: mustIdentity("laptop@example.test"), PSK: []byte(testSecret)},
		Remote:          auth.Remote{ID: mustPattern("vpn.example.test"), AllowPSK: true, PSK: pskOf(testSecret)},
		IKE:             mustIKE("aes256gcm16-prfsha256-x25519"),
		ESP:             mustESP("aes256gcm16-x25519,aes256gcm16"),
		RemoteSelectors: []esp.Selector{esp.PrefixSelector(innerNet)},
		RequestIPv4:     true, Fragmentation: true,
	}
}

// lab is a client and a server on a wire.
type lab struct {
	*wire
	client, server *peer
	id             SessionID
}

func newLab(t testing.TB, seed uint64, cp, sp *Policy) *lab {
	w := newWire(t)
	l := &lab{wire: w}
	l.client = w.add("client", clientAddr.Addr(), seed, Config{})
	l.server = w.add("server", serverAddr.Addr(), seed, Config{Responder: &ResponderConfig{Policy: sp}})
	id, err := l.client.engine.Initiate(w.now, cp, locator.Pair{Local: clientAddr, Remote: serverAddr})
	if err != nil {
		t.Fatal(err)
	}
	l.id = id
	return l
}

// connected runs until the session is up on both sides.
func connected(t testing.TB, cp, sp *Policy) *lab {
	l := newLab(t, 1, cp, sp)
	l.run()
	if len(l.client.established) != 1 || len(l.server.established) != 1 {
		t.Fatalf("not connected: client %v, server %v", describeClosed(l.client), describeClosed(l.server))
	}
	l.agree()
	return l
}

func describeClosed(p *peer) string {
	s := ""
	for _, c := range p.closed {
		s += fmt.Sprintf("[%s %v %s]", c.Reason, c.Notify, c.Detail)
	}
	for _, c := range p.refused {
		s += fmt.Sprintf("(refused %s %s)", c.Reason, c.Detail)
	}
	return s
}

// agree checks that both ends hold the same SAs, with the same keys crosswise, and
// send on the same one.
func (l *lab) agree() {
	l.t.Helper()
	c, ok1 := l.client.engine.Session(l.id)
	ss := l.server.engine.Sessions()
	if !ok1 || len(ss) != 1 {
		l.t.Fatalf("client has session: %v, server has %d sessions", ok1, len(ss))
	}
	s := ss[0]
	if c.SPIi != s.SPIi || c.SPIr != s.SPIr || c.SPIr == 0 {
		l.t.Errorf("IKE SPIs differ: %v %v and %v %v", c.SPIi, c.SPIr, s.SPIi, s.SPIr)
	}
	if len(c.Children) != len(s.Children) {
		l.t.Fatalf("client has %d Child SAs, server %d", len(c.Children), len(s.Children))
	}
	for _, cc := range c.Children {
		found := false
		for _, sc := range s.Children {
			if cc.SPIIn != sc.SPIOut || cc.SPIOut != sc.SPIIn {
				continue
			}
			found = true
			a, b := l.client.childs[cc.ID], l.server.childs[sc.ID]
			if string(a.In.EncrKey) != string(b.Out.EncrKey) || string(a.Out.EncrKey) != string(b.In.EncrKey) || len(a.In.EncrKey) == 0 {
				l.t.Errorf("keys of Child SA %x differ", cc.SPIIn)
			}
			if string(a.In.IntegKey) != string(b.Out.IntegKey) {
				l.t.Errorf("integrity keys of Child SA %x differ", cc.SPIIn)
			}
		}
		if !found {
			l.t.Errorf("the server lacks the client's Child SA %x %x", cc.SPIIn, cc.SPIOut)
		}
	}
}

func (l *lab) clientInfo() SessionInfo {
	i, ok := l.client.engine.Session(l.id)
	if !ok {
		l.t.Fatalf("client session is gone: %s", describeClosed(l.client))
	}
	return i
}

func (l *lab) serverInfo() SessionInfo {
	ss := l.server.engine.Sessions()
	if len(ss) != 1 {
		l.t.Fatalf("server has %d sessions: %s", len(ss), describeClosed(l.server))
	}
	return ss[0]
}

// wantClosed checks why the sessions ended.
func wantClosed(t *testing.T, p *peer, why reason.Code, notify message.NotifyType) {
	t.Helper()
	if len(p.closed) != 1 {
		t.Fatalf("%s: %d sessions closed, want 1: %s", p.name, len(p.closed), describeClosed(p))
	}
	if c := p.closed[0]; c.Reason != why || c.Notify != notify {
		t.Errorf("%s: closed with %s %v (%s), want %s %v", p.name, c.Reason, c.Notify, c.Detail, why, notify)
	}
	if len(p.childs) != 0 || len(p.hosts) != 0 {
		t.Errorf("%s: data path still has %d Child SAs, %d hosts", p.name, len(p.childs), len(p.hosts))
	}
}

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
