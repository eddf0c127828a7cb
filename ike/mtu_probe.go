package ike

import (
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// A probe of the path MTU is an INFORMATIONAL request filled up with a notify that
// nobody knows and everybody ignores (RFC 7296 §3.10.1). It is sent whole, with the
// don't fragment bit; if no answer comes, in fragments of IKE that become smaller and
// more with each size to be tried, as RFC 7383 §2.5.2 has it, and at last so small that
// they pass everywhere, without that bit. So one exchange tries out several sizes, and
// none gets stuck because its request was too large.
//
// An answer belongs to the transmission before it, or to an earlier one that took
// longer. The peer answers each, so counting answers tells how many arrived, and the
// large ones that did are found out although the round trip has become longer.

// probeAlarm as first octet of the padding says that the sender's traffic goes
// unanswered. A peer of the same kind then looks at its own direction at once.
const probeAlarm = 1

// mtuProbe is one such request.
type mtuProbe struct {
	record *mtuRecord
	sa     *ikeSA
	pair   locator.Pair
	sizes  []int // to be tried, in this order
	alarm  bool  // the peer is told that our traffic goes unanswered
	forms  []mtuForm

	tried    int  // sizes sent so far
	smalls   int  // how often the small form was sent
	cut      bool // something urgent came before all sizes were tried
	answers  int
	settleBy time.Time // until when answers are counted, zero while there was none
}

// mtuForm is the request cut for one size.
type mtuForm struct {
	size    int // asked for
	packet  int // the largest IP packet made: ciphers with blocks do not meet every size
	packets [][]byte
}

func (*mtuProbe) exchange() message.ExchangeType { return message.Informational }

func (p *mtuProbe) prepare(now time.Time, sa *ikeSA) {
	m := &sa.session.mtu
	if m.probe != p {
		sa.withdraw(now)
		return
	}
	p.sa = sa
	small, err := p.seal(sa)
	if err != nil {
		sa.session.engine.log.Warn("path MTU probe", "session", sa.session.id, "error", err)
		m.void(now)
		sa.withdraw(now)
		return
	}
	sa.launch(now, small)
}

// seal makes all forms of the request and returns the small one.
func (p *mtuProbe) seal(sa *ikeSA) ([][]byte, error) {
	s := sa.session
	h := sa.requestHeader(p.exchange())
	overhead := s.datagramOverhead(p.pair)
	const notifyHeader = 8 // RFC 7296 §3.10
	fill := sa.contentFor(p.sizes[0]-overhead, false) - notifyHeader
	padding := make([]byte, max(fill, 1))
	if p.alarm {
		padding[0] = probeAlarm
	}
	first, inner, err := message.AppendPayloads(nil, []message.Payload{&message.Notify{Kind: message.PathMTUPadding, Data: padding}})
	if err != nil {
		return nil, err
	}
	whole, err := sa.sealOne(h, &message.Encrypted{Inner: first}, inner)
	if err != nil {
		return nil, err
	}
	p.forms = []mtuForm{{p.sizes[0], overhead + len(whole), [][]byte{whole}}}
	for _, size := range p.sizes[1:] {
		last := p.forms[len(p.forms)-1]
		if size == last.size {
			continue
		}
		packets, err := sa.sealFragments(h, first, inner, size-overhead, len(last.packets)+1)
		if err != nil {
			return nil, err
		}
		p.forms = append(p.forms, mtuForm{size, overhead + len(packets[0]), packets})
	}
	more := len(p.forms[len(p.forms)-1].packets) + 1
	return sa.sealFragments(h, first, inner, p.record.search.Min()-overhead, more)
}

// left says whether there are sizes to be tried still.
func (p *mtuProbe) left() bool { return !p.cut && p.tried < len(p.sizes) }

// small notes that the small form is sent: nobody waits for the larger ones any more.
func (p *mtuProbe) small() {
	p.cut = p.cut || p.tried < len(p.sizes)
	p.smalls++
}

func (p *mtuProbe) form(size int) *mtuForm {
	for i := range p.forms {
		if p.forms[i].size == size {
			return &p.forms[i]
		}
	}
	return nil
}

// packet is the largest IP packet that was made for a size.
func (p *mtuProbe) packet(size int) int { return p.form(size).packet }

// proven is the size that the answers so far prove, zero for none. As many of the last
// transmissions, which are the smallest, have arrived as there were answers.
func (p *mtuProbe) proven() int {
	n := p.answers - p.smalls
	if n <= 0 {
		return 0
	}
	return p.sizes[max(p.tried-n, 0)]
}

func (p *mtuProbe) response(now time.Time, sa *ikeSA, x *Exchange) {
	s := sa.session
	if err := s.each(x, Task.HandleResponse); err != nil {
		s.Fail(now, err.Error())
		return
	}
	m := &s.mtu
	if m.probe != p {
		return
	}
	if keyOf(x.Pair) != p.record.key || p.cut {
		m.void(now)
		return
	}
	p.answers = 1
	p.settleBy = now.Add(p.record.wait())
	if p.proven() == p.sizes[0] {
		m.settle(now)
	}
}

func (p *mtuProbe) unanswered(now time.Time, sa *ikeSA) { sa.peerSilent(now) }

// probing is the probe in flight, nil if there is none.
func (sa *ikeSA) probing() *mtuProbe {
	p, _ := sa.current.(*mtuProbe)
	return p
}

// tryLarge sends the next size of a probe in flight; false if there is none.
func (sa *ikeSA) tryLarge(now time.Time) bool {
	p, s := sa.probing(), sa.session
	if p == nil || !p.left() || s.path.Pair != p.pair {
		return false
	}
	form := p.form(p.sizes[p.tried])
	p.tried++
	for _, pair := range sa.nextPairs(now) {
		for _, packet := range form.packets {
			s.Act(Send{Session: s.id, Pair: pair, Data: packet, DontFragment: true})
		}
	}
	sa.out.sent++
	sa.out.sentAt = now
	sa.out.nextAt = now.Add(p.record.wait())
	return true
}

// giveWay lets a request that waits behind a probe have its turn as soon as possible:
// the probe is repeated in its small form at once, and its answer ends it.
func (sa *ikeSA) giveWay(now time.Time) {
	if p := sa.probing(); p != nil && sa.out != nil && p.left() {
		p.cut = true
		sa.send(now)
	}
}

// datagramOverhead is what IP, UDP and the non-ESP marker add to an IKE message.
func (s *Session) datagramOverhead(pair locator.Pair) int {
	n := ipv4HeaderLen + udpHeaderLen
	if pair.Remote.Addr().Unmap().Is6() {
		n = ipv6HeaderLen + udpHeaderLen
	}
	if pair.Local.Port() == s.engine.cfg.NATTPort {
		n += nonESPMarkerLen
	}
	return n
}
