package ike

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// IKE_SA_INIT (RFC 7296 §1.2): proposals, key exchange, nonces, in clear.

const (
	nonceLen = 32 // half the key size of the largest PRF (RFC 7296 §2.10)
	// maxInitTries bounds how often a responder may send us round with COOKIE or
	// INVALID_KE_PAYLOAD.
	maxInitTries = 5
)

// initState is what is only needed until both sides are authenticated.
type initState struct {
	key         initialKey        // responder
	requestHash [sha256.Size]byte // responder: of the request that was answered
	ke          suite.KEInitiator // initiator
	ni, nr      []byte
	// realMessage1 and 2 are the octets that AUTH covers (RFC 7296 §2.15).
	realMessage1, realMessage2 []byte
	certRequested              bool // the peer sent CERTREQ
}

func (i *initState) zero() {
	if i.ke != nil {
		i.ke.Zero()
	}
}

// Initiate starts a session with the peer at pair.Remote. Its end, good or bad, is
// told by an Established or a Closed action.
func (e *Engine) Initiate(now time.Time, p *Policy, pair locator.Pair) (SessionID, error) {
	return e.initiate(now, nil, p, pair)
}

func (e *Engine) initiate(now time.Time, r *Race, p *Policy, pair locator.Pair) (SessionID, error) {
	if len(p.IKE) == 0 || len(p.IKE[0].KE) == 0 {
		return 0, errors.New("policy has no IKE proposal with a key exchange method")
	}
	s := e.newSession(now, p, Initiator, pair)
	r.enter(s)
	s.connectBy = now.Add(2 * s.connectTimeout())
	s.sa = &ikeSA{session: s, role: Initiator, state: saInit, spii: e.newSPI()}
	s.sa.init = &initState{ni: e.random(nonceLen)}
	s.sa.register()
	s.sa.enqueue(now, &saInitRequest{method: p.IKE[0].KE[0]})
	e.reschedule(s)
	return s.id, nil
}

// saInitRequest is our IKE_SA_INIT request.
type saInitRequest struct {
	method suite.KEID
	cookie []byte
	tries  int
	// echoes is how many answers to copies of the request before this one may still
	// come. To follow such a late wish would make us sign another request than the one
	// that the responder goes by.
	echoes int
}

// echo reports whether an answer that sends us back is to a copy of the request
// before.
func (r *saInitRequest) echo(payloads []message.Payload) bool {
	if r.echoes == 0 || message.FindNotify(payloads, message.Cookie) == nil && message.FindNotify(payloads, message.InvalidKEPayload) == nil {
		return false
	}
	r.echoes--
	return true
}

func (r *saInitRequest) exchange() message.ExchangeType { return message.IKESAInit }

// prepare makes the key share, unless this is the same request with a cookie.
func (r *saInitRequest) prepare(now time.Time, sa *ikeSA) {
	s := sa.session
	if sa.init.ke != nil {
		r.send(now, sa)
		return
	}
	type result struct {
		ke  suite.KEInitiator
		err error
	}
	seed := s.engine.random(64)
	method := r.method
	runWork(s, func() result {
		ke, err := suite.InitiateKE(method, seededReader(seed))
		return result{ke, err}
	}, func(now time.Time, v result) {
		if v.err != nil {
			s.finish(now, reason.InternalError, 0, "key exchange: "+v.err.Error())
			return
		}
		sa.init.ke = v.ke
		r.send(now, sa)
	})
}

func (r *saInitRequest) send(now time.Time, sa *ikeSA) {
	s := sa.session
	x := s.newExchange(now, message.IKESAInit, s.path.Pair, nil)
	if r.cookie != nil {
		x.Add(&message.Notify{Kind: message.Cookie, Data: r.cookie}) // first (RFC 7296 §2.6)
	}
	x.Add(
		message.OfferIKE(s.policy.IKE, nil),
		&message.KE{Method: r.method, Data: sa.init.ke.Public()},
		&message.Nonce{Data: sa.init.ni},
	)
	if err := s.each(x, Task.Request); err != nil {
		s.finish(now, reason.InternalError, 0, err.Error())
		return
	}
	x.Add(message.NewSignatureHashes(suite.SupportedHashes()))
	m := message.Message{Header: message.Header{
		SPIi: sa.spii, Major: 2, Exchange: message.IKESAInit, Flags: message.FlagInitiator,
	}, Payloads: x.Out}
	b, err := m.Append(nil)
	if err != nil {
		s.finish(now, reason.InternalError, 0, err.Error())
		return
	}
	sa.init.realMessage1 = b
	sa.launch(now, [][]byte{b})
}

func (r *saInitRequest) unanswered(now time.Time, sa *ikeSA) {
	sa.session.finish(now, reason.NoAnswer, 0, "no answer to IKE_SA_INIT")
}

