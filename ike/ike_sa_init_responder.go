package ike

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// receiveInitRequest meets a request for a new IKE SA, keeping no state until the
// request is known to be acceptable and, under load, its source to be real.
func (e *Engine) receiveInitRequest(now time.Time, pair locator.Pair, h message.Header, data []byte) {
	key := initialKey{h.SPIi, pair.Remote}
	if sa := e.initial[key]; sa != nil {
		sa.repeatInit(pair, data)
		return
	}
	m, err := message.Parse(data)
	if err != nil {
		e.refuse(now, Refused{Pair: pair, Reason: reason.MalformedMessage, Detail: err.Error()})
		if _, critical := errors.AsType[*message.CriticalPayloadError](err); critical {
			e.answerStateless(pair, h, notifyFor(err))
		}
		return
	}
	offer, ok1 := message.Find[*message.SA](m.Payloads)
	ke, ok2 := message.Find[*message.KE](m.Payloads)
	nonce, ok3 := message.Find[*message.Nonce](m.Payloads)
	if !ok1 || !ok2 || !ok3 {
		e.refuse(now, Refused{Pair: pair, Reason: reason.MalformedMessage, Detail: "IKE_SA_INIT without SA, KE or Nonce"})
		return
	}
	e.cookies.rotate(now, e.random)
	if e.wantsCookie() {
		c := message.FindNotify(m.Payloads, message.Cookie)
		if c == nil || !e.cookies.check(c.Data, pair.Remote, h.SPIi, nonce.Data) {
			e.answerStateless(pair, h, &message.Notify{Kind: message.Cookie, Data: e.cookies.make(pair.Remote, h.SPIi, nonce.Data)})
			return
		}
	}
	if why, ok := e.admit(pair.Remote.Addr()); !ok {
		e.refuse(now, Refused{Pair: pair, Reason: why})
		return
	}
	number, alg, err := message.ChooseIKE(offer.Proposals, e.responder.Policy.IKE, ke.Method)
	if err != nil {
		e.answerStateless(pair, h, &message.Notify{Kind: message.NoProposalChosen})
		e.refuse(now, Refused{Pair: pair, Reason: reason.NoProposalChosen, Notify: message.NoProposalChosen, Detail: err.Error()})
		return
	}
	if ke.Method != alg.KE {
		e.answerStateless(pair, h, message.NewInvalidKE(alg.KE))
		return
	}
	answer := message.AnswerIKE(offer.Proposals, number, alg, nil)
	e.acceptInit(now, &initRequest{pair, m, data, answer, alg, ke, nonce})
}

// initRequest is an IKE_SA_INIT request that is acceptable, and what was chosen from it.
type initRequest struct {
	pair   locator.Pair
	m      *message.Message
	data   []byte // the message as it arrived
	answer *message.SA
	alg    suite.IKEAlgorithms
	ke     *message.KE
	nonce  *message.Nonce
}

// repeatInit answers a retransmitted request as before.
func (sa *ikeSA) repeatInit(pair locator.Pair, data []byte) {
	if sha256.Sum256(data) != sa.init.requestHash || sa.init.realMessage2 == nil || sa.state != saAuth {
		return
	}
	sa.session.Act(Send{Session: sa.session.id, Pair: pair, Data: sa.init.realMessage2})
}

// acceptInit opens a half-open session: computes the secret, answers, waits for
// IKE_AUTH.
func (e *Engine) acceptInit(now time.Time, r *initRequest) {
	s := e.newSession(now, e.responder.Policy, Responder, r.pair)
	s.connectBy = now.Add(e.responder.HalfOpenTimeout)
	sa := &ikeSA{session: s, role: Responder, state: saInit, spii: r.m.SPIi, spir: e.newSPI(), alg: r.alg}
	s.sa = sa
	sa.init = &initState{
		key: initialKey{r.m.SPIi, r.pair.Remote}, requestHash: sha256.Sum256(r.data),
		ni: r.nonce.Data, nr: e.random(nonceLen), realMessage1: bytes.Clone(r.data),
	}
	sa.peerHashes = readSignatureHashes(r.m.Payloads)
	sa.expectID = 1
	sa.register()
	e.countHalfOpen(sa)
	e.reschedule(s)

	x := s.newExchange(now, message.IKESAInit, r.pair, r.m.Payloads)
	if err := s.each(x, Task.HandleRequest); err != nil {
		s.finish(now, reason.MalformedMessage, 0, err.Error())
		return
	}
	respondKE(s, r.ke, func(now time.Time, v secretOrError) {
		if v.err != nil {
			e.refuse(now, Refused{Pair: r.pair, Reason: reason.MalformedMessage, Detail: "key exchange: " + v.err.Error()})
			s.finish(now, reason.MalformedMessage, 0, v.err.Error())
			return
		}
		if err := sa.deriveFirst(v.secret); err != nil {
			s.finish(now, reason.InternalError, 0, err.Error())
			return
		}
		sa.answerInit(now, x, r.answer, v.public)
	})
}

func (sa *ikeSA) answerInit(now time.Time, x *Exchange, answer *message.SA, public []byte) {
	s := sa.session
	x.Add(
		answer,
		&message.KE{Method: sa.alg.KE, Data: public},
		&message.Nonce{Data: sa.init.nr},
	)
	if err := s.each(x, Task.Respond); err != nil {
		s.finish(now, reason.InternalError, 0, err.Error())
		return
	}
	if len(sa.peerHashes) > 0 {
		x.Add(message.NewSignatureHashes(suite.SupportedHashes()))
	}
	if r := certRequest(s.policy); r != nil {
		x.Add(r)
	}
	if s.policy.Childless != ChildlessNever {
		x.Add(&message.Notify{Kind: message.ChildlessSupported})
	}
	m := message.Message{Header: message.Header{
		SPIi: sa.spii, SPIr: sa.spir, Major: 2, Exchange: message.IKESAInit, Flags: message.FlagResponse,
	}, Payloads: x.Out}
	b, err := m.Append(nil)
	if err != nil {
		s.finish(now, reason.InternalError, 0, err.Error())
		return
	}
	sa.init.realMessage2 = b
	sa.state = saAuth
	s.Act(Send{Session: s.id, Pair: x.Pair, Data: b})
}
