package ike

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Exchange is one request and its response as a Task sees them.
type Exchange struct {
	Type    message.ExchangeType
	Session *Session
	Now     time.Time
	// Pair is the address pair the message came on, or is about to leave on.
	Pair locator.Pair
	// In holds the payloads of the message just received; Out collects those of
	// the message being built.
	In  []message.Payload
	Out []message.Payload
}

// Add appends payloads to the message being built.
func (x *Exchange) Add(ps ...message.Payload) { x.Out = append(x.Out, ps...) }

// Notify returns the first Notify of that kind in the received message, or nil.
func (x *Exchange) Notify(kind message.NotifyType) *message.Notify {
	return message.FindNotify(x.In, kind)
}

// Task takes part in the exchanges of one session: it adds payloads to messages
// and reads the peer's. The four methods are called for every exchange of the
// session; a task looks at Exchange.Type and leaves the others alone.
//
// An error of type *NotifyError from HandleRequest answers the request with that
// notify; any error from HandleResponse ends the session.
type Task interface {
	// Request adds payloads to a request of ours.
	Request(x *Exchange) error
	// HandleRequest reads a request of the peer, Respond adds to our response.
	HandleRequest(x *Exchange) error
	Respond(x *Exchange) error
	// HandleResponse reads the peer's response to our request.
	HandleResponse(x *Exchange) error
}

// Extension makes a Task for each session. This is where protocols that stand
// above IKE plug in: MOBIKE (RFC 4555), session resumption (RFC 5723).
type Extension interface {
	Name() string
	Begin(s *Session) Task
}

// PathObserver is a Task that wants to hear of every authenticated message and the
// pair it came on. A message that is not fresh has been seen before: another copy of
// the last response, which shows that another pair works (RFC 4555 §3.10), or a
// replay.
type PathObserver interface {
	Heard(now time.Time, pair locator.Pair, response, fresh bool)
}

// Timed is a Task with a deadline of its own; zero means none.
type Timed interface {
	Deadline() time.Time
	Tick(now time.Time)
}

// DataPathObserver is a Task that wants to hear what the data path noticed about
// the session's host: SourceChanged, Unanswered.
type DataPathObserver interface {
	DataPathEvent(now time.Time, ev esp.Event)
}

// Retransmitter is a Task that says over which pairs a request that goes unanswered
// is repeated; sent counts the transmissions so far. None means the session's own.
type Retransmitter interface {
	RetransmitOver(now time.Time, sent int) []locator.Pair
}

// PathVerifier is a Task that knows whether the peer has shown that it receives
// where the session's path leads. Where it has not, nothing is sent more often than
// the back-off allows.
type PathVerifier interface {
	PathVerified(pair locator.Pair) bool
}

// Mover is a Task that knows whether the peers of a session can change their addresses.
// Then silence does not mean that one of them is gone; see Policy.AwayTimeout.
type Mover interface {
	Moves() bool
}

// PathJudge is a Task that knows which messages of the peer prove that the path in use
// works. A peer that sends from elsewhere lives, but may not be in step with us
// (RFC 4555 §3.12), so liveness checks go on.
type PathJudge interface {
	ProvesPath(pair locator.Pair) bool
}

func (s *Session) provesPath(pair locator.Pair) bool {
	for _, t := range s.tasks {
		if j, ok := t.(PathJudge); ok && !j.ProvesPath(pair) {
			return false
		}
	}
	return true
}

// WithSession runs f on an established session, for daemons that have something to
// tell to a task of it: a changed address, for instance.
func (e *Engine) WithSession(now time.Time, id SessionID, f func(now time.Time, s *Session)) error {
	s, err := e.established(id)
	if err != nil {
		return err
	}
	f(now, s)
	e.reschedule(s)
	return nil
}

// EachSession runs f on every established session.
func (e *Engine) EachSession(now time.Time, f func(now time.Time, s *Session)) {
	for _, s := range e.sessions {
		if s.state == Up {
			f(now, s)
			e.reschedule(s)
		}
	}
}

// TaskOf returns the session's task of a type.
func TaskOf[T Task](s *Session) (T, bool) {
	for _, t := range s.tasks {
		if x, ok := t.(T); ok {
			return x, true
		}
	}
	var none T
	return none, false
}

// Outstanding says whether a request of ours waits for its response.
func (s *Session) Outstanding() bool { return s.sa.out != nil }

// Waiting says whether a request of ours waits for its turn. One that the peer wants to
// have later (TEMPORARY_FAILURE) does not count: others go before it.
func (s *Session) Waiting() bool { return slices.ContainsFunc(s.sa.queue, s.sa.mayGo) }

