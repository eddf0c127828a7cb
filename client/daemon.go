package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/wayfarer-vpn/wayfarer/client/route"
	"github.com/wayfarer-vpn/wayfarer/esp/xfrm"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/sleep"
)

// Daemon keeps at most one tunnel up.
type Daemon struct {
	cfg     *Config
	log     *slog.Logger
	journal *Journal
	version string

	// What tests replace.
	newStack func(*profile.Profile) (Stack, error)
	machine  Machine
	system   Lookup

	successorFile string      // announces a successor; empty if none is to be expected
	successor     func() bool // whether there is one, asked when the daemon ends

	memory *memory
	hub    hub

	// commands lets one "up" or "down" through at a time.
	commands chan struct{}

	mu         sync.Mutex
	life       context.Context // of Run; connections end with it
	current    *connection
	generation uint64
	lastError  *Problem // of connections before the current one
}

// NewDaemon makes a daemon. The journal may be nil.
func NewDaemon(cfg *Config, version string, log *slog.Logger, journal *Journal) (*Daemon, error) {
	machine, err := newHost(cfg, log)
	if err != nil {
		return nil, err
	}
	d := newDaemon(cfg, version, log, machine)
	d.journal = journal
	d.successorFile = SuccessorFile
	d.newStack = func(p *profile.Profile) (Stack, error) {
		return NewStack(StackConfig{
			Interface: cfg.Interface, DataPath: datapath.Mode(cfg.DataPath), MTU: p.Tunnel.MTU, DSCP: p.Tunnel.DSCP, TFC: p.Tunnel.TFC, Port: cfg.Port, NATTPort: cfg.NATTPort,
			NativeESP: p.Tunnel.NativeESP, MOBIKE: p.Tunnel.MOBIKE, Roaming: p.Roaming, Log: log,
		})
	}
	return d, nil
}

func newDaemon(cfg *Config, version string, log *slog.Logger, machine Machine) *Daemon {
	d := &Daemon{
		cfg: cfg, log: log, version: version, machine: machine, system: systemLookup, memory: newMemory(),
		commands: make(chan struct{}, 1), journal: NewJournal(1),
	}
	d.successor = sync.OnceValue(d.announced)
	return d
}

// Run cleans up after a crash, serves until ctx ends, and gives the machine its
// network back. Ready is called when commands are taken.
func (d *Daemon) Run(ctx context.Context, ready func()) error {
	release, err := stateDir(d.cfg.StateDir).lock()
	if err != nil {
		return err
	}
	defer release()
	d.mu.Lock()
	d.life = ctx
	d.mu.Unlock()
	d.announced() // it announced this run, or is left of an upgrade that was cut off
	resume := d.recover(ctx)
	server, err := d.listen()
	if err != nil {
		// Nobody will be there to open a machine that a crash has left closed.
		return errors.Join(err, d.leave())
	}
	served := make(chan error, 1)
	go func() { served <- server.serve(ctx) }()
	go d.watchNetwork(ctx)
	go d.watchSleep(ctx)
	ready()
	d.begin(ctx, resume)
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	return errors.Join(err, d.leave())
}

// leave ends the connection and restores the machine, or leaves that to a successor.
func (d *Daemon) leave() error {
	d.mu.Lock()
	c := d.current
	d.mu.Unlock()
	if c != nil {
		c.stop()
		if c.handedOver {
			d.handOver(c)
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), clearPatience)
	defer cancel()
	err := d.machine.Clear(ctx, true)
	return errors.Join(err, stateDir(d.cfg.StateDir).forget())
}

// recover deals with what an earlier run has left. It returns the profile that was
// up when that run crashed or handed over, and is to come back; the machine is then left closed until
// it does, so that nothing leaves in clear in between.
func (d *Daemon) recover(ctx context.Context) (resume string) {
	datapath.Clean(xfrm.Laptop, d.log)
	left, crashed := stateDir(d.cfg.StateDir).load()
	if crashed && left.BootID == bootID() {
		if p, _, err := d.load(left.Profile); err == nil && (p.Reconnect || left.HandedOver) {
			p.Zero()
			d.log.Info("bringing the tunnel of the last run back", "profile", left.Profile, "handed_over", left.HandedOver)
			if err := d.machine.Adopt(ctx); err != nil {
				d.log.Error("name servers of this machine not restored", "error", err)
			}
			return left.Profile
		}
	}
	d.abandon(ctx)
	return ""
}

