package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// oddities sends, in the name of one peer of an established IKE SA, everything that is
// known to have broken other implementations. None of it may have any effect.
func oddities(_ context.Context, args []string) error {
	if err := atLeast(5, args); err != nil {
		return err
	}
	src, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return err
	}
	dst, err := netip.ParseAddr(args[1])
	if err != nil {
		return err
	}
	var spis [3]uint64 // IKE initiator, IKE responder, ESP
	for n, text := range args[2:5] {
		if spis[n], err = strconv.ParseUint(text, 16, 64); err != nil {
			return err
		}
	}
	i, err := newInjector()
	if err != nil {
		return err
	}
	o := &oddity{injector: i, r: generator(), src: src, dst: dst, spii: message.SPI(spis[0]), spir: message.SPI(spis[1])}
	o.shortESP(uint32(spis[2]))
	if err := o.unprotected(); err != nil {
		return err
	}
	if err := o.strayInits(); err != nil {
		return err
	}
	fmt.Printf("packets=%d\n", o.sent)
	return o.err
}

type oddity struct {
	*injector
	r          *rand.Rand
	src        netip.AddrPort
	dst        netip.Addr
	spii, spir message.SPI
	sent       int
	err        error // the first
}

// datagram sends a UDP payload to a port, from the peer's own port.
func (o *oddity) datagram(port uint16, payload []byte) {
	o.packet(udp(o.src, netip.AddrPortFrom(o.dst, port), payload))
}

func (o *oddity) packet(p []byte) {
	if err := o.send(p); err != nil && o.err == nil {
		o.err = err
	}
	o.sent++
	pace(o.sent * 8)
}

// longestShort is the largest size of a datagram that cannot hold a whole ESP packet of
// every algorithm.
const longestShort = 59

// shortESP sends ESP of 1 to 59 octets for an SPI that lives, with fresh sequence
// numbers: within the window, at its edge, and far ahead of it.
func (o *oddity) shortESP(spi uint32) {
	for _, first := range []uint32{0, 1000, 1 << 20, 1<<32 - 100} {
		for size := 1; size <= longestShort; size++ {
			p := make([]byte, max(size, 8))
			for n := range p {
				p[n] = byte(o.r.Uint32())
			}
			binary.BigEndian.PutUint32(p, spi)
			binary.BigEndian.PutUint32(p[4:], first+uint32(size))
			o.datagram(nattPort, p[:size])
			o.packet(ip(o.src.Addr(), o.dst, unix.IPPROTO_ESP, append([]byte(nil), p[:size]...)))
		}
	}
}

// unprotected sends requests and responses of every exchange for the IKE SA without
// an Encrypted payload, and with one that nobody has sealed.
func (o *oddity) unprotected() error {
	bodies := [][]message.Payload{
		nil,
		{&message.Delete{Protocol: message.ProtoIKE}},
		{&message.Notify{Kind: message.AuthenticationFailed}},
		{&message.Notify{Kind: message.InvalidIKESPI}},
		{&message.Notify{Kind: message.InvalidSyntax}},
		{&message.Nonce{Data: make([]byte, 32)}},
	}
	exchanges := []message.ExchangeType{message.IKESAInit, message.IKEAuth, message.CreateChildSA, message.Informational}
	for _, exchange := range exchanges {
		for _, flags := range []message.Flags{0, message.FlagInitiator, message.FlagResponse, message.FlagInitiator | message.FlagResponse} {
			if exchange == message.IKESAInit && flags&message.FlagResponse == 0 {
				continue // that would be the honest beginning of another IKE SA
			}
			for id := range uint32(4) {
				for _, body := range bodies {
					if err := o.message(exchange, flags, id, body); err != nil {
						return err
					}
				}
				o.forged(exchange, flags, id)
			}
		}
	}
	return nil
}

func (o *oddity) message(exchange message.ExchangeType, flags message.Flags, id uint32, body []message.Payload) error {
	m := message.Message{
		Header:   message.Header{SPIi: o.spii, SPIr: o.spir, Major: 2, Exchange: exchange, Flags: flags, MessageID: id},
		Payloads: body,
	}
	b, err := m.Append(nil)
	if err != nil {
		return err
	}
	o.onBothPorts(b)
	return nil
}

// forged sends an Encrypted payload (RFC 7296 §3.14) full of noise.
func (o *oddity) forged(exchange message.ExchangeType, flags message.Flags, id uint32) {
	const size = 100
	b := make([]byte, message.HeaderLen, message.HeaderLen+size)
	binary.BigEndian.PutUint64(b, uint64(o.spii))
	binary.BigEndian.PutUint64(b[8:], uint64(o.spir))
	b[16], b[17], b[18], b[19] = byte(message.TypeSK), 0x20, byte(exchange), byte(flags)
	binary.BigEndian.PutUint32(b[20:], id)
	binary.BigEndian.PutUint32(b[24:], message.HeaderLen+size)
	payload := make([]byte, size)
	for n := range payload {
		payload[n] = byte(o.r.Uint32())
	}
	payload[0], payload[1] = 0, 0
	binary.BigEndian.PutUint16(payload[2:], size)
	o.onBothPorts(append(b, payload...))
}

func (o *oddity) onBothPorts(b []byte) {
	o.datagram(ikePort, b)
	o.datagram(nattPort, append(make([]byte, 4), b...))
}

// strayInits sends IKE_SA_INIT requests with other message IDs than 0 (RFC 7296 §2.2),
// and IKE with the non-ESP marker where there is none and without it where there is
// one (RFC 3948 §2.2).
func (o *oddity) strayInits() error {
	for _, id := range []uint32{1, 2, 1 << 31, 1<<32 - 1} {
		m, err := initRequest(o.r)
		if err != nil {
			return err
		}
		binary.BigEndian.PutUint32(m[20:], id)
		o.onBothPorts(m)
	}
	m, err := initRequest(o.r)
	if err != nil {
		return err
	}
	o.datagram(nattPort, m)
	o.datagram(ikePort, append(make([]byte, 4), m...))
	return nil
}
