package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/client/dns"
)

// resolveTimeout bounds one look-up of the gateway's name.
const resolveTimeout = 5 * time.Second

// Lookup finds the addresses of a host name in one family; network is "ip4" or "ip6".
type Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// resolver finds the gateway's addresses. It remembers the last good ones: when the
// network is bad the name servers are as far away as everything else.
type resolver struct {
	// system asks as every program does. beside asks the machine's own name servers,
	// past the tunnel: while routes lead into a tunnel that is down, or resolv.conf
	// names servers in it, nobody else can be asked.
	system, beside Lookup
	memory         *memory
}

// memory is what is known of gateways from before; it outlives a connection.
type memory struct {
	mu     sync.Mutex
	known  map[string][]netip.Addr // by entry of the profile: all addresses of the last look-up
	worked map[string]netip.Addr   // the one that a session was made with
}

func newMemory() *memory {
	return &memory{known: map[string][]netip.Addr{}, worked: map[string]netip.Addr{}}
}

func (m *memory) of(server string) (known []netip.Addr, worked netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[server], m.worked[server]
}

func (m *memory) learn(server string, addrs []netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known[server] = addrs
}

func (m *memory) connected(c candidate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.worked[c.server] = c.addr
}

// search begins to look up the entries of a profile, all of them and both families at
// once, so that none waits for another. It goes on until ctx ends.
func (r *resolver) search(ctx context.Context, servers []string, tunnelInPlace bool) *search {
	lookup := r.system
	if tunnelInPlace {
		lookup = r.beside
	}
	s := &search{changed: make(chan struct{}, 1)}
	began := time.Now()
	for _, server := range servers {
		e := &entry{server: server, began: began}
		s.entries = append(s.entries, e)
		if a, err := netip.ParseAddr(server); err == nil {
			e.literal(a.Unmap())
			continue
		}
		e.known, e.worked = r.memory.of(server)
		for i, network := range families {
			go func() {
				ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
				defer cancel()
				addrs, err := lookup(ctx, network, server)
				if all := s.found(e, i, addrs, err); len(all) > 0 {
					r.memory.learn(server, all)
				}
			}()
		}
	}
	return s
}

// families are looked up side by side, IPv6 is preferred (RFC 8305 §4).
var families = [...]string{"ip6", "ip4"}

// systemLookup asks the resolver of this machine.
func systemLookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, network, host)
}

// besideLookup asks the machine's own name servers through marked sockets.
func besideLookup(m Machine) Lookup {
	return func(ctx context.Context, network, host string) ([]netip.Addr, error) {
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			var markErr error
			if err := c.Control(func(fd uintptr) {
				markErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, Mark)
			}); err != nil {
				return err
			}
			return markErr
		}}
		return dns.Lookup(m.NameServers(), d.DialContext).LookupNetIP(ctx, network, host)
	}
}

// describe says why an entry has no address.
func describe(server string, err error) string {
	var dnsErr *net.DNSError
	switch {
	case err == nil:
		return fmt.Sprintf("find the address of %s: the name has no address", server)
	case errors.As(err, &dnsErr) && dnsErr.IsTimeout:
		return fmt.Sprintf("find the address of %s: no name server answered within %s", server, resolveTimeout)
	}
	return fmt.Sprintf("find the address of %s: %v", server, err)
}
