package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// Times of a connection.
const (
	// closePatience is how long an orderly end waits for the gateway: time to repeat
	// the Delete once or twice.
	closePatience = 1500 * time.Millisecond
	// clearPatience bounds the time to give the machine its network back.
	clearPatience = 2 * time.Second
	// upkeep is how often the machine's settings and the state are looked after.
	upkeep = 5 * time.Second
	// childPatience is how long a Child SA may take that is asked for by itself.
	childPatience = 10 * time.Second
	childPoll     = 20 * time.Millisecond
)

// connectionConfig is what a connection works with.
type connectionConfig struct {
	generation uint64
	profile    *profile.Profile
	policy     *ike.Policy
	// timeout bounds the first attempt; zero leaves that to the engine.
	timeout  time.Duration
	newStack func(*profile.Profile) (Stack, error)
	machine  Machine
	resolver *resolver
	random   func() float64
	log      *slog.Logger
	// changed is called after each change of the state.
	changed func()
	// succeeded says whether another daemon takes over, which keeps the machine closed;
	// nil if that cannot be.
	succeeded func() bool
	// adopted says that the machine is still set up by a run that crashed.
	adopted  bool
	warnings []string
}

// connection is the life of one "up", from the command until "down" or, without
// reconnect, until the first failure.
type connection struct {
	connectionConfig
	cancel context.CancelFunc
	done   chan struct{}
	awake  chan struct{} // a token: the machine has slept

	// Owned by run.
	stack   Stack
	backoff backoff
	applied bool // the machine is set up for the tunnel
	// handedOver says that the machine was left to a successor; to be read after done.
	handedOver bool

	mu sync.Mutex
	st live
}

// live is what status reports read.
type live struct {
	state     State
	step      string
	server    string
	stack     Stack
	session   ike.SessionID
	handover  *Handover
	info      ike.SessionInfo
	network   *Network
	problem   *Problem
	lastError *Problem
	retryAt   time.Time
}

// startConnection begins to connect; the connection ends with ctx.
func startConnection(ctx context.Context, cfg connectionConfig) *connection {
	ctx, cancel := context.WithCancel(ctx)
	c := &connection{
		connectionConfig: cfg, cancel: cancel, done: make(chan struct{}), awake: make(chan struct{}, 1),
		backoff: backoff{random: cfg.random}, applied: cfg.adopted, st: live{state: Connecting},
	}
	go c.run(ctx)
	return c
}

// stop ends the connection and waits until the machine has its network back.
func (c *connection) stop() {
	c.cancel()
	<-c.done
}

// woken tells that the machine has slept.
func (c *connection) woken() {
	c.mu.Lock()
	st := c.st.stack
	c.mu.Unlock()
	if st != nil {
		st.Resume()
	}
	select {
	case c.awake <- struct{}{}:
	default:
	}
}

// set changes what status reports show.
func (c *connection) set(change func(*live)) {
	c.mu.Lock()
	change(&c.st)
	c.mu.Unlock()
	c.changed()
}

func (c *connection) step(format string, args ...any) {
	c.set(func(l *live) { l.step = fmt.Sprintf(format, args...) })
}

// run connects, holds, and connects again.
func (c *connection) run(ctx context.Context) {
	defer close(c.done)
	defer c.profile.Zero()
	first := true
	for {
		err := c.attempt(ctx, first)
		if ctx.Err() != nil {
			break
		}
		f := c.failed(err)
		if !c.profile.Reconnect {
			break
		}
		first = false
		if !c.pause(ctx, f) {
			break
		}
	}
	c.finish(ctx)
}

// failed notes why there is no session.
func (c *connection) failed(err error) *failure {
	f := asFailure(err)
	p := f.problem(time.Now(), c.generation)
	c.log.Error("not connected", "profile", c.profile.Name, "reason", f.code, "error", f.Error(), "hint", p.Hint)
	c.set(func(l *live) {
		l.lastError, l.problem = p, p
		l.info, l.session = ike.SessionInfo{}, 0
	})
	return f
}

// asFailure gives any error a code.
func asFailure(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var coded *reason.Error
	if errors.As(err, &coded) {
		return &failure{code: coded.Code, detail: err.Error()}
	}
	return &failure{code: reason.InternalError, detail: err.Error()}
}

// pause waits before the next attempt; false means that there will be none. When the
// ways out of this machine change meanwhile, what failed may work now; not so what the
// gateway or the credentials are to blame for.
func (c *connection) pause(ctx context.Context, after *failure) bool {
	d := c.backoff.next(permanent(after.code))
	began := time.Now()
	c.set(func(l *live) { l.state, l.step, l.retryAt = c.searching(), "", began.Add(d) })
	c.log.Info("trying again", "profile", c.profile.Name, "in", d.Round(100*time.Millisecond).String())
	var changed <-chan struct{}
	if c.stack != nil && !permanent(after.code) {
		changed = c.stack.Uplinks()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-changed:
			// Links that flap do not make a storm of attempts.
			changed = nil
			timer.Reset(max(0, min(time.Until(began.Add(d)), time.Until(began.Add(uplinkPause)))))
			c.backoff.reset()
		case <-timer.C:
			return true
		}
	}
}

