package mobike

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/simnet"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// The world of the tests: a laptop with uplinks A (public), B (behind a NAT) and C
// (IPv6 only), a gateway with two public uplinks, as in the namespace lab. Traffic
// is modelled by datagrams that begin with 0xd0: an echo request each interval,
// answered by the gateway to wherever its data path sends.
var (
	addrA  = netip.MustParseAddr("192.0.2.10")
	addrB  = netip.MustParseAddr("192.168.77.10")
	addrC  = netip.MustParseAddr("2001:db8:c::10")
	natPub = netip.MustParseAddr("192.0.2.130")
	natTwo = netip.MustParseAddr("192.0.2.131")
	srv1   = netip.MustParseAddr("203.0.113.10")
	srv2   = netip.MustParseAddr("198.51.100.10")
	srv1v6 = netip.MustParseAddr("2001:db8:113::10")
	inner  = netip.MustParseAddr("10.30.0.1")
)

const unansweredAfter = 300 * time.Millisecond

// node is an engine with a modelled data path.
type node struct {
	w      *world
	name   string
	engine *ike.Engine
	host   *simnet.Host
	path   esp.Path
	up     bool
	id     ike.SessionID

	established int
	closed      []ike.Closed
	changes     []ike.PathChanged
	confirmed   []ike.PathConfirmed
	lost        int
	probes      int // of the path MTU
	mtus        []int

	// data path
	keptAt   time.Time // something was sent over the path, or a keepalive
	waiting  time.Time // first request without an answer
	next     time.Time // of the traffic or the watch
	sent     uint32
	answered map[uint32]time.Time
	gaps     time.Duration
	lastGood time.Time
	heardAt  time.Time
	rekeys   int
	// A data path that cannot move SAs sends from the path of before until it gets new ones.
	fixed bool
	moved esp.Path
	deaf  bool // nobody behind it answers

	// A machine that sleeps hears nothing, and its clock (CLOCK_MONOTONIC) stands.
	asleep bool
	slept  time.Duration
}

type world struct {
	t       testing.TB
	net     *simnet.Network
	client  *node
	server  *node
	a, b, c *simnet.Link
	s1, s2  *simnet.Link
	nat     *simnet.NAT
	transit simnet.Conditions
	traffic time.Duration // interval of echo requests, zero for none
	policy  locator.Policy
	allUp   bool // all uplinks from the start
	// unanswered is how long traffic may be before the data path says so.
	unanswered time.Duration
	// tune changes the policies of client and gateway.
	tune  func(client, server *ike.Policy)
	whole bool // no fragmentation of IKE
	large bool // traffic is as large as the path allows
}

// marker is before IKE on the NAT traversal port, where ESP goes too (RFC 3948 §2.2).
var marker = []byte{0, 0, 0, 0}