// again repeats the request after the responder asked for a change.
func (r *saInitRequest) again(now time.Time, sa *ikeSA) {
	if r.tries++; r.tries > maxInitTries {
		sa.session.finish(now, reason.NoAnswer, 0, "the responder keeps sending IKE_SA_INIT back")
		return
	}
	sa.current = r
	r.prepare(now, sa)
}

// response takes the responder's answer. IKE_SA_INIT keeps message ID 0 when it is
// repeated (RFC 7296 §2.2).
func (r *saInitRequest) response(now time.Time, sa *ikeSA, x *Exchange) {
	s := sa.session
	if n := x.Notify(message.Cookie); n != nil && message.FindErrorNotify(x.In) == nil {
		r.cookie = n.Data
		r.again(now, sa)
		return
	}
	if n := x.Notify(message.InvalidKEPayload); n != nil {
		r.otherGroup(now, sa, n)
		return
	}
	if n := message.FindErrorNotify(x.In); n != nil {
		s.finish(now, reasonFor(n.Kind), n.Kind, "the responder refused IKE_SA_INIT")
		return
	}
	alg, nr, ke, err := r.accept(sa, x)
	if err != nil {
		s.finish(now, reason.MalformedMessage, 0, "IKE_SA_INIT response: "+err.Error())
		return
	}
	if !s.race.won(now, s) {
		return
	}
	s.race = nil
	sa.nextID = 1
	sa.alg = alg
	sa.init.nr = nr
	sa.peerHashes = readSignatureHashes(x.In)
	sa.init.certRequested = hasCertReq(x.In)
	s.path.Pair = x.Pair
	if err := s.each(x, Task.HandleResponse); err != nil {
		s.finish(now, reason.MalformedMessage, 0, err.Error())
		return
	}
	s.switchToNATT()
	r.agree(now, sa, ke.Data)
}

// otherGroup repeats the request with the group the responder wants, if it is one
// of ours (RFC 7296 §1.2).
func (r *saInitRequest) otherGroup(now time.Time, sa *ikeSA, n *message.Notify) {
	s := sa.session
	want, ok := n.KEMethod()
	offered := slices.ContainsFunc(s.policy.IKE, func(p suite.IKEProposal) bool { return slices.Contains(p.KE, want) })
	if !ok || !offered || want == r.method {
		s.finish(now, reason.NoProposalChosen, n.Kind, fmt.Sprintf("the responder wants key exchange method %v", want))
		return
	}
	r.method = want
	sa.init.ke.Zero()
	sa.init.ke = nil
	r.again(now, sa)
}

// accept checks what the responder chose.
func (r *saInitRequest) accept(sa *ikeSA, x *Exchange) (suite.IKEAlgorithms, []byte, *message.KE, error) {
	chosen, ok1 := message.Find[*message.SA](x.In)
	ke, ok2 := message.Find[*message.KE](x.In)
	nonce, ok3 := message.Find[*message.Nonce](x.In)
	if !ok1 || !ok2 || !ok3 {
		return suite.IKEAlgorithms{}, nil, nil, errors.New("SA, KE or Nonce payload missing")
	}
	alg, err := message.CheckIKEChoice(message.OfferIKE(sa.session.policy.IKE, nil).Proposals, chosen)
	if err != nil {
		return alg, nil, nil, err
	}
	if alg.KE != r.method || ke.Method != r.method {
		return alg, nil, nil, fmt.Errorf("answered with key exchange method %v instead of %v", ke.Method, r.method)
	}
	return alg, nonce.Data, ke, nil
}

// agree computes the shared secret and goes on to IKE_AUTH.
func (r *saInitRequest) agree(now time.Time, sa *ikeSA, share []byte) {
	s := sa.session
	// The Work owns the private key: the session may end while it runs.
	ke := sa.init.ke
	sa.init.ke = nil
	sa.current = r // keeps other requests waiting
	runWork(s, func() secretOrError {
		defer ke.Zero()
		secret, err := ke.Shared(share)
		return secretOrError{secret: secret, err: err}
	}, func(now time.Time, v secretOrError) {
		if v.err != nil {
			s.finish(now, reason.MalformedMessage, 0, "key exchange: "+v.err.Error())
			return
		}
		if err := sa.deriveFirst(v.secret); err != nil {
			s.finish(now, reason.InternalError, 0, err.Error())
			return
		}
		sa.state = saAuth
		sa.current = nil
		sa.enqueue(now, &authRequest{})
	})
}

type secretOrError struct {
	public, secret []byte
	err            error
}

