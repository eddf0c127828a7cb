package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"sync"

	"github.com/wayfarer-vpn/wayfarer/client/dns"
	"github.com/wayfarer-vpn/wayfarer/client/guard"
	"github.com/wayfarer-vpn/wayfarer/client/route"
)

// Network is what the machine should look like for a tunnel.
type Network struct {
	Interface string
	Addresses []netip.Addr
	// Networks belong into the tunnel, Carried is what the gateway agreed to.
	Networks, Carried []netip.Prefix
	// Ports are our own UDP ports; NativeESP says that we use IP protocol 50 too.
	Ports     []uint16
	NativeESP bool
	// KernelESP says that the kernel seals packets.
	KernelESP bool
	// LAN leaves attached private networks reachable beside a full tunnel.
	LAN bool
	// DNS are the name servers to use; none leaves the machine's own.
	DNS     []netip.Addr
	Domains []string
	// Full says that the tunnel is meant for everything.
	Full bool
}

// Machine is this machine's network settings.
type Machine interface {
	// Apply makes the machine use the tunnel; any number of times.
	Apply(ctx context.Context, n Network) error
	// Maintain repairs what other software has changed, and lets go of former inner
	// addresses that a network has given this machine; with a tunnel or without.
	Maintain(ctx context.Context) error
	// Clear gives the machine its own network back. What remains is the guard of
	// inner addresses: of all that were used while the daemon stays, of those that
	// sockets still hold when it is leaving.
	Clear(ctx context.Context, leaving bool) error
	// Adopt takes over what a crashed run has left, in place of clearing it.
	Adopt(ctx context.Context) error
	// NameServers are the machine's own, beside the tunnel.
	NameServers() []netip.Addr
}

// maxGuarded bounds the number of former inner addresses that are kept from leaking.
const maxGuarded = 64

// host is the real Machine.
type host struct {
	kernel    *route.Kernel
	dns       *dns.Manager
	netfilter bool
	log       *slog.Logger

	mu      sync.Mutex
	device  string // the tunnel's interface, also when it is down or not there yet
	last    *Network
	former  []netip.Addr   // addresses of before that are still guarded
	guarded guard.Settings // what netfilter was told last
}

// newHost returns the settings of this machine, in this network namespace.
func newHost(cfg *Config, log *slog.Logger) (*host, error) {
	kernel, err := route.NewKernel(log)
	if err != nil {
		return nil, err
	}
	manager := dns.New(dns.Config{
		ResolvConf: cfg.ResolvConf, Backup: filepath.Join(cfg.StateDir, "resolv.conf.backup"),
		Resolved: &dns.Bus{}, Log: log,
	})
	return &host{kernel: kernel, dns: manager, netfilter: cfg.Netfilter, log: log, device: cfg.Interface}, nil
}

// Apply sets the guard before the address that it guards, and the name servers when
// the way to them is there.
func (h *host) Apply(ctx context.Context, n Network) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != nil {
		h.former = append(h.former, h.last.Addresses...)
	}
	h.device, h.last = n.Interface, &n
	if err := h.releaseElsewhere(); err != nil {
		return err
	}
	if err := h.applyRoutes(n); err != nil {
		return err
	}
	return h.dns.Apply(ctx, dns.Settings{Interface: n.Interface, Servers: n.DNS, Domains: n.Domains, Full: n.Full})
}

func (h *host) applyRoutes(n Network) error {
	if err := h.setGuard(guard.Settings{Interface: n.Interface, KernelESP: n.KernelESP, Addresses: slices.Concat(n.Addresses, h.former), Ports: n.Ports, Mark: Mark}); err != nil {
		return err
	}
	var attached []netip.Prefix
	if n.LAN {
		var err error
		if attached, err = h.kernel.Attached(n.Interface); err != nil {
			return err
		}
	}
	return h.kernel.Apply(route.Build(route.Settings{
		Interface: n.Interface, Addresses: n.Addresses, Networks: n.Networks, Carried: n.Carried,
		Attached: attached, Ports: n.Ports, NativeESP: n.NativeESP, Mark: Mark, Guarded: h.former,
	}))
}

