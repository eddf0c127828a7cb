// Package dns makes this machine use the name servers of the tunnel, and gives it
// its own back afterwards.
//
// There are two ways. Where systemd-resolved answers the machine's queries, it is
// told over D-Bus which servers and domains belong to the tunnel's interface; it
// forgets them with the interface, so a crash leaves nothing behind. Everywhere
// else /etc/resolv.conf is written, after a copy of it has been put into a file
// that survives a crash and a reboot.
//
// Other software writes resolv.conf too. What it finds changed by somebody else,
// this package never restores over: a newer truth must not be replaced by an old
// one.
package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
)

// Settings say what is wanted.
type Settings struct {
	// Interface is the tunnel's.
	Interface string
	// Servers are the name servers in the tunnel. Without any, nothing is done.
	Servers []netip.Addr
	// Domains are those the servers are meant for (RFC 8598). Empty means all names.
	Domains []string
	// Full says that every name is to be asked of Servers, whatever Domains says.
	Full bool
}

// Config says where things are.
type Config struct {
	// ResolvConf is the resolver's configuration, normally /etc/resolv.conf.
	ResolvConf string
	// Backup is the file that keeps what ResolvConf held.
	Backup string
	// Resolved talks to systemd-resolved; nil where that is not to be used.
	Resolved Resolved
	Log      *slog.Logger
}

// Resolved is the part of systemd-resolved that is used.
type Resolved interface {
	// Available says whether the service answers.
	Available(ctx context.Context) bool
	// SetLink gives an interface servers and domains.
	SetLink(ctx context.Context, s Settings) error
	// RevertLink takes them away.
	RevertLink(ctx context.Context, iface string) error
}

// Manager applies settings. Its methods may be called from any goroutine.
type Manager struct {
	cfg Config

	mu       sync.Mutex
	applied  *Settings
	resolved bool // applied through systemd-resolved
}

// New makes a manager; nothing is changed yet.
func New(cfg Config) *Manager { return &Manager{cfg: cfg} }

// Apply makes the machine use the servers. It may be called any number of times,
// also with other settings.
func (m *Manager) Apply(ctx context.Context, s Settings) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(s.Servers) == 0 {
		return m.revert(ctx)
	}
	if m.usesResolved(ctx) {
		if err := m.cfg.Resolved.SetLink(ctx, s); err != nil {
			return fmt.Errorf("give the tunnel's name servers to systemd-resolved: %w", err)
		}
		m.applied, m.resolved = &s, true
		return nil
	}
	if err := m.writeFile(s); err != nil {
		return fmt.Errorf("write the tunnel's name servers into %s: %w", m.cfg.ResolvConf, err)
	}
	m.applied, m.resolved = &s, false
	return nil
}

// Check writes resolv.conf again if somebody else has changed it since Apply: a
// DHCP client would otherwise send the machine's queries past the tunnel. What it
// found becomes what Revert restores.
func (m *Manager) Check() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.applied == nil || m.resolved {
		return nil
	}
	intact, err := m.intact()
	if err != nil || intact {
		return err
	}
	m.cfg.Log.Warn("another program has changed the resolver's configuration; the tunnel's name servers are set again", "file", m.cfg.ResolvConf)
	return m.writeFile(*m.applied)
}

// Revert gives the machine its own name servers back, also after a crash of an
// earlier run. Where nothing was changed it does nothing.
func (m *Manager) Revert(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revert(ctx)
}

func (m *Manager) revert(ctx context.Context) error {
	applied, resolved := m.applied, m.resolved
	m.applied = nil
	if applied != nil && resolved {
		if err := m.cfg.Resolved.RevertLink(ctx, applied.Interface); err != nil {
			return fmt.Errorf("take the tunnel's name servers from systemd-resolved: %w", err)
		}
	}
	if err := m.restoreFile(); err != nil {
		return fmt.Errorf("restore %s: %w", m.cfg.ResolvConf, err)
	}
	return nil
}

// Own returns the machine's name servers beside the tunnel: those of before, while
// the tunnel's are set.
func (m *Manager) Own() []netip.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	var tunnel []netip.Addr
	if m.applied != nil {
		tunnel = m.applied.Servers
	}
	servers := m.original().servers()
	if allLocal(servers) {
		// A local resolver would ask through the tunnel; it publishes whom it asks.
		servers = readResolvConf(resolvedUpstream).servers()
	}
	return slices.DeleteFunc(servers, func(a netip.Addr) bool {
		return a.IsLoopback() || slices.Contains(tunnel, a)
	})
}

// usesResolved says whether the programs of this machine ask systemd-resolved.
func (m *Manager) usesResolved(ctx context.Context) bool {
	return m.cfg.Resolved != nil && pointsAtResolved(m.cfg.ResolvConf) && m.cfg.Resolved.Available(ctx)
}

func allLocal(servers []netip.Addr) bool {
	return !slices.ContainsFunc(servers, func(a netip.Addr) bool { return !a.IsLoopback() })
}
