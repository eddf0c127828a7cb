package client

import (
	"context"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

const (
	// soundEvery is how often a gateway that is silent in the session is asked whether
	// it answers at all, soundPatience how long it has to answer.
	soundEvery    = time.Minute
	soundPatience = 8 * time.Second
	// soundGrace is how long it may then stay silent in the session, whose request is
	// repeated meanwhile.
	soundGrace = 2 * upkeep
)

// sounding finds out whether a gateway has forgotten a session that would otherwise be
// kept for a day: it answers IKE_SA_INIT on the very path where it leaves the session's
// requests unanswered. Gateways with RFC 6290 say so by themselves; then silence is the
// path's.
//
// An answer to IKE_SA_INIT proves nothing about who gave it. But who can forge it, and
// keep the gateway's own answers from us, could end the session as well by being silent.
type sounding struct {
	c       *connection
	session ike.SessionID

	asking     ike.SessionID // the IKE_SA_INIT under way, 0 for none
	askedAt    time.Time
	answeredAt time.Time // zero while it has not
}

// event takes what the engine tells.
func (s *sounding) event(a ike.Action) {
	closed, ok := a.(ike.Closed)
	if !ok || s.asking == 0 || closed.Session != s.asking {
		return
	}
	s.asking = 0
	if closed.Reason == reason.PeerAnswered {
		s.c.log.Debug("the gateway answers, but not in this session")
		s.answeredAt = time.Now()
		s.c.stack.Repeat(s.session)
	}
}

// forgotten says whether the gateway knows nothing of the session. It is to be called
// every few seconds, and asks when that is in doubt.
func (s *sounding) forgotten(ctx context.Context) bool {
	info, ok := s.c.stack.Session(ctx, s.session)
	if !ok || !s.silent(info) {
		s.stop()
		return false
	}
	now := time.Now()
	switch {
	case !s.answeredAt.IsZero():
		if now.Sub(s.answeredAt) >= soundGrace {
			return true
		}
		s.c.stack.Repeat(s.session)
	case s.asking == 0 && now.Sub(s.askedAt) >= soundEvery:
		s.ask(ctx, info)
	}
	return false
}

// silent says whether nothing has been coming from the gateway, which would not tell why.
func (s *sounding) silent(info ike.SessionInfo) bool {
	if info.TellsCrash || info.AwaySince.IsZero() {
		return false
	}
	stats, err := s.c.stack.Stats(s.session)
	return err == nil && stats.LastIn.Before(info.AwaySince)
}

// stop forgets what was asked.
func (s *sounding) stop() {
	if s.asking != 0 {
		s.c.stack.Abort(s.asking, reason.Cancelled)
	}
	s.asking, s.answeredAt = 0, time.Time{}
}

// ask sends IKE_SA_INIT over the path in use.
func (s *sounding) ask(ctx context.Context, info ike.SessionInfo) {
	s.askedAt = time.Now()
	if _, err := s.c.stack.LocalFor(info.Path.Pair.Remote.Addr()); err != nil {
		return // this machine has no network
	}
	p := *s.c.policy
	p.ConnectTimeout = soundPatience
	id, err := s.c.stack.Sound(ctx, &p, info.Path.Pair)
	if err != nil {
		s.c.log.Debug("the gateway cannot be asked", "error", err)
		return
	}
	s.asking = id
}
