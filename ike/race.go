package ike

import (
	"errors"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Race lets several sessions compete for one peer, each over another address pair
// (RFC 8305). They all ask with IKE_SA_INIT; the first that gets an acceptable answer
// goes on to IKE_AUTH, and in the same step the others end, with
// reason.OtherAddressAnswered. So however late the answers to the others come, there
// is one IKE_AUTH and one session. A cookie or a wish for another group is no answer
// yet. What a loser leaves at the responder is a half-open SA of a few KiB, for as long
// as that keeps those (RFC 7296 §2.4 lets it drop them at will).
//
// The zero Race is ready to use. It belongs to the goroutine of its engine.
type Race struct {
	// Sound only looks whether anybody answers: the winner ends as well, with
	// reason.PeerAnswered, and nothing is authenticated.
	Sound bool

	rivals  []*Session
	decided bool
}

// ErrRaceDecided is returned for a session that comes too late to a race.
var ErrRaceDecided = errors.New("another address has answered already")

// Compete starts a session as Initiate does, as one of several in a race. A nil race
// is one without rivals.
func (e *Engine) Compete(now time.Time, r *Race, p *Policy, pair locator.Pair) (SessionID, error) {
	if r != nil && r.decided {
		return 0, ErrRaceDecided
	}
	return e.initiate(now, r, p, pair)
}

func (r *Race) enter(s *Session) {
	if r != nil {
		s.race = r
		r.rivals = append(r.rivals, s)
	}
}

// won is called when a session has got an acceptable answer to IKE_SA_INIT. It says
// whether that session goes on.
func (r *Race) won(now time.Time, winner *Session) bool {
	if r == nil {
		return true
	}
	r.decided = true
	rivals := r.rivals
	r.rivals = nil
	for _, s := range rivals {
		if s != winner {
			s.finish(now, reason.OtherAddressAnswered, 0, "")
		}
	}
	if r.Sound {
		winner.finish(now, reason.PeerAnswered, 0, "")
		return false
	}
	return true
}
