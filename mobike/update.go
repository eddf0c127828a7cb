package mobike

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// update is the state of telling the responder that we have moved
// (RFC 4555 §3.5).
type update struct {
	pending bool         // to be sent
	waiting bool         // waits for its turn or for its answer
	pair    locator.Pair // what it told
}

// carryOutSwitch moves to another pair.
func (t *Task) carryOutSwitch(now time.Time, d locator.Switch) {
	s := t.session
	gap := time.Duration(0)
	if !t.silent.IsZero() {
		gap = now.Sub(t.silent)
	}
	path := s.PathFor(d.To)
	if s.Role() == ike.Initiator || d.Cause == locator.LocalLost {
		s.MoveIKE(path)
	}
	s.MoveESP(path)
	s.Act(ike.PathChanged{Session: s.ID(), From: d.From, To: d.To, Cause: d.Cause.String(), Verified: d.Verified, Gap: gap})
	if s.Role() == ike.Responder {
		return
	}
	if s.Outstanding() {
		t.flight.note(now, []locator.Pair{d.To})
		s.SendOutstanding([]locator.Pair{d.To})
	}
	t.tellMove(now)
}

// tellMove sends UPDATE_SA_ADDRESSES when it is its turn, for the pair that is
// current then. A move while it is under way makes another one follow.
func (t *Task) tellMove(now time.Time) {
	t.update.pending = true
	if t.update.waiting {
		return
	}
	t.update.waiting = true
	t.session.Request(now, func(x *ike.Exchange) bool {
		t.update.pending = false
		t.update.pair = x.Pair
		x.Add(&message.Notify{Kind: message.UpdateSAAddresses})
		x.AddNATDetection()
		t.addAdditional(x, x.Pair, true)
		return true
	}, t.updated)
}

// updated takes the answer to UPDATE_SA_ADDRESSES.
func (t *Task) updated(x *ike.Exchange) {
	now, s := x.Now, t.session
	t.update.waiting = false
	switch {
	case t.update.pending || s.Path().Pair != t.update.pair:
		t.tellMove(now) // overtaken: nothing in this answer counts
		return
	case x.Notify(message.UnacceptableAddresses) != nil, x.Notify(message.UnexpectedNATDetected) != nil:
		// The responder stays where it was; look for a pair that it takes.
		t.entry.Hint(now, t.update.pair, locator.NetworkChanged)
	default:
		t.rememberMapping(x)
		path := x.DetectNAT()
		local, _ := s.NAT()
		t.entry.SetNAT(now, x.Pair, local)
		if x.Pair == s.Path().Pair && path != s.Path() {
			s.MoveIKE(path)
			s.MoveESP(path)
		}
	}
	t.run(now)
}

// peerMoved is UPDATE_SA_ADDRESSES as responder: IKE follows at once, ESP when the
// address has been checked (RFC 4555 §3.5).
func (t *Task) peerMoved(x *ike.Exchange) {
	s := t.session
	path := x.DetectNAT()
	_, peer := s.NAT()
	s.MoveIKE(path)
	t.entry.Verify(x.Now, x.Pair)
	t.entry.SetNAT(x.Now, x.Pair, peer)
}

// checkNoNATs compares NO_NATS_ALLOWED with the header (RFC 4555 §3.9).
func checkNoNATs(x *ike.Exchange) error {
	n := x.Notify(message.NoNATsAllowed)
	if n == nil {
		return nil
	}
	want := append(addrBytes(x.Pair.Remote), addrBytes(x.Pair.Local)...)
	want = binary.BigEndian.AppendUint16(want, x.Pair.Remote.Port())
	want = binary.BigEndian.AppendUint16(want, x.Pair.Local.Port())
	if string(want) == string(n.Data) {
		return nil
	}
	return &ike.NotifyError{Kind: message.UnexpectedNATDetected, Reason: reason.UnexpectedNAT,
		Detail: "the addresses of the header are not those of NO_NATS_ALLOWED"}
}

func addrBytes(a netip.AddrPort) []byte { return a.Addr().Unmap().AsSlice() }

// allowance bounds how often an answer is repeated to an address that the peer has not
// been proven to be at. A peer whose answer was lost on its way moves on and repeats its
// request from elsewhere; so may somebody who has recorded it. The one that really
// moved sends fresh ESP from there too.
type allowance struct {
	since time.Time
	used  int
}

const (
	freshFor    = 30 * time.Second
	repeatLimit = 8 // of one answer
)

// AnswerAgain implements ike.AnswersFrom.
func (t *Task) AnswerAgain(now time.Time, pair locator.Pair) bool {
	if !t.active {
		return false
	}
	_, known := t.entry.Locators()
	if slices.ContainsFunc(known, func(l locator.Locator) bool { return l.Addr == pair.Remote && !l.Proven.IsZero() }) {
		return true
	}
	if pair.Remote != t.seen || now.Sub(t.seenAt) > freshFor {
		return false
	}
	if t.repeat.since != t.session.Answered() {
		t.repeat = allowance{since: t.session.Answered()}
	}
	t.repeat.used++
	return t.repeat.used <= repeatLimit
}
