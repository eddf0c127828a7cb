package ike

import (
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/ratelimit"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// initialKey tells a retransmitted IKE_SA_INIT request from a new one
// (RFC 7296 §2.1): the initiator's SPI and address.
type initialKey struct {
	spii message.SPI
	from netip.AddrPort
}

// halfOpenAddress counts half-open SAs: an IPv4 address, or an IPv6 /64, since one
// host commands that many addresses.
type halfOpenAddress netip.Prefix

func halfOpenFrom(a netip.Addr) halfOpenAddress {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return halfOpenAddress(p)
}

func (e *Engine) countHalfOpen(sa *ikeSA) {
	e.initial[sa.init.key] = sa
	e.halfOpen[halfOpenFrom(sa.init.key.from.Addr())]++
	e.nHalf++
}

// forgetHalfOpen takes an IKE SA out of the half-open ones.
func (e *Engine) forgetHalfOpen(sa *ikeSA) {
	if sa.role != Responder || e.initial[sa.init.key] != sa {
		return
	}
	delete(e.initial, sa.init.key)
	a := halfOpenFrom(sa.init.key.from.Addr())
	if e.halfOpen[a]--; e.halfOpen[a] <= 0 {
		delete(e.halfOpen, a)
	}
	e.nHalf--
}

// admit says whether another half-open SA from an address may be made, and if not
// why.
func (e *Engine) admit(from netip.Addr) (reason.Code, bool) {
	r := e.responder
	switch {
	case e.nHalf >= r.HalfOpenLimit:
		return reason.HalfOpenLimit, false
	case e.halfOpen[halfOpenFrom(from)] >= r.HalfOpenPerAddress:
		return reason.HalfOpenLimit, false
	case r.SessionLimit > 0 && len(e.sessions) >= r.SessionLimit:
		return reason.SessionLimit, false
	}
	return "", true
}

// wantsCookie says whether requests must show that their source address is real.
func (e *Engine) wantsCookie() bool {
	t := e.responder.CookieThreshold
	return t > 0 && e.nHalf >= t
}

// Limits of what strangers can provoke: at once, and a second in the long run.
const (
	refusalBurst, refusalRate = 20, 5  // Refused actions
	versionBurst, versionRate = 2, 1   // answers to another major version
	tokenBurst, tokenRate     = 20, 20 // answers with a crash token
)

// limits are those of one engine.
type limits struct {
	refusals, versions, tokens *ratelimit.Bucket
}

func newLimits() limits {
	return limits{
		refusals: ratelimit.NewBucket(refusalRate, refusalBurst),
		versions: ratelimit.NewBucket(versionRate, versionBurst),
		tokens:   ratelimit.NewBucket(tokenRate, tokenBurst),
	}
}

// refuse reports a request that was turned away, at a limited rate.
func (e *Engine) refuse(now time.Time, r Refused) {
	if e.limits.refusals.Allow(now) {
		e.act(r)
	}
}

// wrongVersion answers a request of a later major version (RFC 7296 §2.5), at a
// low rate, since its source is not proved.
func (e *Engine) wrongVersion(now time.Time, pair locator.Pair, h message.Header, v *message.VersionError) {
	e.refuse(now, Refused{Pair: pair, Reason: reason.UnsupportedVersion, Notify: message.InvalidMajorVersion, Detail: v.Error()})
	if v.Major < 2 || h.Response() || e.responder == nil || !e.limits.versions.Allow(now) {
		return
	}
	e.answerStateless(pair, h, &message.Notify{Kind: message.InvalidMajorVersion})
}

// answerStateless sends an unprotected response, without keeping anything.
func (e *Engine) answerStateless(pair locator.Pair, h message.Header, ps ...message.Payload) {
	m := message.Message{Header: message.Header{
		SPIi: h.SPIi, SPIr: h.SPIr, Major: 2, Exchange: h.Exchange,
		Flags: message.FlagResponse, MessageID: h.MessageID,
	}, Payloads: ps}
	b, err := m.Append(nil)
	if err != nil {
		e.log.Error("cannot build a stateless answer", "error", err)
		return
	}
	e.act(Send{Pair: pair, Data: b})
}
