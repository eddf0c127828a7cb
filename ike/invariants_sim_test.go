package ike

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/simnet"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// simLedger watches everything that the machines send and receive, and holds the
// first thing that must not be.
type simLedger struct {
	w        *simWorld
	err      error
	sent     map[uint64]bool // sums of what machines sent
	arrivals map[simArrival]int
	verified map[*simNode]map[netip.AddrPort]bool
	asked    map[simAsk]int            // requests that arrived
	answered map[simAsk]netip.AddrPort // where a request was answered first
	seals    map[simSeal]bool          // ESP: key and sequence number
	ivs      map[simIV]uint64          // IKE: key and IV, with the datagram
	packets  map[uint64]bool           // inner packets sent, true once delivered
	marks    map[simKeyMark]byte       // keys of Child SAs, how many machines have them

	counts simCounts
}

// simCounts say what a run has exercised.
type simCounts struct {
	Connected, Rekeyed, Childs, Closed   int
	Delivered, Native, Fragments         int
	Cookies, OtherGroup, Repeated        int
	Injected, ForeignInits, Disconnected int
	Crashes                              int
}

func (c *simCounts) add(o simCounts) {
	c.Connected += o.Connected
	c.Rekeyed += o.Rekeyed
	c.Childs += o.Childs
	c.Closed += o.Closed
	c.Delivered += o.Delivered
	c.Native += o.Native
	c.Fragments += o.Fragments
	c.Cookies += o.Cookies
	c.OtherGroup += o.OtherGroup
	c.Repeated += o.Repeated
	c.Injected += o.Injected
	c.ForeignInits += o.ForeignInits
	c.Disconnected += o.Disconnected
	c.Crashes += o.Crashes
}

type simArrival struct {
	node *simNode
	sum  uint64
}

type simAsk struct {
	node     *simNode
	from     netip.AddrPort
	spii     message.SPI
	exchange message.ExchangeType
	id       uint32
}

type simSeal struct {
	key simKeyMark
	seq uint64
}

type simIV struct {
	spii, spir message.SPI
	initiator  bool
	iv         [8]byte
}

func newSimLedger(w *simWorld) *simLedger {
	return &simLedger{
		w: w, sent: make(map[uint64]bool), arrivals: make(map[simArrival]int),
		verified: make(map[*simNode]map[netip.AddrPort]bool), asked: make(map[simAsk]int), answered: make(map[simAsk]netip.AddrPort),
		seals: make(map[simSeal]bool), ivs: make(map[simIV]uint64),
		packets: make(map[uint64]bool), marks: make(map[simKeyMark]byte),
	}
}

func (l *simLedger) fail(format string, args ...any) {
	if l.err == nil {
		l.err = fmt.Errorf(format, args...)
	}
}

// verify notes an address that a machine may send to.
func (l *simLedger) verify(n *simNode, a netip.AddrPort) {
	if l.verified[n] == nil {
		l.verified[n] = make(map[netip.AddrPort]bool)
	}
	l.verified[n][a] = true
	l.verified[n][netip.AddrPortFrom(a.Addr(), 0)] = true // IP protocol 50
}

// arrives notes a datagram that a machine receives.
func (l *simLedger) arrives(n *simNode, pair locator.Pair, data []byte) {
	l.arrivals[simArrival{n, simSum(data)}]++
	if !n.injected {
		l.verify(n, pair.Remote)
	}
	kind, body := simClassify(pair.Local.Port(), data)
	if kind != simIKE {
		return
	}
	if h, err := message.ParseHeader(body); err == nil || h.SPIi != 0 {
		l.asked[simAsk{n, pair.Remote, h.SPIi, h.Exchange, h.MessageID}]++
	}
}

// genuine says whether a machine sent a datagram, as it is.
func (l *simLedger) genuine(data []byte) bool { return l.sent[simSum(data)] }

// firstArrival says whether a genuine datagram came for the first time.
func (l *simLedger) firstArrival(data []byte) bool {
	n := 0
	for _, node := range append([]*simNode{l.w.server}, l.w.clients...) {
		n += l.arrivals[simArrival{node, simSum(data)}]
	}
	return n == 1
}

// leaves judges a datagram that a machine sends.
func (l *simLedger) leaves(p simnet.Packet) {
	n := l.w.byAddr[p.Src.Addr()]
	if n == nil {
		return
	}
	l.sent[simSum(p.Data)] = true
	if bytes.Contains(p.Data, []byte(simCleartext)) {
		l.fail("%s sends cleartext to %s", n.name, p.Dst)
		return
	}
	known := l.verified[n][p.Dst]
	switch kind, body := simClassify(p.Src.Port(), p.Data); kind {
	case simKeepalive:
		if !known {
			l.fail("%s sends a keepalive to %s, which is not verified", n.name, p.Dst)
		}
	case simESP:
		l.leavesESP(n, p, known)
	case simIKE:
		l.leavesIKE(n, p, body, known)
	default:
		l.fail("%s sends %x, which is neither IKE nor ESP, to %s", n.name, p.Data, p.Dst)
	}
}

