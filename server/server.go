package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/esp/xfrm"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/ratelimit"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/server/network"
	"github.com/wayfarer-vpn/wayfarer/server/store"
)

// closeTimeout is how long the end of the daemon waits for sessions to be told.
const closeTimeout = 3 * time.Second

// Host is what the daemon changes on its machine. *network.Network is one.
type Host interface {
	Apply(network.Desired) error
	Leave() error
}

// Server is a running gateway.
type Server struct {
	log      *slog.Logger
	logLevel *slog.LevelVar
	started  time.Time
	version  string

	settings    atomic.Pointer[Settings]
	startedWith *Settings
	reload      sync.Mutex // one reload at a time; guards applied
	applied     network.Desired

	group     *shard.Group
	workers   *shard.Workers
	path      esp.DataPath
	table     *table
	leases    *leases
	behind    *store.Behind
	host      Host // nil: the administrator manages the network
	transport *transport.Transport
	events    *hub
	noise     *ratelimit.Bucket // log lines that strangers can provoke
	malformed *ratelimit.Bucket
	failed    chan error

	// watch follows the addresses of the host until its context ends.
	watch   func(ctx context.Context, device string)
	roaming *roaming
	device  string // of the tunnel
	// dataPath is who seals and opens packets, and why.
	dataPath datapath.Choice

	lastError atomic.Pointer[LastError]
}

// Options are what a Server is started with besides its settings.
type Options struct {
	Log      *slog.Logger
	LogLevel *slog.LevelVar // nil: the level cannot be changed
	Version  string
}

type espHandler interface {
	HandleESP(batch []transport.ESPTrain)
}

// door takes what the transport receives: IKE for the shards, ESP for the data path.
type door struct {
	*shard.Group
	espHandler
}

// Run runs a gateway until ctx ends, and takes it down in good order: sessions are
// told, and what was installed is removed. ready is called when it serves clients.
func Run(ctx context.Context, settings *Settings, o Options, ready func(*Server)) error {
	s := newServer(settings, o)
	var undo undoList
	defer undo.run(s.log)
	if err := s.openStore(&undo); err != nil {
		return err
	}
	if err := s.openDataPath(&undo); err != nil {
		return err
	}
	settings.LogWarnings(s.log)
	return s.serve(ctx, ready, &undo)
}

func newServer(settings *Settings, o Options) *Server {
	s := &Server{
		log: o.Log, logLevel: o.LogLevel, version: o.Version, started: time.Now(), startedWith: settings,
		table: newTable(), events: newHub(), roaming: newRoaming(),
		noise:     ratelimit.NewBucket(5, 20),
		malformed: ratelimit.NewBucket(0.2, 3),
		failed:    make(chan error, 1),
	}
	s.settings.Store(settings)
	s.watch = s.watchAddresses
	return s
}

// undoList holds what the end of the daemon has to do, in reverse order.
type undoList []struct {
	what string
	f    func() error
}

func (u *undoList) add(what string, f func() error) {
	*u = append(*u, struct {
		what string
		f    func() error
	}{what, f})
}

func (u *undoList) run(log *slog.Logger) {
	for i := len(*u) - 1; i >= 0; i-- {
		if err := (*u)[i].f(); err != nil {
			log.Error((*u)[i].what, "error", err)
		}
	}
	*u = nil
}

// openStore opens the leases. A gateway without a store still serves: on a full or
// read-only disk clients may get other addresses after a restart, that is all.
func (s *Server) openStore(undo *undoList) error {
	c := s.settings.Load().Config
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	path := filepath.Join(c.StateDir, "leases.db")
	file, aside, err := store.OpenFile(path, time.Now())
	if aside != "" {
		s.log.Warn("the lease file was damaged and is begun anew: clients may get other addresses", "file", path, "kept_as", aside)
	}
	var kept []store.Lease
	switch {
	case errors.Is(err, store.ErrInUse):
		return err
	case err != nil:
		s.log.Error("address leases cannot be kept: clients may get other addresses after a restart", "error", err)
	default:
		if kept, err = file.Leases(); err != nil {
			s.log.Error("address leases cannot be read", "error", err)
		}
		s.behind = store.NewBehind(file, s.log)
		undo.add("write the address leases", s.behind.Close)
	}
	s.leases, err = newLeases(s.settings.Load().Pools(), c.Network.Gateway, kept, s.behind, time.Now)
	return err
}

