// Package shard is the loop that drives an IKE engine (design: one owner per SA).
//
// A Shard is a goroutine that owns one ike.Engine. Datagrams, commands, answers of
// slow work and deadlines come in through it, one after the other; what the engine
// wants done goes out: datagrams to the transport, Child SAs to the data path,
// public-key work to Workers, everything else to the daemon as an event. A Group is
// several shards behind one door: it hands each datagram and each data path event to
// the shard that owns the SA.
//
// What waits here is bounded in number and in octets, so that senders who have proved
// nothing cost bounded memory. When datagrams come faster than the engine takes them,
// requests for new IKE SAs are dropped first: established sessions go on, and a new
// peer repeats its request anyway (RFC 7296 §2.1).
package shard

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Engine is what a Shard drives. *ike.Engine is one; tests bring their own.
type Engine interface {
	Receive(now time.Time, pair locator.Pair, data []byte)
	Tick(now time.Time)
	Deadline() (time.Time, bool)
	Actions() []ike.Action
	Initiate(now time.Time, p *ike.Policy, pair locator.Pair) (ike.SessionID, error)
	Compete(now time.Time, r *ike.Race, p *ike.Policy, pair locator.Pair) (ike.SessionID, error)
	Repeat(now time.Time, id ike.SessionID)
	CreateChild(now time.Time, id ike.SessionID, local, remote []esp.Selector) error
	Complete(now time.Time, id ike.WorkID, result any)
	Authorize(now time.Time, id ike.SessionID, g ike.Grant)
	Close(now time.Time, id ike.SessionID, why reason.Code)
	Abort(now time.Time, id ike.SessionID, why reason.Code)
	CheckLiveness(now time.Time, id ike.SessionID) error
	DataPathEvent(now time.Time, ev esp.Event)
	ChildFailed(now time.Time, id ike.SessionID, child esp.ChildID, err error)
	SetResponder(r *ike.ResponderConfig)
	Session(id ike.SessionID) (ike.SessionInfo, bool)
	Sessions() []ike.SessionInfo
	WithSession(now time.Time, id ike.SessionID, f func(now time.Time, s *ike.Session)) error
	EachSession(now time.Time, f func(now time.Time, s *ike.Session))
	Counts() (halfOpen, established int)
}

// Config is what a Shard works with. Engine, Send, DataPath, Events and Workers are
// required.
type Config struct {
	Engine Engine
	// Send hands an IKE message to the transport. It is called on the shard's
	// goroutine; a failure is logged and left to retransmission.
	Send func(pair locator.Pair, data []byte) error
	// Probe hands an IKE message to the transport that must not be fragmented
	// (transport.SendProbe). Nil sends none: what they look for is not found then.
	Probe func(pair locator.Pair, data []byte) error
	// Keepalive sends one NAT keepalive (transport.SendKeepalive). Nil sends none.
	Keepalive func(pair locator.Pair) error
	// DataPath carries out the engine's actions on hosts and Child SAs.
	DataPath esp.DataPath
	// Events gets every other action, in order, on the shard's goroutine:
	// ike.AuthorizeRequest, Established, Rekeyed, ChildDown, Closed and Refused. It
	// must not wait: AuthorizeRequest is answered, now or later, with
	// Shard.Authorize.
	Events func(s *Shard, a ike.Action)
	// Workers runs the engine's Work. Shards may share one.
	Workers *Workers
	Log     *slog.Logger

	// Limits of what may wait; zero means the default.
	MaxDatagrams int // messages for existing SAs, default 2048
	MaxInits     int // requests for new ones, default 1024
	MaxOctets    int // of each of the two kinds, default 4 MiB
}

// ErrStopped is the answer to a command given to a shard that does not run any more.
var ErrStopped = errors.New("the IKE engine has stopped")

// Shard drives one engine. Its methods may be called from any goroutine.
type Shard struct {
	cfg   Config
	inbox inbox
	done  chan struct{} // closed when Run returns

	received, droppedKnown, droppedInits, sendErrors atomic.Uint64
}

// New makes a shard. Nothing happens before Run; datagrams and commands that come
// earlier wait.
func New(cfg Config) *Shard {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	s := &Shard{cfg: cfg, done: make(chan struct{})}
	s.inbox.init(cfg)
	return s
}