// SendOutstanding sends the request that waits for its response once more, over
// other pairs than the session's. The peer answers each where it came from
// (RFC 7296 §2.11).
func (s *Session) SendOutstanding(pairs []locator.Pair) {
	if s.sa.out == nil {
		return
	}
	for _, p := range pairs {
		s.sa.sendOver(p)
	}
}

// SPI returns our SPI of the IKE SA in use, which names it on this side.
func (s *Session) SPI() message.SPI { return s.sa.ownSPI() }

// Answered says when the peer's last request was answered first.
func (s *Session) Answered() time.Time { return s.answeredAt }

// Fail ends the session because the peer broke the protocol.
func (s *Session) Fail(now time.Time, why string) { s.finish(now, reason.ProtocolError, 0, why) }

// Certified says whether the peer's certificate lists an address as one that the peer
// may use (RFC 3779); without a certificate it is false.
func (s *Session) Certified(a netip.Addr) bool { return s.certified.Contains(a) }

// NAT says what NAT detection found last.
func (s *Session) NAT() (local, peer bool) { return s.nat.local, s.nat.peer }

// NATTraversal says whether both sides take part in NAT traversal. If not, addresses
// must arrive unchanged (RFC 4555 §3.9).
func (s *Session) NATTraversal() bool { return s.nat.supported }

// OpenNAT says whether the peer tells the truth about its own address in NAT detection:
// a standard one may make up a NAT to get ESP in UDP.
func (s *Session) OpenNAT() bool { return s.nat.open }

// ExpectNAT sets whether our address is taken to be translated on the path that the
// session is about to move to, until NAT detection there tells.
func (s *Session) ExpectNAT(local bool) { s.nat.local = s.nat.supported && local }

// Translated says what NAT detection in a received message says about our own address
// on the message's pair; known is false if it does not say.
func (x *Exchange) Translated() (local, known bool) {
	s := x.Session
	n := x.Notify(message.NATDetectionDestinationIP)
	if !s.nat.supported || n == nil {
		return false, false
	}
	return !bytes.Equal(n.Data, natHash(s.sa.spii, s.sa.spir, x.Pair.Local)), true
}

// AddNATDetection adds the NAT detection notifies for the exchange's pair
// (RFC 7296 §2.23, RFC 4555 §3.5).
func (x *Exchange) AddNATDetection() {
	if x.Session.nat.supported {
		x.addNATDetection()
	}
}

// DetectNAT reads the peer's NAT detection notifies and returns the path that
// follows from them for the exchange's pair.
func (x *Exchange) DetectNAT() esp.Path {
	s := x.Session
	if s.nat.supported && x.Notify(message.NATDetectionSourceIP) != nil {
		x.detectNAT()
	}
	return s.pathFor(x.Pair)
}

// MoveIKE sends the session's IKE messages over another path from now on.
func (s *Session) MoveIKE(p esp.Path) { s.path = p }

// MoveESP sends the session's ESP over another path from now on.
func (s *Session) MoveESP(p esp.Path) {
	if !s.hosted {
		return
	}
	s.mtu.moved(p.Pair)
	p.MTU = s.mtu.of(p.Pair)
	s.carried = p
	s.Act(MoveHost{Session: s.id, Path: p})
}

// ESPSent is how many octets the data path has sent to the session's host; without one
// that tells, zero.
func (s *Session) ESPSent() uint64 {
	if f := s.engine.cfg.Sent; f != nil {
		return f(s.id)
	}
	return 0
}

// ESPHeard is when the data path last opened a packet of the session's host, whatever pair
// it came over; zero for never.
func (s *Session) ESPHeard() time.Time {
	if f := s.engine.cfg.LastInbound; f != nil {
		return f(s.id)
	}
	return time.Time{}
}

// RenewChildren rekeys every Child SA (RFC 7296 §1.3.3); those that are on their way out,
// or are being rekeyed, are left alone.
func (s *Session) RenewChildren(now time.Time) {
	for _, c := range slices.Clone(s.children) {
		s.startRekeyChild(now, c)
	}
}

// AnswersFrom is a Task that allows a request to be repeated from another address
// than the session's: a peer that moves may not know whether its request arrived
// (RFC 4555 §3.5).
type AnswersFrom interface {
	AnswerAgain(now time.Time, pair locator.Pair) bool
}

// PathFor is the path over a pair with what is known of NATs.
func (s *Session) PathFor(pair locator.Pair) esp.Path { return s.pathFor(pair) }

// Random returns random octets from the engine's source.
func (s *Session) Random(n int) []byte { return s.engine.random(n) }
