package server

import (
	"slices"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
)

// authorize decides whether a peer that has proved who it is may come in, and with
// which addresses. It is called on the session's shard.
func (s *Server) authorize(sh *shard.Shard, a ike.AuthorizeRequest) {
	x := &session{id: a.Session, peer: a.Peer, owner: a.Peer.Key(), sharedKey: a.SharedKey}
	if a.Certificate != nil {
		x.certificate = keyOf(a.Certificate.RawIssuer, a.Certificate.SerialNumber)
	}
	// The proof was checked against the settings that were in force when the session
	// began. First into the table, then the settings of now: whoever changes them later
	// finds the session there (expel).
	rivals := s.table.add(x)
	settings := s.settings.Load()
	if why, detail := settings.refusal(x); why != "" {
		s.refuse(sh, a.Session, why, detail)
		return
	}
	admit := func() { s.grant(sh, a) }
	switch {
	case len(rivals) == 0:
		admit()
	case settings.Unique == UniqueReplace, settings.Unique == UniqueNo && a.InitialContact:
		s.replace(rivals, admit)
	case settings.Unique == UniqueKeep:
		go s.keep(sh, a, rivals)
	case settings.crowded(len(rivals)):
		go s.thinOut(sh, a)
	default:
		admit()
	}
}

// refusal says why somebody who has proved who it is may not come in or stay: the
// certificate is revoked, the shared key is gone or another, the name is not admitted.
func (s *Settings) refusal(x *session) (why reason.Code, detail string) {
	switch {
	case !slices.ContainsFunc(s.Patterns, func(p auth.Pattern) bool { return p.Match(x.peer) }):
		return reason.IDMismatch, "no pattern of auth.remote_id admits " + x.peer.String()
	case x.certificate != certificateKey{}:
		if s.trust.revoked[x.certificate] {
			return reason.CertRevoked, "the certificate of " + x.peer.String() + " has been revoked"
		}
	case !s.keys.knows(x.peer, x.sharedKey):
		return reason.UserUnknown, "the shared key of " + x.peer.String() + " has been removed or changed"
	}
	return "", ""
}

func (s *Server) refuse(sh *shard.Shard, id ike.SessionID, why reason.Code, detail string) {
	sh.Authorize(id, ike.Grant{Refuse: why, Detail: detail})
}

// grant gives a peer its addresses. The session may have ended while it waited.
func (s *Server) grant(sh *shard.Shard, a ike.AuthorizeRequest) {
	settings := s.settings.Load()
	g := ike.Grant{Config: settings.configuration()}
	if a.WantIPv4 || a.WantIPv6 {
		var ok bool
		lives := s.table.with(a.Session, func(x *session) {
			x.addresses, ok = s.leases.acquire(x.owner, x.id, a.WantIPv4, a.WantIPv6, a.Requested)
			g.Config.Addresses = x.addresses
		})
		if !lives {
			return
		}
		if !ok {
			go s.makeRoom(sh, a)
			return
		}
	}
	sh.Authorize(a.Session, g)
}

// notifyName is the RFC 7296 name of what went wrong: of the notify that was sent or
// received, or of the one that goes with the reason; TIMEOUT if there was no answer.
func notifyName(n message.NotifyType, why reason.Code) string {
	if n != 0 {
		return n.String()
	}
	return why.NotifyName()
}