func psk(id auth.Identity) ([]byte, bool) { return []byte("secret"), true }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newWorld(t testing.TB, seed uint64, change ...func(*world)) *world {
	w := &world{t: t, net: simnet.New(simnet.Config{Seed: seed, Trace: 400}), policy: locator.DefaultPolicy(), unanswered: unansweredAfter}
	w.net.SetTransit(simnet.Conditions{Delay: 5 * time.Millisecond})
	for _, f := range change {
		f(w)
	}
	w.nat = w.net.AddNAT(simnet.NATConfig{Name: "nat", Public: natPub, Mapping: simnet.AddressAndPortDependent, Filtering: simnet.AddressAndPortDependent})
	w.client, w.server = &node{w: w, name: "client"}, &node{w: w, name: "server"}
	w.client.host = w.net.Attach("client", w.client)
	w.server.host = w.net.Attach("server", w.server)
	w.s1 = w.server.host.AddLink(simnet.LinkConfig{Name: "s1", Addrs: []netip.Addr{srv1, srv1v6}})
	w.s2 = w.server.host.AddLink(simnet.LinkConfig{Name: "s2", Addrs: []netip.Addr{srv2}})
	w.a = w.client.host.AddLink(simnet.LinkConfig{Name: "up-a", Addrs: []netip.Addr{addrA}})
	w.b = w.client.host.AddLink(simnet.LinkConfig{Name: "up-b", NAT: w.nat, Addrs: []netip.Addr{addrB}})
	w.c = w.client.host.AddLink(simnet.LinkConfig{Name: "up-c", Addrs: []netip.Addr{addrC}})
	w.b.SetUp(w.allUp)
	w.c.SetUp(w.allUp)

	base := ike.Policy{
		IKE:           must(suite.ParseIKEProposals("aes128gcm16-prfsha256-x25519")),
		ESP:           must(suite.ParseESPProposals("aes128gcm16")),
		Fragmentation: !w.whole, DiscoverPathMTU: true, LivenessDelay: 10 * time.Second, AwayTimeout: ike.DefaultAwayTimeout,
	}
	sp, cp := base, base
	sp.Local = auth.Local{ID: must(auth.ParseIdentity("vpn.example.test")), PSK: []byte("secret")}
	sp.Remote = auth.Remote{ID: auth.Any(), AllowPSK: true, PSK: psk}
	sp.LocalSelectors = []esp.Selector{esp.PrefixSelector(netip.MustParsePrefix("10.20.0.0/24"))}
	sp.Extensions = []ike.Extension{New(Config{Announce: true, Policy: w.policy, Local: w.server.locals})}
	cp.Local = auth.Local{ID: must(auth.ParseIdentity("laptop@example.test")), PSK: []byte("secret")}
	cp.Remote = auth.Remote{ID: auth.Any(), AllowPSK: true, PSK: psk}
	cp.RequestIPv4, cp.UnansweredAfter = true, w.unanswered
	cp.Extensions = []ike.Extension{New(Config{Policy: w.policy, Local: w.client.locals})}

	if w.tune != nil {
		w.tune(&cp, &sp)
	}
	w.server.start(ike.Config{Responder: &ike.ResponderConfig{Policy: &sp}})
	w.client.start(ike.Config{})
	id, err := w.client.engine.Initiate(w.net.Now(), &cp, locator.Pair{Local: netip.AddrPortFrom(addrA, 500), Remote: netip.AddrPortFrom(srv1, 500)})
	if err != nil {
		t.Fatal(err)
	}
	w.client.id = id
	w.client.settle()
	return w
}

func (n *node) start(cfg ike.Config) {
	var session ike.SessionID
	var child esp.ChildID
	spi := uint32(256)
	cfg.Rand = n.w.net.Reader(n.name)
	cfg.NewSessionID = func() ike.SessionID { session++; return session }
	cfg.NewChildID = func() esp.ChildID { child++; return child }
	cfg.LastInbound = func(ike.SessionID) time.Time { return n.heardAt }
	cfg.Sent = func(ike.SessionID) uint64 { return uint64(n.sent) * 100 }
	cfg.NewESPSPI = func() uint32 { spi++; return spi }
	n.engine = ike.NewEngine(cfg)
	n.answered = map[uint32]time.Time{}
}

// locals are the addresses of the links that are up, with the laptop's metrics.
func (n *node) locals() []locator.Local {
	var out []locator.Local
	for i, l := range n.host.Links() {
		if !l.Up() {
			continue
		}
		for _, a := range l.Addrs() {
			out = append(out, locator.Local{Addr: a, Interface: l.Index(), Name: fmt.Sprint("if", l.Index()), Preference: -100 * (i + 1)})
		}
	}
	return out
}

// clock is the node's own time.
func (n *node) clock() time.Time { return n.w.net.Now().Add(-n.slept) }

// sleep lets time pass with the lid closed.
func (w *world) sleep(d time.Duration) {
	w.t.Helper()
	w.client.asleep = true
	w.run(d)
	w.client.asleep = false
	w.client.slept += d
	if !w.client.next.IsZero() {
		w.client.next = w.net.Now()
	}
}

// hint tells the client's engine what a trigger has noticed.
func (w *world) hint(why locator.Cause) {
	w.client.engine.EachSession(w.client.clock(), func(now time.Time, s *ike.Session) { Hint(now, s, why) })
	w.client.settle()
}

