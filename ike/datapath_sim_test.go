package ike

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// simDataPath is a data path of a simulated machine: real sealers and openers, no
// devices. It behaves as esp.DataPath says.
type simDataPath struct {
	node     *simNode
	hosts    map[esp.HostID]*simPeer
	children map[esp.ChildID]*simChild
	bySPI    map[uint32]*simChild
	former   map[uint32]esp.HostID // inbound SPIs that were removed
	early    map[uint32]int        // packets that came for SPIs not yet installed
	order    int
	scratch  esp.Scratch
}

// simPeer is a host and where it is.
type simPeer struct {
	engine          *Engine
	path            esp.Path
	children        []*simChild
	lastIn, lastOut time.Time
}

// simChild is a Child SA with its keys.
type simChild struct {
	id        esp.ChildID
	host      *simPeer
	sealer    *esp.Sealer
	opener    *esp.Opener
	selectors *esp.Selectors
	in, out   simKeyMark
	active    int // when it was activated, counted; zero: not
	heard     bool
}

// simKeyMark is a key with its SPI, as the ledger knows them.
type simKeyMark [16]byte

func markKey(sa *esp.SA) simKeyMark {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint32(nil, sa.SPI))
	h.Write(sa.EncrKey)
	h.Write(sa.IntegKey)
	return simKeyMark(h.Sum(nil)[:16])
}

func newSimDataPath(n *simNode) *simDataPath {
	return &simDataPath{node: n, hosts: make(map[esp.HostID]*simPeer), children: make(map[esp.ChildID]*simChild),
		bySPI: make(map[uint32]*simChild), former: make(map[uint32]esp.HostID), early: make(map[uint32]int)}
}

// reset forgets everything.
func (d *simDataPath) reset() {
	clear(d.hosts)
	clear(d.children)
	clear(d.bySPI)
	clear(d.former)
	clear(d.early)
}

func (d *simDataPath) fail(format string, args ...any) {
	d.node.w.ledger.fail(d.node.name+": "+format, args...)
}

func (d *simDataPath) addHost(e *Engine, a AddHost) {
	d.hosts[esp.HostID(a.Session)] = &simPeer{engine: e, path: a.Path, lastOut: d.node.w.net.Now()}
}

func (d *simDataPath) removeHost(id SessionID) {
	p := d.hosts[esp.HostID(id)]
	if p == nil {
		d.fail("RemoveHost of an unknown host")
		return
	}
	for _, c := range append([]*simChild(nil), p.children...) {
		d.removeChild(c.id)
	}
	delete(d.hosts, esp.HostID(id))
}

func (d *simDataPath) addChild(now time.Time, a AddChild) {
	p := d.hosts[a.Child.Host]
	switch {
	case p == nil:
		d.fail("Child SA %d for an unknown host", a.Child.ID)
		return
	case d.children[a.Child.ID] != nil || d.bySPI[a.Child.In.SPI] != nil:
		d.fail("Child SA %d or its SPI added twice", a.Child.ID)
		return
	}
	c := &simChild{id: a.Child.ID, host: p, in: markKey(&a.Child.In), out: markKey(&a.Child.Out)}
	var errs [3]error
	c.sealer, errs[0] = esp.NewSealer(&a.Child.Out, a.Child.Lifetime, d.node.random)
	c.opener, errs[1] = esp.NewOpener(&a.Child.In, a.Child.Lifetime, a.Child.ReplayWindow)
	c.selectors, errs[2] = esp.NewSelectors(a.Child.Local, a.Child.Remote)
	for _, err := range errs {
		if err != nil {
			d.fail("Child SA %d: %v", c.id, err)
			return
		}
	}
	a.Child.In.Zero()
	a.Child.Out.Zero()
	d.children[c.id] = c
	d.bySPI[c.opener.SPI()] = c
	p.children = append(p.children, c)
	d.node.w.ledger.childAdded(c)
	d.node.w.note("%s: Child SA %d in %08x out %08x", d.node.name, c.id, c.opener.SPI(), c.sealer.SPI())
}

func (d *simDataPath) activate(a ActivateChild) {
	c := d.children[a.Child]
	if c == nil {
		d.fail("Child SA %d activated, but it is not installed", a.Child)
		return
	}
	d.order++
	c.active = d.order
	d.node.w.note("%s: sends on Child SA %d", d.node.name, c.id)
}

func (d *simDataPath) removeChild(id esp.ChildID) {
	c := d.children[id]
	if c == nil {
		d.fail("Child SA %d removed, but it is not installed", id)
		return
	}
	d.node.w.note("%s: removes Child SA %d", d.node.name, id)
	delete(d.children, id)
	delete(d.bySPI, c.opener.SPI())
	for host, p := range d.hosts {
		if p == c.host {
			d.former[c.opener.SPI()] = host
		}
	}
	for i, o := range c.host.children {
		if o == c {
			c.host.children = append(c.host.children[:i:i], c.host.children[i+1:]...)
			break
		}
	}
	c.sealer.Close()
	c.opener.Close()
}

// rekeyed checks that nobody sent on the new SA before this side could receive.
func (d *simDataPath) rekeyed(a Rekeyed) {
	if c := d.children[a.NewChild]; c != nil && !a.IKE && d.early[c.opener.SPI()] > 0 {
		d.fail("%d packets came on Child SA %d before it was installed", d.early[c.opener.SPI()], a.NewChild)
	}
}

