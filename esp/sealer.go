package esp

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"sync/atomic"
)

// Sealer is an outbound SA: it hands out sequence numbers and seals packets in
// place. All methods may be called from several goroutines.
type Sealer struct {
	spi       uint32
	layout    Layout
	transform transform
	aead      aead // the transform, unless it is CBC
	limits    limits
	lastSeq   uint64 // the largest sequence number that may be used

	seq    atomic.Uint64 // the last sequence number handed out
	octets atomic.Uint64 // payload octets they were taken for
}

// NewSealer prepares an outbound SA. It keeps no reference to sa's keys. Rand is
// read once, for CBC only.
func NewSealer(sa *SA, life Lifetime, rand io.Reader) (*Sealer, error) {
	s := new(Sealer)
	if err := s.Init(sa, life, rand); err != nil {
		return nil, err
	}
	return s, nil
}

// Init is NewSealer for a Sealer within a larger struct. It must not be copied
// afterwards.
func (s *Sealer) Init(sa *SA, life Lifetime, rand io.Reader) error {
	if sa.SPI < minSPI {
		return fmt.Errorf("outbound spi %#x is in the reserved range (RFC 4303 §2.1)", sa.SPI)
	}
	t, layout, err := newTransform(sa, &s.aead, rand)
	if err != nil {
		return fmt.Errorf("outbound sa %#x: %w", sa.SPI, err)
	}
	s.spi, s.layout, s.transform = sa.SPI, layout, t
	s.limits.init(life)
	last := uint64(math.MaxUint32)
	if sa.ESN {
		last = math.MaxUint64
	}
	// A quarter of the numbers is left for the time a rekey takes; when the last one
	// is used the SA is dead, since a number must never be used twice (RFC 4303 §3.3.3).
	s.lastSeq = min(last, s.limits.hardPackets)
	s.limits.softPackets = min(s.limits.softPackets, last/4*3)
	return nil
}

// SPI is the receiver's name for the SA.
func (s *Sealer) SPI() uint32 { return s.spi }

// Layout says how long the parts of a sealed packet are.
func (s *Sealer) Layout() Layout { return s.layout }

// Reserve takes sequence numbers for a train of packets with so many payload
// octets in all. The train may use first to first+granted-1; granted is smaller
// than packets when the SA reaches its end. Numbers are never handed out twice.
func (s *Sealer) Reserve(packets, octets int) (first uint64, granted int, crossed Limit) {
	if packets <= 0 || octets < 0 {
		return 0, 0, 0
	}
	total := s.octets.Add(uint64(octets))
	if total > s.limits.hardBytes {
		s.octets.Add(-uint64(octets))
		return 0, 0, s.limits.exhausted()
	}
	for {
		last := s.seq.Load()
		n := min(uint64(packets), s.lastSeq-last)
		if n == 0 {
			s.octets.Add(-uint64(octets))
			return 0, 0, s.limits.exhausted()
		}
		if !s.seq.CompareAndSwap(last, last+n) {
			continue
		}
		crossed = s.limits.used(last+n, total)
		if n < uint64(packets) {
			crossed |= s.limits.exhausted()
		}
		return last + 1, int(n), crossed
	}
}

// Seal seals the n payload octets that start at buf[off:], in place, and returns
// the ESP packet, SPI to ICV, as a part of buf. There must be Layout().Headroom()
// octets in front of the payload and room for padding, trailer and ICV behind it.
// Seq must come from Reserve and be used once.
func (s *Sealer) Seal(scratch *Scratch, buf []byte, off, n int, nextHeader uint8, seq uint64) ([]byte, error) {
	start := off - s.layout.Headroom()
	pad := s.layout.padLen(n)
	end := off + n + pad + trailerLen + s.layout.ICVLen
	if start < 0 || n < 0 || end > len(buf) {
		return nil, ErrBufferTooSmall
	}
	text := buf[off : end-s.layout.ICVLen]
	writeTrailer(text[n:], pad, nextHeader)
	return s.seal(scratch, buf[start:end:end], text, seq)
}

// SealTo is Seal from one buffer to another, which is how a packet gets to where it
// is sent from without being copied. The packet is written to the beginning of dst,
// which needs room for Layout().SealedLen(len(payload)) octets. Behind the payload
// there must be MaxTailroom octets of capacity, which are used and put back as they
// were.
func (s *Sealer) SealTo(scratch *Scratch, dst, payload []byte, nextHeader uint8, seq uint64) ([]byte, error) {
	n := len(payload)
	pad := s.layout.padLen(n)
	tail := pad + trailerLen
	end := s.layout.Headroom() + n + tail + s.layout.ICVLen
	if end > len(dst) || n+tail > cap(payload) {
		return nil, ErrBufferTooSmall
	}
	text := payload[:n+tail]
	kept := scratch.tail[:tail]
	copy(kept, text[n:])
	writeTrailer(text[n:], pad, nextHeader)
	pkt, err := s.seal(scratch, dst[:end:end], text, seq)
	copy(text[n:], kept)
	return pkt, err
}

func (s *Sealer) seal(scratch *Scratch, pkt, text []byte, seq uint64) ([]byte, error) {
	binary.BigEndian.PutUint32(pkt, s.spi)
	binary.BigEndian.PutUint32(pkt[4:], uint32(seq))
	if err := s.transform.seal(scratch, pkt, text, seq); err != nil {
		return nil, err
	}
	return pkt, nil
}

// writeTrailer writes padding 1, 2, 3, ..., Pad Length and Next Header
// (RFC 4303 §2.4).
func writeTrailer(b []byte, pad int, nextHeader uint8) {
	for i := range pad {
		b[i] = byte(i + 1)
	}
	b[pad] = byte(pad)
	b[pad+1] = nextHeader
}

// Used returns how many packets and payload octets the SA has taken sequence
// numbers for.
func (s *Sealer) Used() (packets, octets uint64) { return s.seq.Load(), s.octets.Load() }

// Close forgets the keys; sealing fails from then on. A packet that is just being
// sealed may still be finished.
func (s *Sealer) Close() { s.transform.close() }
