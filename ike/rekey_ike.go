package ike

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// Rekeying the IKE SA (RFC 7296 §1.3.2, §2.18): a new IKE SA inherits the session
// and its Child SAs; who asked for it deletes the old one. When both ask at once,
// the new SA whose exchange had the lowest of the four nonces is deleted by its
// creator (§2.8.2).

// retiredLife is how long a replaced IKE SA waits for the peer's Delete; longer while the
// peer may not have our answer to its rekey, since then it knows no other.
const retiredLife = 30 * time.Second

// maxRetired is how many replaced IKE SAs wait at most. A peer that goes on rekeying has
// to delete them.
const maxRetired = 4

// rekeyIKERequest is our rekey of the IKE SA.
type rekeyIKERequest struct {
	spi   message.SPI
	ni    []byte
	share keyShare
	offer *message.SA
	sent  bool
}

// rivalIKE is the new IKE SA that the peer's rekey made while ours is in flight.
type rivalIKE struct {
	sa     *ikeSA
	nonces nonces
}

func (s *Session) startRekeyIKE(now time.Time) {
	s.rekeyAt = time.Time{}
	if s.sa.rekeyingIKE() || s.sa.rival != nil {
		return
	}
	s.sa.enqueue(now, &rekeyIKERequest{share: keyShare{method: s.sa.alg.KE}})
}

// rekeyingIKE says whether our own rekey of the IKE SA is in flight.
func (sa *ikeSA) rekeyingIKE() bool {
	r, ok := sa.current.(*rekeyIKERequest)
	return ok && r.sent
}

func (r *rekeyIKERequest) exchange() message.ExchangeType { return message.CreateChildSA }

func (r *rekeyIKERequest) prepare(now time.Time, sa *ikeSA) {
	s := sa.session
	if sa != s.sa || s.state != Up {
		sa.withdraw(now)
		return
	}
	r.share.make(now, s, func(now time.Time) {
		if sa != s.sa || s.state != Up { // the peer's rekey was quicker
			sa.withdraw(now)
			return
		}
		if r.ni == nil {
			r.spi = s.engine.newSPI()
			r.ni = s.engine.random(nonceLen)
		}
		spi := binary.BigEndian.AppendUint64(nil, uint64(r.spi))
		r.offer = message.OfferIKE(s.policy.IKE, spi)
		r.sent = true
		sa.transmit(now, append([]message.Payload{
			r.offer,
			&message.Nonce{Data: r.ni},
		}, r.share.payload()...))
	})
}

func (r *rekeyIKERequest) unanswered(now time.Time, sa *ikeSA) { sa.peerSilent(now) }

func (r *rekeyIKERequest) response(now time.Time, sa *ikeSA, x *Exchange) {
	s := sa.session
	if n := message.FindErrorNotify(x.In); n != nil {
		r.refused(now, sa, n)
		return
	}
	answer, ok1 := message.Find[*message.SA](x.In)
	nr, ok2 := message.Find[*message.Nonce](x.In)
	if !ok1 || !ok2 {
		r.failed(now, sa, "answer without SA or Nonce")
		return
	}
	alg, err := message.CheckIKEChoice(r.offer.Proposals, answer)
	spi, ok := proposedSPI(answer, 0)
	if err != nil || !ok || alg.KE != r.share.method {
		r.failed(now, sa, "the peer's choice is none of ours")
		return
	}
	sa.current = r
	r.share.finish(now, s, x, alg.KE, func(now time.Time, secret []byte, err error) {
		if sa.state == saDead {
			// The peer has deleted the old IKE SA long ago, for its own new one: that
			// won, and the keys ours would need are gone.
			clear(secret)
			return
		}
		sa.current = nil
		if err != nil {
			r.failed(now, sa, err.Error())
			return
		}
		next := &ikeSA{session: s, role: Initiator, state: saUp, known: true, alg: alg,
			spii: r.spi, spir: spi}
		n := nonces{r.ni, nr.Data}
		if err := next.inherit(sa, secret, n); err != nil {
			r.failed(now, sa, err.Error())
			return
		}
		next.keepToken(x.In)
		next.announceToken(now)
		r.succeed(now, sa, next, n)
	})
}

