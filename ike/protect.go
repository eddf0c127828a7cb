package ike

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// seal makes the datagrams of a protected message: one with an SK payload, or
// several with SKF payloads when fragmentation was negotiated and one would be too
// large (RFC 7383 §2.5).
func (sa *ikeSA) seal(h message.Header, payloads []message.Payload) ([][]byte, error) {
	first, inner, err := message.AppendPayloads(nil, payloads)
	if err != nil {
		return nil, err
	}
	defer clear(inner)
	room := sa.datagramRoom()
	out, _ := sa.protectors()
	if !sa.fragmentation || sealedLen(out.SealedLen(len(inner)), false) <= room {
		p, err := sa.sealOne(h, &message.Encrypted{Inner: first}, inner)
		return [][]byte{p}, err
	}
	return sa.sealFragments(h, first, inner, room, 1)
}

func sealedLen(sealed int, fragment bool) int {
	n := message.HeaderLen + 4 + sealed
	if fragment {
		n += 4
	}
	return n
}

// sealOne makes one datagram with an SK or SKF payload.
func (sa *ikeSA) sealOne(h message.Header, e *message.Encrypted, inner []byte) ([]byte, error) {
	out, _ := sa.protectors()
	m := message.Message{Header: h}
	b, err := m.AppendEncryptedHeader(nil, e, out.SealedLen(len(inner)))
	if err != nil {
		return nil, err
	}
	return out.Seal(b, b, inner, sa.session.engine.cfg.Rand)
}

// open verifies and decrypts a received message. Of a fragmented one it keeps the
// parts until all are there; whole tells whether inner is complete.
func (sa *ikeSA) open(now time.Time, m *message.Message, e *message.Encrypted, data []byte) (inner []byte, first message.PayloadType, whole bool, err error) {
	if e.Total > 0 && !sa.assembly.wants(now, m, e) {
		return nil, 0, false, nil
	}
	_, in := sa.protectors()
	inner, err = in.Open(data[:e.Offset], e.Sealed)
	if err != nil {
		return nil, 0, false, err
	}
	if e.Total == 0 {
		return inner, e.Inner, true, nil
	}
	if !sa.fragmentation {
		return nil, 0, false, errors.New("fragment without fragmentation agreed")
	}
	return sa.assembly.add(now, m, e, inner)
}

// appendSPIs appends 4-octet SPIs.
func appendSPI(b []byte, spi uint32) []byte { return binary.BigEndian.AppendUint32(b, spi) }
