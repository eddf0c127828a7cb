package ike

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// natState is what NAT detection found (RFC 7296 §2.23), and what the sides have
// said about ESP in UDP.
//
// Not every path passes protocol 50, so we want ESP in UDP whether a NAT is there or
// not. Standard peers do that only if they see a NAT, so they are shown one: a random
// NAT_DETECTION_SOURCE_IP. Peers of our own kind are told openly, by UDP_ENCAPSULATION
// in IKE_SA_INIT, and then all hashes are true: both sides know where NATs are, which
// decides about keepalives and the choice of paths.
type natState struct {
	supported bool // the peer took part in NAT detection
	local     bool // our address is translated on the way
	peer      bool // the peer's address is, or a standard peer says so
	open      bool // both sides say openly what they want, and hashes are true
	wantUDP   bool // open: one of the two wants ESP in UDP everywhere
}

// natTask is NAT detection in IKE_SA_INIT (RFC 7296 §2.23).
type natTask struct{}

func (natTask) Request(x *Exchange) error {
	if x.Type == message.IKESAInit && !x.Session.policy.ProhibitNAT {
		x.addNATDetection()
		x.addEncapsulation(!x.Session.policy.NativeESP)
	}
	return nil
}

func (natTask) HandleRequest(x *Exchange) error {
	if x.Type == message.IKESAInit && !x.Session.policy.ProhibitNAT {
		x.readEncapsulation()
		x.detectNAT()
	}
	return nil
}

func (natTask) Respond(x *Exchange) error {
	if x.Type == message.IKESAInit && x.Session.nat.supported {
		x.addNATDetection()
		if nat := x.Session.nat; nat.open {
			x.addEncapsulation(nat.wantUDP)
		}
	}
	return nil
}

func (natTask) HandleResponse(x *Exchange) error {
	if x.Type == message.IKESAInit && !x.Session.policy.ProhibitNAT {
		x.readEncapsulation()
		x.detectNAT()
	}
	return nil
}

// addEncapsulation says openly whether we want ESP in UDP, and then what the true
// source hash is: the one for standard peers is made up.
func (x *Exchange) addEncapsulation(want bool) {
	s := x.Session
	n := &message.Notify{Kind: message.UDPEncapsulation}
	if want {
		n.Data = natHash(s.sa.spii, s.sa.spir, x.Pair.Local)
	}
	x.Add(n)
}

// readEncapsulation learns whether the peer is of our kind, and what it wants. Numbers
// of the private range may mean something else to others, so a response counts only
// if its hash is that of its NAT detection too.
func (x *Exchange) readEncapsulation() {
	s := x.Session
	n := x.Notify(message.UDPEncapsulation)
	if n == nil || len(n.Data) != 0 && len(n.Data) != sha1.Size {
		return
	}
	if s.role == Initiator && len(n.Data) != 0 {
		if d := x.Notify(message.NATDetectionSourceIP); d == nil || !bytes.Equal(d.Data, n.Data) {
			return
		}
	}
	s.nat.open = true
	s.nat.wantUDP = len(n.Data) != 0 || !s.policy.NativeESP
}

// addNATDetection adds both hashes. Unless native ESP is wanted, or the peer knows
// better, the source hash is random: the peer then sees a NAT and sends ESP in UDP.
func (x *Exchange) addNATDetection() {
	s := x.Session
	source := natHash(s.sa.spii, s.sa.spir, x.Pair.Local)
	if !s.policy.NativeESP && !s.nat.open {
		source = s.engine.random(sha1.Size)
	}
	x.Add(
		&message.Notify{Kind: message.NATDetectionSourceIP, Data: source},
		&message.Notify{Kind: message.NATDetectionDestinationIP, Data: natHash(s.sa.spii, s.sa.spir, x.Pair.Remote)},
	)
}

// detectNAT compares the peer's hashes with the addresses its message came on. The
// peer may send several source hashes, one of which has to fit.
func (x *Exchange) detectNAT() {
	s := x.Session
	spir := s.sa.spir
	if x.Type == message.IKESAInit && s.role == Responder {
		spir = 0 // the request was made before we chose ours
	}
	source := natHash(s.sa.spii, spir, x.Pair.Remote)
	destination := natHash(s.sa.spii, spir, x.Pair.Local)
	var sources, destinations int
	peer, local := true, true
	for _, p := range x.In {
		n, ok := p.(*message.Notify)
		if !ok {
			continue
		}
		switch n.Kind {
		case message.NATDetectionSourceIP:
			sources++
			peer = peer && !bytes.Equal(n.Data, source)
		case message.UDPEncapsulation:
			peer = peer && !bytes.Equal(n.Data, source)
		case message.NATDetectionDestinationIP:
			destinations++
			local = local && !bytes.Equal(n.Data, destination)
		}
	}
	s.nat.supported = sources > 0 && destinations > 0
	s.nat.local, s.nat.peer = s.nat.supported && local, s.nat.supported && peer
}

// natHash is SHA-1(SPIi | SPIr | address | port). SHA-1 is what the RFC fixes; it
// protects nothing here.
func natHash(spii, spir message.SPI, a netip.AddrPort) []byte {
	var b []byte
	b = binary.BigEndian.AppendUint64(b, uint64(spii))
	b = binary.BigEndian.AppendUint64(b, uint64(spir))
	b = append(b, a.Addr().Unmap().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, a.Port())
	sum := sha1.Sum(b)
	return sum[:]
}

// espPath is the session's path as the data path needs it: in UDP when a NAT is in
// the way or native ESP is not wanted, with keepalives when the NAT is ours to
// keep open. A peer that stays on the IKE port gets native ESP whatever else is known:
// there is no ESP in UDP on that port (RFC 7296 §2.23), where it could not be told from IKE.
func (s *Session) espPath() esp.Path { return s.pathFor(s.path.Pair) }

func (s *Session) pathFor(pair locator.Pair) esp.Path {
	p := esp.Path{Pair: pair, MTU: s.mtu.of(pair)}
	p.UDP = s.nat.supported && pair.Local.Port() == s.engine.cfg.NATTPort &&
		(s.nat.local || s.nat.peer || s.nat.wantUDP || !s.policy.NativeESP)
	p.UnansweredAfter = s.policy.UnansweredAfter
	if p.UDP && s.nat.local {
		p.Keepalive = s.keepalive() + keepaliveGrace
	}
	return p
}

// keepaliveGrace lets a liveness check that is due at the same time be the keepalive.
const keepaliveGrace = 500 * time.Millisecond

func (s *Session) keepalive() time.Duration {
	if s.policy.KeepaliveInterval != 0 {
		return s.policy.KeepaliveInterval
	}
	return DefaultKeepalive
}

// switchToNATT moves IKE to port 4500, where ESP in UDP goes too (RFC 7296 §2.23).
// Even without a NAT it is the better port: one may appear later.
func (s *Session) switchToNATT() {
	if !s.nat.supported {
		return
	}
	e := s.engine
	p := s.path
	p.Pair.Local = netip.AddrPortFrom(p.Pair.Local.Addr(), e.cfg.NATTPort)
	p.Pair.Remote = netip.AddrPortFrom(p.Pair.Remote.Addr(), e.cfg.RemoteNATTPort)
	s.path = p
	s.path = s.espPath()
}
