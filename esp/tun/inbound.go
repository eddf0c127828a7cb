package tun

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/esp/tun/vnet"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
)

// inboundSpare is how many workers are kept for reuse: about one for each socket.
const inboundSpare = 8

// inbound carries packets from the network to the TUN device. A worker belongs to
// one HandleESP call at a time.
//
// Packets are opened in the transport's memory, and written from there: those that
// the kernel can take as one leave in one call that names their pieces.
type inbound struct {
	d       *DataPath
	joiner  *vnet.Joiner
	scratch esp.Scratch
	inner   esp.Inner
	stamp   int64
	wrote   *outbound // of the queue that was written last

	last      esp.Inner // the packet before, which was let in by lastChild
	lastChild *child
}

// inboundPool keeps workers. Unlike a sync.Pool it does not give them up when
// memory is collected, since making one is expensive.
type inboundPool struct {
	mu    sync.Mutex
	spare []*inbound
}

func (p *inboundPool) take(d *DataPath) *inbound {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.spare)
	if n == 0 {
		return newInbound(d)
	}
	w := p.spare[n-1]
	p.spare = p.spare[:n-1]
	return w
}

func (p *inboundPool) give(w *inbound) {
	w.lastChild = nil // keep no removed Child SA alive
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.spare) < inboundSpare {
		p.spare = append(p.spare, w)
	}
}

func newInbound(d *DataPath) *inbound {
	w := &inbound{d: d}
	w.joiner = vnet.NewJoiner(w.write, d.dev.JoinsUDP())
	return w
}

// run opens a batch in order and writes what is good.
func (w *inbound) run(batch []transport.ESPTrain) {
	w.stamp = w.d.stamp(w.d.cfg.Now())
	for i := range batch {
		t := &batch[i]
		for rest := t.Data; len(rest) > 0; {
			n := min(max(t.Size, 1), len(rest))
			w.packet(t, rest[:n:n])
			rest = rest[n:]
		}
	}
	w.joiner.Flush()
	if w.wrote != nil && len(batch) == 1 && batch[0].Packets() == 1 {
		w.wrote.answer()
	}
	w.wrote = nil
}

// write hands a frame to the device, those of one flow always to the same queue.
func (w *inbound) write(pieces [][]byte) {
	o := w.d.outbound[0]
	if n := len(w.d.outbound); n > 1 {
		o = w.d.outbound[vnet.FlowHash(pieces[1])%uint32(n)]
	}
	w.wrote = o
	if err := o.queue.Write(pieces); err != nil && !w.d.isClosing() {
		w.d.counters.inUnwritten.Add(uint64(len(pieces) - 1))
		w.d.warn("packets could not be written to the TUN device; is it up?", "error", err)
	}
}

// packet opens one packet of a train and passes on what was in it.
func (w *inbound) packet(t *transport.ESPTrain, pkt []byte) {
	if len(pkt) < 8 {
		w.d.counters.inMalformed.Add(1)
		return
	}
	spi := binary.BigEndian.Uint32(pkt)
	c, ok := w.d.sad.Lookup(spi)
	if !ok {
		w.unknown(spi, t)
		return
	}
	opened, err := c.opener.Open(&w.scratch, nil, pkt)
	if opened.Crossed != 0 {
		for _, e := range c.limitEvents(nil, spi, opened.Crossed) {
			w.d.cfg.Events(e)
		}
	}
	if err != nil && !errors.Is(err, esp.ErrDummy) {
		w.count(err)
		return
	}
	w.alive(c, t, opened.Newest)
	if err != nil {
		w.d.counters.inDummy.Add(1)
		return
	}
	if w.check(c, &opened) && w.congestion(opened.Payload, t.TOS) {
		w.joiner.Add(opened.Payload[:w.inner.Length]) // what follows is TFC padding (RFC 4303 §2.7)
	}
}

// check applies the rules for what may come out of a tunnel (RFC 4301 §5.2): an
// IP packet of the announced family, from and to where the Child SA allows.
func (w *inbound) check(c *child, opened *esp.Opened) bool {
	in := &w.inner
	if in.Parse(opened.Payload) != nil || opened.NextHeader != in.NextHeader() {
		w.d.counters.inMalformed.Add(1)
		return false
	}
	if c != w.lastChild || !in.SameFlow(&w.last) {
		if !c.selectors.Inbound(in) {
			c.selectorMismatch.Add(1)
			return false
		}
		w.last, w.lastChild = *in, c
	}
	if pkt := opened.Payload[:in.Length]; opensTCP(pkt, in) && clampMSS(pkt, in, c.innerMTU(c.host.path.Load(), w.d.MTU())) {
		w.d.counters.mssClamped.Add(1)
	}
	return true
}

// congestion carries what the network wrote into the ECN field of the outer header
// into the packet (RFC 6040 §4.2); false drops it, for want of another way to tell.
func (w *inbound) congestion(pkt []byte, outer uint8) bool {
	if outer &= esp.ECNMask; outer == esp.NotECT || outer == w.inner.TOS&esp.ECNMask {
		return true
	}
	ecn, ok := esp.DecapsulateECN(w.inner.TOS, outer)
	switch {
	case !ok:
		w.d.counters.inCongested.Add(1)
		return false
	case ecn != w.inner.TOS&esp.ECNMask:
		esp.SetECN(pkt, ecn)
	}
	return true
}

// alive notes what an authentic packet tells about its sender.
func (w *inbound) alive(c *child, t *transport.ESPTrain, newest bool) {
	c.lastIn.Store(w.stamp)
	path := c.host.path.Load()
	if path.Sparing {
		c.host.returned(path)
	}
	here := sameSource(path, t)
	if here && sameDestination(path, t) && c.host.waiting.Load() != 0 {
		c.host.waiting.Store(0)
	}
	if !c.seen.Load() && c.seen.CompareAndSwap(false, true) {
		w.d.cfg.Events(esp.Event{Kind: esp.FirstInbound, Host: c.host.id, Child: c.id, SPI: c.opener.SPI(), Observed: t.Pair})
	}
	if newest && !here && c.host.mayReport(w.stamp) {
		w.d.cfg.Events(esp.Event{Kind: esp.SourceChanged, Host: c.host.id, Child: c.id, SPI: c.opener.SPI(), Observed: t.Pair})
	}
}

// mayReport limits the rate of SourceChanged events.
func (h *host) mayReport(stamp int64) bool {
	last := h.reported.Load()
	if last != 0 && stamp-last < int64(esp.SourceReportInterval) {
		return false
	}
	return h.reported.CompareAndSwap(last, stamp)
}

func (w *inbound) unknown(spi uint32, t *transport.ESPTrain) {
	w.d.counters.inUnknownSPI.Add(1)
	if w.d.unknownSPI.Allow(w.d.instant(w.stamp)) {
		w.d.cfg.Events(esp.Event{Kind: esp.UnknownSPI, SPI: spi, Observed: t.Pair})
	}
}

// count counts a packet that could not be opened, as far as the SA does not.
func (w *inbound) count(err error) {
	switch {
	case errors.Is(err, esp.ErrTruncated), errors.Is(err, esp.ErrPadding), errors.Is(err, esp.ErrBufferTooSmall):
		w.d.counters.inMalformed.Add(1)
	case errors.Is(err, esp.ErrLifetime):
		w.d.counters.inExhausted.Add(1)
	}
}
