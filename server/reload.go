package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/server/pool"
)

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
	if err := s.ownAddressesFree(next); err != nil {
		return err
	}
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
	var err error
	s.table.held(func(held []pool.Lease) {
		err = s.leases.setPools(next.Pools(), next.Config.Network.Gateway, held)
	})
	if err != nil {
		return err
	}
	s.settings.Store(next)
	if s.logLevel != nil && next.Config.Log.Level != old.Config.Log.Level {
		s.logLevel.Set(next.LogLevel)
	}
	responder := s.responder(next, len(s.group.Shards()))
	return s.group.Each(ctx, func(_ time.Time, e shard.Engine) { e.SetResponder(responder) })
}

// ownAddressesFree refuses an inner address for the gateway that a client has.
func (s *Server) ownAddressesFree(next *Settings) (err error) {
	s.table.held(func(held []pool.Lease) {
		for _, l := range held {
			if slices.Contains(next.Config.Network.Gateway, l.Address) {
				err = fmt.Errorf("network.gateway: %s is the address of a connected client (session %d): disconnect it, or take another one", l.Address, l.Session)
			}
		}
	})
	return err
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