// searching is the state while there is no session.
func (c *connection) searching() State {
	if c.applied {
		return Reconnecting
	}
	return Connecting
}

// finish gives the machine its network back, and only then lets the device go. For a
// successor the machine stays closed.
func (c *connection) finish(ctx context.Context) {
	c.set(func(l *live) { l.state, l.step, l.retryAt = Disconnecting, "", time.Time{} })
	if c.succeeded != nil && c.succeeded() {
		c.handedOver = true
		c.log.Info("this machine stays closed until the next run has brought the tunnel back", "profile", c.profile.Name)
		if c.stack != nil {
			c.stack.Shutdown()
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearPatience)
	defer cancel()
	began := time.Now()
	if err := c.machine.Clear(ctx, false); err != nil {
		c.log.Error("this machine's network is not fully restored", "error", err)
		f := &failure{code: reason.RouteFailed, detail: err.Error(), hint: "Run vpn-client down again; the daemon's log has the details."}
		c.set(func(l *live) { l.lastError = f.problem(time.Now(), c.generation) })
	}
	restored := time.Since(began)
	c.applied = false
	if c.stack != nil {
		c.stack.Shutdown()
	}
	c.log.Info("disconnected", "profile", c.profile.Name, "restored", restored.Round(time.Millisecond).String(),
		"closed", (time.Since(began) - restored).Round(time.Millisecond).String())
	c.set(func(l *live) {
		*l = live{state: Disconnected, problem: l.problem, lastError: l.lastError}
	})
}

// attempt is one session: it returns when the session, or the hope for one, is over.
func (c *connection) attempt(ctx context.Context, first bool) error {
	c.set(func(l *live) { l.state, l.retryAt = c.searching(), time.Time{} })
	// A network may have given this machine an address that the guard keeps in.
	if err := c.machine.Maintain(ctx); err != nil {
		c.log.Warn("settings of this machine not maintained", "error", err)
	}
	connecting := ctx
	if first && c.timeout > 0 {
		var cancel context.CancelFunc
		connecting, cancel = context.WithTimeoutCause(ctx, c.timeout, errTooLong)
		defer cancel()
	}
	began := time.Now()
	info, err := c.connect(connecting)
	if err != nil {
		return c.explainTimeout(connecting, err)
	}
	up := time.Now()
	if err := c.apply(ctx, info); err != nil {
		c.end(info.ID, reason.RouteFailed)
		return err
	}
	c.set(func(l *live) { l.state, l.step, l.problem = Connected, "", nil })
	c.log.Info("connected", "profile", c.profile.Name, "gateway", info.Peer.String(), "path", info.Path.Pair.String(),
		"addresses", info.Config.Addresses, "algorithms", info.Algorithms.String(), "took", up.Sub(began).Round(time.Millisecond).String())
	err = c.hold(ctx, info.ID)
	if time.Since(up) >= steadyAfter {
		c.backoff.reset()
	}
	return err
}

// errTooLong is why an attempt ends that has used up its time.
var errTooLong = errors.New("the time to connect is over")

// explainTimeout says what was waited for in vain.
func (c *connection) explainTimeout(connecting context.Context, err error) error {
	if context.Cause(connecting) != errTooLong {
		return err
	}
	var f *failure
	if errors.As(err, &f) && f.code != reason.Cancelled {
		return err
	}
	return &failure{code: reason.NoAnswer, detail: fmt.Sprintf("not connected within %s", c.timeout)}
}

// apply makes the machine use the session.
func (c *connection) apply(ctx context.Context, info ike.SessionInfo) error {
	device, _ := c.stack.Device()
	n := networkFor(c.profile, info, device, c.stack.Ports())
	n.KernelESP = c.stack.DataPath().Kernel()
	c.applied = true // also if only half of it succeeds: there is something to clear
	if err := c.machine.Apply(ctx, n); err != nil {
		return &failure{code: reason.RouteFailed, detail: err.Error()}
	}
	if blocked := n.blocked(); len(blocked) > 0 {
		c.log.Warn("the gateway does not carry all that the profile wants in the tunnel; the rest is blocked, not sent past it", "blocked", blocked)
	}
	c.set(func(l *live) { l.session, l.info, l.network = info.ID, info, &n })
	return nil
}

// hold keeps a session until it ends, and says why it did.
func (c *connection) hold(ctx context.Context, id ike.SessionID) error {
	ticker := time.NewTicker(upkeep)
	defer ticker.Stop()
	sound := &sounding{c: c, session: id}
	for {
		select {
		case a := <-c.stack.Events():
			sound.event(a)
			if err := c.sessionEvent(ctx, id, a); err != nil {
				return err
			}
		case <-ticker.C:
			c.lookAfter(ctx, id)
			if sound.forgotten(ctx) {
				c.stack.Abort(id, reason.PeerDead)
				return &failure{code: reason.PeerDead, detail: "the gateway answers, but not in this session: it has restarted, or it gave us up"}
			}
		case <-c.awake:
			c.lookAfter(ctx, id)
		case <-c.stack.Failed():
			return &failure{code: reason.DataPathFailed, detail: c.stack.Err().Error()}
		case <-ctx.Done():
			c.set(func(l *live) { l.state, l.step = Disconnecting, "saying goodbye" })
			c.end(id, reason.UserDisconnect)
			return ctx.Err()
		}
	}
}

// sessionEvent handles what the engine tells of the session; an error is its end.
func (c *connection) sessionEvent(ctx context.Context, id ike.SessionID, a ike.Action) error {
	switch a := a.(type) {
	case ike.Closed:
		if a.Session == id {
			return &failure{code: a.Reason, notify: a.Notify, detail: a.Detail}
		}
	case ike.PathChanged:
		if a.Session == id {
			c.moving(a)
		}
	case ike.PathConfirmed:
		if a.Session == id {
			c.followed(a)
		}
	case ike.Rekeyed:
		if a.Session == id {
			c.rekeyed(ctx, id, a)
		}
	case ike.ChildDown:
		if info, ok := c.stack.Session(ctx, id); a.Session == id && ok && len(info.Children) == 0 {
			c.end(id, a.Reason)
			return &failure{code: a.Reason, detail: "the last Child SA is gone"}
		}
	}
	return nil
}

// rekeyed follows a renewal, which may have narrowed the selectors.
func (c *connection) rekeyed(ctx context.Context, id ike.SessionID, a ike.Rekeyed) {
	c.log.Info("keys renewed", "profile", c.profile.Name, "ike", a.IKE)
	info, ok := c.stack.Session(ctx, id)
	if !ok || len(info.Children) == 0 {
		return
	}
	c.mu.Lock()
	before := carriedBy(c.st.info)
	c.st.info = info
	c.mu.Unlock()
	if fmt.Sprint(before) == fmt.Sprint(carriedBy(info)) {
		c.changed()
		return
	}
	if err := c.apply(ctx, info); err != nil {
		c.log.Error("routes not adapted to the renewed Child SA", "error", err)
	}
}

// lookAfter repairs what other software has changed, and judges whether the tunnel
// still carries traffic.
func (c *connection) lookAfter(ctx context.Context, id ike.SessionID) {
	if err := c.machine.Maintain(ctx); err != nil {
		c.log.Warn("settings of this machine not maintained", "error", err)
	}
	info, ok := c.stack.Session(ctx, id)
	if !ok {
		return
	}
	stats, _ := c.stack.Stats(id) // without, IKE alone is the judge
	problem := judge(time.Now(), info, stats)
	c.mu.Lock()
	was := c.st.state
	c.mu.Unlock()
	switch {
	case problem != nil && was == Connected:
		c.log.Warn("tunnel degraded", "profile", c.profile.Name, "reason", problem.code, "error", problem.Error())
		c.set(func(l *live) { l.state, l.problem = Degraded, problem.problem(time.Now(), c.generation) })
	case problem == nil && was == Degraded:
		c.log.Info("tunnel works again", "profile", c.profile.Name)
		c.set(func(l *live) { l.state, l.problem = Connected, nil })
	}
}

// judge says why a session does not provably carry traffic, nil if it does.
func judge(now time.Time, info ike.SessionInfo, stats esp.Stats) *failure {
	if info.Unanswered >= degradedUnanswered {
		return &failure{code: reason.NoAnswer, detail: fmt.Sprintf("asked %d times whether it is there", info.Unanswered), hint: degradedHint}
	}
	lastIn := stats.LastIn
	if info.LastIKEInbound.After(lastIn) {
		lastIn = info.LastIKEInbound
	}
	if stats.LastOut.Sub(lastIn) > degradedPatience && now.Sub(stats.LastOut) < degradedPatience {
		return &failure{code: reason.NoAnswer, detail: fmt.Sprintf("packets are sent, but nothing has come back for %s", now.Sub(lastIn).Round(time.Second)), hint: degradedHint}
	}
	return nil
}

const degradedHint = "The session is kept, and goes on by itself as soon as packets come through again. Is this machine online? vpn-client down gives it its own network back."

// end closes a session in an orderly way and waits for it, not for long.
func (c *connection) end(id ike.SessionID, why reason.Code) {
	began := time.Now()
	defer func() { c.log.Debug("session ended", "reason", why, "took", time.Since(began).String()) }()
	c.stack.Close(id, why)
	timer := time.NewTimer(closePatience)
	defer timer.Stop()
	for {
		select {
		case a := <-c.stack.Events():
			if closed, ok := a.(ike.Closed); ok && closed.Session == id {
				return
			}
		case <-c.stack.Failed():
			return
		case <-timer.C:
			c.stack.Abort(id, why)
			return
		}
	}
}
