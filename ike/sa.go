package ike

import (
	"errors"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// saState is where an IKE SA stands.
type saState uint8

const (
	saInit    saState = iota + 1 // IKE_SA_INIT is under way
	saAuth                       // keys agreed, IKE_AUTH is under way
	saUp                         // authenticated, or made by a rekey
	saDying                      // replaced or closing: only its Delete is left to do
	saRefused                    // refused in IKE_AUTH: repeats its last response
	saDead                       // dropped
)

// lingerTime is how long a refused IKE SA repeats its refusal.
const lingerTime = 10 * time.Second

// ikeSA is one IKE SA: keys, SPIs and message IDs. It belongs to a session; a
// rekey puts another in its place.
type ikeSA struct {
	session *Session
	role    Role // in this IKE SA, which a rekey may change (RFC 7296 §2.18)
	state   saState

	spii, spir    message.SPI
	alg           suite.IKEAlgorithms
	keys          *saKeys
	fragmentation bool
	crashToken    []byte         // of the peer (RFC 6290)
	peerHashes    []suite.HashID // SIGNATURE_HASH_ALGORITHMS of the peer
	init          *initState     // only until the session is authenticated

	// Our requests: the window is 1 (RFC 7296 §2.3), so one is in flight and the
	// others wait.
	nextID  uint32
	current request   // being prepared, or in flight
	out     *inFlight // in flight
	queue   []request
	retryAt time.Time // no CREATE_CHILD_SA before this (after TEMPORARY_FAILURE)

	// Requests of the peer: expectID is the next; answer is the response to the
	// one before, to be repeated; busy while the next is being worked on.
	expectID uint32
	answer   [][]byte
	busy     bool
	lingerBy time.Time
	known    bool   // the peer has this IKE SA, too: it has used it, or answered with it
	heir     *ikeSA // what took this one's place by a rekey of the peer, which may not know

	assembly assembly // fragments of the message being received

	// A rekey of this IKE SA that the peer began while ours was in flight.
	rival *rivalIKE
}

// request is one exchange that this side begins: it prepares its payloads,
// possibly after some Work, ends that with sa.transmit or sa.withdraw, and is
// handed the response.
type request interface {
	exchange() message.ExchangeType
	prepare(now time.Time, sa *ikeSA)
	response(now time.Time, sa *ikeSA, x *Exchange)
	// unanswered is called instead of response when the peer stayed silent.
	unanswered(now time.Time, sa *ikeSA)
}

func (sa *ikeSA) ownSPI() message.SPI {
	if sa.role == Initiator {
		return sa.spii
	}
	return sa.spir
}

func (sa *ikeSA) peerSPI() message.SPI {
	if sa.role == Initiator {
		return sa.spir
	}
	return sa.spii
}

// protectors returns the one for what we send and the one for what we receive.
func (sa *ikeSA) protectors() (out, in *suite.Protector) {
	if sa.role == Initiator {
		return sa.keys.initiator, sa.keys.responder
	}
	return sa.keys.responder, sa.keys.initiator
}

// enqueue adds a request to those waiting; urgent puts it before them.
func (sa *ikeSA) enqueue(now time.Time, r request) {
	sa.queue = append(sa.queue, r)
	sa.giveWay(now)
	sa.pump(now)
}

func (sa *ikeSA) urgent(now time.Time, r request) {
	sa.queue = append([]request{r}, sa.queue...)
	sa.giveWay(now)
	sa.pump(now)
}

// pump starts the next waiting request when none is in flight.
func (sa *ikeSA) pump(now time.Time) {
	for sa.current == nil && sa.state != saDead {
		i := sa.next(now)
		if i < 0 {
			return
		}
		r := sa.queue[i]
		sa.queue = slices.Delete(sa.queue, i, i+1)
		sa.current = r
		r.prepare(now, sa)
	}
}

// next is the place of the waiting request whose turn it is, -1 for none. The pause
// after TEMPORARY_FAILURE is for what the peer refused (RFC 7296 §2.25); a move, a look
// at another path or a Delete does not wait for it.
func (sa *ikeSA) next(now time.Time) int {
	if !sa.retryAt.After(now) {
		sa.retryAt = time.Time{}
	}
	return slices.IndexFunc(sa.queue, sa.mayGo)
}

func (sa *ikeSA) mayGo(r request) bool {
	return sa.retryAt.IsZero() || r.exchange() != message.CreateChildSA
}

// resumes says whether a request may be sent now that what it had to compute first is
// there. If another IKE SA has taken the place of this one meanwhile, the request
// begins there instead.
func (sa *ikeSA) resumes(now time.Time, r request) bool {
	if sa == sa.session.sa && sa.current == r {
		return true
	}
	if sa.current == r {
		sa.current = nil
	}
	sa.session.sa.enqueue(now, r)
	return false
}

// transmit sends the current request's payloads and awaits the response.
func (sa *ikeSA) transmit(now time.Time, payloads []message.Payload) {
	s := sa.session
	h := sa.requestHeader(sa.current.exchange())
	packets, err := sa.seal(h, payloads)
	if err != nil {
		s.finish(now, reason.InternalError, 0, "cannot build "+h.Exchange.String()+" request: "+err.Error())
		return
	}
	sa.launch(now, packets)
}

// requestHeader is the header of our next request.
func (sa *ikeSA) requestHeader(kind message.ExchangeType) message.Header {
	h := message.Header{
		SPIi: sa.spii, SPIr: sa.spir, Major: 2,
		Exchange: kind, MessageID: sa.nextID,
	}
	if sa.role == Initiator {
		h.Flags |= message.FlagInitiator
	}
	return h
}

// withdraw ends the current request before it was sent.
func (sa *ikeSA) withdraw(now time.Time) {
	sa.current = nil
	sa.pump(now)
}

// receive takes a message with the SPIs of this IKE SA.
func (sa *ikeSA) receive(now time.Time, pair locator.Pair, data []byte) {
	if sa.keys == nil || sa.state == saDead {
		return
	}
	m, err := message.Parse(data)
	if err != nil {
		return // unauthenticated: no answer, no effect
	}
	if len(m.Payloads) == 0 {
		return
	}
	sealed, ok := m.Payloads[len(m.Payloads)-1].(*message.Encrypted)
	if !ok {
		// An unprotected message proves nothing, but for the token of RFC 6290.
		sa.peerRestarted(now, m)
		return
	}
	if !sa.expects(&m.Header) {
		return
	}
	inner, first, whole, err := sa.open(now, m, sealed, data)
	if err != nil || !whole {
		return
	}
	payloads, err := message.ParsePayloads(first, inner)
	fresh := sa.heard(now, pair, &m.Header)
	switch {
	case m.Response() && !sa.awaits(&m.Header):
	case m.Response():
		sa.receiveResponse(now, pair, m, payloads, err)
	default:
		sa.receiveRequest(now, pair, m, payloads, err)
	}
	if fresh && sa.state != saDead {
		sa.hurry(now)
	}
}

// expects says whether a message ID is one that can matter now: the response in
// flight, the next request, or the last request again.
func (sa *ikeSA) expects(h *message.Header) bool {
	if sa.state == saRefused {
		return !h.Response() && h.MessageID+1 == sa.expectID && sa.answer != nil
	}
	if h.Response() {
		// The last response once more is of interest for the pair it comes on.
		return sa.awaits(h) || h.MessageID+1 == sa.nextID
	}
	if h.MessageID == sa.expectID {
		return !sa.busy
	}
	return h.MessageID+1 == sa.expectID && sa.answer != nil
}

// awaits says whether a message is the response to the request in flight.
func (sa *ikeSA) awaits(h *message.Header) bool {
	return sa.out != nil && h.MessageID == sa.out.id && h.Exchange == sa.current.exchange()
}

// heard notes an authenticated message of the peer. Only a fresh one shows that the
// peer lives: what has been seen before may be a replay (RFC 7296 §2.4).
func (sa *ikeSA) heard(now time.Time, pair locator.Pair, h *message.Header) (fresh bool) {
	s := sa.session
	if fresh = sa.awaits(h) || !h.Response() && h.MessageID == sa.expectID; fresh {
		s.lastIn = now
		sa.known = true
		s.spare(false)
		if s.provesPath(pair) {
			s.pathIn = now
		}
	}
	if h.Response() {
		s.mtu.heard(now, sa, pair, fresh)
	}
	for _, t := range s.tasks {
		if o, ok := t.(PathObserver); ok {
			o.Heard(now, pair, h.Response(), fresh)
		}
	}
	return fresh
}

func (sa *ikeSA) receiveResponse(now time.Time, pair locator.Pair, m *message.Message, payloads []message.Payload, bad error) {
	s := sa.session
	r := sa.current
	sa.current, sa.out = nil, nil
	sa.nextID++
	if bad != nil {
		s.finish(now, reason.MalformedMessage, 0, "response to "+m.Exchange.String()+": "+bad.Error())
		return
	}
	x := s.newExchange(now, m.Exchange, pair, payloads)
	r.response(now, sa, x)
	if s.state != Gone && sa.state != saDead {
		sa.pump(now)
	}
}

func (sa *ikeSA) receiveRequest(now time.Time, pair locator.Pair, m *message.Message, payloads []message.Payload, bad error) {
	if m.MessageID != sa.expectID {
		sa.repeatAnswer(now, pair)
		return
	}
	sa.busy = true
	sa.answer = nil
	// Its window is 1: whoever asks anew has the answer to what it asked before.
	// A Delete on a replaced IKE SA says nothing about the one in use.
	if sa == sa.session.sa {
		for _, c := range sa.session.children {
			c.unconfirmed = false
		}
	}
	rq := &peerRequest{sa: sa, pair: pair, header: m.Header}
	rq.x = sa.session.newExchange(now, m.Exchange, pair, payloads)
	if bad != nil {
		rq.refuse(now, notifyFor(bad))
		if sa.state == saAuth {
			sa.session.finish(now, reason.MalformedMessage, 0, bad.Error())
		}
		return
	}
	sa.serve(now, rq)
}

// repeatAnswer sends the last response again. A replayed request must not send
// anything to a third party: elsewhere than to the session's address it goes only
// if a task allows it.
func (sa *ikeSA) repeatAnswer(now time.Time, pair locator.Pair) {
	s := sa.session
	allowed := pair.Remote.Addr() == s.path.Pair.Remote.Addr()
	for _, t := range s.tasks {
		if a, ok := t.(AnswersFrom); ok && !allowed {
			allowed = a.AnswerAgain(now, pair)
		}
	}
	if !allowed {
		return
	}
	for _, p := range sa.answer {
		s.Act(Send{Session: s.id, Pair: pair, Data: p})
	}
}

// serve gives the peer's request to the exchange it belongs to.
func (sa *ikeSA) serve(now time.Time, rq *peerRequest) {
	switch {
	case sa.state == saAuth && rq.header.Exchange == message.IKEAuth && sa.role == Responder:
		sa.serveAuth(now, rq)
	case sa.state == saUp || sa.state == saDying:
		switch rq.header.Exchange {
		case message.CreateChildSA:
			sa.serveCreateChild(now, rq)
		case message.Informational:
			sa.serveInformational(now, rq)
		default:
			rq.refuse(now, &message.Notify{Kind: message.InvalidSyntax})
		}
	default:
		// Not in this state; forget that it came, so that it may come again.
		sa.busy = false
	}
}

// peerRequest is a request of the peer on its way to a response.
type peerRequest struct {
	sa     *ikeSA
	pair   locator.Pair
	header message.Header
	x      *Exchange
}

// respond sends the response and keeps it, to repeat it.
func (rq *peerRequest) respond(now time.Time, payloads []message.Payload) {
	sa := rq.sa
	s := sa.session
	if sa.state == saDead {
		return
	}
	h := message.Header{
		SPIi: sa.spii, SPIr: sa.spir, Major: 2,
		Exchange: rq.header.Exchange, MessageID: rq.header.MessageID,
		Flags: message.FlagResponse,
	}
	if sa.role == Initiator {
		h.Flags |= message.FlagInitiator
	}
	packets, err := sa.seal(h, payloads)
	if err != nil {
		s.finish(now, reason.InternalError, 0, "cannot build "+h.Exchange.String()+" response: "+err.Error())
		return
	}
	sa.busy = false
	sa.expectID++
	sa.answer = packets
	s.answeredAt = now
	for _, p := range packets {
		s.Act(Send{Session: s.id, Pair: rq.pair, Data: p})
	}
}

// refuse answers with one notify.
func (rq *peerRequest) refuse(now time.Time, n *message.Notify) {
	rq.respond(now, []message.Payload{n})
}

// NotifyError is an error that the peer is told by a notify.
type NotifyError struct {
	Kind   message.NotifyType
	Data   []byte
	Reason reason.Code
	Detail string
}

func (e *NotifyError) Error() string {
	if e.Detail == "" {
		return e.Kind.String()
	}
	return e.Kind.String() + ": " + e.Detail
}

// payload returns the notify to send.
func (e *NotifyError) payload() *message.Notify {
	return &message.Notify{Kind: e.Kind, Data: e.Data}
}

// notifyFor says which notify answers a request that cannot be served.
func notifyFor(err error) *message.Notify {
	if n, ok := errors.AsType[*NotifyError](err); ok {
		return n.payload()
	}
	if n, ok := message.ErrorNotify(err); ok {
		return n
	}
	return &message.Notify{Kind: message.InvalidSyntax}
}

// register makes the engine route messages to this IKE SA.
func (sa *ikeSA) register() { sa.session.engine.sas[sa.ownSPI()] = sa }

// forgetInit drops what only IKE_SA_INIT and IKE_AUTH need.
func (sa *ikeSA) forgetInit() {
	if sa.init == nil {
		return
	}
	sa.session.engine.forgetHalfOpen(sa)
	sa.init.zero()
	sa.init = nil
}

// drop forgets the IKE SA and its keys.
func (sa *ikeSA) drop() {
	if sa.state == saDead {
		return
	}
	sa.forgetInit()
	sa.state = saDead
	delete(sa.session.engine.sas, sa.ownSPI())
	sa.keys.zero()
	sa.keys = nil
	sa.current, sa.out, sa.queue, sa.answer = nil, nil, nil, nil
	if sa.rival != nil {
		sa.rival.sa.drop()
		sa.rival = nil
	}
}
