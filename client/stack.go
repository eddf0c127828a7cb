package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/esp/xfrm"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// Mark is on every packet that the daemon itself sends (SO_MARK).
const Mark = 0x5746

// ikePort is where gateways listen (RFC 7296 §2).
const ikePort = 500

// Stack carries the sessions of a connection: sockets, data path with its interface, engine.
type Stack interface {
	// Initiate starts a session with the gateway at an address, as one of several in
	// a race; the error may be ike.ErrRaceDecided.
	Initiate(ctx context.Context, p *ike.Policy, remote netip.Addr, race *ike.Race) (ike.SessionID, error)
	// Sound asks with IKE_SA_INIT whether anybody answers over a pair. It makes a session
	// that ends with reason.PeerAnswered if so, and with another reason if not.
	Sound(ctx context.Context, p *ike.Policy, pair locator.Pair) (ike.SessionID, error)
	// Repeat sends the request once more that a session waits with.
	Repeat(id ike.SessionID)
	// LocalFor returns the address that packets to a gateway leave from.
	LocalFor(remote netip.Addr) (netip.Addr, error)
	// Uplinks delivers a token when the ways out of this machine have changed, or may
	// work again.
	Uplinks() <-chan struct{}
	// PathErrors delivers what ICMP says about addresses. It may be forged.
	PathErrors() <-chan transport.PathError
	// Resume is to be called after the machine has slept.
	Resume()
	// Paths returns what is known about the pairs of a session; nothing without MOBIKE.
	Paths(ctx context.Context, id ike.SessionID) []pathInfo
	// Session returns a snapshot; it is false when the session is gone.
	Session(ctx context.Context, id ike.SessionID) (ike.SessionInfo, bool)
	// CreateChild asks for a Child SA; it shows in the snapshots when it is there.
	CreateChild(ctx context.Context, id ike.SessionID, remote []esp.Selector) error
	// Close ends a session with a Delete; Closed follows. Abort ends it at once.
	Close(id ike.SessionID, why reason.Code)
	Abort(id ike.SessionID, why reason.Code)
	// Stats returns the session's traffic.
	Stats(id ike.SessionID) (esp.Stats, error)
	// Events delivers ike.Established, Rekeyed, ChildDown and Closed.
	Events() <-chan ike.Action
	// Alive is nil when the engine answers, or has ended.
	Alive(ctx context.Context) error
	// Failed is closed when the stack cannot go on; Err says why.
	Failed() <-chan struct{}
	Err() error
	// Device returns name and MTU of the tunnel's interface, DataPath who seals and
	// opens its packets.
	Device() (name string, mtu int)
	DataPath() datapath.Choice
	// Ports returns the local UDP ports.
	Ports() []uint16
	// Shutdown ends everything; the device disappears.
	Shutdown()
}

// StackConfig says what a stack is made of.
type StackConfig struct {
	Interface      string
	DataPath       datapath.Mode
	MTU            int
	DSCP           esp.DSCP
	TFC            bool
	Port, NATTPort uint16
	NativeESP      bool
	MOBIKE         bool
	Roaming        profile.Roaming
	Log            *slog.Logger
}

// stack is the real Stack.
type stack struct {
	log       *slog.Logger
	transport *transport.Transport
	path      datapath.Path
	choice    datapath.Choice
	shard     *shard.Shard
	workers   *shard.Workers
	name      string
	uplinks   *uplinks
	mobile    bool

	cancel context.CancelFunc
	ran    chan struct{} // closed when the shard has ended
	events chan ike.Action
	errors chan transport.PathError

	failOnce sync.Once
	failed   chan struct{}
	err      error
}

// eventBuffer is more than a client's engine can tell before somebody listens.
const eventBuffer = 256

// errorBuffer holds ICMP errors while nobody connects; more of them say no more.
const errorBuffer = 4

// inlet receives what arrives. The transport exists before what it feeds.
type inlet struct {
	stack atomic.Pointer[stack]
}

// HandleIKE hands an IKE message to the engine.
func (i *inlet) HandleIKE(pair locator.Pair, data []byte) {
	if s := i.stack.Load(); s != nil {
		s.shard.Receive(pair, data)
	}
}

// HandleESP hands ESP packets to the data path.
func (i *inlet) HandleESP(batch []transport.ESPTrain) {
	if s := i.stack.Load(); s != nil {
		s.path.HandleESP(batch)
	}
}

// pathError receives what ICMP says.
func (i *inlet) pathError(e transport.PathError) {
	if s := i.stack.Load(); s != nil {
		s.pathError(e)
	}
}

