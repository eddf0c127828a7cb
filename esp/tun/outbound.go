package tun

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/esp/tun/vnet"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
)

const (
	// maxPacket is the largest IP packet.
	maxPacket = 65535
	// maxReadFailures in a row mean that the device will not recover.
	maxReadFailures = 100
	// sealedRoom is the memory for what is sealed and not sent yet: two trains as long
	// as the kernel takes them. What is in work then stays in the processor's cache.
	sealedRoom = 128 << 10
	// enough is how much is sealed before it is sent although more could be read.
	enough = 32 << 10
)

// outbound carries packets from one queue of the TUN device to the network: what the
// queue's own goroutine reads there, and answers that a goroutine has just caused by
// writing a packet to the queue (answer).
//
// A frame is read, cut into packets where it lies, and sealed packet by packet into
// the memory that the train is sent from: the cipher does the only copy.
type outbound struct {
	d     *DataPath
	queue Queue

	mu      sync.Mutex // held from the read to the send, which keeps the order
	frame   []byte     // a frame from the device, and room for the last packet's trailer
	super   vnet.Super
	inner   esp.Inner
	scratch esp.Scratch

	sealed  []byte // packets one behind the other
	used    int    // octets of sealed
	padded  []byte // a packet with TFC padding
	trains  []transport.Train
	runs    []run // what the trains are of
	events  []esp.Event
	replies tooBigReplies

	last           esp.Inner // the packet before, and what was found for it
	lastChild      *child
	lastGeneration uint64
}

// run is a sequence of trains of one Child SA.
type run struct {
	child   *child
	trains  int
	packets int
}

func newOutbound(d *DataPath, q Queue) *outbound {
	return &outbound{
		d:      d,
		queue:  q,
		frame:  make([]byte, vnet.HeaderLen+maxPacket+esp.MaxTailroom),
		sealed: make([]byte, sealedRoom),
	}
}

// readDevice reads a queue of the TUN device until it is closed or fails for good,
// which ends the data path. A single failure may be about one packet.
func (d *DataPath) readDevice(o *outbound) {
	err := o.run()
	d.readerEnds.Do(func() {
		if err != nil {
			d.readerErr = fmt.Errorf("read from the TUN device: %w", err)
			d.log.Error("the tunnel carries nothing any more", "error", d.readerErr)
		}
		close(d.readerDone)
	})
}

// run returns why the queue is not read any more, nil when the data path closes.
func (o *outbound) run() error {
	d := o.d
	for failures, waited := 0, false; ; {
		n, err := o.turn(waited)
		waited = n == 0 && err == nil
		switch {
		case waited:
			o.queue.Wait()
			continue
		case err == nil:
			failures = 0
			continue
		case d.isClosing():
			return nil
		case errors.Is(err, os.ErrClosed):
			return errors.New("it was removed by someone else")
		}
		if failures++; failures >= maxReadFailures {
			return err
		}
		d.counters.outMalformed.Add(1)
	}
}

// turn carries what can be read, and returns the length of its first frame, 0 when there
// was none.
func (o *outbound) turn(alone bool) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.read()
	if err == nil && n > 0 {
		o.batch(n, alone)
	}
	return n, err
}

// answer carries the frame that this machine may have answered with to a single packet
// that the caller has just written to the queue: it is there before the write returns, and
// the thread whose queue it is need not wake first. That one goes first when it is at work.
func (o *outbound) answer() {
	if !o.mu.TryLock() {
		return
	}
	defer o.mu.Unlock()
	if n, _ := o.read(); n > 0 { // an error shows again when the device is read next
		o.batch(n, true)
	}
}

func (o *outbound) read() (int, error) { return o.queue.Read(o.frame[:vnet.HeaderLen+maxPacket]) }

func (d *DataPath) isClosing() bool {
	select {
	case <-d.closing:
		return true
	default:
		return false
	}
}

// watchDevice follows changes of the device's MTU.
func (d *DataPath) watchDevice() {
	for {
		select {
		case <-d.closing:
			return
		case e, ok := <-d.dev.Events():
			if !ok {
				return
			}
			if e&tun.EventMTUUpdate == 0 {
				continue
			}
			if mtu, err := d.dev.MTU(); err == nil {
				d.mtu.Store(int64(mtu))
			}
		}
	}
}

// batch carries the frame that was read, and what else is there already until it is
// worth a system call to send it. Batches grow with the load, not with a timer: nothing
// is waited for, and a frame that comes after a pause goes at once, without a look for
// more.
func (o *outbound) batch(n int, alone bool) {
	now := o.d.cfg.Now()
	stamp := o.d.stamp(now)
	o.d.sealing.RLock()
	for n > 0 {
		o.add(o.frame[:n], now)
		if alone || o.used >= enough {
			break
		}
		n, _ = o.read() // an error shows again when the device is read next
	}
	o.d.sealing.RUnlock()
	o.send(stamp)
	for _, e := range o.events {
		o.d.cfg.Events(e)
	}
	o.events = o.events[:0]
	o.replies.write(o.d, o.queue)
}

