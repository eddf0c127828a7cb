package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/atomicfile"
	"github.com/wayfarer-vpn/wayfarer/internal/netmon"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/mobike"
)

// roaming lets clients move (RFC 4555): it knows at which addresses this gateway can
// be reached, and tells the sessions when that changes.
type roaming struct {
	addresses atomic.Pointer[[]locator.Local]
}

func newRoaming() *roaming {
	r := &roaming{}
	r.addresses.Store(&[]locator.Local{})
	return r
}

// extension lets new sessions move by a policy.
func (r *roaming) extension(p locator.Policy) ike.Extension {
	return mobike.New(mobike.Config{Policy: p, Announce: true, Local: r.list})
}

func (r *roaming) list() []locator.Local { return *r.addresses.Load() }

// responder is how new sessions are met, by the settings.
func (s *Server) responder(next *Settings, shards int) *ike.ResponderConfig {
	r := next.Responder(shards)
	if next.Config.Tunnel.MOBIKE {
		p := *r.Policy
		p.Extensions = append(slices.Clone(p.Extensions), s.roaming.extension(next.Config.Roaming.policy()))
		r.Policy = &p
	}
	return r
}

// reachable says what to watch for: addresses that clients can reach this gateway at,
// if it listens there. Those of the tunnel and of the networks behind it do not count:
// a client that was told of them would try them.
func (s *Server) reachable(device string) netmon.Config {
	return netmon.Config{
		Log:     s.log,
		Outside: true,
		Ignore:  func(name string) bool { return name == device },
		Exclude: func(a netip.Addr) bool {
			c := s.settings.Load().Config
			if len(c.Listen.Addresses) > 0 && !slices.Contains(c.Listen.Addresses, a) {
				return true
			}
			if slices.Contains(c.Network.Gateway, a) || within(c.Network.pools(), a) {
				return true
			}
			return slices.ContainsFunc(c.Network.Networks, func(p netip.Prefix) bool { return p.Bits() > 0 && p.Contains(a) })
		},
	}
}

// watchAddresses tells every session when the gateway's addresses change, until ctx
// ends.
func (s *Server) watchAddresses(ctx context.Context, device string) {
	netmon.Watch(ctx, s.reachable(device), func(now []locator.Local) {
		before := s.roaming.list()
		s.roaming.addresses.Store(&now)
		if slices.Equal(before, now) {
			return
		}
		s.log.Info("addresses of the gateway changed", "addresses", addressesOf(now))
		err := s.group.Each(ctx, func(at time.Time, e shard.Engine) {
			e.EachSession(at, func(at time.Time, x *ike.Session) { mobike.SetLocal(at, x, now) })
		})
		if err != nil && ctx.Err() == nil {
			s.log.Warn("not every session learnt of the changed addresses", "error", err)
		}
	})
}

func addressesOf(ls []locator.Local) []netip.Addr {
	var out []netip.Addr
	for _, l := range ls {
		out = append(out, l.Addr)
	}
	return out
}

// pathChanged notes and logs a handover.
func (s *Server) pathChanged(a ike.PathChanged) {
	m := newMove(time.Now(), a)
	s.table.moved(a.Session, m)
	s.log.Info("client moved", slog.Uint64("session", uint64(a.Session)), slog.String("from", a.From.String()), slog.String("to", a.To.String()),
		slog.String("cause", m.Cause), slog.Float64("took_ms", m.TookMS), slog.Bool("verified", m.Verified))
	s.events.publish(Event{Time: m.Time, Kind: "moved", ID: uint64(a.Session), Remote: m.To, Detail: m.Cause})
}

// crashSecretLen is the length of the secret behind quick crash detection.
const crashSecretLen = 32

// crashSecret reads the secret that lets clients notice a restart at once (RFC 6290),
// and makes it at the first start. Without a state directory to keep it in, clients
// notice later.
func crashSecret(stateDir string) ([]byte, error) {
	path := filepath.Join(stateDir, "crash-secret")
	secret, err := os.ReadFile(path)
	if err == nil && len(secret) == crashSecretLen {
		return secret, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	secret = make([]byte, crashSecretLen)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("make the secret for quick crash detection: %w", err)
	}
	return secret, atomicfile.WriteFile(path, secret, 0o600)
}
