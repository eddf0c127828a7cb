package ike

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/simnet"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// The simulation: engines of several clients and of one gateway, each around a
// small data path with real ESP, on a simulated network that loses, delays,
// doubles, reorders and corrupts. Everything follows from a seed. What must never
// happen is checked at every datagram and after every step (invariants_sim_test.go);
// the machines and what happens to them are drawn at random (setup_sim_test.go,
// schedule_sim_test.go).

// simWorld is one run.
type simWorld struct {
	t        testing.TB
	net      *simnet.Network
	rng      *rand.Rand
	setup    simSetup
	server   *simNode
	clients  []*simNode
	byAddr   map[netip.Addr]*simNode // by the address that a node writes into packets
	ledger   *simLedger
	traffic  bool
	packetID uint64
	networks byte // behind the gateway, asked for so far
	spiOwner map[uint32]*simNode
	conns    map[message.SPI]*simConn // by the SPIi of their IKE_SA_INIT
	hostile  *simAttacker
	story    []string
}

// simConn is one attempt of a client to connect, and what came of it.
type simConn struct {
	client *simNode
	doomed bool // its end is no surprise any more
}

// simNode is a machine: engines, a data path, one address.
type simNode struct {
	w       *simWorld
	name    string
	addr    netip.Addr // as the node sees itself
	public  netip.Addr // as others see it
	host    *simnet.Host
	link    *simnet.Link
	engines []*Engine
	data    *simDataPath
	random  io.Reader
	server  bool
	cfg     Config
	starts  int // how often the machine has been started
	// injected is set while a datagram of the attacker is handed in.
	injected bool

	sessions SessionID
	children esp.ChildID
	owner    map[SessionID]*Engine
	original map[SessionID]message.SPI // SPIi of the IKE_SA_INIT
	who      map[SessionID]string

	// Clients.
	policy  *Policy
	session SessionID
	conn    *simConn
	tries   int
	wanted  bool
	// vanished: the machine is off for good.
	vanished bool
}

var simServerAddr = netip.MustParseAddr("203.0.113.10")
var simServerAddr6 = netip.MustParseAddr("2001:db8:1::10")

func newSimWorld(t testing.TB, setup simSetup) *simWorld {
	n := simnet.New(simnet.Config{Seed: setup.Seed, Start: testStart, Trace: 400})
	w := &simWorld{
		t: t, net: n, rng: n.Rand(), setup: setup,
		byAddr:   make(map[netip.Addr]*simNode),
		spiOwner: make(map[uint32]*simNode),
		conns:    make(map[message.SPI]*simConn),
	}
	w.ledger = newSimLedger(w)
	n.SetFilter(func(p simnet.Packet) bool { w.ledger.leaves(p); return false })
	n.OnStep(func(*simnet.Network) error { return w.ledger.err })
	return w
}

// note writes a line into the trace of the network, and into the story of the IKE
// SAs, which a failed run prints.
func (w *simWorld) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	w.net.Note("%s", line)
	w.story = append(w.story, fmt.Sprintf("%13v %s", w.net.Now().Sub(testStart), line))
	if len(w.story) > 600 {
		w.story = append(w.story[:0:0], w.story[300:]...)
	}
}

// noteIKE tells of an IKE message.
func (w *simWorld) noteIKE(what string, n *simNode, remote netip.AddrPort, data []byte) {
	h, err := message.ParseHeader(data)
	if err != nil {
		return
	}
	side, kind := "R", "request"
	if h.FromInitiator() {
		side = "I"
	}
	if h.Response() {
		kind = "response"
	}
	w.note("%s %s %v %s %d%s of %04x/%04x, %s", n.name, what, h.Exchange, kind, h.MessageID, side,
		uint64(h.SPIi)>>48, uint64(h.SPIr)>>48, remote)
}

