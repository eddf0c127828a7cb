package ike

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// authRequest is our IKE_AUTH request (RFC 7296 §1.2): identity, proof, the first
// Child SA, and what the tasks add.
type authRequest struct {
	child *childOffer // nil for a childless IKE SA
}

func (r *authRequest) exchange() message.ExchangeType { return message.IKEAuth }

func (r *authRequest) prepare(now time.Time, sa *ikeSA) {
	s := sa.session
	idi := s.policy.Local.ID.Payload(false)
	octets := auth.SignedOctets(sa.keys.prf, sa.keys.pi, sa.init.realMessage1, sa.init.nr, idi)
	sa.proveSelf(octets, func(now time.Time, a *message.Auth, err error) {
		if err != nil {
			s.finish(now, reason.AuthFailed, 0, "cannot prove our identity: "+err.Error())
			return
		}
		r.send(now, sa, idi, a)
	}, now)
}

// proveSelf makes our AUTH payload: at once with a shared key, as Work with a
// signature.
func (sa *ikeSA) proveSelf(octets []byte, then func(time.Time, *message.Auth, error), now time.Time) {
	s := sa.session
	local := &s.policy.Local
	if local.UsesPSK() {
		then(now, &message.Auth{Method: message.AuthSharedKey, Data: auth.SharedKeyAuth(sa.keys.prf, local.PSK, octets)}, nil)
		return
	}
	type result struct {
		auth *message.Auth
		err  error
	}
	hashes, seed := sa.peerHashes, s.engine.random(seedLen)
	runWork(s, func() result {
		a, err := auth.Sign(seededReader(seed), local, hashes, octets)
		return result{a, err}
	}, func(now time.Time, v result) { then(now, v.auth, v.err) })
}

func (r *authRequest) send(now time.Time, sa *ikeSA, idi *message.ID, a *message.Auth) {
	s := sa.session
	p := s.policy
	x := s.newExchange(now, message.IKEAuth, s.path.Pair, nil)
	x.Add(idi)
	if !p.Local.UsesPSK() && (sa.init.certRequested || p.SendCertificates) {
		for _, c := range auth.CertPayloads(&p.Local) {
			x.Add(c)
		}
	}
	if c := certRequest(p); c != nil {
		x.Add(c)
	}
	if id, ok := p.Remote.ID.Exact(); ok {
		x.Add(id.Payload(true))
	}
	x.Add(a)
	if err := s.each(x, Task.Request); err != nil {
		s.finish(now, reason.InternalError, 0, err.Error())
		return
	}
	if p.Childless != ChildlessForce {
		r.child = s.newOffer(p.LocalSelectors, p.RemoteSelectors)
		r.child.addTo(x, message.OfferESP(p.ESP, r.child.spi, false))
	}
	x.Add(&message.Notify{Kind: message.InitialContact})
	sa.transmit(now, x.Out)
}

// certRequest asks for certificates of our roots, if we accept signatures at all.
func certRequest(p *Policy) *message.CertReq {
	if !p.Remote.AllowSignature || len(p.Remote.Roots) == 0 {
		return nil
	}
	return auth.CertRequest(p.Remote.Roots)
}

func (r *authRequest) unanswered(now time.Time, sa *ikeSA) {
	sa.session.finish(now, reason.NoAnswer, 0, "no answer to IKE_AUTH")
}

// response checks who answered, then takes the Child SA.
func (r *authRequest) response(now time.Time, sa *ikeSA, x *Exchange) {
	s := sa.session
	idr := message.FindID(x.In, true)
	a, ok := message.Find[*message.Auth](x.In)
	if idr == nil || !ok {
		if n := message.FindErrorNotify(x.In); n != nil {
			// Protected by keys that an attacker in the middle could hold, as
			// nobody is authenticated yet; there is nothing better to do.
			s.finish(now, reasonFor(n.Kind), n.Kind, "the gateway refused IKE_AUTH")
			return
		}
		s.finish(now, reason.MalformedMessage, 0, "IKE_AUTH response without IDr or AUTH")
		return
	}
	s.path.Pair = x.Pair
	sa.keepToken(x.In)
	octets := auth.SignedOctets(sa.keys.prf, sa.keys.pr, sa.init.realMessage2, sa.init.ni, idr)
	sa.current = r // nothing else is sent until the peer is proved
	sa.verifyPeer(now, auth.FromPayload(idr), a, octets, x.In, func(now time.Time, _ *x509.Certificate, err error) {
		sa.current = nil
		if err != nil {
			sa.rejectResponder(now, err)
			return
		}
		r.established(now, sa, x)
	})
}

