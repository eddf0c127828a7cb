package profile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/wayfarer-vpn/wayfarer/internal/config"
)

// List is one string or a list of strings.
type List []string

// UnmarshalTOML reads "a" or ["a", "b"].
func (l *List) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case string:
		*l = List{v}
		return nil
	case []any:
		out := make(List, 0, len(v))
		for _, element := range v {
			s, ok := element.(string)
			if !ok {
				return fmt.Errorf("must be a list of strings, but %v is none", element)
			}
			out = append(out, s)
		}
		*l = out
		return nil
	}
	return fmt.Errorf("must be a string or a list of strings")
}

// Routes says what goes through the tunnel: everything (the zero value), what the
// gateway offers, or a list of networks.
type Routes struct {
	// FromServer takes the networks that the gateway's traffic selectors allow.
	FromServer bool
	// List holds the networks; empty means everything unless FromServer is set.
	List []netip.Prefix
}

// Words for Routes in a file.
const (
	routesFull   = "full"
	routesServer = "server"
)

// UnmarshalTOML reads "full", "server" or a list of networks.
func (r *Routes) UnmarshalTOML(v any) error {
	switch v := v.(type) {
	case string:
		return r.word(v)
	case []any:
		return r.list(v)
	}
	return fmt.Errorf(`must be "full", "server" or a list of networks such as ["10.0.0.0/8"]`)
}

func (r *Routes) word(s string) error {
	switch s {
	case routesFull:
		*r = Routes{}
	case routesServer:
		*r = Routes{FromServer: true}
	default:
		return fmt.Errorf(`%.60q is neither "full" nor "server"; networks are written as a list such as ["10.0.0.0/8"]`, s)
	}
	return nil
}

// maxRoutes bounds what a profile can put into the routing tables.
const maxRoutes = 1024

func (r *Routes) list(elements []any) error {
	if len(elements) == 0 {
		return fmt.Errorf(`the list is empty: nothing would go through the tunnel; write "full" for everything`)
	}
	if len(elements) > maxRoutes {
		return fmt.Errorf("more than %d networks", maxRoutes)
	}
	var out []netip.Prefix
	for _, element := range elements {
		s, ok := element.(string)
		if !ok {
			return fmt.Errorf(`must be a list of networks in quotes such as "10.0.0.0/8"`)
		}
		p, err := parseNetwork(s)
		if err != nil {
			return err
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	*r = Routes{List: out}
	return nil
}

// parseNetwork reads a network, or an address as the network of itself. Host bits
// are refused: 10.0.0.1/8 is more likely a slip than a wish.
func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%.60q is not a network such as 10.0.0.0/8 or fd00::/8", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits set beyond its length: write %s for the network or %s for the one address", s, p.Masked(), p.Addr())
	}
	return p, nil
}

// Full says whether everything goes through the tunnel.
func (r Routes) Full() bool { return !r.FromServer && len(r.List) == 0 }

// Networks returns what the profile asks to be carried: everything for "full" and
// "server".
func (r Routes) Networks() []netip.Prefix {
	if len(r.List) == 0 {
		return slices.Clone(fullTunnel)
	}
	return slices.Clone(r.List)
}

// String is the value as a file has it.
func (r Routes) String() string {
	switch {
	case r.FromServer:
		return config.Quote(routesServer)
	case len(r.List) == 0:
		return config.Quote(routesFull)
	}
	var words []string
	for _, p := range r.List {
		words = append(words, config.Quote(p.String()))
	}
	return "[" + strings.Join(words, ", ") + "]"
}
