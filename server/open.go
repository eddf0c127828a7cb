package server

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp/xfrm"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/server/network"
	"github.com/wayfarer-vpn/wayfarer/server/store"
)

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

// openDataPath makes the tunnel's interface.
func (s *Server) openDataPath(undo *undoList) (datapath.Path, error) {
	settings := s.settings.Load()
	t := settings.Config.Tunnel
	log := s.log.With("part", "datapath")
	datapath.Clean(xfrm.Gateway, log)
	dp, choice, err := datapath.Open(datapath.Config{
		Mode: datapath.Mode(t.DataPath), Owner: xfrm.Gateway, Name: t.Device, MTU: t.MTU, DSCP: t.DSCP, TFC: t.TFC, Queues: t.queues(),
		Proposals: settings.Policy.ESP, Events: s.dataPathEvent, Log: log,
	})
	if err != nil {
		return nil, err
	}
	undo.add("close the data path", dp.Close)
	if s.device, err = dp.Name(); err != nil {
		return nil, fmt.Errorf("ask the tunnel's interface for its name: %w", err)
	}
	s.dataPath = choice
	s.path = countingPath{dp, s.table}
	return dp, nil
}

// setUpNetwork makes the host carry the tunnel's traffic, unless the administrator does.
func (s *Server) setUpNetwork(undo *undoList) error {
	settings := s.settings.Load()
	if !settings.Config.Network.Manage {
		return nil
	}
	net := network.New(filepath.Join(settings.Config.StateDir, networkFile), s.log)
	s.host = net
	undo.add("restore the network", net.Leave)
	s.applied = settings.Network(s.device, s.dataPath)
	if err := net.Apply(s.applied); err != nil {
		return fmt.Errorf("set up the network: %w", err)
	}
	return nil
}

// makeEngines makes the shards: their inboxes are open before the sockets are. They run
// later, when there is a transport to send with.
func (s *Server) makeEngines(undo *undoList) error {
	send := func(pair locator.Pair, data []byte) error { return s.transport.SendIKE(pair, data) }
	return s.makeShards(runtime.GOMAXPROCS(0), send, s.settings.Load().Config.Listen.NATTPort, undo)
}

// listen opens the sockets, for the shards and for the data path.
func (s *Server) listen(dp datapath.Path, undo *undoList) (err error) {
	config := s.settings.Load().Transport(s.dataPath.Kernel())
	s.transport, err = transport.Listen(config, door{s.group, dp}, s.log.With("part", "transport"))
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