// Run drives the engine until ctx is done. It is called once.
func (s *Shard) Run(ctx context.Context) {
	defer close(s.done)
	defer s.inbox.close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.arm(timer)
		select {
		case <-ctx.Done():
			return
		case <-s.inbox.bell:
			s.work()
		case <-timer.C:
			s.tick()
		}
	}
}

// Receive takes in an IKE message without marker; data belongs to the shard from now
// on. It never waits: false means that the inbox was full and the message is dropped.
func (s *Shard) Receive(pair locator.Pair, data []byte) bool {
	isInit := requestsNewSA(data)
	if s.inbox.putDatagram(datagram{pair, data}, isInit) {
		s.received.Add(1)
		return true
	}
	if isInit {
		s.droppedInits.Add(1)
	} else {
		s.droppedKnown.Add(1)
	}
	return false
}

// Do runs f with the engine on the shard's goroutine, soon and in order, and carries
// out what the engine wants afterwards. It does not wait for it. False means that the
// shard has stopped and f will not run.
func (s *Shard) Do(f func(now time.Time, e Engine)) bool {
	return s.inbox.putCommand(f)
}

// Call is Do, waiting until f has run. It must not be called from the shard's own
// goroutine (from Events, or inside of Do). After an error f may still be running or
// run later, unless the error is ErrStopped: it must not write to what the caller then
// reads. Ask sees to that.
func (s *Shard) Call(ctx context.Context, f func(now time.Time, e Engine)) error {
	ran := make(chan struct{})
	if !s.Do(func(now time.Time, e Engine) { f(now, e); close(ran) }) {
		return ErrStopped
	}
	select {
	case <-ran:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
	}
	select {
	case <-ran: // both were ready
		return nil
	default:
		return ErrStopped
	}
}

// Ask is Call for an f with a result. After an error there is none, whether f has run or not.
func Ask[T any](ctx context.Context, s *Shard, f func(now time.Time, e Engine) T) (T, error) {
	answer := make(chan T, 1)
	if err := s.Call(ctx, func(now time.Time, e Engine) { answer <- f(now, e) }); err != nil {
		var none T
		return none, err
	}
	return <-answer, nil
}

// Alive is nil when the shard takes commands, for a watchdog.
func (s *Shard) Alive(ctx context.Context) error {
	return s.Call(ctx, func(time.Time, Engine) {})
}

// Authorize answers an ike.AuthorizeRequest.
func (s *Shard) Authorize(id ike.SessionID, g ike.Grant) {
	s.Do(func(now time.Time, e Engine) { e.Authorize(now, id, g) })
}

// DataPathEvent tells the engine what the data path noticed.
func (s *Shard) DataPathEvent(ev esp.Event) {
	s.Do(func(now time.Time, e Engine) { e.DataPathEvent(now, ev) })
}

// Stats are the counters of a shard.
type Stats struct {
	Received     uint64 // messages taken in
	DroppedKnown uint64 // messages dropped since the inbox was full
	DroppedInits uint64 // of these, requests for new IKE SAs
	SendErrors   uint64
}

// Stats returns the counters.
func (s *Shard) Stats() Stats {
	return Stats{s.received.Load(), s.droppedKnown.Load(), s.droppedInits.Load(), s.sendErrors.Load()}
}

// arm sets the timer to the engine's deadline.
func (s *Shard) arm(timer *time.Timer) {
	deadline, ok := s.cfg.Engine.Deadline()
	if !ok {
		timer.Stop()
		return
	}
	timer.Reset(max(0, time.Until(deadline)))
}

// work hands over everything that waits: commands first, they are few and hold the
// answers that sessions wait for; then messages for existing SAs; then new ones. A
// flood cannot keep the timer from being served: what is taken at once is bounded.
func (s *Shard) work() {
	batch := s.inbox.take()
	for _, f := range batch.commands {
		f(time.Now(), s.cfg.Engine)
		s.carryOut()
	}
	for _, list := range [...][]datagram{batch.known, batch.inits} {
		for i := range list {
			s.cfg.Engine.Receive(time.Now(), list[i].pair, list[i].data)
			s.carryOut()
		}
	}
	s.inbox.recycle(batch)
	if deadline, ok := s.cfg.Engine.Deadline(); ok && time.Until(deadline) <= 0 {
		s.tick()
	}
}

