package server

import (
	"context"
	"net/netip"
	"slices"
	"time"

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
	if len(rivals) > 0 && settings.Unique == UniqueKeep {
		s.refuse(sh, a.Session, reason.Conflict, "there is a session of this identity, and auth.unique is keep")
		return
	}
	replace := settings.Unique == UniqueReplace || settings.Unique == UniqueNo && a.InitialContact
	if !replace || len(rivals) == 0 {
		s.grant(sh, a)
		return
	}
	s.replace(rivals, func() { s.grant(sh, a) })
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

// replace ends sessions without a word, since their peer has lost them (RFC 7296
// §2.4), and calls then when all have ended: not before that are their addresses free
// and gone from the data path. They may live in other shards.
func (s *Server) replace(old []ike.SessionID, then func()) {
	left := newCountdown(len(old), then)
	for _, id := range old {
		s.table.with(id, func(x *session) { x.closing = reason.ReplacedByNewSession })
		s.table.afterEnd(id, left.done)
		s.abort(id, reason.ReplacedByNewSession)
	}
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

// roomPatience bounds the look for a client that gives way.
const roomPatience = 2 * time.Second

// makeRoom gives a peer the address of the client that has been away for longest, when
// all are in use: who is here comes before who may come back. That one connects anew
// when it does (RFC 6290), with another address. Without such a client the peer is
// refused. It asks every shard, so it must not run on one.
func (s *Server) makeRoom(sh *shard.Shard, a ike.AuthorizeRequest) {
	ctx, cancel := context.WithTimeout(context.Background(), roomPatience)
	defer cancel()
	infos, err := s.group.Sessions(ctx)
	if err != nil {
		s.log.Debug("no look for clients that are away", "error", err)
	}
	for _, i := range longestAway(infos) {
		if !s.table.giveWay(i.ID, func(x *session) bool { return s.helps(x, a) }) {
			continue
		}
		s.log.Info("all addresses are in use: a client that is away gives way", "session", uint64(i.ID), "peer", i.Peer.String(),
			"away_since", i.AwaySince, "for", a.Peer.String())
		s.table.afterEnd(i.ID, func() { s.grant(sh, a) })
		s.abort(i.ID, reason.PeerDead)
		return
	}
	detail := s.exhausted(a)
	s.addressless(a, detail)
	s.refuse(sh, a.Session, reason.PoolExhausted, detail)
}

// longestAway returns those whose peers do not answer, the longest first.
func longestAway(infos []ike.SessionInfo) []ike.SessionInfo {
	away := slices.DeleteFunc(infos, func(i ike.SessionInfo) bool { return i.State != ike.Up || i.AwaySince.IsZero() })
	slices.SortFunc(away, func(a, b ike.SessionInfo) int { return a.AwaySince.Compare(b.AwaySince) })
	return away
}

// helps says whether a session has an address that a peer could have in its place.
func (s *Server) helps(x *session, a ike.AuthorizeRequest) bool {
	pools := s.settings.Load().Config.Network.pools()
	return slices.ContainsFunc(x.addresses, func(addr netip.Addr) bool {
		return within(pools, addr) && (addr.Is4() && a.WantIPv4 || !addr.Is4() && a.WantIPv6)
	})
}

// addressless tells of a peer that gets no address. Its IKE SA comes up all the same,
// without a Child SA (RFC 7296 §1.2), so nothing else would tell.
func (s *Server) addressless(a ike.AuthorizeRequest, detail string) {
	s.noteError(reason.PoolExhausted, notifyName(0, reason.PoolExhausted), detail, a.Peer.String(), a.Pair.Remote)
	s.log.Warn("no inner address", "session", uint64(a.Session), "peer", a.Peer.String(), "remote", a.Pair.Remote,
		"reason", string(reason.PoolExhausted), "detail", detail)
	s.events.publish(Event{Time: time.Now(), Kind: "no-address", ID: uint64(a.Session), Peer: a.Peer.String(), Remote: a.Pair.Remote,
		Reason: reason.PoolExhausted, Detail: detail})
}

// exhausted says why a peer could not have an address.
func (s *Server) exhausted(a ike.AuthorizeRequest) string {
	var networks []netip.Prefix
	for _, p := range s.leases.status() {
		networks = append(networks, p.Network)
	}
	switch {
	case a.WantIPv4 && !a.WantIPv6 && len(networks) == 1 && !networks[0].Addr().Is4():
		return "the client wants an IPv4 address, and there is no IPv4 pool"
	case a.WantIPv6 && !a.WantIPv4 && len(networks) == 1 && networks[0].Addr().Is4():
		return "the client wants an IPv6 address, and there is no IPv6 pool"
	}
	text := "all addresses are in use:"
	for _, n := range networks {
		text += " " + n.String()
	}
	return text
}

// notifyName is the RFC 7296 name of what went wrong: of the notify that was sent or
// received, or of the one that goes with the reason; TIMEOUT if there was no answer.
func notifyName(n message.NotifyType, why reason.Code) string {
	if n != 0 {
		return n.String()
	}
	if r, ok := reason.Lookup(why); ok && r.Notify != "" {
		return r.Notify
	}
	switch why {
	case reason.NoAnswer, reason.PeerDead, reason.Timeout:
		return "TIMEOUT"
	}
	return ""
}