// NewStack opens sockets and device and starts the engine.
func NewStack(cfg StackConfig) (Stack, error) {
	datapath.Clean(xfrm.Laptop, cfg.Log)
	if interfaceTaken(cfg.Interface) {
		return nil, reason.New(reason.Conflict, "there is an interface %s already; another vpn-client may be running, or set another name with interface in client.toml", cfg.Interface)
	}
	s := newStack(cfg)
	in := &inlet{}
	if err := s.open(cfg, in); err != nil {
		return nil, err
	}
	if err := s.start(cfg, in); err != nil {
		return nil, errors.Join(err, s.transport.Close())
	}
	return s, nil
}

func newStack(cfg StackConfig) *stack {
	return &stack{
		log: cfg.Log, uplinks: newUplinks(cfg.Roaming), mobile: cfg.MOBIKE,
		ran:    make(chan struct{}),
		events: make(chan ike.Action, eventBuffer),
		errors: make(chan transport.PathError, errorBuffer),
		failed: make(chan struct{}),
	}
}

// open makes the data path and then the sockets, which leave ESP to the kernel if that
// is what the data path does.
func (s *stack) open(cfg StackConfig, in *inlet) (err error) {
	s.path, s.choice, err = datapath.Open(datapath.Config{
		Mode: cfg.DataPath, Owner: xfrm.Laptop, Name: cfg.Interface, MTU: cfg.MTU, DSCP: cfg.DSCP, TFC: cfg.TFC, Mark: Mark,
		Proposals: suite.DefaultESPProposals(), Events: s.dataPathEvent, Log: cfg.Log,
	})
	if err != nil {
		return err
	}
	if s.name, err = s.path.Name(); err != nil {
		return errors.Join(fmt.Errorf("read the name of the tunnel's interface: %w", err), s.path.Close())
	}
	kernel := s.choice.Kernel()
	s.transport, err = transport.Listen(transport.Config{
		IKEPort: cfg.Port, NATTPort: cfg.NATTPort, Ephemeral: true, Mark: Mark, RawESP: cfg.NativeESP && !kernel, KernelESP: kernel,
		PathErrors: in.pathError,
	}, in, cfg.Log)
	if err != nil {
		return errors.Join(fmt.Errorf("open the sockets for IKE and ESP: %w", err), s.path.Close())
	}
	s.path.SetSender(s.transport)
	return nil
}