// openDataPath makes the tunnel's interface, the sockets and the host's network.
func (s *Server) openDataPath(undo *undoList) error {
	settings := s.settings.Load()
	c := settings.Config
	log := s.log.With("part", "datapath")
	datapath.Clean(xfrm.Gateway, log)
	dp, choice, err := datapath.Open(datapath.Config{
		Mode: datapath.Mode(c.Tunnel.DataPath), Owner: xfrm.Gateway, Name: c.Tunnel.Device, MTU: c.Tunnel.MTU, DSCP: c.Tunnel.DSCP, TFC: c.Tunnel.TFC, Queues: c.Tunnel.queues(),
		Proposals: settings.Policy.ESP, Events: s.dataPathEvent, Log: log,
	})
	if err != nil {
		return err
	}
	s.dataPath = choice
	undo.add("close the data path", dp.Close)
	name, err := dp.Name()
	if err != nil {
		return fmt.Errorf("ask the tunnel's interface for its name: %w", err)
	}
	s.path = countingPath{dp, s.table}
	s.device = name
	if c.Network.Manage {
		net := network.New(filepath.Join(c.StateDir, networkFile), s.log)
		s.host = net
		undo.add("restore the network", net.Leave)
		s.applied = settings.Network(name, choice)
		if err := net.Apply(s.applied); err != nil {
			return fmt.Errorf("set up the network: %w", err)
		}
	}
	// The shards' inboxes are open before the sockets are; they run later, when
	// there is a transport to send with.
	send := func(pair locator.Pair, data []byte) error { return s.transport.SendIKE(pair, data) }
	if err := s.makeShards(runtime.GOMAXPROCS(0), send, c.Listen.NATTPort, undo); err != nil {
		return err
	}
	s.transport, err = transport.Listen(settings.Transport(choice.Kernel()), door{s.group, dp}, s.log.With("part", "transport"))
	if err != nil {
		return err
	}
	undo.add("close the sockets", s.transport.Close)
	dp.SetSender(s.transport)
	go s.watchDataPath(dp)
	return nil
}

// watchDataPath ends the daemon when its interface has gone.
func (s *Server) watchDataPath(dp datapath.Path) {
	<-dp.Done()
	if err := dp.Err(); err != nil {
		s.fail(fmt.Errorf("the tunnel's interface does not work any more: %w", err))
	}
}

func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// makeShards makes the engines.
func (s *Server) makeShards(n int, send func(locator.Pair, []byte) error, nattPort uint16, undo *undoList) error {
	n = min(max(1, n), shard.MaxShards)
	ids, err := shard.NewIDs(n, rand.Reader)
	if err != nil {
		return err
	}
	s.workers = shard.NewWorkers(n)
	undo.add("end the workers", func() error { s.workers.Close(); return nil })
	responder := s.responder(s.settings.Load(), n)
	secret, err := crashSecret(s.settings.Load().Config.StateDir)
	if err != nil {
		s.log.Warn("clients will take longer to notice a restart: the secret for that cannot be kept", "error", err)
	}
	s.group = shard.NewGroup(n, func(i int) shard.Config {
		log := s.log.With("part", "ike")
		return shard.Config{
			Engine: ike.NewEngine(ike.Config{
				Log:          log,
				NewSessionID: ids.ForShard(i), NewChildID: ids.Child, NewESPSPI: ids.ESPSPI,
				Shard: i, Shards: n,
				LastInbound: lastInbound(s.path),
				Sent:        sentOctets(s.path),
				NATTPort:    nattPort,
				CrashSecret: secret,
				Responder:   responder,
			}),
			Send: send, Probe: func(p locator.Pair, data []byte) error { return s.transport.SendProbe(p, data) },
			Keepalive: func(p locator.Pair) error { return s.transport.SendKeepalive(p) },
			DataPath:  s.path, Events: s.handle, Workers: s.workers, Log: log,
		}
	})
	s.group.Malformed = s.sawMalformed
	return nil
}

// dataPathEvent hands on what the data path noticed. There is nothing to notice before
// the transport delivers packets, and then there are shards.
func (s *Server) dataPathEvent(ev esp.Event) { s.group.DataPathEvent(ev) }