func (l *simLedger) leavesESP(n *simNode, p simnet.Packet, known bool) {
	if len(p.Data) < 8 {
		l.fail("%s sends %d octets of ESP", n.name, len(p.Data))
		return
	}
	spi := binary.BigEndian.Uint32(p.Data)
	owner := l.w.spiOwner[spi]
	switch {
	case owner == nil:
		l.fail("%s sends ESP with an SPI that nobody chose: %08x", n.name, spi)
	case owner.public != p.Dst.Addr():
		l.fail("%s sends ESP for %s to %s", n.name, owner.name, p.Dst)
	case !known:
		l.fail("%s sends ESP to %s, which is not verified", n.name, p.Dst)
	}
	if p.Src.Port() == 0 {
		l.counts.Native++
	}
}

func (l *simLedger) leavesIKE(n *simNode, p simnet.Packet, body []byte, known bool) {
	h, err := message.ParseHeader(body)
	if err != nil {
		l.fail("%s sends a message that does not parse: %v", n.name, err)
		return
	}
	ask := simAsk{n, p.Dst, h.SPIi, h.Exchange, h.MessageID}
	if h.Response() {
		// Answers go where the request came from (RFC 7296 §2.11).
		if l.asked[ask] == 0 {
			l.fail("%s answers %v %d to %s, which has not asked", n.name, h.Exchange, h.MessageID, p.Dst)
		}
	} else if !known {
		l.fail("%s sends a request to %s, which is not verified", n.name, p.Dst)
	}
	if h.Exchange == message.IKESAInit {
		if h.Response() {
			l.asked[ask]-- // one answer a request
			l.countInit(body)
			if !known {
				l.counts.ForeignInits++
			}
		}
		return
	}
	// The first to bring a request gets the answer, wherever it comes from (RFC 7296
	// §2.11); whoever replays it does not.
	ask.from = netip.AddrPort{}
	first, before := l.answered[ask]
	if l.protected(n, h, body) && !known && before && first != p.Dst {
		l.fail("%s answers a replayed %v to %s", n.name, h.Exchange, p.Dst)
	}
	if h.Response() && !before {
		l.answered[ask] = p.Dst
	}
}

// countInit notes which answers to IKE_SA_INIT were exercised.
func (l *simLedger) countInit(body []byte) {
	m, err := message.Parse(body)
	if err != nil {
		l.fail("an IKE_SA_INIT response does not parse: %v", err)
		return
	}
	switch {
	case message.FindNotify(m.Payloads, message.Cookie) != nil:
		l.counts.Cookies++
	case message.FindNotify(m.Payloads, message.InvalidKEPayload) != nil:
		l.counts.OtherGroup++
	}
}

// protected checks that a message is encrypted and that its IV is used once with
// its key. The few answers that need no protection are the exception; for them it
// returns false.
func (l *simLedger) protected(n *simNode, h message.Header, body []byte) bool {
	at := message.HeaderLen + 4
	switch h.NextPayload {
	case message.TypeSK:
	case message.TypeSKF:
		at += 4
		l.counts.Fragments++
	default:
		if !h.Response() || h.SPIi == 0 {
			l.fail("%s sends an unprotected %v", n.name, h.Exchange)
		} else if m, err := message.Parse(body); err != nil || len(m.Payloads) == 0 ||
			(message.FindNotify(m.Payloads, message.InvalidMajorVersion) == nil && message.FindNotify(m.Payloads, message.InvalidIKESPI) == nil) {
			l.fail("%s answers %v without protection", n.name, h.Exchange)
		}
		return false
	}
	if len(body) < at+8 {
		l.fail("%s sends a protected message without IV", n.name)
		return true
	}
	iv := simIV{spii: h.SPIi, spir: h.SPIr, initiator: h.FromInitiator(), iv: [8]byte(body[at:])}
	sum := simSum(body)
	if before, used := l.ivs[iv]; used && before != sum {
		l.fail("%s uses an IV twice: %v %d", n.name, h.Exchange, h.MessageID)
	} else if used {
		l.counts.Repeated++
	}
	l.ivs[iv] = sum
	return true
}

// childAdded counts the machines that hold a key: two at most, sender and receiver.
func (l *simLedger) childAdded(c *simChild) {
	l.counts.Childs++
	for _, m := range []simKeyMark{c.in, c.out} {
		if l.marks[m]++; l.marks[m] > 2 {
			l.fail("key of Child SA %d is installed a third time", c.id)
		}
	}
}