// releaseElsewhere lets go of the former addresses that need no guard any more: those
// in use again, by the tunnel or by a network that this machine is attached to. The
// latter would be cut off from that network otherwise, our own packets to the gateway
// included.
func (h *host) releaseElsewhere() error {
	if len(h.former) == 0 {
		return nil
	}
	elsewhere, err := h.kernel.Elsewhere(h.device)
	if err != nil {
		return err
	}
	var current []netip.Addr
	if h.last != nil {
		current = h.last.Addresses
	}
	var still, gone []netip.Addr
	for _, a := range slices.Backward(h.former) {
		switch {
		case slices.Contains(still, a) || slices.Contains(current, a):
		case elsewhere[a] || len(still) == maxGuarded:
			gone = append(gone, a)
		default:
			still = append(still, a)
		}
	}
	slices.Reverse(still)
	h.former = still
	if len(gone) == 0 {
		return nil
	}
	h.log.Info("former inner addresses are not blocked any more", "addresses", gone)
	return errors.Join(h.kernel.Release(gone), h.releaseGuard(gone))
}

// releaseGuard is the netfilter part of releaseElsewhere.
func (h *host) releaseGuard(gone []netip.Addr) error {
	if !h.netfilter {
		return nil
	}
	h.guarded = guard.Settings{} // set anew when something is to be set
	return guard.Release(gone)
}

// setGuard sets the netfilter part of the guard, if it is not there as wanted. A
// kernel without netfilter has the routing rules all the same.
func (h *host) setGuard(want guard.Settings) error {
	if !h.netfilter {
		return nil
	}
	if reflect.DeepEqual(h.guarded, want) {
		if present, err := guard.Present(); err == nil && present {
			return nil
		}
	}
	err := guard.Set(want)
	if errors.Is(err, guard.ErrUnsupported) {
		h.log.Warn("no netfilter in this kernel: inner addresses are guarded by routing rules alone, which programs that bind to an interface can pass by", "error", err)
		h.netfilter = false
		return nil
	}
	if err == nil {
		h.guarded = want
	}
	return err
}

// Maintain follows the networks that the machine is attached to, and keeps the name
// servers in place.
func (h *host) Maintain(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.releaseElsewhere()
	if h.last == nil {
		return err
	}
	return errors.Join(err, h.applyRoutes(*h.last), h.dns.Check())
}

// Clear removes everything in the order that leaves no gap: name servers first, so
// that nothing asks into a void; the connections that cannot go on; then the rules
// and routes, while the guard stays.
func (h *host) Clear(ctx context.Context, leaving bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	dnsErr := h.dns.Revert(ctx)
	used, err := h.kernel.Guarded() // also those of a run that crashed
	if err != nil {
		return errors.Join(dnsErr, err)
	}
	if h.last != nil {
		used = append(used, h.last.Addresses...)
	}
	h.last, h.former = nil, append(h.former, used...)
	if err := h.releaseElsewhere(); err != nil {
		h.log.Warn("former inner addresses that are in use elsewhere not found", "error", err)
	}
	if err := guard.EndConnections(h.former); err != nil {
		h.log.Debug("connections of inner addresses not ended", "error", err)
	}
	if leaving {
		h.former = h.stillUsed(h.former)
	}
	return errors.Join(dnsErr, h.kernel.Clear(h.former), h.clearGuard())
}

// stillUsed returns the addresses that programs hold sockets with.
func (h *host) stillUsed(addrs []netip.Addr) []netip.Addr {
	used, err := guard.InUse(addrs)
	if err != nil {
		h.log.Warn("programs that use inner addresses not found; the addresses stay blocked", "addresses", addrs, "error", err)
	} else if len(used) > 0 {
		h.log.Info("programs still hold sockets with inner addresses; these stay blocked until the next start", "addresses", used)
	}
	return used
}

func (h *host) clearGuard() error {
	if len(h.former) > 0 {
		return h.setGuard(guard.Settings{Addresses: h.former})
	}
	h.guarded = guard.Settings{}
	return guard.Remove()
}

// Adopt leaves routes and guard of a crashed run in force, so that nothing leaves in
// clear before the tunnel is back, and restores the name servers.
func (h *host) Adopt(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	former, err := h.kernel.Guarded()
	if err != nil {
		return fmt.Errorf("find what the last run has left: %w", err)
	}
	h.former = former
	return errors.Join(h.releaseElsewhere(), h.dns.Revert(ctx))
}

func (h *host) NameServers() []netip.Addr { return h.dns.Own() }
