package server

import (
	"net/netip"
	"runtime"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/saconfig"
	"github.com/wayfarer-vpn/wayfarer/internal/service"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Paths and names that are used unless the configuration says otherwise.
const (
	DefaultConfigFile = "/etc/wayfarer/server.toml"
	DefaultStateDir   = "/var/lib/wayfarer"
	DefaultSocket     = "/run/wayfarer/server.sock"
	DefaultDevice     = "wfs0"
)

// Config is the configuration file, key by key. NewConfig has the defaults; Load
// checks the meaning.
type Config struct {
	// Name is the gateway's DNS name (or address) that clients know it by.
	Name string `toml:"name"`
	// ID is the identity that the gateway proves (IDr); the name if empty.
	ID string `toml:"id"`
	// Addresses are where clients reach the gateway, for their profiles; the name if
	// empty.
	Addresses []string `toml:"addresses"`
	// StateDir holds the authority, users, leases: what must survive a restart.
	StateDir string `toml:"state_dir"`

	Listen  ListenConfig      `toml:"listen"`
	Auth    AuthConfig        `toml:"auth"`
	PSK     []PSKConfig       `toml:"psk"`
	Network NetworkConfig     `toml:"network"`
	Tunnel  TunnelConfig      `toml:"tunnel"`
	Roaming RoamingConfig     `toml:"roaming"`
	Crypto  CryptoConfig      `toml:"crypto"`
	Timers  saconfig.Timers   `toml:"timers"`
	Limits  LimitsConfig      `toml:"limits"`
	Control ControlConfig     `toml:"control"`
	Log     service.LogConfig `toml:"log"`
}

// ListenConfig says where the gateway listens.
type ListenConfig struct {
	// Addresses to bind; empty means all.
	Addresses []netip.Addr `toml:"addresses"`
	// Port carries IKE, NATTPort IKE and ESP in UDP (RFC 7296 §2.23).
	Port     uint16 `toml:"port"`
	NATTPort uint16 `toml:"natt_port"`
}

// AuthConfig says how both sides prove who they are.
type AuthConfig struct {
	// Methods are how clients may authenticate: "certificate", "psk".
	Methods []string `toml:"methods"`
	// RemoteID holds patterns of the identities that clients may have.
	RemoteID []string `toml:"remote_id"`
	// Certificate, Key, Chain, CA and CRL are PEM files that replace the gateway's
	// own authority in the state directory.
	Certificate string   `toml:"certificate"`
	Key         string   `toml:"key"`
	Chain       []string `toml:"chain"`
	CA          []string `toml:"ca"`
	CRL         []string `toml:"crl"`
	// RequireCRL refuses clients whose authority has no current revocation list here.
	RequireCRL bool `toml:"require_crl"`
	// SendCertificate sends the gateway's chain also to clients that do not ask.
	SendCertificate bool `toml:"send_certificate"`
	// Unique says what a second session of the same identity means: see Unique.
	Unique string `toml:"unique"`
}

// PSKConfig is a pre-shared key and the identities that it is for.
type PSKConfig struct {
	// ID is an identity or a pattern; "*" is a default for everybody.
	ID     string        `toml:"id"`
	Secret config.Secret `toml:"secret"`
}

// NetworkConfig says what clients get and what they reach.
type NetworkConfig struct {
	// Pool4 and Pool6 are the networks that inner addresses come from.
	Pool4 netip.Prefix `toml:"pool4"`
	Pool6 netip.Prefix `toml:"pool6"`
	// Gateway are inner addresses of the gateway itself, so that clients can reach
	// services on it; they are never leased.
	Gateway []netip.Addr `toml:"gateway"`
	// Networks are what clients may reach through the gateway: its traffic selectors.
	Networks []netip.Prefix `toml:"networks"`
	// DNS servers and Domains are told to clients.
	DNS     []netip.Addr `toml:"dns"`
	Domains []string     `toml:"domains"`
	// Masquerade hides clients behind the gateway's own address.
	Masquerade bool `toml:"masquerade"`
	// Manage lets the gateway set routes, forwarding and packet filter rules. Without
	// it the administrator does all that, the guards against clear text included.
	Manage bool `toml:"manage"`
}

// maxChosenQueues is where more processors stop to be of use without being asked for.
const maxChosenQueues = 8

// queues is how many goroutines carry ESP in each direction. The other half of the
// processors is left to the kernel, whose work for each packet is about as much.
func (t *TunnelConfig) queues() int {
	if t.Queues > 0 {
		return t.Queues
	}
	return max(1, min(runtime.GOMAXPROCS(0)/2, maxChosenQueues))
}

// TunnelConfig says how the tunnel is built.
type TunnelConfig struct {
	// Device is the name of the TUN device, MTU its MTU (0 chooses one).
	Device string `toml:"device"`
	MTU    int    `toml:"mtu"`
	// Queues is how many processors may carry ESP each way, 0 chooses: half of them.
	Queues int `toml:"queues"`
	// PathMTU is the largest packet that the networks outside carry, 0 finds out for
	// each client (RFC 8899).
	PathMTU int `toml:"path_mtu"`
	// DataPath says who seals and opens packets: the kernel ("xfrm"), this process
	// ("tun"), or the kernel where it can ("auto").
	DataPath string `toml:"datapath"`
	// TFC makes all packets outside as long as the largest (RFC 4303 §2.7).
	TFC bool `toml:"tfc_padding"`
	// DSCP of outer packets: "clear", "copy" from the packets inside, or 0 to 63.
	DSCP esp.DSCP `toml:"dscp"`
	// NativeESP uses IP protocol 50 where there is no NAT (RFC 4303).
	NativeESP bool `toml:"native_esp"`
	// NATTraversal lets clients pass NATs (RFC 3948). Without it, which needs NativeESP,
	// a changed address is an attack (RFC 4555 §3.9).
	NATTraversal bool `toml:"nat_traversal"`
	// ReplayWindow is the anti-replay window in packets, 0 for the default.
	ReplayWindow int `toml:"replay_window"`
	// Fragmentation of IKE messages (RFC 7383), MOBIKE (RFC 4555), Childless IKE SAs
	// (RFC 6023).
	Fragmentation bool   `toml:"fragmentation"`
	MOBIKE        bool   `toml:"mobike"`
	Childless     string `toml:"childless"`
}

// RoamingConfig says how clients may move.
type RoamingConfig struct {
	// ReturnRoutability says whether a new address of a client is checked before it
	// gets traffic, after that, or never (RFC 4555 §3.7).
	ReturnRoutability locator.Check `toml:"return_routability"`
	// ProbeBurst and ProbesPerSecond bound the packets that one session's checks and
	// searches cost, UnprovenBurst and UnprovenPerMinute those to all addresses
	// together that have never answered.
	ProbeBurst        int `toml:"probe_burst"`
	ProbesPerSecond   int `toml:"probes_per_second"`
	UnprovenBurst     int `toml:"unproven_burst"`
	UnprovenPerMinute int `toml:"unproven_per_minute"`
}

// defaultRoaming is the policy of package locator.
func defaultRoaming() RoamingConfig {
	p := locator.DefaultPolicy()
	return RoamingConfig{p.Check, p.ProbeBurst, p.ProbesPerSecond, p.UnprovenBurst, p.UnprovenPerMinute}
}

// policy is the same for the host entries of sessions.
func (r *RoamingConfig) policy() locator.Policy {
	p := locator.DefaultPolicy()
	p.Check = r.ReturnRoutability
	p.ProbeBurst, p.ProbesPerSecond = r.ProbeBurst, r.ProbesPerSecond
	p.UnprovenBurst, p.UnprovenPerMinute = r.UnprovenBurst, r.UnprovenPerMinute
	return p
}

// CryptoConfig holds proposals in strongSwan's spelling; "modern" and "compat" stand
// for sets of them.
type CryptoConfig struct {
	IKE string `toml:"ike"`
	ESP string `toml:"esp"`
}

// LimitsConfig bounds what clients, and strangers, can cost. Zero means the default.
type LimitsConfig struct {
	// CookieThreshold is the number of half-open IKE SAs from which cookies are
	// demanded (RFC 7296 §2.6).
	CookieThreshold int `toml:"cookie_threshold"`
	// HalfOpen bounds half-open IKE SAs, in all and from one address.
	HalfOpen           int             `toml:"half_open"`
	HalfOpenPerAddress int             `toml:"half_open_per_address"`
	HalfOpenTimeout    config.Duration `toml:"half_open_timeout"`
	// Sessions bounds the sessions, SessionsPerIdentity those of one identity; 0 for no
	// limit.
	Sessions            int `toml:"sessions"`
	SessionsPerIdentity int `toml:"sessions_per_identity"`
}

// ControlConfig is about the control socket.
type ControlConfig struct {
	Socket string `toml:"socket"`
	// Group may use the socket besides root.
	Group string `toml:"group"`
}

// Words of the configuration.
const (
	methodCertificate = "certificate"
	methodPSK         = "psk"

	childlessAllow = "allow"
	childlessNever = "never"
	childlessForce = "force"
)

// NewConfig returns a configuration with every default set. Lists that a file gives
// replace the default.
func NewConfig() *Config {
	return &Config{
		StateDir: DefaultStateDir,
		Listen:   ListenConfig{Port: 500, NATTPort: 4500},
		Auth:     AuthConfig{RemoteID: []string{"*"}, Unique: string(UniqueNo), SendCertificate: true},
		Network: NetworkConfig{
			Networks: []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)},
			Manage:   true,
		},
		Tunnel:  TunnelConfig{Device: DefaultDevice, DataPath: string(datapath.Auto), NATTraversal: true, Fragmentation: true, MOBIKE: true, Childless: childlessAllow},
		Roaming: defaultRoaming(),
		Crypto:  CryptoConfig{IKE: "modern,compat", ESP: "modern,compat"},
		Timers:  saconfig.DefaultTimers(),
		Limits:  LimitsConfig{SessionsPerIdentity: 16},
		Control: ControlConfig{Socket: DefaultSocket},
		Log:     service.DefaultLog(),
	}
}

// Unique says what it means that an identity has a session already when it
// authenticates again.
type Unique string

// Ways to treat a second session of an identity.
const (
	// UniqueNo lets both live, unless the client says that it has no other session
	// (INITIAL_CONTACT, RFC 7296 §2.4): then the old ones have died and are removed.
	UniqueNo Unique = "no"
	// UniqueNever lets both live in any case: several devices share one identity.
	UniqueNever Unique = "never"
	// UniqueReplace ends the old one.
	UniqueReplace Unique = "replace"
	// UniqueKeep refuses the new one, unless the old one is dead: its client does not
	// answer, or says from the same address and port that it has no other session.
	UniqueKeep Unique = "keep"
)