// inherit derives the keys of a new IKE SA from the old one (RFC 7296 §2.18) and
// takes over what was negotiated.
func (next *ikeSA) inherit(old *ikeSA, secret []byte, n nonces) error {
	defer clear(secret)
	prf, err := suite.NewPRF(next.alg.PRF)
	if err != nil {
		return err
	}
	seed := old.keys.prf.Sum(old.keys.d, secret, n.i, n.r)
	next.keys, err = deriveKeys(next.alg, prf, seed, n.i, n.r, next.spii, next.spir)
	if err != nil {
		return err
	}
	next.fragmentation, next.peerHashes = old.fragmentation, old.peerHashes
	next.register()
	return nil
}

// succeed settles a collision, if there was one, and goes on with the survivor.
func (r *rekeyIKERequest) succeed(now time.Time, sa, next *ikeSA, n nonces) {
	s := sa.session
	rival := sa.rival
	sa.rival = nil
	switch {
	case sa != s.sa:
		// The peer deleted the old IKE SA before we had this answer: it knows that
		// its own new one won.
		s.retire(next)
		next.retireWithDelete(now)
	case rival == nil:
		s.adopt(now, next)
		sa.retireWithDelete(now)
	case n.lower(rival.nonces):
		// Ours had the lowest nonce: ours is redundant. The peer deletes the old one.
		s.adopt(now, rival.sa)
		s.retire(next)
		next.retireWithDelete(now)
		sa.awaitDelete(now)
	default:
		s.adopt(now, next)
		s.retire(rival.sa)
		rival.sa.awaitDelete(now)
		sa.retireWithDelete(now)
	}
}

// retireWithDelete deletes an IKE SA that is out of use.
func (sa *ikeSA) retireWithDelete(now time.Time) {
	sa.state = saDying
	sa.enqueue(now, &deleteIKE{})
}

// awaitDelete leaves the Delete to the peer.
func (sa *ikeSA) awaitDelete(now time.Time) {
	sa.state = saDying
	sa.heir = sa.session.sa
	sa.lingerBy = now.Add(retiredLife)
}

// outlived is called when the time of an IKE SA that is out of use is over.
func (sa *ikeSA) outlived(now time.Time) {
	if sa.heir != nil && sa.heir == sa.session.sa && !sa.heir.known {
		sa.lingerBy = now.Add(retiredLife)
		return
	}
	sa.session.dropRetired(now, sa)
}

// adopt makes another IKE SA the session's; the one before is retired. Requests
// that wait go over to the new one.
func (s *Session) adopt(now time.Time, next *ikeSA) {
	old := s.sa
	s.sa = next
	s.retire(old)
	s.rekeyAt = s.jittered(now, s.policy.RekeyIKE)
	next.queue = append(old.queue, next.queue...)
	old.queue = nil
	next.queue = slices.DeleteFunc(next.queue, func(r request) bool {
		_, rekey := r.(*rekeyIKERequest)
		return rekey
	})
	s.Act(Rekeyed{Session: s.id, IKE: true, OldSPIi: old.spii, OldSPIr: old.spir, NewSPIi: next.spii, NewSPIr: next.spir})
	next.pump(now)
}

func (r *rekeyIKERequest) refused(now time.Time, sa *ikeSA, n *message.Notify) {
	s := sa.session
	if sa.settleForRival(now) {
		return
	}
	switch {
	case n.Kind == message.InvalidKEPayload && r.share.retry(n, ikeOffers(s.policy.IKE)):
		r.sent = false
		sa.current = r
		r.prepare(now, sa)
	case n.Kind == message.TemporaryFailure:
		s.rekeyAt = now.Add(s.engine.pause(refusedPause, refusedPauseSpread))
	default:
		r.failed(now, sa, n.Kind.String())
	}
}

// settleForRival adopts the peer's new IKE SA when our own rekey came to nothing.
func (sa *ikeSA) settleForRival(now time.Time) bool {
	rival := sa.rival
	if rival == nil {
		return false
	}
	sa.rival = nil
	sa.session.adopt(now, rival.sa)
	sa.awaitDelete(now)
	return true
}

// failed tries again later.
func (r *rekeyIKERequest) failed(now time.Time, sa *ikeSA, why string) {
	s := sa.session
	r.share.zero()
	s.engine.log.Warn("rekeying the IKE SA failed", "session", s.id, "error", why)
	if !sa.settleForRival(now) && sa == s.sa {
		s.rekeyAt = now.Add(s.engine.pause(failedIKEPause, failedIKEPause))
		sa.pump(now)
	}
}

