package ike

import (
	"crypto/x509"
	"errors"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// IKE_AUTH as responder (RFC 7296 §1.2): who is it, does it prove it, may it come
// in (AuthorizeRequest), then our own proof and the first Child SA.

// authAnswer is an IKE_AUTH request on its way through these steps.
type authAnswer struct {
	rq *peerRequest
	sa *ikeSA
}

// serveAuth starts with the peer's identity.
func (sa *ikeSA) serveAuth(now time.Time, rq *peerRequest) {
	s := sa.session
	s.path.Pair = rq.pair
	s.path = s.espPath()
	s.mtu.asked(now)
	a := &authAnswer{rq, sa}
	idi := message.FindID(rq.x.In, false)
	if idi == nil {
		a.fail(now, reason.MalformedMessage, message.InvalidSyntax, "IKE_AUTH request without IDi")
		return
	}
	proof, ok := message.Find[*message.Auth](rq.x.In)
	if !ok {
		s.peer = auth.FromPayload(idi)
		a.fail(now, reason.AuthMethodRefused, message.AuthenticationFailed, "the peer wants EAP, which is not configured")
		return
	}
	if err := a.checkIDr(); err != nil {
		s.peer = auth.FromPayload(idi)
		a.fail(now, reason.IDMismatch, message.AuthenticationFailed, err.Error())
		return
	}
	octets := auth.SignedOctets(sa.keys.prf, sa.keys.pi, sa.init.realMessage1, sa.init.nr, idi)
	sa.verifyPeer(now, auth.FromPayload(idi), proof, octets, rq.x.In, func(now time.Time, cert *x509.Certificate, err error) {
		if err != nil {
			a.fail(now, reasonForAuth(err, s.peerAuth), message.AuthenticationFailed, err.Error())
			return
		}
		a.authorize(now, cert)
	})
}

// checkIDr refuses a request for somebody else than us.
func (a *authAnswer) checkIDr() error {
	for _, id := range message.All[*message.ID](a.rq.x.In) {
		if !id.Responder {
			continue
		}
		want := auth.FromPayload(id)
		if !want.Equal(a.sa.session.policy.Local.ID) {
			return errors.New("the peer asks for " + want.String() + ", we are " + a.sa.session.policy.Local.ID.String())
		}
	}
	return nil
}

// authorize asks whether the proved peer may come in.
func (a *authAnswer) authorize(now time.Time, cert *x509.Certificate) {
	s := a.sa.session
	if err := s.each(a.rq.x, Task.HandleRequest); err != nil {
		a.failWith(now, err)
		return
	}
	s.connectBy = now.Add(s.connectTimeout())
	s.awaiting = a.authorized
	ask := AuthorizeRequest{
		Session: s.id, Peer: s.peer, Certificate: cert, SharedKey: s.peerKey, Pair: a.rq.pair,
		InitialContact: a.rq.x.Notify(message.InitialContact) != nil,
	}
	if t := s.configuration(); t.asked {
		ask.WantIPv4, ask.WantIPv6, ask.Requested = t.wantIPv4, t.wantIPv6, t.requested
	}
	s.Act(ask)
}

// Authorize answers an AuthorizeRequest.
func (e *Engine) Authorize(now time.Time, id SessionID, g Grant) {
	s := e.sessions[id]
	if s == nil || s.awaiting == nil {
		return
	}
	next := s.awaiting
	s.awaiting = nil
	next(now, g)
	e.reschedule(s)
}

// authorized proves ourselves, if the peer may come in.
func (a *authAnswer) authorized(now time.Time, g Grant) {
	sa, s := a.sa, a.sa.session
	addressless := g.Refuse == reason.PoolExhausted
	if g.Refuse != "" && !addressless {
		a.fail(now, g.Refuse, message.AuthenticationFailed, g.Detail)
		return
	}
	s.config = g.Config
	s.localSelectors = g.LocalSelectors
	s.addressRefused = addressless
	idr := s.policy.Local.ID.Payload(true)
	octets := auth.SignedOctets(sa.keys.prf, sa.keys.pr, sa.init.realMessage2, sa.init.ni, idr)
	if proof := a.sharedProof(octets); proof != nil {
		a.respond(now, idr, proof)
		return
	}
	sa.proveSelf(octets, func(now time.Time, proof *message.Auth, err error) {
		if err != nil {
			a.fail(now, reason.AuthFailed, message.AuthenticationFailed, "cannot prove our identity: "+err.Error())
			return
		}
		a.respond(now, idr, proof)
	}, now)
}

// sharedProof proves ourselves with the key that the peer has just proved to know; nil
// if it used none. Peers with a shared key have their own key each, and most of them
// no authority to check a certificate with.
func (a *authAnswer) sharedProof(octets []byte) *message.Auth {
	s := a.sa.session
	if s.peerAuth != message.AuthSharedKey {
		return nil
	}
	secret, err := s.policy.Remote.SharedKey(s.peer)
	if err != nil {
		return nil // the keys have changed in between
	}
	return &message.Auth{Method: message.AuthSharedKey, Data: auth.SharedKeyAuth(a.sa.keys.prf, secret, octets)}
}

// respond sends the IKE_AUTH response. A Child SA that cannot be made does not undo
// the IKE SA (RFC 7296 §1.2).
func (a *authAnswer) respond(now time.Time, idr *message.ID, proof *message.Auth) {
	sa, s, x := a.sa, a.sa.session, a.rq.x
	x.Add(idr)
	if proof.Method != message.AuthSharedKey && (hasCertReq(x.In) || s.policy.SendCertificates) {
		for _, c := range auth.CertPayloads(&s.policy.Local) {
			x.Add(c)
		}
	}
	x.Add(proof)
	if n := s.engine.crash.notify(sa.spii, sa.spir); n != nil {
		x.Add(n)
	}
	c, err := a.child(now)
	if err == nil {
		if terr := s.each(x, Task.Respond); terr != nil {
			a.failWith(now, terr)
			return
		}
		if c != nil {
			c.addTo(x)
		}
	} else {
		x.Add(notifyFor(err))
	}
	sa.state = saUp
	s.authenticated(now)
	sa.forgetInit()
	switch {
	case c != nil:
		s.install(now, c.child, true)
	case err != nil:
		s.childlessBy = now.Add(childlessGrace)
	}
	a.rq.respond(now, x.Out)
	if s.state == Up {
		s.announce()
	}
}

// childlessGrace is how long a peer whose Child SA was refused may try again
// before the session is closed.
const childlessGrace = 3 * time.Second

// child negotiates the first Child SA; nil without error for a childless request.
func (a *authAnswer) child(now time.Time) (*childAnswer, error) {
	s, x := a.sa.session, a.rq.x
	_, asked := message.Find[*message.SA](x.In)
	if !asked {
		if s.policy.Childless == ChildlessNever {
			return nil, &NotifyError{Kind: message.InvalidSyntax, Reason: reason.NoChildSA, Detail: "IKE_AUTH without a Child SA"}
		}
		return nil, nil
	}
	if s.policy.Childless == ChildlessForce {
		return nil, &NotifyError{Kind: message.NoAdditionalSAs, Reason: reason.NoAdditionalSAs, Detail: "Child SAs come by CREATE_CHILD_SA only"}
	}
	t := s.configuration()
	switch {
	case s.addressRefused && t.asked:
		return nil, &NotifyError{Kind: message.InternalAddressFailure, Reason: reason.PoolExhausted, Detail: "no free inner address"}
	case !t.asked && s.policy.RemoteSelectors == nil && s.policy.AssignAddresses:
		return nil, &NotifyError{Kind: message.FailedCPRequired, Reason: reason.ConfigRequired, Detail: "the peer asked for no inner address"}
	}
	return s.answerChild(now, x, nil, answerOptions{})
}

// fail refuses the peer and ends the session. The IKE SA stays a while to repeat
// its refusal.
func (a *authAnswer) fail(now time.Time, why reason.Code, kind message.NotifyType, detail string) {
	a.rq.refuse(now, &message.Notify{Kind: kind})
	a.sa.session.finishLingering(now, why, kind, detail)
}

func (a *authAnswer) failWith(now time.Time, err error) {
	var n *NotifyError
	if errors.As(err, &n) {
		a.rq.refuse(now, n.payload())
		a.sa.session.finishLingering(now, n.Reason, n.Kind, n.Error())
		return
	}
	a.fail(now, reason.InternalError, message.InvalidSyntax, err.Error())
}