// deriveFirst makes the keys of a first IKE SA.
func (sa *ikeSA) deriveFirst(secret []byte) error {
	defer clear(secret)
	prf, err := suite.NewPRF(sa.alg.PRF)
	if err != nil {
		return err
	}
	sa.keys, err = deriveKeys(sa.alg, prf, firstSeed(prf, sa.init.ni, sa.init.nr, secret), sa.init.ni, sa.init.nr, sa.spii, sa.spir)
	return err
}

// receiveInit takes messages of the IKE_SA_INIT exchange.
func (e *Engine) receiveInit(now time.Time, pair locator.Pair, h message.Header, data []byte) {
	if h.MessageID != 0 || h.SPIi == 0 || h.Response() == h.FromInitiator() {
		e.refuse(now, Refused{Pair: pair, Reason: reason.MalformedMessage, Detail: "IKE_SA_INIT with a wrong message ID, SPI or flag"})
		return
	}
	if h.Response() {
		e.receiveInitResponse(now, pair, h, data)
		return
	}
	if h.SPIr != 0 || e.responder == nil {
		return
	}
	e.receiveInitRequest(now, pair, h, data)
}

func (e *Engine) receiveInitResponse(now time.Time, pair locator.Pair, h message.Header, data []byte) {
	sa := e.sas[h.SPIi]
	if sa == nil || sa.role != Initiator || sa.state != saInit || sa.out == nil {
		return
	}
	// Only the address that was asked may answer; anybody else would have to
	// guess the SPI, but need not be given the chance.
	if pair.Remote != sa.session.path.Pair.Remote {
		return
	}
	m, err := message.Parse(data)
	if err != nil {
		return // wait for a proper one
	}
	r := sa.current
	if init, ok := r.(*saInitRequest); ok {
		if init.echo(m.Payloads) {
			return
		}
		init.echoes = sa.out.sent - 1 // for the request that takes its place, if one does
	}
	x := sa.session.newExchange(now, message.IKESAInit, pair, m.Payloads)
	if message.FindErrorNotify(m.Payloads) == nil && x.Notify(message.Cookie) == nil {
		if h.SPIr == 0 {
			return
		}
		sa.spir = h.SPIr
		sa.init.realMessage2 = bytes.Clone(data)
	}
	sa.current, sa.out = nil, nil
	r.response(now, sa, x)
	e.reschedule(sa.session)
}

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
	e.acceptInit(now, pair, m, data, answer, alg, ke, nonce)
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
func (e *Engine) acceptInit(now time.Time, pair locator.Pair, m *message.Message, data []byte,
	answer *message.SA, alg suite.IKEAlgorithms, ke *message.KE, nonce *message.Nonce) {
	s := e.newSession(now, e.responder.Policy, Responder, pair)
	s.connectBy = now.Add(e.responder.HalfOpenTimeout)
	sa := &ikeSA{session: s, role: Responder, state: saInit, spii: m.SPIi, spir: e.newSPI(), alg: alg}
	s.sa = sa
	sa.init = &initState{
		key: initialKey{m.SPIi, pair.Remote}, requestHash: sha256.Sum256(data),
		ni: nonce.Data, nr: e.random(nonceLen), realMessage1: bytes.Clone(data),
	}
	sa.peerHashes = readSignatureHashes(m.Payloads)
	sa.expectID = 1
	sa.register()
	e.countHalfOpen(sa)
	e.reschedule(s)

	x := s.newExchange(now, message.IKESAInit, pair, m.Payloads)
	if err := s.each(x, Task.HandleRequest); err != nil {
		s.finish(now, reason.MalformedMessage, 0, err.Error())
		return
	}
	seed := e.random(64)
	runWork(s, func() secretOrError {
		public, secret, err := suite.RespondKE(ke.Method, seededReader(seed), ke.Data)
		return secretOrError{public, secret, err}
	}, func(now time.Time, v secretOrError) {
		if v.err != nil {
			e.refuse(now, Refused{Pair: pair, Reason: reason.MalformedMessage, Detail: "key exchange: " + v.err.Error()})
			s.finish(now, reason.MalformedMessage, 0, v.err.Error())
			return
		}
		if err := sa.deriveFirst(v.secret); err != nil {
			s.finish(now, reason.InternalError, 0, err.Error())
			return
		}
		sa.answerInit(now, x, answer, v.public)
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

// readSignatureHashes returns the peer's hash algorithms, nil if it announced none.
func readSignatureHashes(ps []message.Payload) []suite.HashID {
	n := message.FindNotify(ps, message.SignatureHashAlgorithms)
	if n == nil {
		return nil
	}
	hashes, _ := n.SignatureHashes()
	return hashes
}

func hasCertReq(ps []message.Payload) bool {
	_, ok := message.Find[*message.CertReq](ps)
	return ok
}