// changed tells the engine about addresses, as a link monitor does.
func (n *node) changed() {
	n.engine.EachSession(n.clock(), func(now time.Time, s *ike.Session) { SetLocal(now, s, n.locals()) })
	n.settle()
}

func (n *node) Receive(now time.Time, pair locator.Pair, data []byte) {
	if n.asleep {
		return
	}
	if len(data) == 1 {
		return // a NAT keepalive
	}
	if len(data) > 4 && bytes.Equal(data[:4], []byte{0xd0, 0xd0, 0xd0, 0xd0}) {
		n.receiveData(now, pair, data)
		return
	}
	n.engine.Receive(n.clock(), pair, bytes.TrimPrefix(data, marker))
	n.settle()
}

// receiveData is the modelled data path. The gateway answers to where its path
// leads, whatever the source was.
func (n *node) receiveData(now time.Time, pair locator.Pair, data []byte) {
	if !n.up {
		return
	}
	n.heardAt = n.clock()
	if n.name == "server" {
		if pair.Remote != n.path.Pair.Remote {
			n.event(esp.Event{Kind: esp.SourceChanged, Host: esp.HostID(n.id), Observed: pair})
		}
		if !n.deaf {
			_ = n.host.Send(n.path.Pair, n.sized(data[:8]))
		}
		return
	}
	seq := binary.BigEndian.Uint32(data[4:])
	if _, dup := n.answered[seq]; !dup {
		n.answered[seq] = now
		if !n.lastGood.IsZero() {
			n.gaps = max(n.gaps, now.Sub(n.lastGood))
		}
		n.lastGood = now
	}
	p := n.path.Pair
	if pair.Remote == p.Remote && pair.Local.Addr() == p.Local.Addr() {
		n.waiting = time.Time{}
	}
}

func (n *node) event(ev esp.Event) {
	if !ev.Since.IsZero() {
		ev.Since = ev.Since.Add(-n.slept)
	}
	n.engine.DataPathEvent(n.clock(), ev)
	n.settle()
}

func (n *node) Deadline() (time.Time, bool) {
	if n.asleep {
		return time.Time{}, false
	}
	at, ok := n.engine.Deadline()
	at = at.Add(n.slept)
	if due := n.keepaliveAt(); !due.IsZero() && (!ok || due.Before(at)) {
		at, ok = due, true
	}
	if !n.next.IsZero() && (!ok || n.next.Before(at)) {
		return n.next, true
	}
	return at, ok
}

// keepaliveAt says when the data path owes the NAT of the current path a packet.
func (n *node) keepaliveAt() time.Time {
	if !n.up || n.path.Keepalive == 0 {
		return time.Time{}
	}
	return n.keptAt.Add(n.path.Keepalive)
}

func (n *node) Tick(now time.Time) {
	n.engine.Tick(n.clock())
	n.settle()
	if due := n.keepaliveAt(); !due.IsZero() && !due.After(now) {
		n.keptAt = now
		_ = n.host.Send(n.path.Pair, []byte{0xff})
	}
	if n.next.IsZero() || n.next.After(now) {
		return
	}
	n.next = time.Time{}
	if n.w.traffic == 0 || n.name != "client" {
		return
	}
	n.next = now.Add(n.w.traffic)
	if !n.up {
		return
	}
	n.sent++
	_ = n.host.Send(n.path.Pair, n.sized(binary.BigEndian.AppendUint32([]byte{0xd0, 0xd0, 0xd0, 0xd0}, n.sent)))
	n.keptAt = now
	if n.waiting.IsZero() {
		n.waiting = now
	} else if now.Sub(n.waiting) >= n.w.unanswered {
		n.event(esp.Event{Kind: esp.Unanswered, Host: esp.HostID(n.id), Since: n.waiting})
	}
}

// fullPacket is the outer size of a full packet of the tunnel's interface.
const fullPacket = 1464

// sized fills up a packet of the data path to what the path is taken to carry.
func (n *node) sized(data []byte) []byte {
	if !n.w.large {
		return data
	}
	size := fullPacket
	if n.path.MTU > 0 {
		size = min(size, n.path.MTU)
	}
	overhead := 28
	if n.path.Pair.Remote.Addr().Is6() {
		overhead = 48
	}
	return append(data[:len(data):len(data)], make([]byte, size-overhead-len(data))...)
}

