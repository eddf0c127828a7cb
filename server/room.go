package server

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
)

// What happens when all inner addresses are in use.

// roomPatience bounds the look for a client that gives way.
const roomPatience = 2 * time.Second

// makeRoom gives a peer the address of a client that is away, when all are in use: who
// is here comes before who may come back. That one connects anew when it does (RFC
// 6290), with another address. Sessions of the peer's own identity go first, and an
// identity that has an address already takes none from others. Without such a client
// the peer is refused. It asks every shard, so it must not run on one.
func (s *Server) makeRoom(sh *shard.Shard, a ike.AuthorizeRequest) {
	owner := a.Peer.Key()
	const what = "all addresses are in use: a client that is away gives way"
	if s.takePlace(sh, a, func(x *session) bool { return x.owner == owner && s.helps(x, a) }, what) {
		return
	}
	if !s.table.others(owner, a.Session).addressed && s.takePlace(sh, a, func(x *session) bool { return s.helps(x, a) }, what) {
		return
	}
	detail := s.exhausted(a)
	s.addressless(a, detail)
	s.refuse(sh, a.Session, reason.PoolExhausted, detail)
}

// takePlace ends the session that has been away for longest among those that suit, and
// goes on with a peer when it has ended. It is false when there is none.
func (s *Server) takePlace(sh *shard.Shard, a ike.AuthorizeRequest, suits func(*session) bool, what string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), roomPatience)
	defer cancel()
	infos, err := s.group.Sessions(ctx)
	if err != nil {
		s.log.Debug("no look for clients that are away", "error", err)
	}
	for _, i := range longestAway(infos) {
		if !s.table.giveWay(i.ID, suits) {
			continue
		}
		s.log.Info(what, "session", uint64(i.ID), "peer", i.Peer.String(), "away_since", i.AwaySince, "for", a.Peer.String())
		s.table.afterEnd(i.ID, func() { s.grant(sh, a) })
		s.abort(i.ID, reason.PeerDead)
		return true
	}
	return false
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
