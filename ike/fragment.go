package ike

import (
	"fmt"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
)

// Limits of fragmented messages (RFC 7383 §2.6): a peer with keys could otherwise
// make us keep 65535 fragments.
const (
	maxFragments       = 64
	maxAssembled       = 64 << 10
	assemblyTimeout    = 15 * time.Second // RFC 7383 §2.6 leaves it open
	ipv4HeaderLen      = 20
	ipv6HeaderLen      = 40
	udpHeaderLen       = 8
	nonESPMarkerLen    = 4
	minFragmentContent = 64
)

// fragmentationTask announces IKE fragmentation in IKE_SA_INIT (RFC 7383 §2.3).
type fragmentationTask struct{ offered bool }

func (t *fragmentationTask) Request(x *Exchange) error {
	if x.Type == message.IKESAInit && x.Session.policy.Fragmentation {
		x.Add(&message.Notify{Kind: message.FragmentationSupported})
	}
	return nil
}

func (t *fragmentationTask) HandleRequest(x *Exchange) error {
	if x.Type == message.IKESAInit {
		t.offered = x.Notify(message.FragmentationSupported) != nil && x.Session.policy.Fragmentation
		x.Session.sa.fragmentation = t.offered
	}
	return nil
}

func (t *fragmentationTask) Respond(x *Exchange) error {
	if x.Type == message.IKESAInit && t.offered {
		x.Add(&message.Notify{Kind: message.FragmentationSupported})
	}
	return nil
}

func (t *fragmentationTask) HandleResponse(x *Exchange) error {
	if x.Type == message.IKESAInit {
		x.Session.sa.fragmentation = x.Session.policy.Fragmentation && x.Notify(message.FragmentationSupported) != nil
	}
	return nil
}

// datagramRoom is how long an IKE message may be to fit the policy's IP datagram.
func (sa *ikeSA) datagramRoom() int {
	size := sa.session.policy.FragmentSize
	if size == 0 {
		size = DefaultFragmentSize
	}
	ip := ipv4HeaderLen
	if sa.session.path.Pair.Remote.Addr().Unmap().Is6() {
		ip = ipv6HeaderLen
	}
	return size - ip - udpHeaderLen - nonESPMarkerLen
}

// contentFor is the longest content whose sealed form fits into room octets.
func (sa *ikeSA) contentFor(room int, fragment bool) int {
	out, _ := sa.protectors()
	n := room - sealedLen(0, fragment)
	for n > minFragmentContent && sealedLen(out.SealedLen(n), fragment) > room {
		n--
	}
	return n
}

// sealFragments cuts the inner payloads and seals each piece (RFC 7383 §2.5). There
// are at least as many pieces as asked for; all but the first are shorter then.
func (sa *ikeSA) sealFragments(h message.Header, first message.PayloadType, inner []byte, room, atLeast int) ([][]byte, error) {
	piece := sa.contentFor(room, true)
	total := max((len(inner)+piece-1)/piece, atLeast)
	if total > maxFragments {
		return nil, fmt.Errorf("message of %d octets needs %d fragments, at most %d are sent", len(inner), total, maxFragments)
	}
	packets := make([][]byte, 0, total)
	for n := 1; n <= total; n++ {
		part := inner[:min(piece, len(inner))]
		inner = inner[len(part):]
		if left := total - n; left > 0 {
			piece = min(piece, (len(inner)+left-1)/left)
		}
		e := &message.Encrypted{Fragment: uint16(n), Total: uint16(total)}
		if n == 1 {
			e.Inner = first
		}
		p, err := sa.sealOne(h, e, part)
		if err != nil {
			return nil, err
		}
		packets = append(packets, p)
	}
	return packets, nil
}

// assembly collects the fragments of one message (RFC 7383 §2.6).
type assembly struct {
	id       uint32
	response bool
	parts    [][]byte
	have     int
	size     int
	first    message.PayloadType
	since    time.Time
}

// wants says whether a fragment is worth decrypting.
func (a *assembly) wants(now time.Time, m *message.Message, e *message.Encrypted) bool {
	if e.Fragment == 0 || e.Fragment > e.Total || e.Total > maxFragments {
		return false
	}
	if !a.same(now, m) {
		return true
	}
	total := int(e.Total)
	switch {
	case total < len(a.parts):
		return false // of an earlier, coarser attempt
	case total > len(a.parts):
		return true // the peer cuts finer now: start again
	}
	return a.parts[e.Fragment-1] == nil
}

func (a *assembly) same(now time.Time, m *message.Message) bool {
	return a.parts != nil && a.id == m.MessageID && a.response == m.Response() && now.Sub(a.since) < assemblyTimeout
}

// add keeps one verified fragment and returns the whole when it was the last.
func (a *assembly) add(now time.Time, m *message.Message, e *message.Encrypted, inner []byte) ([]byte, message.PayloadType, bool, error) {
	if !a.same(now, m) || int(e.Total) != len(a.parts) {
		*a = assembly{id: m.MessageID, response: m.Response(), parts: make([][]byte, e.Total), since: now}
	}
	if inner == nil {
		inner = []byte{}
	}
	a.parts[e.Fragment-1] = inner
	a.have++
	a.size += len(inner)
	if e.Fragment == 1 {
		a.first = e.Inner
	}
	if a.size > maxAssembled {
		*a = assembly{}
		return nil, 0, false, fmt.Errorf("fragmented message larger than %d octets", maxAssembled)
	}
	if a.have < len(a.parts) {
		return nil, 0, false, nil
	}
	whole := make([]byte, 0, a.size)
	for _, p := range a.parts {
		whole = append(whole, p...)
		clear(p)
	}
	first := a.first
	*a = assembly{}
	return whole, first, true, nil
}
