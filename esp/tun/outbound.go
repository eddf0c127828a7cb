package tun

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.zx2c4.com/wireguard/tun"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

const (
	// maxPacket is the largest IP packet.
	maxPacket = 65535
	// maxReadFailures in a row mean that the device will not recover.
	maxReadFailures = 100
	// deviceOffset is the room the device library needs in front of a packet for
	// its virtio header, rounded up for alignment.
	deviceOffset = 16
	// outOffset is where an outbound packet starts in its buffer, so that it can be
	// sealed where it is.
	outOffset = max(esp.MaxHeadroom, deviceOffset)
)

// outbound carries packets from the TUN device to the network. It belongs to the
// goroutine that reads the device.
type outbound struct {
	d       *DataPath
	bufs    [][]byte
	sizes   []int
	scratch esp.Scratch

	run    []runPacket // packets for one Child SA that are not sealed yet
	runOf  *child
	octets int

	pkts    [][]byte // sealed packets
	trains  []train  // which of them go where
	events  []esp.Event
	replies tooBigReplies

	last           esp.Inner // the packet before, and what was found for it
	lastChild      *child
	lastGeneration uint64
}

// runPacket is a packet on its way to be sealed: a buffer, the length and the kind
// of its payload.
type runPacket struct {
	buf        []byte
	n          int
	nextHeader uint8
}

// train is a sequence of sealed packets for one host.
type train struct {
	host  *host
	child *child
	n     int
}

func newOutbound(d *DataPath) *outbound {
	n := max(d.dev.BatchSize(), 1)
	o := &outbound{
		d: d, bufs: make([][]byte, n), sizes: make([]int, n),
		run: make([]runPacket, 0, n), pkts: make([][]byte, 0, n), trains: make([]train, 0, n),
	}
	// One block, of which only the pages that packets reach become memory.
	const size = outOffset + maxPacket + esp.MaxTailroom
	block := make([]byte, n*size)
	for i := range o.bufs {
		o.bufs[i] = block[i*size : (i+1)*size : (i+1)*size]
	}
	return o
}

// readDevice reads the TUN device until it is closed or fails for good. A single
// failure may be about one packet, which the device library could not take apart.
func (d *DataPath) readDevice() {
	defer close(d.readerDone)
	o := newOutbound(d)
	for failures := 0; ; {
		n, err := d.dev.Read(o.bufs, o.sizes, outOffset)
		if n > 0 {
			o.process(n, d.cfg.Now())
		}
		switch {
		case err == nil, errors.Is(err, tun.ErrTooManySegments):
			failures = 0
			continue
		case d.isClosing():
			return
		case errors.Is(err, os.ErrClosed):
			err = errors.New("it was removed by someone else")
		default:
			if failures++; failures < maxReadFailures {
				d.counters.outMalformed.Add(1)
				continue
			}
		}
		d.readerErr = fmt.Errorf("read from the TUN device: %w", err)
		d.log.Error("the tunnel carries nothing any more", "error", d.readerErr)
		return
	}
}

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

// process carries the packets of one read.
func (o *outbound) process(n int, now time.Time) {
	o.d.sealing.RLock()
	for i := range n {
		o.packet(o.bufs[i], o.sizes[i], now)
	}
	o.sealRun()
	o.d.sealing.RUnlock()

	o.send(o.d.stamp(now))
	for _, e := range o.events {
		o.d.cfg.Events(e)
	}
	o.events = o.events[:0]
	o.replies.write(o.d)
}

// packet chooses the Child SA for one packet and adds it to the run.
func (o *outbound) packet(buf []byte, size int, now time.Time) {
	pkt := buf[outOffset : outOffset+size]
	var in esp.Inner
	if in.Parse(pkt) != nil {
		o.d.counters.outMalformed.Add(1)
		return
	}
	c := o.choose(&in)
	if c == nil {
		o.d.counters.outNoChild.Add(1)
		return
	}
	path := c.host.path.Load()
	mtu := c.innerMTU(path, o.d.MTU())
	if in.Length > mtu && path.MTU != 0 && o.refuse(pkt, &in, mtu, now) {
		return
	}
	if clampMSS(pkt, &in, mtu) {
		o.d.counters.mssClamped.Add(1)
	}
	if c != o.runOf {
		o.sealRun()
		o.runOf = c
	}
	o.run = append(o.run, runPacket{buf, in.Length, in.NextHeader()})
	o.octets += in.Length
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
func (o *outbound) refuse(pkt []byte, in *esp.Inner, mtu int, now time.Time) bool {
	if !in.DontFragment || in.V6 && in.Length <= esp.MinIPv6MTU {
		return false
	}
	o.d.counters.outTooBig.Add(1)
	o.replies.add(o.d, pkt, in, mtu, now)
	return true
}

// sealRun seals the run as one train of sequence numbers.
func (o *outbound) sealRun() {
	if len(o.run) == 0 {
		return
	}
	c := o.runOf
	first, granted, crossed := c.sealer.Reserve(len(o.run), o.octets)
	if crossed != 0 {
		o.events = c.limitEvents(o.events, c.sealer.SPI(), crossed)
	}
	if granted < len(o.run) {
		o.d.counters.outExhausted.Add(uint64(len(o.run) - granted))
	}
	sealed := 0
	for i, r := range o.run[:granted] {
		pkt, err := c.sealer.Seal(&o.scratch, r.buf, outOffset, r.n, r.nextHeader, first+uint64(i))
		if err != nil {
			o.d.counters.outUnsent.Add(1)
			continue
		}
		o.pkts = append(o.pkts, pkt)
		sealed++
	}
	if sealed > 0 {
		o.trains = append(o.trains, train{c.host, c, sealed})
	}
	o.run, o.octets, o.runOf = o.run[:0], 0, nil
}

// send hands the trains over, each to where its host is at this moment.
func (o *outbound) send(stamp int64) {
	rest := o.pkts
	for _, t := range o.trains {
		pkts := rest[:t.n]
		rest = rest[t.n:]
		path := t.host.path.Load()
		o.d.waits(t.host, path, stamp)
		sender := o.d.sender.Load()
		if sender == nil {
			o.d.counters.outUnsent.Add(uint64(t.n))
			continue
		}
		if err := (*sender).SendESP(path.Pair, path.UDP, pkts); err != nil {
			o.d.counters.outUnsent.Add(uint64(t.n))
			o.d.warn("packets could not be sent", "host", t.host.id, "pair", path.Pair, "error", err)
			continue
		}
		t.child.lastOut.Store(stamp)
		t.host.lastOut.Store(stamp)
	}
	clear(o.trains) // keep no removed Child SA alive
	o.trains, o.pkts = o.trains[:0], o.pkts[:0]
}

// warn logs at a limited rate.
func (d *DataPath) warn(msg string, args ...any) {
	if d.warnings.Allow(d.cfg.Now()) {
		d.log.Warn(msg, append(args, "suppressed", d.warnings.Suppressed())...)
	}
}