// attach puts a machine into the world.
func (w *simWorld) attach(name string, addr netip.Addr, link simnet.LinkConfig, engines int, cfg Config) *simNode {
	n := &simNode{
		w: w, name: name, addr: addr, public: addr,
		owner: make(map[SessionID]*Engine), original: make(map[SessionID]message.SPI), who: make(map[SessionID]string),
	}
	if link.NAT != nil {
		n.public = link.NAT.Public()
	}
	n.data = newSimDataPath(n)
	n.host = w.net.Attach(name, n)
	link.Addrs = append(link.Addrs, addr)
	n.link = n.host.AddLink(link)
	w.byAddr[addr] = n
	n.random = w.net.Reader(name)
	cfg.NewSessionID = func() SessionID { n.sessions++; return n.sessions }
	cfg.NewChildID = func() esp.ChildID { n.children++; return n.children }
	cfg.NewESPSPI = n.newSPI
	cfg.LastInbound = func(id SessionID) time.Time { return n.data.lastInbound(id) }
	cfg.Log = slog.New(slog.DiscardHandler)
	cfg.Shards = engines
	n.cfg = cfg
	n.start()
	return n
}

// start makes the engines of a machine.
func (n *simNode) start() {
	n.starts++
	n.engines = nil
	for i := range n.cfg.Shards {
		n.cfg.Shard = i
		n.cfg.Rand = n.w.net.Reader(fmt.Sprintf("%s/%d/%d", n.name, n.starts, i))
		n.engines = append(n.engines, NewEngine(n.cfg))
	}
}

// crash lets a machine lose all that it does not keep on disk, and start again.
func (n *simNode) crash() {
	n.w.note("%s crashes", n.name)
	n.w.ledger.counts.Crashes++
	for _, spii := range n.original {
		if conn := n.w.conns[spii]; conn != nil {
			conn.doomed = true
		}
	}
	clear(n.owner)
	clear(n.original)
	clear(n.who)
	n.data.reset()
	n.start()
}

func (n *simNode) newSPI() uint32 {
	var b [4]byte
	for {
		_, _ = io.ReadFull(n.random, b[:])
		spi := binary.BigEndian.Uint32(b[:])
		if spi >= 256 && n.w.spiOwner[spi] == nil {
			n.w.spiOwner[spi] = n
			return spi
		}
	}
}

// Receive takes a datagram from the network, as a transport would.
func (n *simNode) Receive(now time.Time, pair locator.Pair, data []byte) {
	n.w.ledger.arrives(n, pair, data)
	if h := n.w.hostile; h != nil && !n.injected {
		h.capture(n, pair, data)
	}
	switch kind, body := simClassify(pair.Local.Port(), data); kind {
	case simIKE:
		e := n.route(pair, body)
		if e == nil {
			return
		}
		n.w.noteIKE("receives", n, pair.Remote, body)
		e.Receive(now, pair, body)
		n.settle(e)
	case simESP:
		n.data.receive(now, pair, data)
	}
}

// route finds the engine of an IKE message. RouteDatagram spreads requests for new
// IKE SAs by a hash that differs from process to process; to let a seed repeat in
// another process they are spread by their SPI here.
func (n *simNode) route(pair locator.Pair, data []byte) *Engine {
	i, ok := RouteDatagram(data, pair, len(n.engines))
	if !ok {
		return nil
	}
	if h, err := message.ParseHeader(data); err == nil && h.Exchange == message.IKESAInit && !h.Response() {
		i = int(h.SPIi % message.SPI(len(n.engines)))
	}
	return n.engines[i]
}

// Deadline is the earliest of the engines and the keepalives.
func (n *simNode) Deadline() (time.Time, bool) {
	at := n.data.deadline()
	for _, e := range n.engines {
		if t, ok := e.Deadline(); ok {
			at = earlier(at, t)
		}
	}
	return at, !at.IsZero()
}

// Tick does what is due.
func (n *simNode) Tick(now time.Time) {
	n.data.tick(now)
	for _, e := range n.engines {
		if at, ok := e.Deadline(); ok && !at.After(now) {
			e.Tick(now)
			n.settle(e)
		}
	}
}

// settle carries out the actions of an engine.
func (n *simNode) settle(e *Engine) {
	if !slices.Contains(n.engines, e) {
		return // of before a crash
	}
	for {
		actions := slices.Clone(e.Actions())
		if len(actions) == 0 {
			return
		}
		for _, a := range actions {
			n.carryOut(e, a)
		}
	}
}

