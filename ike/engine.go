package ike

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Config is what an Engine needs from its surroundings. NewSessionID, NewChildID
// and NewESPSPI must give values that are unique in the process, since several
// engines share one data path.
type Config struct {
	// Rand is the source of all randomness; nil means crypto/rand.
	Rand io.Reader
	// Log gets what is worth knowing while debugging; the events of a session are
	// Actions. Nil discards.
	Log *slog.Logger

	NewSessionID func() SessionID
	NewChildID   func() esp.ChildID
	// NewESPSPI returns an unused inbound SPI of at least 256.
	NewESPSPI func() uint32

	// Shard is this engine's number among Shards engines; it chooses its IKE SPIs
	// so that ShardOf finds it again.
	Shard, Shards int

	// LastInbound tells when the data path last opened a packet of the session's
	// host, zero for never. Nil: the engine judges liveness by IKE alone.
	LastInbound func(SessionID) time.Time

	// Sent tells how many octets the data path has sent to the session's host. What a
	// path carries is confirmed only while there is traffic. Nil: there always is.
	Sent func(SessionID) uint64

	// NATTPort is the local port whose datagrams carry the non-ESP marker,
	// RemoteNATTPort the peer's; zero means 4500.
	NATTPort, RemoteNATTPort uint16

	// CrashSecret, at least 32 octets that survive restarts, lets peers know at
	// once when this side has restarted (RFC 6290). Nil leaves it out.
	CrashSecret []byte

	// Responder is how requests for new IKE SAs are met; nil ignores them.
	Responder *ResponderConfig
}

// ResponderConfig says how an engine meets requests for new IKE SAs. The limits
// bound what an unauthenticated peer can cost (RFC 7296 §2.6): at most
// HalfOpenLimit half-open SAs of a few KiB each, and one key exchange per
// half-open SA.
type ResponderConfig struct {
	Policy *Policy
	// CookieThreshold is the number of half-open SAs in this engine from which on
	// a cookie is demanded; zero means DefaultCookieThreshold, negative never.
	CookieThreshold int
	// HalfOpenLimit is the largest number of half-open SAs in this engine.
	HalfOpenLimit int
	// HalfOpenPerAddress is the largest number per source address.
	HalfOpenPerAddress int
	// HalfOpenTimeout is how long an IKE SA may stay without IKE_AUTH.
	HalfOpenTimeout time.Duration
	// SessionLimit bounds the sessions of this engine; zero means no limit.
	SessionLimit int
}

// Defaults of a ResponderConfig.
const (
	DefaultCookieThreshold    = 32
	DefaultHalfOpenLimit      = 4096
	DefaultHalfOpenPerAddress = 64
	DefaultHalfOpenTimeout    = 15 * time.Second
)

// NATTPort is the port of IKE and ESP in UDP (RFC 7296 §2.23, RFC 3948).
const NATTPort = 4500

// Engine owns a set of IKE SAs. It is not safe for concurrent use.
type Engine struct {
	cfg       Config
	log       *slog.Logger
	responder *ResponderConfig
	cookies   cookieJar
	crash     crashDetector
	limits    limits

	sessions map[SessionID]*Session
	sas      map[message.SPI]*ikeSA   // by our own SPI
	initial  map[initialKey]*ikeSA    // responder SAs by the IKE_SA_INIT request
	halfOpen map[halfOpenAddress]int  // number of half-open SAs per address
	nHalf    int                      // their sum
	children map[esp.ChildID]*Session // owner of each Child SA
	work     map[WorkID]pendingWork   // Work that has not come back
	timers   deadlineHeap
	actions  []Action
	spare    []Action // the slice handed out before, for reuse
	lastWork WorkID
	nUp      int
}

type pendingWork struct {
	session *Session
	then    func(now time.Time, result any)
}

// NewEngine makes an engine without sessions.
func NewEngine(cfg Config) *Engine {
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.NATTPort == 0 {
		cfg.NATTPort = NATTPort
	}
	if cfg.RemoteNATTPort == 0 {
		cfg.RemoteNATTPort = NATTPort
	}
	e := &Engine{
		cfg:      cfg,
		log:      cfg.Log,
		limits:   newLimits(),
		sessions: make(map[SessionID]*Session),
		sas:      make(map[message.SPI]*ikeSA),
		initial:  make(map[initialKey]*ikeSA),
		halfOpen: make(map[halfOpenAddress]int),
		children: make(map[esp.ChildID]*Session),
		work:     make(map[WorkID]pendingWork),
	}
	e.crash = newCrashDetector(cfg.CrashSecret, e.random(8))
	e.SetResponder(cfg.Responder)
	return e
}

