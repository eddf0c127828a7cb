package server

import (
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/saconfig"
	"github.com/wayfarer-vpn/wayfarer/server/pool"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// Limits on values.
const (
	maxQueues   = 64
	maxNetworks = 64 // traffic selectors of one payload stay well below its limit of 255
	maxDNS      = 8
	maxLimit    = 1 << 24
)

var (
	domainPattern = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.?$`)
	devicePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
)

func (l *loader) checkNames() {
	c, p := l.Config, l.problems
	if c.Name == "" {
		p.Add("name", `the gateway's name is missing: the DNS name that clients know it by, such as "vpn.example.org"`)
	} else if err := profile.CheckHost(c.Name); err != nil {
		p.Add("name", "%v", err)
	}
	for i, a := range c.Addresses {
		if err := profile.CheckHost(a); err != nil {
			p.Add(fmt.Sprintf("addresses[%d]", i), "%v", err)
		}
	}
	for key, path := range map[string]string{"state_dir": c.StateDir, "control.socket": c.Control.Socket} {
		if !filepath.IsAbs(path) {
			p.Add(key, "%.80q is not an absolute path", path)
		}
	}
	for i, a := range c.Listen.Addresses {
		if !a.IsValid() || a.IsMulticast() || a.IsUnspecified() {
			p.Add(fmt.Sprintf("listen.addresses[%d]", i), "%s is not an address of this machine; leave the list out to listen on all", a)
		}
	}
	if c.Listen.Port == 0 || c.Listen.NATTPort == 0 {
		p.Add("listen", "ports must not be 0: clients have to know them")
	} else if c.Listen.Port == c.Listen.NATTPort {
		p.Add("listen.natt_port", "is the same as listen.port: IKE with and without NAT traversal need a port each")
	}
}

func (l *loader) checkNetwork() {
	n, p := &l.Config.Network, l.problems
	if n.Pool4.IsValid() && !n.Pool4.Addr().Is4() {
		p.Add("network.pool4", "%s is not an IPv4 network: it belongs into pool6", n.Pool4)
	}
	if n.Pool6.IsValid() && !n.Pool6.Addr().Is6() {
		p.Add("network.pool6", "%s is not an IPv6 network: it belongs into pool4", n.Pool6)
	}
	if len(n.pools()) == 0 {
		p.Add("network.pool4", `no pool: clients need addresses: set pool4 (such as "10.66.0.0/24") or pool6`)
	}
	l.checkPool("network.pool4", n.Pool4)
	l.checkPool("network.pool6", n.Pool6)
	for i, g := range n.Gateway {
		if !slices.ContainsFunc(n.pools(), func(q netip.Prefix) bool { return q.Contains(g) }) {
			p.Add(fmt.Sprintf("network.gateway[%d]", i), "%s is in neither pool", g)
		}
	}
	l.checkNetworks()
	if len(n.DNS) > maxDNS {
		p.Add("network.dns", "more than %d servers", maxDNS)
	}
	for i, a := range n.DNS {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
			p.Add(fmt.Sprintf("network.dns[%d]", i), "%s is not an address that clients can ask", a)
		}
	}
	for i, d := range n.Domains {
		if !domainPattern.MatchString(d) || len(d) > 253 {
			p.Add(fmt.Sprintf("network.domains[%d]", i), "%.80q is not a domain", d)
		}
	}
}

// checkPool finds pools that cannot work.
func (l *loader) checkPool(key string, q netip.Prefix) {
	if !q.IsValid() {
		return
	}
	if q != q.Masked() {
		l.problems.Add(key, "%s has host bits set: did you mean %s?", q, q.Masked())
	}
	if a := q.Addr(); a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.Is4In6() {
		l.problems.Add(key, "%s holds no addresses for clients", q)
		return
	}
	if _, err := pool.New(q, l.Config.Network.Gateway...); err != nil {
		l.problems.Add(key, "%v", err)
	}
	for i, a := range l.Config.Listen.Addresses {
		if q.Contains(a) {
			l.problems.Add(key, "%s contains the address that listen.addresses[%d] gives to the gateway itself (%s)", q, i, a)
		}
	}
	for i, s := range l.Config.Addresses {
		if a, err := netip.ParseAddr(s); err == nil && q.Contains(a) {
			l.problems.Add(key, "%s contains the gateway's own address (addresses[%d], %s)", q, i, a)
		}
	}
	for i, s := range l.Config.Network.Networks {
		if s.Bits() > 0 && s.Masked() != q.Masked() && s.Overlaps(q) && s.Bits() > q.Bits() {
			l.problems.Add(key, "%s overlaps network.networks[%d] (%s): addresses of clients would also be addresses behind the gateway", q, i, s)
		}
	}
}