// serve runs until ctx ends or something fails for good.
func (s *Server) serve(ctx context.Context, ready func(*Server), undo *undoList) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() { s.group.Run(running); close(ended) }()
	go s.watch(running, s.device)
	undo.add("end the engines", func() error { stop(); <-ended; return nil })
	if ready != nil {
		ready(s)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-s.failed:
	}
	s.closeSessions()
	return err
}

// closeSessions tells all peers that it is over, and waits a little for it to arrive.
func (s *Server) closeSessions() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.group.Each(ctx, func(now time.Time, e shard.Engine) {
		e.SetResponder(nil)
		for _, info := range e.Sessions() {
			if info.State == ike.Connecting {
				e.Abort(now, info.ID, reason.Shutdown)
				continue
			}
			e.Close(now, info.ID, reason.Shutdown)
		}
	})
	for err == nil && len(s.table.matching(func(*session) bool { return true })) > 0 {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err != nil {
		s.log.Warn("not every session could be ended in good order; the peers will notice", "error", err)
	}
}

// Settings returns the settings in force.
func (s *Server) Settings() *Settings { return s.settings.Load() }

// Alive says whether the engines answer, for the watchdog.
func (s *Server) Alive(ctx context.Context) error {
	return s.group.Alive(ctx)
}

// Reload reads the configuration again and puts it in force. After an error the old
// one stays. It returns the keys that take effect at the next start only.
func (s *Server) Reload(ctx context.Context) (later []string, err error) {
	s.reload.Lock()
	defer s.reload.Unlock()
	old := s.settings.Load()
	next, err := Load(old.Path, time.Now())
	if err != nil {
		s.log.Error("the new configuration is not used, the old one stays in force", "file", old.Path, "error", err)
		return nil, reason.Wrap(reason.ConfigInvalid, err)
	}
	if err := s.change(ctx, old, next); err != nil {
		s.log.Error("the new configuration could not be put in force, the old one stays", "file", old.Path, "error", err)
		return nil, err
	}
	later = next.needsRestart(s.startedWith, s.dataPath)
	next.LogWarnings(s.log)
	s.log.Info("configuration reloaded", "file", old.Path, "needs_restart", later)
	s.expel(next)
	return later, nil
}

// Refresh reads again what the configuration in force names: certificates, revocation
// lists, users. The configuration file itself is left alone, an administrator may be
// in the middle of changing it.
func (s *Server) Refresh(ctx context.Context) error {
	s.reload.Lock()
	defer s.reload.Unlock()
	old := s.settings.Load()
	next, err := old.again(time.Now())
	if err != nil {
		return err
	}
	if err := s.change(ctx, old, next); err != nil {
		return err
	}
	for _, w := range next.Warnings { // what the passing of time has brought
		if !slices.Contains(old.Warnings, w) {
			s.log.Warn(w)
		}
	}
	s.expel(next)
	return nil
}

// change puts settings in force. Sessions that exist are not touched.
func (s *Server) change(ctx context.Context, old, next *Settings) error {
	if s.host != nil {
		want := next.Network(s.applied.Device, s.dataPath)
		// Sessions with addresses of a former pool live on, so their packets must be
		// routed, and guarded, still.
		for _, a := range s.table.outside(want.Pools) {
			want.Pools = append(want.Pools, netip.PrefixFrom(a, a.BitLen()))
		}
		if err := s.host.Apply(want); err != nil {
			return errors.Join(fmt.Errorf("set up the network: %w", err), s.host.Apply(s.applied))
		}
		s.applied = want
	}
	if err := s.leases.setPools(next.Pools(), next.Config.Network.Gateway); err != nil {
		return err
	}
	s.settings.Store(next)
	if s.logLevel != nil && next.Config.Log.Level != old.Config.Log.Level {
		s.logLevel.Set(next.LogLevel)
	}
	responder := s.responder(next, len(s.group.Shards()))
	return s.group.Each(ctx, func(_ time.Time, e shard.Engine) { e.SetResponder(responder) })
}

// expel ends the sessions of those who may not come in any more: whose certificate
// has been revoked, whose shared key is gone or another, whose name is not admitted.
func (s *Server) expel(next *Settings) {
	for id, why := range s.table.refused(next) {
		s.end(id, why)
	}
}

// end ends a session in an orderly way.
func (s *Server) end(id ike.SessionID, why reason.Code) {
	s.group.Of(id).Do(func(now time.Time, e shard.Engine) { e.Close(now, id, why) })
}
