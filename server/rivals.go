package server

import (
	"context"
	"fmt"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
)

// What happens to other sessions of an identity that connects.

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

// keep refuses a newcomer while an older session of its identity lives (UniqueKeep). One
// that is dead must not lock its own client out: whose client is away, or has a new
// session at the same address and port and says that it has no other (RFC 7296 §2.4).
// The others are asked whether they live, so that a next attempt finds out. It asks
// shards, so it must not run on one.
func (s *Server) keep(sh *shard.Shard, a ike.AuthorizeRequest, rivals []ike.SessionID) {
	ctx, cancel := context.WithTimeout(context.Background(), roomPatience)
	defer cancel()
	for _, id := range rivals {
		if !s.lives(ctx, id, a) {
			continue
		}
		s.group.Of(id).Do(func(now time.Time, e shard.Engine) { _ = e.CheckLiveness(now, id) }) // fails if it has ended
		s.refuse(sh, a.Session, reason.Conflict, fmt.Sprintf("session %d of this identity lives, and auth.unique is keep", uint64(id)))
		return
	}
	s.replace(rivals, func() { s.grant(sh, a) })
}

// lives says whether a session is in use, as far as is known, when its identity connects
// again. Without an answer of its shard it is.
func (s *Server) lives(ctx context.Context, id ike.SessionID, a ike.AuthorizeRequest) bool {
	type answer struct {
		info  ike.SessionInfo
		found bool
	}
	answers := make(chan answer, 1)
	err := s.group.Of(id).Call(ctx, func(_ time.Time, e shard.Engine) {
		i, found := e.Session(id)
		answers <- answer{i, found}
	})
	if err != nil {
		return true
	}
	r := <-answers
	switch {
	case !r.found || r.info.State == ike.Gone || !r.info.AwaySince.IsZero():
		return false
	case a.InitialContact:
		return r.info.Path.Pair.Remote != a.Pair.Remote
	}
	return true
}

// crowded says whether an identity that has so many sessions may not have one more.
func (s *Settings) crowded(sessions int) bool {
	most := s.Config.Limits.SessionsPerIdentity
	return most > 0 && sessions >= most
}

// thinOut keeps the sessions of one identity below the limit: a newcomer takes the place
// of the one that has been away for longest, or is refused when all are in use. It asks
// shards, so it must not run on one.
func (s *Server) thinOut(sh *shard.Shard, a ike.AuthorizeRequest) {
	owner := a.Peer.Key()
	if !s.settings.Load().crowded(s.table.others(owner, a.Session).live) {
		s.grant(sh, a) // some have ended
		return
	}
	own := func(x *session) bool { return x.owner == owner && x.id != a.Session }
	if s.takePlace(sh, a, own, "the identity has as many sessions as it may have: one that is away gives way") {
		return
	}
	s.refuse(sh, a.Session, reason.SessionLimit, fmt.Sprintf("%s has %d sessions, and none of them is away (limits.sessions_per_identity)",
		a.Peer.String(), s.settings.Load().Config.Limits.SessionsPerIdentity))
}
