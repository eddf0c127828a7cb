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
	toldAt  time.Time
}

// carryOutSwitch moves to another pair.
func (t *Task) carryOutSwitch(now time.Time, d locator.Switch) {
	s := t.session
	gap := time.Duration(0) // a responder that moves by itself does so at once
	switch {
	case s.Role() == ike.Responder && d.Cause != locator.LocalLost && !t.askedAt.IsZero():
		gap = now.Sub(t.askedAt)
	case s.Role() == ike.Initiator:
		t.outage.move(now)
		gap = t.outage.lasted(now)
	}
	if s.Role() == ike.Initiator && d.To.Local.Addr() != d.From.Local.Addr() {
		// Nobody is harmed by ESP in UDP for one round trip; without it a NAT drops it.
		s.ExpectNAT(t.entry.NATOf(d.To) != locator.NATAbsent)
	}
	path := s.PathFor(d.To)
	if s.Role() == ike.Initiator || d.Cause == locator.LocalLost {
		s.MoveIKE(path)
	}
	if s.Role() == ike.Initiator {
		// The update leaves before ESP does: the responder's answers to it are then right.
		if s.Outstanding() {
			t.repeatOver(now, d.To)
			t.hurry = hurry{at: now.Add(hurryFirst), left: hurryTimes}
		}
		t.tellMove(now)
	}
	s.MoveESP(path)
	t.follow = follow{}
	s.Act(ike.PathChanged{Session: s.ID(), From: d.From, To: d.To, Cause: d.Cause.String(), Verified: d.Verified, Gap: gap})
}

// hurry repeats the request that is outstanding at a move more often than its back-off:
// the update waits for its answer, and whether the responder answers there at first may
// depend on the order in which packets arrive.
type hurry struct {
	at   time.Time
	left int
}

const (
	hurryFirst = 10 * time.Millisecond // doubles
	hurryTimes = 3
)

// hurryOn repeats the request if it is time.
func (t *Task) hurryOn(now time.Time) {
	h := &t.hurry
	if h.at.IsZero() || now.Before(h.at) {
		return
	}
	h.left--
	if !t.session.Outstanding() || t.update.waiting && !t.update.pending {
		*h = hurry{}
		return
	}
	t.repeatOver(now, t.session.Path().Pair)
	h.at = now.Add(hurryFirst << (hurryTimes - h.left))
	if h.left == 0 {
		*h = hurry{}
	}
}

func (t *Task) repeatOver(now time.Time, pair locator.Pair) {
	t.flight.note(now, []locator.Pair{pair})
	t.session.SendOutstanding([]locator.Pair{pair})
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
		t.update.pair, t.update.toldAt = x.Pair, x.Now
		x.Add(&message.Notify{Kind: message.UpdateSAAddresses})
		x.AddNATDetection()
		t.addAdditional(x, x.Pair, true)
		addNoNATs(x)
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
	case x.Notify(message.UnexpectedNATDetected) != nil && t.noNATs.again():
		t.tellMove(now) // somebody may have touched this one packet (RFC 4555 §3.9)
		return
	case x.Notify(message.UnacceptableAddresses) != nil, x.Notify(message.UnexpectedNATDetected) != nil:
		t.entry.Rejected(now, t.update.pair)
	default:
		t.confirmed(now)
		t.watchFollowing(x)
		t.noNATs = 0
		t.rememberMapping(x)
		path := x.DetectNAT()
		t.noteNAT(x)
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
	t.askedAt = x.Now
	s.MoveIKE(x.DetectNAT())
	if s.Outstanding() { // it may have been sent to where the peer was, and a check waits for it
		t.repeatOver(x.Now, x.Pair)
	}
	t.entry.Verify(x.Now, x.Pair)
	t.noteNAT(x)
}

// patience counts how often something was tried again.
type patience int

// noNATsRetries is how often a message is repeated that arrived with other addresses
// than it left with: one forged packet is no reason to give a path up (RFC 4555 §3.9).
const noNATsRetries = 3

// again says whether to try once more.
func (p *patience) again() bool { *p++; return *p <= noNATsRetries }

// addNoNATs tells the peer which addresses the message has, where NAT traversal is off
// (RFC 4555 §3.9).
func addNoNATs(x *ike.Exchange) {
	if x.Session.NATTraversal() {
		return
	}
	data := append(addrBytes(x.Pair.Local), addrBytes(x.Pair.Remote)...)
	data = binary.BigEndian.AppendUint16(data, x.Pair.Local.Port())
	data = binary.BigEndian.AppendUint16(data, x.Pair.Remote.Port())
	x.Add(&message.Notify{Kind: message.NoNATsAllowed, Data: data})
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

// allowance bounds how often an answer is repeated to addresses that the peer has not
// been proven to be at. A peer that tests several paths, or moves on while its request is
// under way, repeats it from elsewhere at once. Later, so may somebody who has recorded
// it; the one that really moved sends fresh ESP from there too.
type allowance struct {
	since time.Time
	used  int
}

const (
	promptly    = time.Second // after the first answer
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
	fresh := pair.Remote == t.seen && now.Sub(t.seenAt) <= freshFor
	if !fresh && now.Sub(t.session.Answered()) > promptly {
		return false
	}
	if t.repeat.since != t.session.Answered() {
		t.repeat = allowance{since: t.session.Answered()}
	}
	t.repeat.used++
	return t.repeat.used <= repeatLimit
}
