package tun

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
)

const (
	// inboundBatch is how many packets are written to the device at once: as many as
	// it can coalesce into one super-packet and some.
	inboundBatch = 128
	// inboundSpare is how many workers are kept for reuse: about one for each socket.
	inboundSpare = 8
)

// inbound carries packets from the network to the TUN device. A worker belongs to
// one HandleESP call at a time.
//
// Packets are decrypted out of the transport's memory into the worker's: that is
// the copy which gives them room in front for the device's header, and room behind
// for the packets that coalesce with them.
type inbound struct {
	d       *DataPath
	slots   [][]byte
	out     [][]byte
	scratch esp.Scratch
	inner   esp.Inner
	stamp   int64
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
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.spare) < inboundSpare {
		p.spare = append(p.spare, w)
	}
}

func newInbound(d *DataPath) *inbound {
	w := &inbound{d: d, slots: make([][]byte, inboundBatch), out: make([][]byte, 0, inboundBatch)}
	// One block, of which only the pages that packets reach become memory. A slot
	// holds the largest packet, and any ciphertext a datagram can carry.
	const size = deviceOffset + maxPacket + 1
	block := make([]byte, inboundBatch*size)
	for i := range w.slots {
		w.slots[i] = block[i*size : (i+1)*size : (i+1)*size]
	}
	return w
}

// run opens a batch in order and writes what is good.
func (w *inbound) run(batch []transport.ESPPacket) {
	w.stamp = w.d.stamp(w.d.cfg.Now())
	for i := range batch {
		if n := w.packet(&batch[i], w.slots[len(w.out)]); n > 0 {
			w.out = append(w.out, w.slots[len(w.out)][:deviceOffset+n])
		}
		if len(w.out) == len(w.slots) {
			w.flush()
		}
	}
	w.flush()
}

// flush writes the packets to the device, which may coalesce them in place.
func (w *inbound) flush() {
	if len(w.out) == 0 {
		return
	}
	if _, err := w.d.dev.Write(w.out, deviceOffset); err != nil && !w.d.isClosing() {
		w.d.counters.inUnwritten.Add(uint64(len(w.out)))
		w.d.warn("packets could not be written to the TUN device; is it up?", "error", err)
	}
	w.out = w.out[:0]
}

// packet opens one packet into a slot and returns the length of the inner packet,
// zero when it is dropped.
func (w *inbound) packet(pkt *transport.ESPPacket, slot []byte) int {
	if len(pkt.Data) < 8 {
		w.d.counters.inMalformed.Add(1)
		return 0
	}
	spi := binary.BigEndian.Uint32(pkt.Data)
	c, ok := w.d.sad.Lookup(spi)
	if !ok {
		w.unknown(spi, pkt)
		return 0
	}
	opened, err := c.opener.Open(&w.scratch, slot[deviceOffset:deviceOffset], pkt.Data)
	if opened.Crossed != 0 {
		for _, e := range c.limitEvents(nil, spi, opened.Crossed) {
			w.d.cfg.Events(e)
		}
	}
	if err != nil && !errors.Is(err, esp.ErrDummy) {
		w.count(err)
		return 0
	}
	w.alive(c, pkt, opened.Newest)
	if err != nil {
		w.d.counters.inDummy.Add(1)
		return 0
	}
	return w.check(c, &opened)
}

// check applies the rules for what may come out of a tunnel (RFC 4301 §5.2): an
// IP packet of the announced family, from and to where the Child SA allows.
func (w *inbound) check(c *child, opened *esp.Opened) int {
	if w.inner.Parse(opened.Payload) != nil || opened.NextHeader != w.inner.NextHeader() {
		w.d.counters.inMalformed.Add(1)
		return 0
	}
	if !c.selectors.Inbound(&w.inner) {
		c.selectorMismatch.Add(1)
		return 0
	}
	pkt := opened.Payload[:w.inner.Length] // what follows is TFC padding (RFC 4303 §2.7)
	if clampMSS(pkt, &w.inner, c.innerMTU(c.host.path.Load(), w.d.MTU())) {
		w.d.counters.mssClamped.Add(1)
	}
	return len(pkt)
}

// alive notes what an authentic packet tells about its sender.
func (w *inbound) alive(c *child, pkt *transport.ESPPacket, newest bool) {
	c.lastIn.Store(w.stamp)
	path := c.host.path.Load()
	here := sameSource(path, pkt)
	if here && sameDestination(path, pkt) && c.host.waiting.Load() != 0 {
		c.host.waiting.Store(0)
	}
	if !c.seen.Load() && c.seen.CompareAndSwap(false, true) {
		w.d.cfg.Events(esp.Event{Kind: esp.FirstInbound, Host: c.host.id, Child: c.id, SPI: c.opener.SPI(), Observed: pkt.Pair})
	}
	if newest && !here && c.host.mayReport(w.stamp) {
		w.d.cfg.Events(esp.Event{Kind: esp.SourceChanged, Host: c.host.id, Child: c.id, SPI: c.opener.SPI(), Observed: pkt.Pair})
	}
}

// mayReport limits the rate of SourceChanged events.
func (h *host) mayReport(stamp int64) bool {
	last := h.reported.Load()
	if last != 0 && stamp-last < int64(sourceReportInterval) {
		return false
	}
	return h.reported.CompareAndSwap(last, stamp)
}

func (w *inbound) unknown(spi uint32, pkt *transport.ESPPacket) {
	w.d.counters.inUnknownSPI.Add(1)
	if w.d.unknownSPI.Allow(w.d.instant(w.stamp)) {
		w.d.cfg.Events(esp.Event{Kind: esp.UnknownSPI, SPI: spi, Observed: pkt.Pair})
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