// serveRekeyIKE answers the peer's rekey of the IKE SA.
func (sa *ikeSA) serveRekeyIKE(now time.Time, rq *peerRequest, offer *message.SA, ni *message.Nonce) {
	s := sa.session
	if sa.rival != nil || sa.childExchangeUnderWay() || len(s.retired) >= maxRetired {
		rq.refuse(now, &message.Notify{Kind: message.TemporaryFailure}) // RFC 7296 §2.25.2
		return
	}
	number, alg, err := message.ChooseIKE(offer.Proposals, s.policy.IKE, sentMethod(rq.x)...)
	if err != nil {
		rq.refuse(now, &message.Notify{Kind: message.NoProposalChosen})
		return
	}
	spii, ok := proposedSPI(offer, number)
	ke, hasKE := message.Find[*message.KE](rq.x.In)
	if !ok {
		rq.refuse(now, &message.Notify{Kind: message.InvalidSyntax})
		return
	}
	if !hasKE || ke.Method != alg.KE {
		rq.refuse(now, message.NewInvalidKE(alg.KE))
		return
	}
	nr := s.engine.random(nonceLen)
	respondKE(s, ke, func(now time.Time, v secretOrError) {
		if n := sa.overtaken(nil); n != nil {
			// Our own rekey was settled meanwhile; the peer takes that one.
			clear(v.secret)
			rq.refuse(now, n)
			return
		}
		next := &ikeSA{session: s, role: Responder, state: saUp, alg: alg, spii: spii, spir: s.engine.newSPI()}
		if v.err == nil {
			v.err = next.inherit(sa, v.secret, nonces{ni.Data, nr})
		}
		if v.err != nil {
			rq.refuse(now, &message.Notify{Kind: message.InvalidSyntax})
			return
		}
		sa.finishServeRekeyIKE(now, rq, next, message.AnswerIKE(offer.Proposals, number, alg, binary.BigEndian.AppendUint64(nil, uint64(next.spir))), v.public, nonces{ni.Data, nr})
	})
}

func (sa *ikeSA) finishServeRekeyIKE(now time.Time, rq *peerRequest, next *ikeSA, answer *message.SA, public []byte, n nonces) {
	s := sa.session
	payloads := []message.Payload{answer, &message.Nonce{Data: n.r}, &message.KE{Method: next.alg.KE, Data: public}}
	if t := s.engine.crash.notify(next.spii, next.spir); t != nil {
		payloads = append(payloads, t)
	}
	rq.respond(now, payloads)
	if s.state != Up {
		next.drop()
		return
	}
	if sa.rekeyingIKE() {
		sa.rival = &rivalIKE{next, n}
		return
	}
	s.adopt(now, next)
	sa.awaitDelete(now)
}

// childExchangeUnderWay says whether an exchange of ours makes or rekeys a Child SA
// right now: its key share is being made, it is in flight, or its secret is being
// computed. The peer's rekey of the IKE SA waits until it is done (RFC 7296 §2.25.2).
func (sa *ikeSA) childExchangeUnderWay() bool {
	switch sa.current.(type) {
	case *createChildRequest, *rekeyChildRequest:
		return true
	}
	return false
}

// proposedSPI returns the SPI of the proposal with that number, of the first for 0.
func proposedSPI(offer *message.SA, number uint8) (message.SPI, bool) {
	for _, p := range offer.Proposals {
		if (number == 0 || p.Number == number) && len(p.SPI) == 8 {
			spi := message.SPI(binary.BigEndian.Uint64(p.SPI))
			return spi, spi != 0
		}
	}
	return 0, false
}

// peerSilent ends the session of an IKE SA whose request went unanswered; for a
// retired one it only means that its Delete is not confirmed.
func (sa *ikeSA) peerSilent(now time.Time) {
	s := sa.session
	if sa != s.sa {
		s.dropRetired(now, sa)
		return
	}
	s.finish(now, reason.PeerDead, 0, "the peer does not answer")
}

// sentMethod is the method of the KE payload in a request.
func sentMethod(x *Exchange) []suite.KEID {
	if ke, ok := message.Find[*message.KE](x.In); ok {
		return []suite.KEID{ke.Method}
	}
	return nil
}