// sealed notes that a key was used with a sequence number.
func (l *simLedger) sealed(n *simNode, key simKeyMark, seq uint64) {
	s := simSeal{key, seq}
	if l.seals[s] {
		l.fail("%s uses sequence number %d twice with one key", n.name, seq)
	}
	l.seals[s] = true
}

// delivered notes an inner packet that a machine took out of the tunnel.
func (l *simLedger) delivered(n *simNode, packet []byte) {
	id, ok := payloadID(packet)
	if !ok {
		l.fail("%s takes a packet from the tunnel that nobody sent: %x", n.name, packet)
		return
	}
	done, sent := l.packets[id]
	switch {
	case !sent:
		l.fail("%s takes packet %d from the tunnel, which nobody sent", n.name, id)
	case done:
		l.fail("%s takes packet %d from the tunnel twice", n.name, id)
	}
	l.packets[id] = true
	l.counts.Delivered++
}

// childDown judges the loss of a Child SA: none may go while its session lives.
func (l *simLedger) childDown(n *simNode, a ChildDown) {
	if conn := l.w.conns[n.original[a.Session]]; conn != nil && conn.doomed {
		return
	}
	l.fail("%s: Child SA %d lost: %s", n.name, a.Child, a.Reason)
}

// agree says in what the machines differ: each client has one session, the gateway
// has the same with the same Child SAs and keys, and nothing is left over.
func (w *simWorld) agree() error {
	atServer := make(map[message.SPI]SessionInfo)
	sas := 0
	for _, e := range w.server.engines {
		sas += len(e.sas)
		for _, s := range e.Sessions() {
			atServer[s.SPIi] = s
		}
	}
	if len(atServer) != len(w.clients) || sas != len(w.clients) {
		return fmt.Errorf("the gateway has %d sessions and %d IKE SAs for %d clients", len(atServer), sas, len(w.clients))
	}
	for _, c := range w.clients {
		info, ok := c.engines[0].Session(c.session)
		if !ok || info.State != Up {
			return fmt.Errorf("%s is not connected", c.name)
		}
		s, ok := atServer[info.SPIi]
		if !ok || s.SPIr != info.SPIr || s.State != Up {
			return fmt.Errorf("the gateway lacks %s's IKE SA %x %x", c.name, uint64(info.SPIi), uint64(info.SPIr))
		}
		if len(c.engines[0].sas) != 1 {
			return fmt.Errorf("%s has %d IKE SAs", c.name, len(c.engines[0].sas))
		}
		if err := w.agreeChildren(c, info, s); err != nil {
			return err
		}
	}
	return nil
}

func (w *simWorld) agreeChildren(c *simNode, info, s SessionInfo) error {
	if len(info.Children) == 0 || len(info.Children) != len(s.Children) {
		return fmt.Errorf("%s has %d Child SAs, the gateway %d", c.name, len(info.Children), len(s.Children))
	}
	if n := len(c.data.children); n != len(info.Children) {
		return fmt.Errorf("the data path of %s has %d Child SAs, the engine %d", c.name, n, len(info.Children))
	}
	seen := make(map[string]bool)
	for _, a := range info.Children {
		i := slices.IndexFunc(s.Children, func(b ChildInfo) bool { return a.SPIIn == b.SPIOut && a.SPIOut == b.SPIIn })
		if i < 0 {
			return fmt.Errorf("the gateway lacks Child SA %08x of %s", a.SPIIn, c.name)
		}
		ours, theirs := c.data.children[a.ID], w.server.data.children[s.Children[i].ID]
		switch {
		case ours == nil || theirs == nil:
			return fmt.Errorf("Child SA %08x of %s is missing in a data path", a.SPIIn, c.name)
		case ours.in != theirs.out || ours.out != theirs.in:
			return fmt.Errorf("keys of Child SA %08x of %s differ", a.SPIIn, c.name)
		case ours.active == 0 || theirs.active == 0:
			return fmt.Errorf("Child SA %08x of %s is not in use", a.SPIIn, c.name)
		}
		covers := fmt.Sprint(a.Remote)
		if seen[covers] {
			return fmt.Errorf("%s has two Child SAs for %s", c.name, covers)
		}
		seen[covers] = true
	}
	return nil
}

// empty says what an engine still holds.
func (e *Engine) leftovers() error {
	n := []int{len(e.sessions), len(e.sas), len(e.initial), len(e.halfOpen), e.nHalf, len(e.children), len(e.work), len(e.timers), e.nUp}
	for _, v := range n {
		if v != 0 {
			return fmt.Errorf("left over: sessions %d, IKE SAs %d, initial %d, half-open addresses %d, half-open %d, Child SAs %d, work %d, timers %d, up %d",
				n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8])
		}
	}
	return nil
}