// talk starts traffic.
func (w *world) talk(every time.Duration) {
	w.traffic = every
	w.client.next = w.net.Now()
	w.client.waiting = time.Time{}
	w.client.gaps, w.client.lastGood = 0, w.net.Now()
}

func (n *node) settle() {
	for {
		actions := append([]ike.Action(nil), n.engine.Actions()...)
		if len(actions) == 0 {
			return
		}
		for _, a := range actions {
			n.carryOut(a)
		}
	}
}

func (n *node) carryOut(a ike.Action) {
	now := n.clock()
	switch a := a.(type) {
	case ike.Send:
		if h, err := message.ParseHeader(a.Data); err == nil {
			n.w.net.Note("%s sends %v id %d response %v over %v", n.name, h.Exchange, h.MessageID, h.Response(), a.Pair)
		}
		send, data := n.host.Send, a.Data
		if a.DontFragment {
			n.probes++
			send = n.host.SendWhole
		}
		if a.Pair.Local.Port() == ike.NATTPort {
			data = append(make([]byte, len(marker)), data...)
		}
		_ = send(a.Pair, data)
		if a.Pair == n.path.Pair {
			n.keptAt = n.w.net.Now()
		}
	case ike.Keepalive:
		_ = n.host.Send(a.Pair, []byte{0xff})
	case ike.Work:
		n.engine.Complete(now, a.ID, a.Run())
	case ike.AuthorizeRequest:
		n.id = a.Session
		n.engine.Authorize(now, a.Session, ike.Grant{Config: ike.Configuration{Addresses: []netip.Addr{inner}}})
	case ike.AddHost:
		n.path, n.up = a.Path, true
	case ike.MoveHost:
		if n.fixed {
			n.moved = a.Path
			return
		}
		if n.path.Pair != a.Path.Pair {
			n.waiting = time.Time{}
		}
		n.path, n.keptAt = a.Path, n.w.net.Now()
		n.mtus = append(n.mtus, a.Path.MTU)
	case ike.ActivateChild:
		if n.fixed && n.moved != (esp.Path{}) {
			n.path = n.moved
		}
	case ike.Rekeyed:
		n.rekeys++
	case ike.RemoveHost:
		n.up = false
	case ike.Established:
		n.established++
	case ike.Closed:
		n.closed = append(n.closed, a)
	case ike.PathChanged:
		n.w.net.Note("%s moves %v to %v because of %s (verified %v)", n.name, a.From, a.To, a.Cause, a.Verified)
		n.changes = append(n.changes, a)
	case ike.PathConfirmed:
		n.confirmed = append(n.confirmed, a)
	case ike.PathLost:
		n.lost++
	}
}

func (w *world) run(d time.Duration) {
	w.t.Helper()
	if err := w.net.RunFor(d); err != nil {
		w.t.Fatal(err)
	}
}

// connected runs until both sides are up, and starts traffic.
func connected(t testing.TB, seed uint64, change ...func(*world)) *world {
	t.Helper()
	w := newWorld(t, seed, change...)
	t.Cleanup(func() { w.net.Report(t) })
	w.run(5 * time.Second)
	if w.client.established != 1 || w.server.established != 1 {
		t.Fatalf("not connected: %v %v", w.client.closed, w.server.closed)
	}
	w.talk(10 * time.Millisecond)
	w.run(time.Second)
	return w
}

// alive checks that the session is the same, and that traffic flows.
func (w *world) alive(limit time.Duration) {
	w.t.Helper()
	if len(w.client.closed)+len(w.server.closed) != 0 {
		w.t.Fatalf("sessions closed: %v %v", w.client.closed, w.server.closed)
	}
	if since := w.net.Now().Sub(w.client.lastGood); since > 100*time.Millisecond {
		w.t.Errorf("no traffic for %v; client on %v, server sends to %v", since, w.client.path.Pair, w.server.path.Pair)
	}
	if w.client.gaps > limit {
		w.t.Errorf("longest gap %v, want at most %v", w.client.gaps, limit)
	}
}