func (n *simNode) carryOut(e *Engine, a Action) {
	now := n.w.net.Now()
	switch a := a.(type) {
	case Send:
		n.send(a.Pair, a.Data)
	case Work:
		n.work(e, a)
	case AuthorizeRequest:
		e.Authorize(now, a.Session, n.grant(a))
	case AddHost:
		n.data.addHost(e, a)
	case MoveHost:
		n.w.ledger.fail("%s: MoveHost without MOBIKE", n.name)
	case RemoveHost:
		n.data.removeHost(a.Session)
	case AddChild:
		n.data.addChild(now, a)
	case ActivateChild:
		n.data.activate(a)
	case RemoveChild:
		n.data.removeChild(a.Child)
	case Established:
		n.established(e, a)
	case Closed:
		n.closed(a)
	case Rekeyed:
		n.w.note("%s: rekeyed IKE %v: %x to %x, child %d to %d", n.name, a.IKE, uint64(a.OldSPIi), uint64(a.NewSPIi), a.OldChild, a.NewChild)
		n.w.ledger.counts.Rekeyed++
		n.data.rekeyed(a)
	case ChildDown:
		n.w.ledger.childDown(n, a)
	case Refused:
		n.w.note("%s: refused %s %s", n.name, a.Reason, a.Detail)
	default:
		n.w.ledger.fail("%s: unexpected action %T", n.name, a)
	}
}

// work runs a computation beside the engine, as a daemon does, and hands the
// result in when some time has passed.
func (n *simNode) work(e *Engine, a Work) {
	if n.w.setup.WorkDelay == 0 {
		e.Complete(n.w.net.Now(), a.ID, a.Run())
		return
	}
	result := make(chan any, 1)
	go func() { result <- a.Run() }()
	n.w.net.After(time.Duration(n.w.rng.Int64N(int64(n.w.setup.WorkDelay))), func() {
		e.Complete(n.w.net.Now(), a.ID, <-result)
		n.settle(e)
	})
}

// send puts the non-ESP marker in front where it belongs (RFC 3948 §2.2).
func (n *simNode) send(pair locator.Pair, data []byte) {
	n.w.noteIKE("sends", n, pair.Remote, data)
	if pair.Local.Port() != 500 {
		data = append(make([]byte, 4, 4+len(data)), data...)
	}
	_ = n.host.Send(pair, data) // without a link the packet is lost, as any other
}

// grant lets every peer in, with the address that belongs to its name. A peer that
// says it is new replaces its former sessions (RFC 7296 §2.4).
func (n *simNode) grant(a AuthorizeRequest) Grant {
	who := a.Peer.String()
	n.who[a.Session] = who
	if a.InitialContact {
		for _, id := range slices.Sorted(mapKeys(n.who)) {
			if id == a.Session || n.who[id] != who || n.owner[id] == nil {
				continue
			}
			n.overtaken(id, a.Session)
			e := n.owner[id]
			n.w.net.After(0, func() { e.Abort(n.w.net.Now(), id, "session-replaced"); n.settle(e) })
		}
	}
	for i, c := range n.w.clients {
		if c.policy.Local.ID.String() == who {
			return Grant{Config: Configuration{Addresses: []netip.Addr{simInner(i)}}}
		}
	}
	return Grant{Refuse: "unknown-user"}
}

// overtaken looks whether a session gives way to an attempt that its client had given up
// before it began this one: then that attempt's IKE_AUTH request was under way for longer.
// What it says was true when it was sent, so the gateway may go by it (RFC 7296 §2.4), and
// the client connects anew once it notices. Sessions are numbered in the order of the
// IKE_SA_INIT requests, and a client that sends IKE_AUTH has had its first answer.
func (n *simNode) overtaken(id, by SessionID) {
	if conn := n.w.conns[n.original[id]]; conn != nil && by < id {
		conn.doomed = true
	}
}

func mapKeys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// simInner is the address that a client has inside the tunnel.
func simInner(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 30, 0, byte(i + 1)}) }

func (n *simNode) established(e *Engine, a Established) {
	n.w.ledger.counts.Connected++
	n.owner[a.Session] = e
	n.original[a.Session] = a.Info.SPIi
	n.w.note("%s: session %d is up, SPIi %x", n.name, a.Session, uint64(a.Info.SPIi))
	if n.w.conns[a.Info.SPIi] == nil {
		n.w.ledger.fail("%s: established an IKE SA that no client began", n.name)
	}
	if !n.server {
		n.tries = 0
	}
}

