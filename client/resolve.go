package client

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/client/dns"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// resolveTimeout bounds one look-up of the gateway's name.
const resolveTimeout = 5 * time.Second

// Lookup finds the addresses of a host name.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// resolver finds the gateway's addresses. It remembers the last good ones: when the
// network is bad the name servers are as far away as everything else.
type resolver struct {
	// system asks as every program does. beside asks the machine's own name servers,
	// past the tunnel: while routes lead into a tunnel that is down, or resolv.conf
	// names servers in it, nobody else can be asked.
	system, beside Lookup
	known          map[string][]netip.Addr
}

// candidates returns the addresses of the gateway in the order to try them, each
// with the entry of the profile it comes from.
func (r *resolver) candidates(ctx context.Context, servers []string, tunnelInPlace bool) ([]candidate, error) {
	var out []candidate
	var failed []string
	for _, server := range servers {
		addrs, err := r.resolve(ctx, server, tunnelInPlace)
		if err != nil {
			failed = append(failed, err.Error())
		}
		for _, a := range addrs {
			if !slices.ContainsFunc(out, func(c candidate) bool { return c.addr == a }) {
				out = append(out, candidate{server, a})
			}
		}
	}
	if len(out) == 0 {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &failure{code: reason.DNSFailed, detail: strings.Join(failed, "; ")}
	}
	return out, nil
}

// candidate is one address to try.
type candidate struct {
	server string
	addr   netip.Addr
}

func (r *resolver) resolve(ctx context.Context, server string, tunnelInPlace bool) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(server); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	lookup := r.system
	if tunnelInPlace {
		lookup = r.beside
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addrs, err := lookup(ctx, server)
	if err != nil || len(addrs) == 0 {
		if known := r.known[server]; len(known) > 0 {
			return known, nil
		}
		return nil, fmt.Errorf("find the address of %s: %w", server, orEmpty(err))
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	if r.known == nil {
		r.known = map[string][]netip.Addr{}
	}
	r.known[server] = addrs
	return addrs, nil
}

func orEmpty(err error) error {
	if err == nil {
		return fmt.Errorf("the name has no address")
	}
	return err
}

// systemLookup asks the resolver of this machine.
func systemLookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// besideLookup asks the machine's own name servers through marked sockets.
func besideLookup(m Machine) Lookup {
	return func(ctx context.Context, host string) ([]netip.Addr, error) {
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			var markErr error
			if err := c.Control(func(fd uintptr) {
				markErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, Mark)
			}); err != nil {
				return err
			}
			return markErr
		}}
		return dns.Lookup(m.NameServers(), d.DialContext).LookupNetIP(ctx, "ip", host)
	}
}