// SetResponder changes how new sessions are met. Sessions that exist keep the
// policy they were made with.
func (e *Engine) SetResponder(r *ResponderConfig) {
	if r == nil {
		e.responder = nil
		return
	}
	c := *r
	if c.CookieThreshold == 0 {
		c.CookieThreshold = DefaultCookieThreshold
	}
	if c.HalfOpenLimit == 0 {
		c.HalfOpenLimit = DefaultHalfOpenLimit
	}
	if c.HalfOpenPerAddress == 0 {
		c.HalfOpenPerAddress = DefaultHalfOpenPerAddress
	}
	if c.HalfOpenTimeout == 0 {
		c.HalfOpenTimeout = DefaultHalfOpenTimeout
	}
	e.responder = &c
}

// Actions returns what is to be done, in order, and forgets it. The slice is
// valid until the next call.
func (e *Engine) Actions() []Action {
	out := e.actions
	clear(e.spare[:cap(e.spare)])
	e.actions = e.spare[:0]
	e.spare = out
	return out
}

func (e *Engine) act(a Action) { e.actions = append(e.actions, a) }

// Receive takes an IKE message, without non-ESP marker. Whatever is not a valid
// message of a known IKE SA, or the start of a new one, is dropped without a
// trace in the state.
func (e *Engine) Receive(now time.Time, pair locator.Pair, data []byte) {
	h, err := message.ParseHeader(data)
	if v, ok := errors.AsType[*message.VersionError](err); ok {
		e.wrongVersion(now, pair, h, v)
		return
	}
	if err != nil {
		e.refuse(now, Refused{Pair: pair, Reason: reason.MalformedMessage, Detail: err.Error()})
		return
	}
	if h.Exchange == message.IKESAInit {
		e.receiveInit(now, pair, h, data)
		return
	}
	sa := e.lookup(h)
	if sa == nil {
		e.answerUnknown(now, pair, h, data)
		e.refuse(now, Refused{Pair: pair, Reason: reason.UnknownSPI,
			Detail: fmt.Sprintf("exchange %v for IKE SA %016x %016x", h.Exchange, uint64(h.SPIi), uint64(h.SPIr))})
		return
	}
	sa.receive(now, pair, data)
	e.reschedule(sa.session)
}

// lookup finds the IKE SA of a message that is not part of IKE_SA_INIT. The flag
// says which of the SPIs is ours (RFC 7296 §2.6, §3.1).
func (e *Engine) lookup(h message.Header) *ikeSA {
	own, other := h.SPIi, h.SPIr
	if h.FromInitiator() {
		own, other = h.SPIr, h.SPIi
	}
	sa := e.sas[own]
	if sa == nil || sa.peerSPI() != other || (sa.role == Responder) != h.FromInitiator() {
		return nil
	}
	return sa
}

// Tick does what has become due.
func (e *Engine) Tick(now time.Time) {
	for {
		s := e.timers.due(now)
		if s == nil {
			return
		}
		s.tick(now)
		e.reschedule(s)
		if s.spins(now) {
			e.log.Error("a session's deadline does not pass", "session", s.id, "state", s.state)
			e.timers.set(s, now.Add(spinPause))
		}
	}
}

// Deadline says when Tick has something to do; false: never.
func (e *Engine) Deadline() (time.Time, bool) { return e.timers.next() }

// Complete hands in the result of a Work.
func (e *Engine) Complete(now time.Time, id WorkID, result any) {
	w, ok := e.work[id]
	if !ok {
		return
	}
	delete(e.work, id)
	if w.session.state == Gone {
		return
	}
	w.then(now, result)
	e.reschedule(w.session)
}

// runWork makes a Work of job; its result goes to then, unless the session is over.
func runWork[T any](s *Session, job func() T, then func(now time.Time, result T)) {
	e := s.engine
	e.lastWork++
	e.work[e.lastWork] = pendingWork{s, func(now time.Time, v any) { then(now, v.(T)) }}
	e.act(Work{ID: e.lastWork, Session: s.id, Run: func() any { return job() }})
}

// ErrNoSession is returned for a session that does not exist or is ending.
var ErrNoSession = errors.New("no such session")

func (e *Engine) established(id SessionID) (*Session, error) {
	s := e.sessions[id]
	if s == nil || s.state != Up {
		return nil, fmt.Errorf("session %d: %w", id, ErrNoSession)
	}
	return s, nil
}

// Close ends a session in an orderly way: the peer is told with a Delete
// (RFC 7296 §1.4.1), for at most two seconds.
func (e *Engine) Close(now time.Time, id SessionID, why reason.Code) {
	if s := e.sessions[id]; s != nil {
		s.close(now, why)
		e.reschedule(s)
	}
}