func (s *Shard) tick() {
	s.cfg.Engine.Tick(time.Now())
	s.carryOut()
}

// carryOut does what the engine wants, until it wants nothing more: an action that
// fails is told to the engine, which may want something else then.
func (s *Shard) carryOut() {
	for {
		actions := s.cfg.Engine.Actions()
		if len(actions) == 0 {
			return
		}
		for _, a := range actions {
			s.do(a)
		}
	}
}

func (s *Shard) do(a ike.Action) {
	switch a := a.(type) {
	case ike.Send:
		s.send(a)
	case ike.Keepalive:
		if s.cfg.Keepalive != nil {
			s.dataPath("send a NAT keepalive", a.Session, s.cfg.Keepalive(a.Pair))
		}
	case ike.Work:
		s.submit(a)
	case ike.AddHost:
		s.dataPath("add host", a.Session, s.cfg.DataPath.AddHost(esp.HostID(a.Session), a.Path))
	case ike.MoveHost:
		s.dataPath("move host", a.Session, s.cfg.DataPath.MoveHost(esp.HostID(a.Session), a.Path))
	case ike.RemoveHost:
		s.dataPath("remove host", a.Session, s.cfg.DataPath.RemoveHost(esp.HostID(a.Session)))
	case ike.AddChild:
		s.addChild(a)
	case ike.ActivateChild:
		if err := s.cfg.DataPath.ActivateChild(a.Child); err != nil {
			s.childFailed(a.Session, a.Child, err)
		}
	case ike.RemoveChild:
		s.dataPath("remove child", a.Session, s.cfg.DataPath.RemoveChild(a.Child))
	default:
		s.cfg.Events(s, a)
	}
}

// natKeeper is a data path that sends NAT keepalives only where nothing else has gone.
type natKeeper interface {
	Sent(host esp.HostID, pair locator.Pair)
}

func (s *Shard) send(a ike.Send) {
	if a.DontFragment {
		s.probe(a)
		return
	}
	err := s.cfg.Send(a.Pair, a.Data)
	if err == nil {
		if keeper, ok := s.cfg.DataPath.(natKeeper); ok && a.Session != 0 {
			keeper.Sent(esp.HostID(a.Session), a.Pair)
		}
		return
	}
	// Counted for all, logged for sessions only: answers to strangers would let them
	// fill the log.
	s.sendErrors.Add(1)
	if a.Session != 0 {
		s.cfg.Log.Debug("IKE message not sent", "session", uint64(a.Session), "path", a.Pair.String(), "error", err)
	}
}

// probe sends a path MTU probe. That it does not leave is what it may find out.
func (s *Shard) probe(a ike.Send) {
	if s.cfg.Probe == nil {
		return
	}
	if err := s.cfg.Probe(a.Pair, a.Data); err != nil {
		s.cfg.Log.Debug("path MTU probe not sent", "session", uint64(a.Session), "path", a.Pair.String(), "error", err)
	}
}

// submit runs work elsewhere; its result comes back as a command.
func (s *Shard) submit(w ike.Work) {
	s.cfg.Workers.submit(func() {
		result := w.Run()
		s.Do(func(now time.Time, e Engine) { e.Complete(now, w.ID, result) })
	})
}

func (s *Shard) addChild(a ike.AddChild) {
	err := s.cfg.DataPath.AddChild(a.Child)
	a.Child.In.Zero() // the data path has its own copy
	a.Child.Out.Zero()
	if err != nil {
		s.childFailed(a.Session, a.Child.ID, err)
	}
}

func (s *Shard) childFailed(id ike.SessionID, child esp.ChildID, err error) {
	s.cfg.Log.Error("child SA not installed", "session", uint64(id), "child", uint64(child), "error", err)
	s.cfg.Engine.ChildFailed(time.Now(), id, child, err)
}

func (s *Shard) dataPath(what string, id ike.SessionID, err error) {
	if err != nil {
		s.cfg.Log.Error("data path: "+what, "session", uint64(id), "error", err)
	}
}