// closed judges whether a session may end, and lets a client come back.
func (n *simNode) closed(a Closed) {
	n.w.note("%s: session %d closed: %s %v %s", n.name, a.Session, a.Reason, a.Notify, a.Detail)
	spii, up := n.original[a.Session]
	delete(n.owner, a.Session)
	delete(n.original, a.Session)
	delete(n.who, a.Session)
	if up {
		n.w.ledger.counts.Closed++
		conn := n.w.conns[spii]
		if conn != nil && !conn.doomed && conn.client.conn == conn && !n.w.disturbed(conn) {
			n.w.ledger.fail("%s: session %d ended for no reason: %s %v %s", n.name, a.Session, a.Reason, a.Notify, a.Detail)
		}
	}
	if n.server || a.Session != n.session {
		return
	}
	n.conn.doomed = true // the gateway may think that it is up
	n.session = 0
	if n.tries >= 12 {
		n.w.ledger.fail("%s: cannot connect: %s %v %s", n.name, a.Reason, a.Notify, a.Detail)
	}
	if n.wanted {
		n.w.net.After(time.Duration(n.w.rng.Int64N(int64(3*time.Second))), n.connect)
	}
}

// disturbed says whether a client may turn its gateway away: nothing authenticates
// an IKE_SA_INIT message before IKE_AUTH does, and one was perhaps tampered with.
func (w *simWorld) disturbed(conn *simConn) bool {
	_, up := conn.client.original[conn.client.session]
	return !up && (w.setup.Hostile || w.setup.Conditions.Corrupt > 0)
}

// connect starts a session of a client.
func (n *simNode) connect() {
	if n.session != 0 || !n.wanted {
		return
	}
	n.tries++
	e := n.engines[0]
	server := n.w.server.addr
	pair := locator.Pair{Local: netip.AddrPortFrom(n.addr, 500), Remote: netip.AddrPortFrom(server, 500)}
	id, err := e.Initiate(n.w.net.Now(), n.policy, pair)
	if err != nil {
		n.w.t.Fatal(err)
	}
	info, _ := e.Session(id)
	n.session = id
	n.conn = &simConn{client: n}
	n.w.conns[info.SPIi] = n.conn
	n.settle(e)
	if n.w.rng.IntN(10) == 0 {
		n.w.net.After(time.Duration(n.w.rng.Int64N(int64(300*time.Millisecond))), func() { n.giveUp(id) })
	}
}

// giveUp ends a session before it is up, perhaps while keys are being computed.
func (n *simNode) giveUp(id SessionID) {
	if n.session != id || n.owner[id] != nil {
		return
	}
	n.tries--
	n.engines[0].Abort(n.w.net.Now(), id, "user-disconnect")
	n.settle(n.engines[0])
}

// close ends a session that is up, from this side.
func (n *simNode) close(id SessionID) {
	e := n.owner[id]
	if e == nil {
		return
	}
	if conn := n.w.conns[n.original[id]]; conn != nil {
		conn.doomed = true
	}
	e.Close(n.w.net.Now(), id, "admin-disconnect")
	n.settle(e)
}

// upSessions are the node's established sessions in order.
func (n *simNode) upSessions() []SessionID { return slices.Sorted(mapKeys(n.owner)) }

// simKind is what a datagram is.
type simKind int

const (
	simOther simKind = iota
	simIKE
	simESP
	simKeepalive
)

// simClassify splits a port as RFC 3948 §2.2 says. Port 0 is IP protocol 50.
func simClassify(local uint16, data []byte) (simKind, []byte) {
	switch {
	case local == 0:
		return simESP, data
	case local == 500:
		return simIKE, data
	case len(data) == 1 && data[0] == 0xff:
		return simKeepalive, nil
	case len(data) < 4:
		return simOther, nil
	case bytes.Equal(data[:4], []byte{0, 0, 0, 0}):
		return simIKE, data[4:]
	}
	return simESP, data
}

var simHashSeed = maphash.MakeSeed()

// simSum names a datagram.
func simSum(data []byte) uint64 { return maphash.Bytes(simHashSeed, data) }
