package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/server/network"
)

// Settings is a configuration that has been checked, with all its files read. It is
// not changed once made: a reload makes new ones.
type Settings struct {
	Path   string
	Config *Config
	// Policy is how sessions are negotiated.
	Policy *ike.Policy
	// Patterns are the identities that may come in.
	Patterns []auth.Pattern
	Unique   Unique
	// Warnings are what an administrator should know but what does not stop the
	// daemon.
	Warnings []string
	decoded  []string // of these, the ones about the file itself
	LogLevel slog.Level

	keys  *keyring
	trust trust
}

// Load reads the configuration at path, and everything that it names. The error lists
// all that is wrong.
func Load(path string, now time.Time) (*Settings, error) {
	c := NewConfig()
	doc, err := config.Load(path, c)
	if doc == nil {
		return nil, err
	}
	// The meaning is checked even when decoding has found something: one run tells all.
	l := &loader{now: now, dir: filepath.Dir(path), Settings: &Settings{Path: path, Config: c}, problems: doc.Problems()}
	l.load()
	if err := l.problems.Err(); err != nil {
		return nil, err
	}
	l.decoded = doc.Warnings()
	if warning := config.BeyondConfinedRoot(path); warning != "" {
		l.decoded = append(l.decoded, warning)
	}
	l.Warnings = append(slices.Clone(l.decoded), l.Warnings...)
	return l.Settings, nil
}

// again makes settings of the same configuration, with its files read anew.
func (s *Settings) again(now time.Time) (*Settings, error) {
	l := &loader{now: now, dir: filepath.Dir(s.Path), Settings: &Settings{Path: s.Path, Config: s.Config, decoded: s.decoded}, problems: &config.Problems{}}
	l.load()
	if err := l.problems.Err(); err != nil {
		return nil, err
	}
	l.Warnings = append(slices.Clone(s.decoded), l.Warnings...)
	return l.Settings, nil
}

// Transport is where the daemon listens. The kernel may take ESP before it.
func (s *Settings) Transport(kernelESP bool) transport.Config {
	c := s.Config
	return transport.Config{
		Addresses: c.Listen.Addresses, IKEPort: c.Listen.Port, NATTPort: c.Listen.NATTPort,
		Readers:      c.Tunnel.queues(),
		RawESP:       c.Tunnel.NativeESP && !kernelESP,
		KernelESP:    kernelESP,
		FollowRoutes: true, // the way out may differ from the way in
	}
}

// Pools are the networks that inner addresses come from.
func (s *Settings) Pools() []netip.Prefix { return s.Config.Network.pools() }

func (n *NetworkConfig) pools() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{n.Pool4, n.Pool6} {
		if p.IsValid() {
			out = append(out, p.Masked())
		}
	}
	return out
}

// Network is what the host should look like, for a tunnel's interface of that name.
func (s *Settings) Network(device string, path datapath.Choice) network.Desired {
	c := s.Config
	return network.Desired{Device: device, MTU: c.Tunnel.MTU, Addresses: c.Network.Gateway, Pools: s.Pools(), Masquerade: c.Network.Masquerade,
		KernelESP: path.Kernel(), PolicyBased: path.PolicyBased}
}

// Responder is what each of several engines gets: the limits are shared out among
// them.
func (s *Settings) Responder(shards int) *ike.ResponderConfig {
	l := s.Config.Limits
	share := func(n int) int { return (n + shards - 1) / shards }
	r := &ike.ResponderConfig{
		Policy:             s.Policy,
		CookieThreshold:    share(orDefault(l.CookieThreshold, ike.DefaultCookieThreshold)),
		HalfOpenLimit:      share(orDefault(l.HalfOpen, ike.DefaultHalfOpenLimit)),
		HalfOpenPerAddress: share(orDefault(l.HalfOpenPerAddress, ike.DefaultHalfOpenPerAddress)),
		HalfOpenTimeout:    l.HalfOpenTimeout.Std(),
	}
	if l.Sessions > 0 {
		r.SessionLimit = share(l.Sessions)
	}
	return r
}

func orDefault(v, d int) int {
	if v != 0 {
		return v
	}
	return d
}

// configuration is what a client is told besides its addresses (RFC 7296 §3.15).
func (s *Settings) configuration() ike.Configuration {
	n := s.Config.Network
	c := ike.Configuration{DNS: n.DNS, Domains: n.Domains}
	for _, p := range n.Networks {
		if p.Bits() > 0 { // the whole of a family is no subnet
			c.Subnets = append(c.Subnets, p)
		}
	}
	return c
}