func (d *simDataPath) lastInbound(id SessionID) time.Time {
	if p := d.hosts[esp.HostID(id)]; p != nil {
		return p.lastIn
	}
	return time.Time{}
}

// simInnerPacket is an IPv4 UDP packet with the mark of cleartext and a number.
func simInnerPacket(src, dst netip.Addr, id uint64) []byte {
	const length = 20 + 8 + len(simCleartext) + 8
	b := make([]byte, 0, length)
	b = append(b, 0x45, 0, 0, byte(length), 0, 0, 0, 0, 64, 17, 0, 0)
	b = append(b, src.AsSlice()...)
	b = append(b, dst.AsSlice()...)
	b = append(b, 0x30, 0x39, 0x30, 0x39, 0, byte(length-20), 0, 0)
	b = append(b, simCleartext...)
	return binary.BigEndian.AppendUint64(b, id)
}

const simCleartext = "in clear!"

// send seals a packet on the Child SA activated last that covers it.
func (d *simDataPath) send(now time.Time, host esp.HostID, packet []byte) bool {
	p := d.hosts[host]
	if p == nil {
		return false
	}
	var inner esp.Inner
	if err := inner.Parse(packet); err != nil {
		d.fail("inner packet: %v", err)
		return false
	}
	var best *simChild
	for _, c := range p.children {
		if c.active > 0 && c.selectors.Outbound(&inner) && (best == nil || c.active > best.active) {
			best = c
		}
	}
	if best == nil {
		return false
	}
	first, granted, _ := best.sealer.Reserve(1, len(packet))
	if granted == 0 {
		return false
	}
	room := best.sealer.Layout().Headroom()
	buf := make([]byte, room+len(packet)+64)
	copy(buf[room:], packet)
	sealed, err := best.sealer.Seal(&d.scratch, buf, room, len(packet), 4, first)
	if err != nil {
		d.fail("seal: %v", err)
		return false
	}
	d.node.w.ledger.sealed(d.node, best.out, first)
	p.lastOut = now
	pair := p.path.Pair
	if !p.path.UDP {
		pair.Local, pair.Remote = netip.AddrPortFrom(pair.Local.Addr(), 0), netip.AddrPortFrom(pair.Remote.Addr(), 0)
	}
	_ = d.node.host.Send(pair, sealed)
	return true
}

// receive opens a packet and delivers it.
func (d *simDataPath) receive(now time.Time, _ locator.Pair, data []byte) {
	if len(data) < 8 {
		return
	}
	genuine := !d.node.injected && d.node.w.ledger.genuine(data)
	spi := binary.BigEndian.Uint32(data)
	c := d.bySPI[spi]
	if c == nil {
		if genuine {
			d.unknownSPI(spi)
		}
		return
	}
	o, err := c.opener.Open(&d.scratch, nil, data)
	if err != nil {
		if genuine && d.node.w.ledger.firstArrival(data) {
			d.fail("a genuine packet on %08x was refused: %v", spi, err)
		}
		return
	}
	if !genuine && !d.node.injected {
		d.fail("a corrupted packet on %08x was accepted", spi)
	}
	var inner esp.Inner
	if err := inner.Parse(o.Payload); err != nil || !c.selectors.Inbound(&inner) {
		d.fail("a packet on %08x does not fit its selectors: %v", spi, err)
		return
	}
	d.node.w.ledger.delivered(d.node, o.Payload)
	c.host.lastIn = now
	if !c.heard {
		c.heard = true
		e := c.host.engine
		e.DataPathEvent(now, esp.Event{Kind: esp.FirstInbound, Child: c.id})
		d.node.settle(e)
	}
}

// unknownSPI judges a genuine packet for an SPI that is not installed: while its
// session lives, that is a packet lost by a rekey.
func (d *simDataPath) unknownSPI(spi uint32) {
	if host, was := d.former[spi]; was {
		if p := d.hosts[host]; p != nil && p.engine.sessions[SessionID(host)].state == Up {
			d.fail("a packet came on %08x after it was removed", spi)
		}
		return
	}
	d.early[spi]++
}

// deadline is when the next keepalive is due.
func (d *simDataPath) deadline() time.Time {
	var at time.Time
	for _, p := range d.hosts {
		if p.path.Keepalive > 0 {
			at = earlier(at, p.lastOut.Add(p.path.Keepalive))
		}
	}
	return at
}

// tick sends the keepalives that are due (RFC 3948 §4).
func (d *simDataPath) tick(now time.Time) {
	for id := range d.node.sessions + 1 {
		p := d.hosts[esp.HostID(id)]
		if p == nil || p.path.Keepalive == 0 || p.lastOut.Add(p.path.Keepalive).After(now) {
			continue
		}
		p.lastOut = now
		_ = d.node.host.Send(p.path.Pair, []byte{0xff})
	}
}

// payloadID reads the number of a packet made by simInnerPacket.
func payloadID(packet []byte) (uint64, bool) {
	at := 28 + len(simCleartext)
	if len(packet) < at+8 || !bytes.Equal(packet[28:at], []byte(simCleartext)) {
		return 0, false
	}
	return binary.BigEndian.Uint64(packet[at:]), true
}
