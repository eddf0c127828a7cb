package ike

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// Initiate starts a session with the peer at pair.Remote. Its end, good or bad, is
// told by an Established or a Closed action.
func (e *Engine) Initiate(now time.Time, p *Policy, pair locator.Pair) (SessionID, error) {
	return e.initiate(now, nil, p, pair)
}

func (e *Engine) initiate(now time.Time, r *Race, p *Policy, pair locator.Pair) (SessionID, error) {
	if len(p.IKE) == 0 || len(p.IKE[0].KE) == 0 || p.IKE[0].KE[0] == suite.KENone {
		return 0, errors.New("policy has no IKE proposal with a key exchange method")
	}
	s := e.newSession(now, p, Initiator, pair)
	r.enter(s)
	s.connectBy = now.Add(2 * s.connectTimeout())
	s.sa = &ikeSA{session: s, role: Initiator, state: saInit, spii: e.newSPI()}
	s.sa.init = &initState{ni: e.random(nonceLen), share: keyShare{method: p.IKE[0].KE[0]}}
	s.sa.register()
	s.sa.enqueue(now, &saInitRequest{})
	e.reschedule(s)
	return s.id, nil
}

// saInitRequest is our IKE_SA_INIT request.
type saInitRequest struct {
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
	sa.init.share.make(now, sa.session, func(now time.Time) { r.send(now, sa) })
}

func (r *saInitRequest) send(now time.Time, sa *ikeSA) {
	s := sa.session
	x := s.newExchange(now, message.IKESAInit, s.path.Pair, nil)
	if r.cookie != nil {
		x.Add(&message.Notify{Kind: message.Cookie, Data: r.cookie}) // first (RFC 7296 §2.6)
	}
	x.Add(message.OfferIKE(s.policy.IKE, nil))
	x.Add(sa.init.share.payload()...)
	x.Add(&message.Nonce{Data: sa.init.ni})
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
	alg, nr, err := r.accept(sa, x)
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
	r.agree(now, sa, x)
}

// otherGroup repeats the request with the group the responder wants, if it is one
// of ours (RFC 7296 §1.2).
func (r *saInitRequest) otherGroup(now time.Time, sa *ikeSA, n *message.Notify) {
	s := sa.session
	if !sa.init.share.retry(n, ikeOffers(s.policy.IKE)) {
		want, _ := n.KEMethod()
		s.finish(now, reason.NoProposalChosen, n.Kind, fmt.Sprintf("the responder wants key exchange method %v", want))
		return
	}
	r.again(now, sa)
}

// accept checks what the responder chose.
func (r *saInitRequest) accept(sa *ikeSA, x *Exchange) (suite.IKEAlgorithms, []byte, error) {
	chosen, ok1 := message.Find[*message.SA](x.In)
	ke, ok2 := message.Find[*message.KE](x.In)
	nonce, ok3 := message.Find[*message.Nonce](x.In)
	if !ok1 || !ok2 || !ok3 {
		return suite.IKEAlgorithms{}, nil, errors.New("SA, KE or Nonce payload missing")
	}
	alg, err := message.CheckIKEChoice(message.OfferIKE(sa.session.policy.IKE, nil).Proposals, chosen)
	if err != nil {
		return alg, nil, err
	}
	if method := sa.init.share.method; alg.KE != method || ke.Method != method {
		return alg, nil, fmt.Errorf("answered with key exchange method %v instead of %v", ke.Method, method)
	}
	return alg, nonce.Data, nil
}

// agree computes the shared secret and goes on to IKE_AUTH.
func (r *saInitRequest) agree(now time.Time, sa *ikeSA, x *Exchange) {
	s := sa.session
	sa.current = r // keeps other requests waiting
	sa.init.share.finish(now, s, x, sa.alg.KE, func(now time.Time, secret []byte, err error) {
		if err != nil {
			s.finish(now, reason.MalformedMessage, 0, "key exchange: "+err.Error())
			return
		}
		if err := sa.deriveFirst(secret); err != nil {
			s.finish(now, reason.InternalError, 0, err.Error())
			return
		}
		sa.state = saAuth
		sa.current = nil
		sa.enqueue(now, &authRequest{})
	})
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
