package server

import (
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
)

// moves is where a client has been.
type moves struct {
	count int
	last  []Move // oldest first, at most maxMoves
}

// maxMoves bounds what is remembered of one session's moves.
const maxMoves = 4

// Move is a move of a client to another address.
type Move struct {
	Time  time.Time      `json:"time"`
	From  netip.AddrPort `json:"from"`
	To    netip.AddrPort `json:"to"`
	Local netip.AddrPort `json:"local"` // our address on the new path
	Cause string         `json:"cause"`
	// Verified says that the client had answered at the new address before it got traffic.
	Verified bool `json:"verified"`
	// TookMS is the time from the client's wish to the move, which a check may take.
	TookMS float64 `json:"took_ms"`
}

func newMove(now time.Time, a ike.PathChanged) Move {
	return Move{Time: now, From: a.From.Remote, To: a.To.Remote, Local: a.To.Local, Cause: a.Cause, Verified: a.Verified,
		TookMS: float64(a.Gap.Microseconds()) / 1000}
}

// add notes a move.
func (m *moves) add(v Move) {
	m.count++
	if len(m.last) == maxMoves {
		m.last = append(m.last[:0], m.last[1:]...)
	}
	m.last = append(m.last, v)
}

// moved notes a move of a session.
func (t *table) moved(id ike.SessionID, v Move) {
	t.with(id, func(x *session) {
		if x.moves == nil {
			x.moves = &moves{}
		}
		x.moves.add(v)
	})
}

// movesOf returns how often a session has moved, and its last moves.
func (t *table) movesOf(id ike.SessionID) (count int, last []Move) {
	t.with(id, func(x *session) {
		if x.moves != nil {
			count, last = x.moves.count, append(last, x.moves.last...)
		}
	})
	return count, last
}