// Repeat sends the request that a session waits with once more, and begins its back-off
// anew: what was in the way may have gone.
func (e *Engine) Repeat(now time.Time, id SessionID) {
	s := e.sessions[id]
	if s == nil || s.sa == nil || s.sa.out == nil {
		return
	}
	s.sa.out.interval = firstRetransmit
	s.sa.send(now)
	e.reschedule(s)
}

// Abort ends a session at once, without a word to the peer.
func (e *Engine) Abort(now time.Time, id SessionID, why reason.Code) {
	if s := e.sessions[id]; s != nil {
		s.finish(now, why, 0, "")
	}
}

// RekeyIKE starts rekeying the session's IKE SA (RFC 7296 §1.3.2).
func (e *Engine) RekeyIKE(now time.Time, id SessionID) error {
	s, err := e.established(id)
	if err != nil {
		return err
	}
	s.startRekeyIKE(now)
	e.reschedule(s)
	return nil
}

// RekeyChild starts rekeying a Child SA (RFC 7296 §1.3.3).
func (e *Engine) RekeyChild(now time.Time, id SessionID, child esp.ChildID) error {
	s, err := e.established(id)
	if err != nil {
		return err
	}
	c := s.child(child)
	if c == nil {
		return fmt.Errorf("session %d has no Child SA %d", id, child)
	}
	s.startRekeyChild(now, c)
	e.reschedule(s)
	return nil
}

// CreateChild negotiates another Child SA (RFC 7296 §1.3.1).
func (e *Engine) CreateChild(now time.Time, id SessionID, local, remote []esp.Selector) error {
	s, err := e.established(id)
	if err != nil {
		return err
	}
	s.startCreateChild(now, local, remote)
	e.reschedule(s)
	return nil
}

// CheckLiveness asks the peer now whether it lives (RFC 7296 §2.4).
func (e *Engine) CheckLiveness(now time.Time, id SessionID) error {
	s, err := e.established(id)
	if err != nil {
		return err
	}
	s.checkLiveness(now)
	e.reschedule(s)
	return nil
}

// DataPathEvent tells the engine what the data path noticed.
func (e *Engine) DataPathEvent(now time.Time, ev esp.Event) {
	if s := e.sessions[SessionID(ev.Host)]; s != nil && s.state == Up {
		if ev.Kind == esp.Unanswered {
			s.mtu.suspect(now)
		}
		for _, t := range s.tasks {
			if o, ok := t.(DataPathObserver); ok {
				o.DataPathEvent(now, ev)
			}
		}
		e.reschedule(s)
	}
	s := e.children[ev.Child]
	if s == nil {
		return
	}
	c := s.child(ev.Child)
	if c == nil {
		return
	}
	switch ev.Kind {
	case esp.FirstInbound:
		c.unconfirmed = false
		s.activate(c)
	case esp.SoftLimit:
		s.startRekeyChild(now, c)
	case esp.HardLimit:
		s.startDeleteChild(now, c, reason.LifetimeExpired)
	}
	e.reschedule(s)
}

// ChildFailed tells that the data path could not install a Child SA: it is
// deleted, on both sides.
func (e *Engine) ChildFailed(now time.Time, id SessionID, child esp.ChildID, err error) {
	s := e.sessions[id]
	if s == nil {
		return
	}
	if c := s.child(child); c != nil {
		e.log.Warn("data path refused a Child SA", "session", id, "child", child, "error", err)
		s.startDeleteChild(now, c, reason.DataPathFailed)
		e.reschedule(s)
	}
}

// Session returns a snapshot of a session.
func (e *Engine) Session(id SessionID) (SessionInfo, bool) {
	s := e.sessions[id]
	if s == nil {
		return SessionInfo{}, false
	}
	return s.info(), true
}

// Sessions returns a snapshot of every session.
func (e *Engine) Sessions() []SessionInfo {
	out := make([]SessionInfo, 0, len(e.sessions))
	for _, s := range e.sessions {
		out = append(out, s.info())
	}
	return out
}

// Counts returns the number of half-open and of established sessions.
func (e *Engine) Counts() (halfOpen, established int) { return e.nHalf, e.nUp }

// newSPI chooses an unused IKE SPI of this shard.
func (e *Engine) newSPI() message.SPI {
	for {
		spi := message.SPI(binary.BigEndian.Uint64(e.random(8)))
		spi = tagSPI(e.crash.mark(spi), e.cfg.Shard, e.cfg.Shards)
		// A first word of zero would look like the non-ESP marker to a receiver
		// that is looking at the wrong port.
		if spi>>32 != 0 && e.sas[spi] == nil {
			return spi
		}
	}
}