// abandon gives up what an earlier run has left.
func (d *Daemon) abandon(ctx context.Context) {
	if err := d.machine.Clear(ctx, true); err != nil {
		d.log.Error("what an earlier run has left is not fully removed", "error", err)
	}
	if err := stateDir(d.cfg.StateDir).forget(); err != nil {
		d.log.Error("state file not removed", "error", err)
	}
}

// begin brings up what is to be up from the start.
func (d *Daemon) begin(ctx context.Context, resume string) {
	name := d.cfg.Autoconnect
	if resume != "" {
		name = resume
	}
	if name == "" {
		return
	}
	if _, err := d.up(ctx, name, 0, resume != ""); err != nil {
		d.log.Error("profile not brought up at start", "profile", name, "error", err)
		if resume != "" {
			d.abandon(ctx)
		}
	}
}

// watchNetwork adapts the machine when its addresses change, with a tunnel or without.
func (d *Daemon) watchNetwork(ctx context.Context) {
	for ctx.Err() == nil {
		err := route.Watch(ctx, func() { d.networkMoved(ctx) })
		if err == nil {
			return
		}
		d.log.Warn("changes of the network were missed, looking again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
			d.networkMoved(ctx)
		}
	}
}

// watchPause is how long to wait before listening anew to changes of the network.
const watchPause = time.Second

func (d *Daemon) networkMoved(ctx context.Context) {
	if err := d.machine.Maintain(ctx); err != nil {
		d.log.Warn("settings of this machine not adapted to the changed network", "error", err)
	}
}

// watchSleep tells the connection when this machine has slept.
func (d *Daemon) watchSleep(ctx context.Context) {
	sleep.Watch(ctx, sleep.Config{Log: d.log}, func(ev sleep.Event) {
		d.log.Info("this machine has slept", "for", ev.Slept.Round(time.Second).String(), "noticed_by", ev.Witness)
		d.mu.Lock()
		c := d.current
		d.mu.Unlock()
		if c != nil {
			c.woken()
		}
	})
}

// load finds a profile by name: the one in the configuration, or a stored one. An
// empty name is the only one there is.
func (d *Daemon) load(name string) (*profile.Profile, []string, error) {
	if name == "" {
		var err error
		if name, err = d.onlyProfile(); err != nil {
			return nil, nil, err
		}
	}
	if inline := d.cfg.Profile; inline != nil && inline.Name == name {
		p := *inline
		// A copy of the secrets: the connection zeroes its own.
		p.Auth.PSK = config.NewSecret(append([]byte(nil), inline.Auth.PSK.Bytes()...))
		p.Auth.Key = config.NewSecret(append([]byte(nil), inline.Auth.Key.Bytes()...))
		return &p, nil, nil
	}
	return d.cfg.Store().Load(name, time.Now())
}

func (d *Daemon) onlyProfile() (string, error) {
	if d.cfg.Profile != nil {
		return d.cfg.Profile.Name, nil
	}
	names, err := d.cfg.Store().Names()
	switch {
	case err != nil:
		return "", err
	case len(names) == 0:
		return "", d.cfg.Store().notFound("to bring up")
	case len(names) > 1:
		return "", reason.New(reason.InvalidRequest, "there are several profiles, say which: %v", names)
	}
	return names[0], nil
}

// Up begins to connect a profile and returns at once; the status tells how it goes.
// If the profile is up or on its way, that is left alone. The timeout bounds the
// first attempt.
func (d *Daemon) Up(ctx context.Context, name string, timeout time.Duration) (Status, error) {
	return d.up(ctx, name, timeout, false)
}

func (d *Daemon) up(ctx context.Context, name string, timeout time.Duration, adopted bool) (Status, error) {
	release, err := d.command(ctx)
	if err != nil {
		return Status{}, err
	}
	defer release()
	p, warnings, err := d.load(name)
	if err != nil {
		return Status{}, err
	}
	if busy, err := d.busyWith(p.Name); err != nil || busy {
		p.Zero()
		return d.Status(ctx), err
	}
	problems := &config.Problems{}
	policy, more := Policy(p, time.Now(), "", problems)
	if err := problems.Err(); err != nil {
		p.Zero()
		return Status{}, reason.Wrap(reason.ConfigInvalid, err)
	}
	if len(warnings) == 0 { // a stored profile has been checked with its warnings
		warnings = more
	}
	for _, w := range warnings {
		d.log.Warn(w, "profile", p.Name)
	}
	if err := stateDir(d.cfg.StateDir).save(intent{Profile: p.Name, BootID: bootID()}); err != nil {
		// A full disk must not keep the user offline.
		d.log.Warn("after a crash of the daemon this tunnel will not come back by itself", "profile", p.Name, "error", err)
	}
	d.start(p, connectionConfig{policy: policy, timeout: timeout, adopted: adopted, warnings: warnings})
	return d.Status(ctx), nil
}

