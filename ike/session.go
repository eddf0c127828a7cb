package ike

import (
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// closeTimeout is how long a Delete is repeated before a session is dropped.
const closeTimeout = 2 * time.Second

// Session is one peer, authenticated once, through any number of rekeyings. Only
// the goroutine of its engine touches it.
type Session struct {
	engine *Engine
	id     SessionID
	policy *Policy
	role   Role
	state  State

	// sa is the IKE SA in use. retired holds the ones that were replaced or lost a
	// collision and wait for their Delete.
	sa      *ikeSA
	retired []*ikeSA

	children []*childSA
	// deletedEarly are outbound SPIs that the peer deleted while a request of ours
	// for a Child SA was unanswered: its Delete may overtake its answer.
	deletedEarly []uint32
	tasks        []Task

	race     *Race    // until IKE_SA_INIT is answered; nil without rivals
	path     esp.Path // of IKE
	carried  esp.Path // of ESP, as the data path has it
	mtu      pathMTU
	nat      natState
	peer     auth.Identity
	peerAuth message.AuthMethod
	peerKey  auth.KeyFingerprint // of the shared key that the peer has proved to know
	// certified are the addresses that the peer's certificate lists.
	certified auth.AddressSet
	config    Configuration
	hosted    bool // the data path knows the host

	started, up  time.Time
	rekeyAt      time.Time // of the IKE SA
	connectBy    time.Time // until when the session must be up
	childlessBy  time.Time // until when a session without Child SA may last
	lastIn       time.Time // last authenticated IKE message
	pathIn       time.Time // of these, the last one that shows that the path in use works
	answeredAt   time.Time // when the peer's last request was answered first
	livenessFrom time.Time // silence counts from here at the latest
	closing      closing
	lingerBy     time.Time // until when a session that is over repeats its last answer

	// awaiting is the rest of IKE_AUTH while an AuthorizeRequest is out.
	awaiting       func(time.Time, Grant)
	localSelectors []esp.Selector // granted, nil: the policy's
	addressRefused bool

	dueAt     time.Time
	heapIndex int
	spinAt    time.Time // when the session was due again right after its tick
	spun      int       // how often
}

// closing is the orderly end of a session that is under way, and what it ends with.
type closing struct {
	by     time.Time // until when it may last
	why    reason.Code
	notify message.NotifyType
	detail string
}

func (e *Engine) newSession(now time.Time, p *Policy, role Role, pair locator.Pair) *Session {
	s := &Session{
		engine:    e,
		id:        e.cfg.NewSessionID(),
		policy:    p,
		role:      role,
		state:     Connecting,
		started:   now,
		path:      esp.Path{Pair: pair},
		heapIndex: -1,
	}
	s.mtu.session = s
	s.tasks = []Task{&natTask{}, &fragmentationTask{}, &configurationTask{}}
	for _, x := range p.Extensions {
		s.tasks = append(s.tasks, x.Begin(s))
	}
	e.sessions[s.id] = s
	return s
}

// ID returns the session's name.
func (s *Session) ID() SessionID { return s.id }

// Role says who began the session.
func (s *Session) Role() Role { return s.role }

// Policy returns what the session was negotiated by; read only.
func (s *Session) Policy() *Policy { return s.policy }

// Path returns where the session's IKE messages and ESP packets go.
func (s *Session) Path() esp.Path { return s.path }

// Act hands an action to whoever drives the engine.
func (s *Session) Act(a Action) { s.engine.act(a) }

// authenticated is called when both sides have proved who they are.
func (s *Session) authenticated(now time.Time) {
	s.state = Up
	s.up = now
	s.connectBy = time.Time{}
	s.livenessFrom = now
	s.engine.nUp++
	s.rekeyAt = s.jittered(now, s.policy.RekeyIKE)
}

// jittered returns now plus the interval, less a random part of it (RFC 7296
// §2.8); zero for a zero interval.
func (s *Session) jittered(now time.Time, interval time.Duration) time.Time {
	if interval <= 0 {
		return time.Time{}
	}
	early := time.Duration(s.policy.Jitter * s.engine.randomFraction() * float64(interval))
	return now.Add(interval - early)
}

// announce tells that the session is up.
func (s *Session) announce() { s.Act(Established{Session: s.id, Info: s.info()}) }

// close starts an orderly end. A session that is not up has nothing to delete and
// ends at once.
func (s *Session) close(now time.Time, why reason.Code) {
	switch s.state {
	case Connecting:
		s.finish(now, why, 0, "")
	case Up:
		s.state = Closing
		s.closing.why, s.closing.by = why, now.Add(closeTimeout)
		s.sa.urgent(now, &deleteIKE{closing: true})
	}
}

// finishClosing ends a session that is closing.
func (s *Session) finishClosing(now time.Time) {
	s.finish(now, s.closing.why, s.closing.notify, s.closing.detail)
}

// finish ends the session now; nothing of it is left.
func (s *Session) finish(now time.Time, why reason.Code, notify message.NotifyType, detail string) {
	if s.over(why, notify, detail) {
		s.sa.drop()
		s.engine.timers.set(s, time.Time{})
	}
}

// finishLingering ends the session, but the IKE SA stays a while to repeat its
// last answer, which may have been lost. Until then it counts as half-open.
func (s *Session) finishLingering(now time.Time, why reason.Code, notify message.NotifyType, detail string) {
	if s.over(why, notify, detail) {
		s.sa.state = saRefused
		s.sa.current, s.sa.out, s.sa.queue = nil, nil, nil // no answer matters any more
		s.lingerBy = now.Add(lingerTime)
	}
}

// over takes the session out of use and tells why; false if it was over before.
func (s *Session) over(why reason.Code, notify message.NotifyType, detail string) bool {
	if s.state == Gone {
		return false
	}
	if !s.up.IsZero() {
		s.engine.nUp--
	}
	info := s.info()
	info.State = Gone
	s.state = Gone
	e := s.engine
	for _, c := range s.children {
		delete(e.children, c.id)
		c.zero()
		s.Act(RemoveChild{Session: s.id, Child: c.id})
	}
	s.children = nil
	if s.hosted {
		s.Act(RemoveHost{Session: s.id})
	}
	if why == reason.PeerDead && s.role == Responder {
		e.crash.giveUp(s.sa.ownSPI())
	}
	for _, sa := range s.retired {
		sa.drop()
	}
	s.retired = nil
	delete(e.sessions, s.id)
	s.Act(Closed{Session: s.id, Info: info, Reason: why, Notify: notify, Detail: detail})
	return true
}

// retire takes an IKE SA out of use; it lives until its Delete is done.
func (s *Session) retire(sa *ikeSA) { s.retired = append(s.retired, sa) }

// dropRetired forgets a retired IKE SA.
func (s *Session) dropRetired(now time.Time, sa *ikeSA) {
	sa.requeueOnSuccessor(now)
	for i, r := range s.retired {
		if r == sa {
			s.retired = append(s.retired[:i], s.retired[i+1:]...)
			break
		}
	}
	sa.drop()
}

func (s *Session) child(id esp.ChildID) *childSA {
	for _, c := range s.children {
		if c.id == id {
			return c
		}
	}
	return nil
}

// newExchange is what the tasks see of a message.
func (s *Session) newExchange(now time.Time, kind message.ExchangeType, pair locator.Pair, in []message.Payload) *Exchange {
	return &Exchange{Type: kind, Session: s, Now: now, Pair: pair, In: in}
}

// each runs one of the four methods of every task.
func (s *Session) each(x *Exchange, step func(Task, *Exchange) error) error {
	for _, t := range s.tasks {
		if err := step(t, x); err != nil {
			return err
		}
	}
	return nil
}

// info makes a snapshot.
func (s *Session) info() SessionInfo {
	i := SessionInfo{
		ID: s.id, Role: s.role, State: s.state,
		Local: s.policy.Local.ID, Peer: s.peer, AuthMethod: s.peerAuth,
		Path: s.path, NATLocal: s.nat.local, NATPeer: s.nat.peer,
		Config: s.config, Started: s.started, Established: s.up,
		IKERekeyAt: s.rekeyAt, LastIKEInbound: s.lastIn,
	}
	if sa := s.sa; sa != nil {
		i.SPIi, i.SPIr = sa.spii, sa.spir
		i.Algorithms = sa.alg
		i.Fragmentation = sa.fragmentation
		i.TellsCrash = sa.crashToken != nil
		if sa.out != nil {
			i.Unanswered = sa.out.sent
			if p := sa.probing(); p != nil {
				i.Unanswered -= p.tried // that they go unanswered tells of their size only
			}
			// The last repetition stands for the time; the next one is as far away.
			if sa.out.sentAt.Sub(sa.out.since) >= awayAfter/2 {
				i.AwaySince = sa.out.since
			}
		}
	}
	for n, t := range s.tasks[len(s.tasks)-len(s.policy.Extensions):] {
		if a, ok := t.(interface{ Active() bool }); ok && a.Active() {
			i.Extensions = append(i.Extensions, s.policy.Extensions[n].Name())
		}
	}
	for _, c := range s.children {
		if c.inUse() {
			i.Children = append(i.Children, c.info())
		}
	}
	return i
}

// connectTimeout and peerTimeout are the policy's, or the defaults.
func (s *Session) connectTimeout() time.Duration {
	if s.policy.ConnectTimeout > 0 {
		return s.policy.ConnectTimeout
	}
	return DefaultConnectTimeout
}

func (s *Session) peerTimeout() time.Duration {
	if s.policy.PeerTimeout > 0 {
		return s.policy.PeerTimeout
	}
	return DefaultPeerTimeout
}

// patience is how long a request is repeated before the session is given up.
func (s *Session) patience() time.Duration {
	for _, t := range s.tasks {
		if m, ok := t.(Mover); ok && m.Moves() {
			return max(s.peerTimeout(), s.policy.AwayTimeout)
		}
	}
	return s.peerTimeout()
}

// spare tells the data path whether to spare a peer that is away most of what goes to
// it: by now its address may be somebody else's. Who decides about moving needs to send
// to find out, and so only a responder does it.
func (s *Session) spare(away bool) {
	if s.role != Responder || !s.hosted || s.carried.Sparing == away {
		return
	}
	s.carried.Sparing = away
	s.Act(MoveHost{Session: s.id, Path: s.carried})
}

// awayAfter is how long a request is unanswered before the peer counts as away.
const awayAfter = 30 * time.Second

// awaySince says since when the peer has not been answering, zero while it does.
func (s *Session) awaySince(now time.Time) time.Time {
	if s.state != Up || s.sa.out == nil || now.Sub(s.sa.out.since) < awayAfter {
		return time.Time{}
	}
	return s.sa.out.since
}