// verifyPeer checks the peer's identity and AUTH payload: at once with a shared
// key, as Work with a signature.
func (sa *ikeSA) verifyPeer(now time.Time, id auth.Identity, a *message.Auth, octets []byte, in []message.Payload,
	then func(time.Time, *x509.Certificate, error)) {
	s := sa.session
	remote := &s.policy.Remote
	s.peer, s.peerAuth = id, a.Method
	if err := id.Valid(); err != nil {
		then(now, nil, err)
		return
	}
	if !remote.ID.Match(id) {
		then(now, nil, fmt.Errorf("peer calls itself %s, expected %s: %w", id, remote.ID, auth.ErrIdentityMismatch))
		return
	}
	if a.Method == message.AuthSharedKey {
		secret, err := remote.SharedKey(id)
		if err == nil {
			err = auth.VerifySharedKey(a, sa.keys.prf, secret, octets)
		}
		if err == nil {
			s.peerKey = auth.FingerprintOf(secret)
		}
		then(now, nil, err)
		return
	}
	type result struct {
		proved auth.Verified
		err    error
	}
	payloads := message.All[*message.Cert](in)
	runWork(s, func() result {
		proved, err := remote.VerifyPeer(now, id, a, payloads, octets)
		return result{proved, err}
	}, func(now time.Time, v result) {
		s.certified = v.proved.Addresses
		then(now, v.proved.Certificate, v.err)
	})
}

// rejectResponder tells a gateway that it could not prove who it is
// (RFC 7296 §2.21.2), and ends the session.
func (sa *ikeSA) rejectResponder(now time.Time, err error) {
	s := sa.session
	why := reasonForAuth(err, s.peerAuth)
	sa.state = saUp
	s.state = Closing
	s.closing = closing{now.Add(closeTimeout), why, message.AuthenticationFailed, err.Error()}
	s.connectBy = time.Time{}
	sa.urgent(now, &authFailedNotice{})
}

// established goes on after the gateway is proved.
func (r *authRequest) established(now time.Time, sa *ikeSA, x *Exchange) {
	s := sa.session
	sa.state = saUp
	s.path = s.espPath()
	if err := s.each(x, Task.HandleResponse); err != nil {
		sa.rejectResponder(now, err)
		return
	}
	s.authenticated(now)
	defer sa.forgetInit()
	if r.child == nil {
		s.announce()
		sa.pump(now)
		return
	}
	c, err := r.child.accept(now, sa, x, nil)
	if err != nil {
		why, notify := reason.NoChildSA, message.NotifyType(0)
		var refused *NotifyError
		if errors.As(err, &refused) {
			why, notify = refused.Reason, refused.Kind
		}
		s.closing.notify, s.closing.detail = notify, err.Error()
		s.close(now, why)
		return
	}
	s.install(now, c, true)
	s.announce()
	sa.pump(now)
}

// authFailedNotice is the INFORMATIONAL request that tells a responder that its
// AUTH was not accepted (RFC 7296 §2.21.2).
type authFailedNotice struct{}

func (*authFailedNotice) exchange() message.ExchangeType { return message.Informational }

func (*authFailedNotice) prepare(now time.Time, sa *ikeSA) {
	sa.transmit(now, []message.Payload{&message.Notify{Kind: message.AuthenticationFailed}})
}

func (*authFailedNotice) response(now time.Time, sa *ikeSA, _ *Exchange) {
	sa.session.finishClosing(now)
}
func (*authFailedNotice) unanswered(now time.Time, sa *ikeSA) { sa.session.finishClosing(now) }
