package esp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
)

// Opener is an inbound SA: it checks, authenticates and decrypts packets. All
// methods may be called from several goroutines.
type Opener struct {
	spi       uint32
	esn       bool
	layout    Layout
	transform transform
	aead      aead // the transform, unless it is CBC
	limits    limits
	window    ReplayWindow

	packets, octets      atomic.Uint64
	replayed, authFailed atomic.Uint64
	malformed            atomic.Uint64
}

// Opened is an authenticated packet.
type Opened struct {
	Payload    []byte
	NextHeader uint8
	Seq        uint64
	Newest     bool  // no higher sequence number was seen before
	Crossed    Limit // limits of the SA this packet has crossed
}

// OpenerStats counts the packets of an inbound SA.
type OpenerStats struct {
	Packets, Octets      uint64 // authenticated, payload octets
	Replayed, AuthFailed uint64
	Malformed            uint64 // too short, or authentic with a bad trailer
}

// NewOpener prepares an inbound SA with a replay window of so many packets, zero
// for DefaultReplayWindow. It keeps no reference to sa's keys.
func NewOpener(sa *SA, life Lifetime, window int) (*Opener, error) {
	o := new(Opener)
	if err := o.Init(sa, life, window); err != nil {
		return nil, err
	}
	return o, nil
}

// Init is NewOpener for an Opener within a larger struct. It must not be copied
// afterwards.
func (o *Opener) Init(sa *SA, life Lifetime, window int) error {
	if sa.SPI < minSPI {
		return fmt.Errorf("inbound spi %#x is in the reserved range (RFC 4303 §2.1)", sa.SPI)
	}
	if err := o.window.init(window); err != nil {
		return fmt.Errorf("inbound sa %#x: %w", sa.SPI, err)
	}
	t, layout, err := newTransform(sa, &o.aead, nil)
	if err != nil {
		return fmt.Errorf("inbound sa %#x: %w", sa.SPI, err)
	}
	o.spi, o.esn, o.layout, o.transform = sa.SPI, sa.ESN, layout, t
	o.limits.init(life)
	return nil
}

// SPI is our name for the SA.
func (o *Opener) SPI() uint32 { return o.spi }

// Layout says how long the parts of a packet are.
func (o *Opener) Layout() Layout { return o.layout }

// Open opens one packet, SPI to ICV. With a nil dst it decrypts in place;
// otherwise into dst, which must not overlap pkt and needs room for the packet's
// ciphertext. The order is that of RFC 4303 §3.4: window, ICV, window again,
// trailer. Nothing of an unauthenticated packet changes the state of the SA.
func (o *Opener) Open(scratch *Scratch, dst, pkt []byte) (Opened, error) {
	ciphertext := len(pkt) - o.layout.Headroom() - o.layout.ICVLen
	if ciphertext < o.layout.minCiphertext() {
		o.malformed.Add(1)
		return Opened{}, ErrTruncated
	}
	if dst == nil {
		dst = pkt[o.layout.Headroom():]
	} else if cap(dst) < ciphertext {
		return Opened{}, ErrBufferTooSmall
	}
	seq, ok := o.fullSeq(binary.BigEndian.Uint32(pkt[4:]))
	if !ok || !o.window.Check(seq) {
		o.replayed.Add(1)
		return Opened{}, ErrReplayed
	}
	text, err := o.transform.open(scratch, dst, pkt, seq)
	if err != nil {
		o.countFailure(err)
		return Opened{}, err
	}
	// Another goroutine may have accepted the same packet meanwhile.
	newest, ok := o.window.Accept(seq)
	if !ok {
		o.replayed.Add(1)
		return Opened{}, ErrReplayed
	}
	return o.finish(text, seq, newest)
}

// finish accounts for an authentic packet and takes its trailer off.
func (o *Opener) finish(text []byte, seq uint64, newest bool) (Opened, error) {
	opened := Opened{Seq: seq, Newest: newest}
	payload, nextHeader, err := splitTrailer(text)
	if err != nil {
		o.malformed.Add(1)
		return opened, err
	}
	opened.Payload, opened.NextHeader = payload, nextHeader
	octets := o.octets.Add(uint64(len(payload)))
	packets := o.packets.Add(1)
	if packets > o.limits.hardPackets || octets > o.limits.hardBytes {
		opened.Payload, opened.Crossed = nil, o.limits.exhausted()
		return opened, ErrLifetime
	}
	opened.Crossed = o.limits.used(packets, octets)
	if nextHeader == NextHeaderDummy {
		opened.Payload = nil
		return opened, ErrDummy
	}
	return opened, nil
}

func (o *Opener) fullSeq(low uint32) (uint64, bool) {
	if !o.esn {
		return uint64(low), true
	}
	return o.window.Infer(low)
}

func (o *Opener) countFailure(err error) {
	switch {
	case errors.Is(err, ErrAuthentication):
		o.authFailed.Add(1)
	case errors.Is(err, ErrTruncated):
		o.malformed.Add(1)
	}
}

// splitTrailer takes padding, Pad Length and Next Header off. The pad octets are
// inspected as RFC 4303 §2.4 recommends.
func splitTrailer(text []byte) (payload []byte, nextHeader uint8, err error) {
	body := len(text) - trailerLen
	if body < 0 {
		return nil, 0, ErrPadding
	}
	pad := int(text[body])
	if pad > body {
		return nil, 0, ErrPadding
	}
	for i, b := range text[body-pad : body] {
		if b != byte(i+1) {
			return nil, 0, ErrPadding
		}
	}
	return text[:body-pad], text[body+1], nil
}

// Top is the highest sequence number accepted so far.
func (o *Opener) Top() uint64 { return o.window.Top() }

// Stats returns the counters.
func (o *Opener) Stats() OpenerStats {
	return OpenerStats{
		Packets: o.packets.Load(), Octets: o.octets.Load(),
		Replayed: o.replayed.Load(), AuthFailed: o.authFailed.Load(), Malformed: o.malformed.Load(),
	}
}

// Close forgets the keys; opening fails from then on. A packet that is just being
// opened may still be finished.
func (o *Opener) Close() { o.transform.close() }