// start makes the connection the current one.
func (d *Daemon) start(p *profile.Profile, cfg connectionConfig) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.generation++
	d.rememberError()
	cfg.generation, cfg.profile, cfg.log, cfg.machine = d.generation, p, d.log, d.machine
	cfg.newStack, cfg.random, cfg.changed, cfg.succeeded = d.newStack, rand.Float64, d.hub.changed, d.succeeded
	cfg.resolver = &resolver{system: d.system, beside: besideLookup(d.machine), memory: d.memory}
	c := startConnection(d.life, cfg)
	d.current = c
	go d.whenOver(c)
}

// whenOver forgets the intent of a connection that has ended by itself.
func (d *Daemon) whenOver(c *connection) {
	<-c.done
	d.mu.Lock()
	mine := d.current == c && d.life.Err() == nil
	d.mu.Unlock()
	if !mine {
		return
	}
	if err := stateDir(d.cfg.StateDir).forget(); err != nil {
		d.log.Warn("state file not removed", "error", err)
	}
}

// rememberError keeps the last error over the end of its connection.
func (d *Daemon) rememberError() {
	if d.current == nil {
		return
	}
	d.current.mu.Lock()
	defer d.current.mu.Unlock()
	if d.current.st.lastError != nil {
		d.lastError = d.current.st.lastError
	}
}

// busyWith says whether a connection for the profile is alive already. One for
// another profile is an error.
func (d *Daemon) busyWith(name string) (bool, error) {
	d.mu.Lock()
	c := d.current
	d.mu.Unlock()
	if c == nil || c.over() {
		return false, nil
	}
	if c.profile.Name != name {
		return false, reason.New(reason.Conflict, "profile %s is up; bring it down first: vpn-client down", c.profile.Name)
	}
	return true, nil
}

func (c *connection) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Down ends the connection, of a profile or of whatever is up, and waits until the
// machine has its network back. Without a connection it makes sure of the latter.
func (d *Daemon) Down(ctx context.Context, name string) (Status, error) {
	release, err := d.command(ctx)
	if err != nil {
		return Status{}, err
	}
	defer release()
	d.mu.Lock()
	c := d.current
	d.mu.Unlock()
	if c == nil || c.over() {
		err := d.machine.Clear(ctx, false)
		return d.Status(ctx), err
	}
	if name != "" && name != c.profile.Name {
		return Status{}, reason.New(reason.NotFound, "profile %s is not up, but %s is", name, c.profile.Name)
	}
	c.stop()
	if err := stateDir(d.cfg.StateDir).forget(); err != nil {
		return Status{}, fmt.Errorf("remove the state file: %w", err)
	}
	return d.Status(ctx), nil
}

// command waits for its turn.
func (d *Daemon) command(ctx context.Context) (release func(), err error) {
	select {
	case d.commands <- struct{}{}:
		return func() { <-d.commands }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Status tells what is up.
func (d *Daemon) Status(ctx context.Context) Status {
	s := Status{
		Version: d.version, State: Disconnected,
		Addresses: []netip.Addr{}, DNS: []netip.Addr{}, Routes: []netip.Prefix{}, Children: []Child{},
	}
	d.mu.Lock()
	c := d.current
	s.Generation, s.LastError = d.generation, d.lastError
	d.mu.Unlock()
	if c == nil {
		return s
	}
	before := s.LastError
	c.report(ctx, &s)
	if s.LastError == nil {
		s.LastError = before
	}
	return s
}

// Cleanup gives the machine its network back when no daemon runs: after a crash, or
// when the daemon was removed. With a daemon running it is an error.
func Cleanup(ctx context.Context, cfg *Config, log *slog.Logger) error {
	dir := stateDir(cfg.StateDir)
	release, err := dir.lock()
	if err != nil {
		return err
	}
	defer release()
	h, err := newHost(cfg, log)
	if err != nil {
		return err
	}
	datapath.Clean(xfrm.Laptop, log)
	return errors.Join(h.Clear(ctx, true), dir.forget())
}
