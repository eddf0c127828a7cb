// Package profile is the client's profile: one self-contained TOML file that says
// which gateway to reach, who we are, how both sides prove it, and what goes
// through the tunnel. A gateway writes it (Marshal), a laptop reads it (Parse).
//
// The package checks the form of every value. Whether certificates and keys fit
// together is decided where they are used.
package profile

import (
	"net/netip"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/saconfig"
)

// Profile describes one connection. New returns one with every default set.
type Profile struct {
	// Name is what the user calls it, and the name of its file.
	Name string `toml:"name"`
	// Server holds host names and addresses of the gateway, tried in this order.
	Server List `toml:"server"`
	// RemoteID is the identity, or the pattern of identities, demanded of the
	// gateway. Empty means the first entry of Server.
	RemoteID string `toml:"remote_id"`
	// ID is our identity. Empty means the one in the certificate.
	ID string `toml:"id"`
	// Reconnect comes back after failures until the user says down.
	Reconnect bool `toml:"reconnect"`

	Auth    Auth            `toml:"auth"`
	Tunnel  Tunnel          `toml:"tunnel"`
	Roaming Roaming         `toml:"roaming"`
	Crypto  Crypto          `toml:"crypto"`
	Timers  saconfig.Timers `toml:"timers"`
}

// Method is how we prove who we are.
type Method string

// Methods.
const (
	PSK         Method = "psk"
	Certificate Method = "certificate"
)

// Auth holds the credentials of both sides. The certificate fields are PEM text;
// in a file they may also be "file:/path", which Parse replaces with the content.
type Auth struct {
	// Method is psk or certificate. Empty means psk if there is a PSK, otherwise
	// certificate.
	Method Method `toml:"method"`
	// PSK is the pre-shared key of both sides.
	PSK config.Secret `toml:"psk"`
	// CA holds the authorities that may vouch for the gateway.
	CA string `toml:"ca"`
	// Certificate is ours, Chain the intermediates sent along, Key the private key.
	Certificate string        `toml:"certificate"`
	Chain       string        `toml:"chain"`
	Key         config.Secret `toml:"key"`
	// CRL holds revocation lists for the gateway's certificate.
	CRL string `toml:"crl"`
}

// LAN says what a full tunnel does with the networks the machine is attached to.
type LAN string

// Choices for the local network.
const (
	// LANPrivate leaves attached networks with private addresses reachable.
	LANPrivate LAN = "private"
	// LANBlock sends everything through the tunnel.
	LANBlock LAN = "block"
)

// Childless says whether the IKE SA may come without a Child SA (RFC 6023).
type Childless string

// Childless modes.
const (
	ChildlessAllow Childless = "allow"
	ChildlessNever Childless = "never"
	ChildlessForce Childless = "force"
)

// Tunnel says what is carried and how.
type Tunnel struct {
	// Routes says what goes through the tunnel.
	Routes Routes `toml:"routes"`
	// LAN is about the local network of a full tunnel.
	LAN LAN `toml:"lan"`
	// DNS applies the name servers that the gateway gives.
	DNS bool `toml:"dns"`
	// MTU of the tunnel interface; zero chooses one that fits the path.
	MTU int `toml:"mtu"`
	// PathMTU is the largest packet that the network outside carries; zero finds out
	// (RFC 8899).
	PathMTU int `toml:"path_mtu"`
	// TFC makes all packets outside as long as the largest (RFC 4303 §2.7).
	TFC bool `toml:"tfc_padding"`
	// DSCP of outer packets: "clear", "copy" from the packets inside, or 0 to 63.
	DSCP esp.DSCP `toml:"dscp"`
	// NativeESP uses IP protocol 50 where no NAT is in the way (RFC 4303) in place
	// of UDP (RFC 3948).
	NativeESP bool `toml:"native_esp"`
	// ReplayWindow is the anti-replay window in packets, zero for the default.
	ReplayWindow int `toml:"replay_window"`
	// Fragmentation uses IKE fragmentation (RFC 7383).
	Fragmentation bool `toml:"fragmentation"`
	// NATTraversal lets the session pass NATs (RFC 3948). Without it, which needs
	// NativeESP, a changed address is an attack (RFC 4555 §3.9).
	NATTraversal bool `toml:"nat_traversal"`
	// MOBIKE lets the session move between networks (RFC 4555).
	MOBIKE bool `toml:"mobike"`
	// Childless is about RFC 6023.
	Childless Childless `toml:"childless"`
}

// Crypto holds the proposals in strongSwan's spelling, separated by commas. The
// words modern and compat stand for sets of them.
type Crypto struct {
	IKE string `toml:"ike"`
	ESP string `toml:"esp"`
}

// Words for Crypto.
const (
	Modern = "modern"
	Compat = "compat"
)

// New returns a profile with every default set; name, server and credentials are
// left to the caller.
func New(name string) *Profile {
	return &Profile{
		Name:      name,
		Reconnect: true,
		Tunnel: Tunnel{
			LAN: LANPrivate, DNS: true, NATTraversal: true, Fragmentation: true, MOBIKE: true, Childless: ChildlessAllow,
		},
		Roaming: DefaultRoaming(),
		Crypto:  Crypto{IKE: Modern, ESP: Modern},
		Timers:  saconfig.DefaultTimers(),
	}
}

// Method returns how we prove who we are.
func (p *Profile) Method() Method {
	switch {
	case p.Auth.Method != "":
		return p.Auth.Method
	case !p.Auth.PSK.IsZero():
		return PSK
	}
	return Certificate
}

// GatewayID returns the identity or pattern demanded of the gateway.
func (p *Profile) GatewayID() string {
	if p.RemoteID != "" || len(p.Server) == 0 {
		return p.RemoteID
	}
	return p.Server[0]
}

// Zero overwrites the secrets.
func (p *Profile) Zero() {
	p.Auth.PSK.Zero()
	p.Auth.Key.Zero()
}

// fullTunnel is every address of both families.
var fullTunnel = []netip.Prefix{
	netip.PrefixFrom(netip.IPv4Unspecified(), 0),
	netip.PrefixFrom(netip.IPv6Unspecified(), 0),
}
