package ike

import (
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// Key exchange (RFC 7296 §1.2, §1.3) as both sides do it: the computation is Work, the
// method may have to be changed.

// keyShare is our half of a key exchange that we begin, repeated with another
// method when the peer wants one (INVALID_KE_PAYLOAD).
type keyShare struct {
	method suite.KEID
	ke     suite.KEInitiator
	tries  int
}

// make computes our share, if one is wanted, and goes on.
func (k *keyShare) make(now time.Time, s *Session, then func(now time.Time)) {
	if k.method == suite.KENone || k.ke != nil {
		then(now)
		return
	}
	type result struct {
		ke  suite.KEInitiator
		err error
	}
	method, seed := k.method, s.engine.random(seedLen)
	runWork(s, func() result {
		ke, err := suite.InitiateKE(method, seededReader(seed))
		return result{ke, err}
	}, func(now time.Time, v result) {
		if v.err != nil {
			s.finish(now, reason.InternalError, 0, "key exchange: "+v.err.Error())
			return
		}
		k.ke = v.ke
		then(now)
	})
}

// payload is the KE payload, nil without key exchange.
func (k *keyShare) payload() []message.Payload {
	if k.ke == nil {
		return nil
	}
	return []message.Payload{&message.KE{Method: k.method, Data: k.ke.Public()}}
}

// retry switches to the method that INVALID_KE_PAYLOAD names; false if that is
// not one of those offered, or has been tried.
func (k *keyShare) retry(n *message.Notify, offered func(suite.KEID) bool) bool {
	want, ok := n.KEMethod()
	k.tries++
	if !ok || want == k.method || k.tries > maxInitTries || !offered(want) {
		return false
	}
	k.zero()
	k.method = want
	return true
}

// finish computes the secret from the peer's share, and goes on. With no key
// exchange the secret is nil. The method is the one of the chosen proposal: a peer
// may well choose one without key exchange although our share came along.
func (k *keyShare) finish(now time.Time, s *Session, x *Exchange, chosen suite.KEID, then func(now time.Time, secret []byte, err error)) {
	if chosen == suite.KENone {
		k.zero()
		then(now, nil, nil)
		return
	}
	if k.ke == nil || chosen != k.method {
		then(now, nil, &NotifyError{Kind: message.InvalidSyntax, Reason: reason.MalformedMessage, Detail: "a key exchange method was chosen that we have sent no share for"})
		return
	}
	share, ok := message.Find[*message.KE](x.In)
	if !ok || share.Method != k.method {
		then(now, nil, &NotifyError{Kind: message.InvalidSyntax, Reason: reason.MalformedMessage, Detail: "answer without a matching KE payload"})
		return
	}
	// The Work owns the private key: the session may end while it runs.
	ke, data := k.ke, share.Data
	k.ke = nil
	runWork(s, func() secretOrError {
		defer ke.Zero()
		secret, err := ke.Shared(data)
		return secretOrError{secret: secret, err: err}
	}, func(now time.Time, v secretOrError) {
		then(now, v.secret, v.err)
	})
}

func (k *keyShare) zero() {
	if k.ke != nil {
		k.ke.Zero()
		k.ke = nil
	}
}

type secretOrError struct {
	public, secret []byte
	err            error
}

// respondKE computes the other half of a key exchange, of one that the peer begins: our
// share and the secret.
func respondKE(s *Session, ke *message.KE, then func(now time.Time, v secretOrError)) {
	method, data, seed := ke.Method, ke.Data, s.engine.random(seedLen)
	runWork(s, func() secretOrError {
		public, secret, err := suite.RespondKE(method, seededReader(seed), data)
		return secretOrError{public, secret, err}
	}, then)
}

// ikeOffers says which methods the proposals for an IKE SA hold.
func ikeOffers(ps []suite.IKEProposal) func(suite.KEID) bool {
	return func(id suite.KEID) bool {
		return slices.ContainsFunc(ps, func(p suite.IKEProposal) bool { return slices.Contains(p.KE, id) })
	}
}

// espMethod is the key exchange method to try first for a Child SA with PFS.
func espMethod(ps []suite.ESPProposal) suite.KEID {
	for _, p := range ps {
		if len(p.KE) > 0 {
			return p.KE[0]
		}
	}
	return suite.KENone
}

// espOffers says which methods the proposals for a Child SA hold.
func espOffers(ps []suite.ESPProposal) func(suite.KEID) bool {
	return func(id suite.KEID) bool {
		return slices.ContainsFunc(ps, func(p suite.ESPProposal) bool { return slices.Contains(p.KE, id) })
	}
}
