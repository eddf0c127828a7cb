package ike

import (
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// CREATE_CHILD_SA for new Child SAs (RFC 7296 §1.3.1), and what it shares with the
// two rekeyings.

// createChildRequest asks for another Child SA.
type createChildRequest struct {
	local, remote []esp.Selector
	offer         *childOffer
	share         keyShare
}

func (s *Session) startCreateChild(now time.Time, local, remote []esp.Selector) {
	if local == nil {
		local, _ = s.allowedSelectors(nil)
	}
	s.sa.enqueue(now, &createChildRequest{local: local, remote: remote, share: keyShare{method: espMethod(s.policy.ESP)}})
}

func (r *createChildRequest) exchange() message.ExchangeType { return message.CreateChildSA }

func (r *createChildRequest) prepare(now time.Time, sa *ikeSA) {
	s := sa.session
	r.share.make(now, s, func(now time.Time) {
		if !sa.resumes(now, r) {
			return
		}
		if r.offer == nil {
			r.offer = s.newOffer(r.local, r.remote)
			r.offer.ni = s.engine.random(nonceLen)
		}
		sa.transmitOffer(now, r.offer, &r.share)
	})
}

// transmitOffer sends a CREATE_CHILD_SA request for a Child SA.
func (sa *ikeSA) transmitOffer(now time.Time, o *childOffer, k *keyShare, before ...message.Payload) {
	s := sa.session
	s.deletedEarly = nil
	x := s.newExchange(now, message.CreateChildSA, s.path.Pair, nil)
	x.Add(before...)
	between := append([]message.Payload{&message.Nonce{Data: o.ni}}, k.payload()...)
	o.addTo(x, message.OfferESP(s.policy.ESP, o.spi, true), between...)
	sa.transmit(now, x.Out)
}

func (r *createChildRequest) response(now time.Time, sa *ikeSA, x *Exchange) {
	s := sa.session
	if n := x.Notify(message.InvalidKEPayload); n != nil && r.share.retry(n, espOffers(s.policy.ESP)) {
		sa.current = r
		r.prepare(now, sa)
		return
	}
	if x.Notify(message.TemporaryFailure) != nil {
		s.retryLater(now, r)
		return
	}
	sa.current = r
	r.share.finish(now, s, x, r.offer.chosenKE(x), func(now time.Time, secret []byte, err error) {
		sa.current = nil
		defer sa.pump(now)
		defer clear(secret)
		var c *childSA
		if err == nil {
			c, err = r.offer.accept(now, sa, x, secret)
		}
		if err != nil {
			s.engine.log.Info("another Child SA was refused", "session", s.id, "error", err)
			s.checkChildless(now) // it may have been to replace the last one
			return
		}
		s.install(now, c, true)
	})
}

func (r *createChildRequest) unanswered(now time.Time, sa *ikeSA) { sa.peerSilent(now) }

// retryLater puts a request back, to be sent on the IKE SA in use after a random pause
// of a few seconds (RFC 7296 §2.25).
func (s *Session) retryLater(now time.Time, r request) {
	sa := s.sa
	sa.queue = append([]request{r}, sa.queue...)
	sa.retryAt = now.Add(s.engine.pause(refusedPause, refusedPauseSpread))
}

// serveCreateChild answers a CREATE_CHILD_SA request: rekey of the IKE SA, rekey
// of a Child SA, or a new one.
func (sa *ikeSA) serveCreateChild(now time.Time, rq *peerRequest) {
	s := sa.session
	offer, ok1 := message.Find[*message.SA](rq.x.In)
	ni, ok2 := message.Find[*message.Nonce](rq.x.In)
	switch {
	case !ok1 || !ok2 || len(offer.Proposals) == 0:
		rq.refuse(now, &message.Notify{Kind: message.InvalidSyntax})
		return
	case sa != s.sa || s.state != Up:
		// Replaced or closing (RFC 7296 §2.25.2).
		rq.refuse(now, &message.Notify{Kind: message.TemporaryFailure})
		return
	case offer.Proposals[0].Protocol == message.ProtoIKE:
		sa.serveRekeyIKE(now, rq, offer, ni)
		return
	case sa.rekeyingIKE() || sa.rival != nil:
		rq.refuse(now, &message.Notify{Kind: message.TemporaryFailure})
		return
	}
	var old *childSA
	if n := rq.x.Notify(message.RekeySA); n != nil {
		var refusal *message.Notify
		if old, refusal = s.rekeyTarget(n); refusal != nil {
			rq.refuse(now, refusal)
			return
		}
	}
	s.answerShare(now, rq, func(now time.Time, o answerOptions) {
		o.ni = ni.Data
		sa.finishChild(now, rq, old, o)
	})
}

// answerShare does the responder's half of a key exchange for a Child SA, if the
// chosen proposal has one.
func (s *Session) answerShare(now time.Time, rq *peerRequest, then func(time.Time, answerOptions)) {
	o := answerOptions{nr: s.engine.random(nonceLen)}
	_, _, alg, err := s.chooseESP(rq.x, false)
	if err != nil {
		rq.refuse(now, notifyFor(err))
		return
	}
	if alg.KE == suite.KENone {
		then(now, o)
		return
	}
	ke, ok := message.Find[*message.KE](rq.x.In)
	if !ok || ke.Method != alg.KE {
		rq.refuse(now, message.NewInvalidKE(alg.KE))
		return
	}
	respondKE(s, ke, func(now time.Time, v secretOrError) {
		if v.err != nil {
			rq.refuse(now, &message.Notify{Kind: message.InvalidSyntax})
			return
		}
		o.secret, o.share = v.secret, &message.KE{Method: alg.KE, Data: v.public}
		then(now, o)
	})
}

// finishChild makes and installs the Child SA, before the response goes out: the
// peer may send on it at once.
func (sa *ikeSA) finishChild(now time.Time, rq *peerRequest, old *childSA, o answerOptions) {
	s := sa.session
	defer clear(o.secret)
	if n := sa.overtaken(old); n != nil {
		rq.refuse(now, n)
		return
	}
	a, err := s.answerChild(now, rq.x, old, o)
	if err != nil {
		rq.refuse(now, notifyFor(err))
		return
	}
	a.child.unconfirmed = true
	s.install(now, a.child, old == nil)
	if old != nil {
		old.successor = a.child
		old.successorNonces = nonces{o.ni, o.nr}
	}
	a.addTo(rq.x)
	rq.respond(now, rq.x.Out)
}

// overtaken says how to refuse a request for a Child SA when, while its key
// exchange was computed, another exchange has replaced the IKE SA or the Child SA
// to be rekeyed; nil when all is as it was (RFC 7296 §2.25).
func (sa *ikeSA) overtaken(old *childSA) *message.Notify {
	s := sa.session
	switch {
	case sa != s.sa || s.state != Up:
		return &message.Notify{Kind: message.TemporaryFailure}
	case old == nil:
		return nil
	case s.child(old.id) == nil:
		return childNotFound(old.spiOut)
	}
	return old.unready()
}
