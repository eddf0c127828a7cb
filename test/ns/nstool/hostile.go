package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// seed makes hostile datagrams the same in every run.
const seed = 4303

func generator() *rand.Rand { return rand.New(rand.NewPCG(seed, 7296)) }

// pace lets the receiver see most of what is sent, instead of the kernel dropping it.
func pace(n int) {
	if n%128 == 0 {
		time.Sleep(time.Millisecond)
	}
}

// blast sends datagrams of every hostile kind. The source is not to be answered: none
// of them can be the beginning of an honest exchange.
func blast(ctx context.Context, args []string) error {
	if err := atLeast(3, args); err != nil {
		return err
	}
	src, dst, count, err := pairAndCount(args)
	if err != nil {
		return err
	}
	spi := uint64(0)
	if len(args) > 3 {
		if spi, err = strconv.ParseUint(args[3], 16, 64); err != nil {
			return err
		}
	}
	i, err := newInjector()
	if err != nil {
		return err
	}
	g := &garbage{generator(), spi}
	n := 0
	for ; n < count && ctx.Err() == nil; n++ {
		port, payload := g.next()
		from := netip.AddrPortFrom(src, uint16(1024+g.IntN(60000)))
		if err := i.send(udp(from, netip.AddrPortFrom(dst, port), payload)); err != nil {
			return err
		}
		pace(n)
	}
	fmt.Printf("packets=%d\n", n)
	return nil
}

func pairAndCount(args []string) (src, dst netip.Addr, count int, err error) {
	if src, err = netip.ParseAddr(args[0]); err != nil {
		return src, dst, 0, err
	}
	if dst, err = netip.ParseAddr(args[1]); err != nil {
		return src, dst, 0, err
	}
	count, err = strconv.Atoi(args[2])
	return src, dst, count, err
}

// garbage makes datagrams that an honest peer never sends.
type garbage struct {
	*rand.Rand
	spi uint64 // a live ESP SPI, or zero
}

// next is one datagram and the port it is for.
func (g *garbage) next() (port uint16, payload []byte) {
	port = ikePort
	if g.IntN(2) == 0 {
		port = nattPort
	}
	switch g.IntN(6) {
	case 0: // noise of any size
		payload = g.octets(g.IntN(1400))
	case 1: // larger than the path
		payload = g.octets(1473 + g.IntN(6000))
	case 2: // an IKE header with nonsense behind it
		payload = append(g.header(), g.octets(g.IntN(600))...)
	case 3: // the length lies
		payload = append(g.header(), g.octets(g.IntN(200))...)
		binary.BigEndian.PutUint32(payload[24:], g.Uint32())
	case 4: // a request cut short, or with a flipped octet
		payload = g.damaged()
	case 5: // ESP for an SA that lives, or not
		payload = binary.BigEndian.AppendUint32(nil, g.espSPI())
		payload = append(payload, g.octets(g.IntN(300))...)
		return nattPort, payload
	}
	if port == nattPort && g.IntN(4) > 0 {
		payload = append(make([]byte, 4), payload...) // the non-ESP marker, RFC 3948 §2.2
	}
	return port, payload
}

func (g *garbage) octets(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

func (g *garbage) espSPI() uint32 {
	if g.spi != 0 && g.IntN(2) == 0 {
		return uint32(g.spi)
	}
	return g.Uint32() | 256
}

// header is an IKE header (RFC 7296 §3.1) that starts no exchange: IKE_SA_INIT is a
// response here, or has another message ID than 0.
func (g *garbage) header() []byte {
	h := g.octets(28)
	h[17] = 0x20
	h[18] = byte(34 + g.IntN(4))
	if h[18] == byte(message.IKESAInit) {
		h[19] |= byte(message.FlagResponse)
		h[20] |= 1
	}
	return h
}

// damaged is a well-formed IKE_SA_INIT request with something wrong.
func (g *garbage) damaged() []byte {
	m, err := initRequest(g.Rand)
	if err != nil {
		panic(err) // of our own making
	}
	if g.IntN(2) == 0 {
		return m[:g.IntN(len(m)-1)]
	}
	m[20+g.IntN(4)] ^= 0xff // message ID
	return m
}

// initRequest is an IKE_SA_INIT request with our own default proposals.
func initRequest(r *rand.Rand) ([]byte, error) {
	// A point of curve25519 may be any 32 octets.
	ke, nonce := make([]byte, 32), make([]byte, 32)
	for i := range ke {
		ke[i], nonce[i] = byte(r.Uint32()), byte(r.Uint32())
	}
	m := message.Message{
		Header: message.Header{SPIi: message.SPI(r.Uint64()), Major: 2, Exchange: message.IKESAInit, Flags: message.FlagInitiator},
		Payloads: []message.Payload{
			message.OfferIKE(suite.DefaultIKEProposals(), nil),
			&message.KE{Method: suite.KECurve25519, Data: ke},
			&message.Nonce{Data: nonce},
		},
	}
	return m.Append(nil)
}

// flood sends IKE_SA_INIT requests from as many addresses as a network has, one after
// the other.
func flood(ctx context.Context, args []string) error {
	if err := atLeast(3, args); err != nil {
		return err
	}
	dst, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	network, err := netip.ParsePrefix(args[2])
	if err != nil {
		return err
	}
	i, err := newInjector()
	if err != nil {
		return err
	}
	r := generator()
	src := network.Masked().Addr()
	n := 0
	for ; n < count && ctx.Err() == nil; n++ {
		if src = src.Next(); !network.Contains(src) {
			src = network.Masked().Addr().Next()
		}
		m, err := initRequest(r)
		if err != nil {
			return err
		}
		from := netip.AddrPortFrom(src, ikePort)
		if err := i.send(udp(from, netip.AddrPortFrom(dst, ikePort), m)); err != nil {
			return err
		}
		pace(n * 8) // 16 in a millisecond at most
	}
	fmt.Printf("packets=%d\n", n)
	return nil
}