// needsRestart names the keys that differ from those the daemon was started with and
// that a reload cannot change. The kernel as data path has a fixed MTU; otherwise that
// of a device which we manage can be set.
func (s *Settings) needsRestart(started *Settings, path datapath.Choice) []string {
	a, b := s.Config, started.Config
	settable := !path.Kernel() && a.Network.Manage && a.Tunnel.MTU != 0
	var keys []string
	for key, same := range map[string]bool{
		"listen.addresses":   slices.Equal(a.Listen.Addresses, b.Listen.Addresses),
		"listen.port":        a.Listen.Port == b.Listen.Port,
		"listen.natt_port":   a.Listen.NATTPort == b.Listen.NATTPort,
		"state_dir":          a.StateDir == b.StateDir,
		"tunnel.device":      a.Tunnel.Device == b.Tunnel.Device,
		"tunnel.mtu":         a.Tunnel.MTU == b.Tunnel.MTU || settable,
		"tunnel.queues":      a.Tunnel.queues() == b.Tunnel.queues(),
		"tunnel.tfc_padding": a.Tunnel.TFC == b.Tunnel.TFC,
		"tunnel.dscp":        a.Tunnel.DSCP == b.Tunnel.DSCP,
		"tunnel.datapath":    a.Tunnel.DataPath == b.Tunnel.DataPath,
		"tunnel.native_esp":  a.Tunnel.NativeESP == b.Tunnel.NativeESP,
		"control.socket":     a.Control.Socket == b.Control.Socket,
		"control.group":      a.Control.Group == b.Control.Group,
		"log.format":         a.Log.Format == b.Log.Format,
		"network.manage":     a.Network.Manage == b.Network.Manage,
	} {
		if !same {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// loader checks a configuration and makes Settings of it.
type loader struct {
	*Settings
	now      time.Time
	dir      string // of the configuration file: relative names start there
	problems *config.Problems
}

func (l *loader) load() {
	l.checkNames()
	l.checkNetwork()
	l.checkTunnel()
	l.checkRoaming()
	l.checkTimers()
	l.checkLimits()
	l.LogLevel = l.checkLog()
	l.keys = l.loadKeys()
	l.Unique = l.unique()
	l.Policy = l.policy()
}

func (l *loader) warn(format string, args ...any) {
	l.Warnings = append(l.Warnings, fmt.Sprintf(format, args...))
}

// unansweredAfter is how long traffic to a client may go unanswered before it is asked
// whether its path still carries large packets. Clients watch their paths more closely.
const unansweredAfter = time.Second

// policy makes the policy of all sessions.
func (l *loader) policy() *ike.Policy {
	c := l.Config
	p := &ike.Policy{
		IKE: l.ikeProposals(), ESP: l.espProposals(),
		AssignAddresses:  len(c.Network.pools()) > 0,
		ReplayWindow:     c.Tunnel.ReplayWindow,
		Fragmentation:    c.Tunnel.Fragmentation,
		DiscoverPathMTU:  c.Tunnel.PathMTU == 0,
		PathMTU:          c.Tunnel.PathMTU,
		MaxPathMTU:       ike.MaxPathMTUFor(c.Tunnel.MTU),
		UnansweredAfter:  unansweredAfter,
		NativeESP:        c.Tunnel.NativeESP,
		ProhibitNAT:      !c.Tunnel.NATTraversal,
		Childless:        childlessModes[c.Tunnel.Childless],
		SendCertificates: c.Auth.SendCertificate,
	}
	c.Timers.Apply(p)
	for _, n := range c.Network.Networks {
		if !n.IsValid() {
			continue // reported
		}
		p.LocalSelectors = append(p.LocalSelectors, esp.PrefixSelector(n))
	}
	p.Local, p.Remote = l.authentication()
	return p
}

var childlessModes = map[string]ike.Childless{
	childlessAllow: ike.ChildlessAllow, childlessNever: ike.ChildlessNever, childlessForce: ike.ChildlessForce,
}

// LogWarnings writes the warnings to a log.
func (s *Settings) LogWarnings(log *slog.Logger) {
	for _, w := range s.Warnings {
		log.LogAttrs(context.Background(), slog.LevelWarn, w)
	}
}
