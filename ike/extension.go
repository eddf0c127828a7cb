package ike

import (
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
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

// PathObserver is a Task that wants to hear of authenticated messages that came
// on another pair than the session's (RFC 4555 §3.8).
type PathObserver interface {
	PathObserved(now time.Time, pair locator.Pair)
}
