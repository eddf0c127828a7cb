package server

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/ratelimit"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
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
	dp, err := s.openDataPath(&undo)
	if err != nil {
		return err
	}
	if err := s.setUpNetwork(&undo); err != nil {
		return err
	}
	if err := s.makeEngines(&undo); err != nil {
		return err
	}
	if err := s.listen(dp, &undo); err != nil {
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

// dataPathEvent hands on what the data path noticed. There is nothing to notice before
// the transport delivers packets, and then there are shards.
func (s *Server) dataPathEvent(ev esp.Event) { s.group.DataPathEvent(ev) }

func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

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