func (s *stack) start(cfg StackConfig, in *inlet) error {
	ids, err := shard.NewIDs(1, rand.Reader)
	if err != nil {
		return errors.Join(err, s.path.Close())
	}
	engine := ike.NewEngine(ike.Config{
		Log: cfg.Log, NewSessionID: ids.ForShard(0), NewChildID: ids.Child, NewESPSPI: ids.ESPSPI,
		Shard: 0, Shards: 1, LastInbound: s.lastInbound, Sent: s.sent, NATTPort: s.transport.LocalPort(transport.NATT),
	})
	const workers = 2 // one handshake at a time: key exchange and signature
	s.workers = shard.NewWorkers(workers)
	s.shard = shard.New(shard.Config{
		Engine: engine, Send: s.transport.SendIKE, Probe: s.transport.SendProbe, Keepalive: s.transport.SendKeepalive, DataPath: s.path, Events: s.event, Workers: s.workers, Log: cfg.Log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() {
		defer close(s.ran)
		s.shard.Run(ctx)
	}()
	s.firstUplinks()
	go s.watchDevice(ctx)
	go s.watchUplinks(ctx)
	in.stack.Store(s)
	return nil
}

// watchDevice notices when the interface is taken away.
func (s *stack) watchDevice(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.path.Done():
		if err := s.path.Err(); err != nil {
			s.fail(fmt.Errorf("the interface %s is gone: %w", s.name, err))
		}
	}
}

func (s *stack) fail(err error) {
	s.failOnce.Do(func() {
		s.err = err
		close(s.failed)
	})
}

// event takes what the engine tells. It must not wait.
func (s *stack) event(_ *shard.Shard, a ike.Action) {
	switch a := a.(type) {
	case ike.Established, ike.Rekeyed, ike.ChildDown, ike.Closed, ike.PathChanged, ike.PathConfirmed:
		select {
		case s.events <- a:
		default:
			s.fail(errors.New("the engine's events are not being taken"))
		}
	case ike.PathMTUFound:
		s.log.Debug("path MTU", "path", a.Pair.String(), "mtu", a.MTU, "before", a.Before)
	case ike.Refused:
		s.log.Debug("message refused", "path", a.Pair.String(), "reason", a.Reason, "detail", a.Detail)
	}
}

func (s *stack) dataPathEvent(ev esp.Event) {
	if ev.Host != 0 {
		s.shard.DataPathEvent(ev)
	}
}

// lastInbound is asked by the engine, which judges liveness.
func (s *stack) lastInbound(id ike.SessionID) time.Time {
	st, err := s.path.QueryHost(esp.HostID(id))
	if err != nil {
		return time.Time{}
	}
	return st.LastIn
}

// sent is asked by the engine, which confirms the MTU of paths in use.
func (s *stack) sent(id ike.SessionID) uint64 {
	st, err := s.path.QueryHost(esp.HostID(id))
	if err != nil {
		return 0
	}
	return st.OutBytes
}

func (s *stack) Initiate(ctx context.Context, p *ike.Policy, remote netip.Addr, race *ike.Race) (id ike.SessionID, err error) {
	if s.mobile {
		p = s.uplinks.roam(p)
	}
	local, err := s.LocalFor(remote)
	if err != nil {
		return 0, err
	}
	pair := locator.Pair{
		Local:  netip.AddrPortFrom(local, s.transport.LocalPort(transport.IKE)),
		Remote: netip.AddrPortFrom(remote, ikePort),
	}
	return s.compete(ctx, p, pair, race)
}

func (s *stack) Sound(ctx context.Context, p *ike.Policy, pair locator.Pair) (ike.SessionID, error) {
	return s.compete(ctx, p, pair, &ike.Race{Sound: true})
}

// begun is a session that was begun, or why none was.
type begun struct {
	id  ike.SessionID
	err error
}

func (s *stack) compete(ctx context.Context, p *ike.Policy, pair locator.Pair, race *ike.Race) (ike.SessionID, error) {
	var orphan ike.SessionID // belongs to the shard's goroutine
	b, err := shard.Ask(ctx, s.shard, func(now time.Time, e shard.Engine) (b begun) {
		if b.err = ctx.Err(); b.err == nil {
			b.id, b.err = e.Compete(now, race, p, pair)
		}
		orphan = b.id
		return b
	})
	if err != nil {
		// Nobody knows of a session that was begun all the same. Commands run in order.
		s.shard.Do(func(now time.Time, e shard.Engine) {
			if orphan != 0 {
				e.Abort(now, orphan, reason.Cancelled)
			}
		})
		return 0, err
	}
	return b.id, b.err
}

func (s *stack) LocalFor(remote netip.Addr) (netip.Addr, error) {
	local, _, err := s.transport.LocalAddressFor(remote)
	if err != nil {
		return local, &failure{code: reason.NoNetwork, detail: err.Error()}
	}
	return local, nil
}

func (s *stack) Repeat(id ike.SessionID) {
	s.shard.Do(func(now time.Time, e shard.Engine) { e.Repeat(now, id) })
}

// known is what the engine says of a session.
type known struct {
	info ike.SessionInfo
	ok   bool
}

func (s *stack) Session(ctx context.Context, id ike.SessionID) (ike.SessionInfo, bool) {
	k, err := shard.Ask(ctx, s.shard, func(_ time.Time, e shard.Engine) (k known) {
		k.info, k.ok = e.Session(id)
		return k
	})
	return k.info, k.ok && err == nil
}

func (s *stack) CreateChild(ctx context.Context, id ike.SessionID, remote []esp.Selector) error {
	refused, err := shard.Ask(ctx, s.shard, func(now time.Time, e shard.Engine) error {
		return e.CreateChild(now, id, nil, remote)
	})
	return errors.Join(err, refused)
}

func (s *stack) Alive(ctx context.Context) error {
	if err := s.shard.Alive(ctx); !errors.Is(err, shard.ErrStopped) {
		return err
	}
	return nil
}

func (s *stack) Close(id ike.SessionID, why reason.Code) {
	s.shard.Do(func(now time.Time, e shard.Engine) { e.Close(now, id, why) })
}

func (s *stack) Abort(id ike.SessionID, why reason.Code) {
	s.shard.Do(func(now time.Time, e shard.Engine) { e.Abort(now, id, why) })
}

func (s *stack) Stats(id ike.SessionID) (esp.Stats, error) { return s.path.QueryHost(esp.HostID(id)) }
func (s *stack) Events() <-chan ike.Action                 { return s.events }
func (s *stack) Failed() <-chan struct{}                   { return s.failed }
func (s *stack) PathErrors() <-chan transport.PathError    { return s.errors }
func (s *stack) Uplinks() <-chan struct{}                  { return s.uplinks.changed }
func (s *stack) Device() (string, int)                     { return s.name, s.path.MTU() }
func (s *stack) DataPath() datapath.Choice                 { return s.choice }

func (s *stack) Ports() []uint16 {
	return []uint16{s.transport.LocalPort(transport.IKE), s.transport.LocalPort(transport.NATT)}
}

func (s *stack) Err() error {
	select {
	case <-s.failed:
		return s.err
	default:
		return nil
	}
}

func (s *stack) Shutdown() {
	s.cancel()
	<-s.ran
	s.workers.Close()
	if err := s.transport.Close(); err != nil {
		s.log.Warn("sockets not closed", "error", err)
	}
	if err := s.path.Close(); err != nil {
		s.log.Warn("data path not closed", "error", err)
	}
}