// add chooses the Child SA for a frame and seals its packets.
func (o *outbound) add(frame []byte, now time.Time) {
	if o.super.Parse(frame) != nil || o.inner.Parse(o.super.First()) != nil {
		o.d.counters.outMalformed.Add(1)
		return
	}
	c := o.choose(&o.inner)
	if c == nil {
		o.d.counters.outNoChild.Add(1)
		return
	}
	path := c.host.path.Load()
	if path.Sparing && !c.host.mayProbe(o.d.stamp(now)) {
		o.d.counters.outAway.Add(uint64(o.super.Segments()))
		return
	}
	mtu := c.innerMTU(path, o.d.MTU())
	if o.super.SegmentLen() > mtu && path.MTU != 0 && o.refuse(mtu, now) {
		return
	}
	if o.super.Segments() == 1 && clampMSS(o.super.First(), &o.inner, mtu) {
		o.d.counters.mssClamped.Add(1)
	}
	padTo := 0
	if c.tfc {
		padTo = mtu
	}
	o.seal(c, padTo, o.d.stamp(now))
}

// choose finds the Child SA, for packets of the same flow only once.
func (o *outbound) choose(in *esp.Inner) *child {
	generation := o.d.spd.Generation()
	if generation == o.lastGeneration && o.lastChild != nil && in.SameFlow(&o.last) {
		return o.lastChild
	}
	o.last, o.lastGeneration = *in, generation
	o.lastChild, _ = o.d.spd.Lookup(in)
	return o.lastChild
}

// refuse drops a packet that is larger than the known MTU of the path and may not
// be fragmented, and prepares to tell its sender. IPv6 senders need not go below
// 1280 octets; what is smaller is sent, and its outer packet fragmented.
func (o *outbound) refuse(mtu int, now time.Time) bool {
	in, n := &o.inner, o.super.SegmentLen()
	if !in.DontFragment || in.V6 && n <= esp.MinIPv6MTU {
		return false
	}
	o.d.counters.outTooBig.Add(uint64(o.super.Segments()))
	o.replies.add(o.d, o.super.First(), in, mtu, now)
	return true
}

// seal seals the packets of the frame with one train of sequence numbers. Shorter ones
// than padTo are made as long as that.
func (o *outbound) seal(c *child, padTo int, stamp int64) {
	n, tos := o.super.Segments(), o.d.cfg.DSCP.Outer(o.inner.TOS)
	first, granted, crossed := c.sealer.Reserve(n, o.super.Octets())
	if crossed != 0 {
		o.events = c.limitEvents(o.events, c.sealer.SPI(), crossed)
	}
	if granted < n {
		o.d.counters.outExhausted.Add(uint64(n - granted))
	}
	for i := range granted {
		payload := o.super.Segment(i)
		if n == 1 {
			payload = payload[:o.inner.Length] // what follows is no part of the packet
		}
		if len(payload) < padTo {
			payload = o.pad(payload, padTo)
		}
		if len(o.sealed)-o.used < c.sealer.Layout().SealedLen(len(payload)) {
			o.d.sealing.RUnlock() // nobody should wait for the network
			o.send(stamp)
			o.d.sealing.RLock()
		}
		pkt, err := c.sealer.SealTo(&o.scratch, o.sealed[o.used:], payload, o.inner.NextHeader(), first+uint64(i))
		if err != nil {
			o.d.counters.outUnsent.Add(1)
			continue
		}
		o.line(c, len(pkt), tos)
	}
}

// pad copies a packet to where n octets have room, and fills up with zeros (RFC 4303
// §2.7): the packet's own header tells where it ends.
func (o *outbound) pad(pkt []byte, n int) []byte {
	if cap(o.padded) < n+esp.MaxTailroom {
		o.padded = make([]byte, maxPacket+esp.MaxTailroom)
	}
	out := o.padded[:n]
	clear(out[copy(out, pkt):])
	return out
}

// line puts the packet that was sealed last, n octets, at the end of the last train
// if it fits there, else into a new one. A train has one TOS.
func (o *outbound) line(c *child, n int, tos uint8) {
	start := o.used
	o.used += n
	if len(o.runs) == 0 || o.runs[len(o.runs)-1].child != c {
		o.runs = append(o.runs, run{child: c})
	}
	r := &o.runs[len(o.runs)-1]
	r.packets++
	if r.trains > 0 {
		t := &o.trains[len(o.trains)-1]
		if n <= t.Size && tos == t.TOS && len(t.Data)%t.Size == 0 {
			t.Data = t.Data[:len(t.Data)+n]
			return
		}
	}
	r.trains++
	o.trains = append(o.trains, transport.Train{Data: o.sealed[start:o.used], Size: n, TOS: tos})
}

// send hands the trains over, each to where its host is at this moment.
func (o *outbound) send(stamp int64) {
	rest := o.trains
	for _, r := range o.runs {
		trains := rest[:r.trains]
		rest = rest[r.trains:]
		h := r.child.host
		path := h.path.Load()
		o.d.waits(h, path, stamp)
		sender := o.d.sender.Load()
		if sender == nil {
			o.d.counters.outUnsent.Add(uint64(r.packets))
			continue
		}
		if err := (*sender).SendESP(path.Pair, path.UDP, trains); err != nil {
			o.d.counters.outUnsent.Add(uint64(r.packets))
			if noWay(err) {
				h.stranded.keep(trains, stamp)
			}
			o.d.warn("packets could not be sent", "host", h.id, "pair", path.Pair, "error", err)
			continue
		}
		r.child.lastOut.Store(stamp)
		h.lastOut.Store(stamp)
	}
	clear(o.runs) // keep no removed Child SA alive
	o.runs, o.trains, o.used = o.runs[:0], o.trains[:0], 0
}

// warn logs at a limited rate.
func (d *DataPath) warn(msg string, args ...any) {
	if d.warnings.Allow(d.cfg.Now()) {
		d.log.Warn(msg, append(args, "suppressed", d.warnings.Suppressed())...)
	}
}