func (l *loader) checkNetworks() {
	nets := l.Config.Network.Networks
	if len(nets) == 0 {
		l.problems.Add("network.networks", `is empty: clients could reach nothing; ["0.0.0.0/0", "::/0"] is everything`)
	}
	if len(nets) > maxNetworks {
		l.problems.Add("network.networks", "more than %d networks", maxNetworks)
	}
	for i, n := range nets {
		if !n.IsValid() {
			l.problems.Add(fmt.Sprintf("network.networks[%d]", i), "is empty")
			continue
		}
		if n != n.Masked() {
			l.problems.Add(fmt.Sprintf("network.networks[%d]", i), "%s has host bits set: did you mean %s?", n, n.Masked())
		}
	}
}

func (l *loader) checkTunnel() {
	t, p := l.Config.Tunnel, l.problems
	if len(t.Device) >= unix.IFNAMSIZ || !devicePattern.MatchString(t.Device) {
		p.Add("tunnel.device", "%.40q is no name for a network device (at most %d letters and digits)", t.Device, unix.IFNAMSIZ-1)
	}
	l.checkSizes()
	if t.Queues < 0 || t.Queues > maxQueues {
		p.Add("tunnel.queues", "%d is not between 1 and %d; 0 chooses", t.Queues, maxQueues)
	}
	if _, err := datapath.ParseMode(t.DataPath); err != nil {
		p.Add("tunnel.datapath", "%v", err)
	}
	if !t.NATTraversal && !t.NativeESP {
		p.Add("tunnel.nat_traversal", "without it ESP goes in IP packets of its own: set native_esp = true as well")
	}
	if _, ok := childlessModes[t.Childless]; !ok {
		p.Add("tunnel.childless", "%.40q is none of allow, never and force", t.Childless)
	}
}

// checkSizes is about packets and the anti-replay window.
func (l *loader) checkSizes() {
	t, p := l.Config.Tunnel, l.problems
	if err := saconfig.CheckMTU(t.MTU); err != nil {
		p.Add("tunnel.mtu", "%v", err)
	} else if t.MTU != 0 && t.MTU < saconfig.MinMTU6 && l.Config.Network.Pool6.IsValid() {
		p.Add("tunnel.mtu", "%d is too small for IPv6, which needs %d: raise it, or leave pool6 out", t.MTU, saconfig.MinMTU6)
	}
	if err := saconfig.CheckPathMTU(t.PathMTU); err != nil {
		p.Add("tunnel.path_mtu", "%v", err)
	}
	if err := saconfig.CheckReplayWindow(t.ReplayWindow); err != nil {
		p.Add("tunnel.replay_window", "%v", err)
	}
}

func (l *loader) checkRoaming() {
	if err := l.Config.Roaming.policy().Validate(); err != nil {
		l.problems.Add("roaming", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

func (l *loader) checkTimers() {
	l.Config.Timers.Check(func(key, format string, args ...any) { l.problems.Add("timers."+key, format, args...) })
}

func (l *loader) checkLimits() {
	c, p := l.Config.Limits, l.problems
	for key, n := range map[string]int{
		"limits.cookie_threshold": c.CookieThreshold, "limits.half_open": c.HalfOpen,
		"limits.half_open_per_address": c.HalfOpenPerAddress, "limits.sessions": c.Sessions, "limits.sessions_per_identity": c.SessionsPerIdentity,
	} {
		if n < 0 || n > maxLimit {
			p.Add(key, "%d is not between 0 and %d", n, maxLimit)
		}
	}
	if d := c.HalfOpenTimeout; d < 0 || d != 0 && d.Std() < saconfig.MinTimer {
		p.Add("limits.half_open_timeout", "%s is less than %s; 0 is the default", d, saconfig.MinTimer)
	}
}

func (l *loader) checkLog() slog.Level {
	return l.Config.Log.Check(func(key string, err error) { l.problems.Add("log."+key, "%v", err) })
}

func (l *loader) ikeProposals() []suite.IKEProposal {
	list, err := suite.ParseIKEProposals(l.Config.Crypto.IKE)
	if err != nil {
		l.problems.Add("crypto.ike", "%v", err)
	}
	return list
}

func (l *loader) espProposals() []suite.ESPProposal {
	list, err := suite.ParseESPProposals(l.Config.Crypto.ESP)
	if err != nil {
		l.problems.Add("crypto.esp", "%v", err)
	}
	return list
}
