package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Bus is systemd-resolved on the system bus (org.freedesktop.resolve1(5)).
type Bus struct {
	// Connect opens the bus; nil means the system bus.
	Connect func() (*dbus.Conn, error)
}

const (
	resolvedName    = "org.freedesktop.resolve1"
	resolvedPath    = dbus.ObjectPath("/org/freedesktop/resolve1")
	resolvedManager = resolvedName + ".Manager."

	// busTimeout bounds each conversation: a bus that hangs must not hold up a
	// connection, or the end of one.
	busTimeout = 3 * time.Second
)

// linkDNS and linkDomain are the elements of SetLinkDNS (iay) and SetLinkDomains (sb).
type (
	linkDNS struct {
		Family  int32
		Address []byte
	}
	linkDomain struct {
		Domain      string
		RoutingOnly bool
	}
)

// Available says whether somebody owns the service's name. It does not start it.
func (b *Bus) Available(ctx context.Context) bool {
	var owned bool
	err := b.with(ctx, func(ctx context.Context, c *dbus.Conn) error {
		return c.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, resolvedName).Store(&owned)
	})
	return err == nil && owned
}

// SetLink gives an interface servers and domains.
func (b *Bus) SetLink(ctx context.Context, s Settings) error {
	index, err := indexOf(s.Interface)
	if err != nil {
		return err
	}
	return b.with(ctx, func(ctx context.Context, c *dbus.Conn) error {
		// The domains first: servers without domains would be asked for every name for
		// a moment, or none.
		if err := call(ctx, c, "SetLinkDomains", index, domainsFor(s)); err != nil {
			return err
		}
		if err := call(ctx, c, "SetLinkDNS", index, serversFor(s)); err != nil {
			return err
		}
		// Since version 240. Without it the domains alone decide, which is enough.
		if err := call(ctx, c, "SetLinkDefaultRoute", index, everyName(s)); err != nil && !unknownMethod(err) {
			return err
		}
		// Names asked by multicast have no place in a tunnel.
		for _, method := range []string{"SetLinkLLMNR", "SetLinkMulticastDNS"} {
			if err := call(ctx, c, method, index, "no"); err != nil && !unknownMethod(err) {
				return err
			}
		}
		if err := call(ctx, c, "FlushCaches"); err != nil && !unknownMethod(err) {
			return err
		}
		return nil
	})
}

// RevertLink takes servers and domains from an interface. One that is gone has none.
func (b *Bus) RevertLink(ctx context.Context, iface string) error {
	index, err := indexOf(iface)
	if err != nil {
		return nil
	}
	return b.with(ctx, func(ctx context.Context, c *dbus.Conn) error {
		err := call(ctx, c, "RevertLink", index)
		var failed dbus.Error
		if errors.As(err, &failed) && failed.Name == resolvedName+".NoSuchLink" {
			return nil
		}
		return err
	})
}

func (b *Bus) with(ctx context.Context, f func(context.Context, *dbus.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	connect := b.Connect
	if connect == nil {
		connect = func() (*dbus.Conn, error) { return dbus.ConnectSystemBus(dbus.WithContext(ctx)) }
	}
	c, err := connect()
	if err != nil {
		return fmt.Errorf("connect to the system bus: %w", err)
	}
	defer c.Close()
	return f(ctx, c)
}

func call(ctx context.Context, c *dbus.Conn, method string, args ...any) error {
	err := c.Object(resolvedName, resolvedPath).CallWithContext(ctx, resolvedManager+method, 0, args...).Err
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

func unknownMethod(err error) bool {
	var failed dbus.Error
	return errors.As(err, &failed) && failed.Name == "org.freedesktop.DBus.Error.UnknownMethod"
}

func indexOf(iface string) (int32, error) {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return 0, fmt.Errorf("find interface %s: %w", iface, err)
	}
	return int32(i.Index), nil
}

func serversFor(s Settings) []linkDNS {
	out := []linkDNS{}
	for _, a := range s.Servers {
		family := int32(unix.AF_INET)
		if a.Is6() {
			family = unix.AF_INET6
		}
		out = append(out, linkDNS{family, a.WithZone("").AsSlice()})
	}
	return out
}

// everyName says whether the tunnel's servers answer for all names.
func everyName(s Settings) bool { return s.Full || len(s.Domains) == 0 }

// domainsFor routes names to the tunnel's servers. The gateway's domains are for
// routing only: whether short names are completed with them is the user's affair,
// not the gateway's.
func domainsFor(s Settings) []linkDomain {
	out := []linkDomain{}
	if everyName(s) {
		out = append(out, linkDomain{".", true})
	}
	for _, d := range s.Domains {
		if d = strings.Trim(d, "."); d != "" {
			out = append(out, linkDomain{d, true})
		}
	}
	return out
}

var _ Resolved = (*Bus)(nil)

// Lookup returns a resolver that asks the given servers through sockets made by
// dial, not those in resolv.conf. It is how the gateway's name is resolved while
// resolv.conf names servers inside the tunnel.
func Lookup(servers []netip.Addr, dial func(ctx context.Context, network, address string) (net.Conn, error)) *net.Resolver {
	var next atomic.Uint32
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		if len(servers) == 0 {
			return nil, errors.New("no name server is known beside those in the tunnel")
		}
		server := servers[int(next.Add(1)-1)%len(servers)]
		return dial(ctx, network, net.JoinHostPort(server.String(), "53"))
	}}
}
