package profile

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/saconfig"
)

// Limits on values.
const (
	maxServers = 16
	maxName    = 64
	maxHost    = 253 // RFC 1035 §2.3.4, without the final dot
	maxID      = 1024
)

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	hostPattern = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?\.?$`)
)

// CheckName says whether name can name a profile and its file.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the name is missing")
	case len(name) > maxName:
		return fmt.Errorf("the name is longer than %d characters", maxName)
	case !namePattern.MatchString(name):
		return fmt.Errorf("%q is no name for a profile: letters, digits, '.', '_' and '-' are possible, beginning with a letter or digit", name)
	}
	return nil
}

// Check adds everything that is wrong with the values of p to problems. Keys are
// given a prefix, such as "profile.", for a profile within another file.
func (p *Profile) Check(prefix string, problems *config.Problems) {
	p.CheckSettings(prefix, problems)
	checker{p, prefix, problems}.credentials()
}

// CheckSettings is Check without the credentials, for a profile that has none yet.
func (p *Profile) CheckSettings(prefix string, problems *config.Problems) {
	c := checker{p, prefix, problems}
	c.identity()
	c.tunnel()
	c.roaming()
	c.timers()
}

type checker struct {
	*Profile
	prefix   string
	problems *config.Problems
}

func (c checker) add(key, format string, args ...any) {
	c.problems.Add(c.prefix+key, format, args...)
}

func (c checker) identity() {
	if err := CheckName(c.Name); err != nil {
		c.add("name", "%v", err)
	}
	if len(c.Server) == 0 {
		c.add("server", "the address of the gateway is missing")
	}
	if len(c.Server) > maxServers {
		c.add("server", "more than %d addresses", maxServers)
	}
	for _, s := range c.Server {
		if err := CheckHost(s); err != nil {
			c.add("server", "%v", err)
		}
	}
	for key, id := range map[string]string{"id": c.ID, "remote_id": c.RemoteID} {
		if len(id) > maxID || strings.ContainsAny(id, "\r\n\x00") {
			c.add(key, "not an identity: too long, or of several lines")
		}
	}
}

// CheckHost says whether s can be the address of a gateway: a host name or an IP
// address, without a port.
func CheckHost(s string) error {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("%s is not the address of a gateway", s)
		}
		return nil
	}
	if len(s) > maxHost || !hostPattern.MatchString(s) || looksLikeAddress(s) {
		return fmt.Errorf("%.80q is neither a host name nor an IP address (a port cannot be given: IKE uses 500 and 4500)", s)
	}
	return nil
}

// looksLikeAddress catches mistyped IPv4 addresses: no top-level domain is a number.
func looksLikeAddress(s string) bool {
	last := s[strings.LastIndexByte(strings.TrimSuffix(s, "."), '.')+1:]
	return strings.Trim(last, "0123456789.") == ""
}

func (c checker) credentials() {
	switch c.Method() {
	case PSK:
		if c.Auth.PSK.IsZero() {
			c.add("auth.psk", "the pre-shared key is missing")
		}
		if c.ID == "" {
			c.add("id", "our own identity is missing: with a pre-shared key it must be given, for instance laptop@example.org")
		}
	case Certificate:
		c.certificates()
	default:
		c.add("auth.method", "%.40q is neither %q nor %q", c.Auth.Method, PSK, Certificate)
	}
}

func (c checker) certificates() {
	if c.Auth.CA == "" {
		c.add("auth.ca", "the certificate of the authority that vouches for the gateway is missing")
	}
	if c.Auth.Certificate == "" {
		c.add("auth.certificate", "our certificate is missing; for a pre-shared key set auth.psk")
	}
	if c.Auth.Key.IsZero() {
		c.add("auth.key", "the private key of our certificate is missing")
	}
	for key, text := range map[string]string{
		"auth.ca": c.Auth.CA, "auth.certificate": c.Auth.Certificate, "auth.chain": c.Auth.Chain,
		"auth.crl": c.Auth.CRL, "auth.key": string(c.Auth.Key.Bytes()),
	} {
		if text != "" && !isPEM(text) {
			c.add(key, `holds no PEM block ("%s..."), and does not begin with "file:" either`, pemBegin)
		}
	}
}

const pemBegin = "-----BEGIN "

func isPEM(text string) bool {
	return strings.Contains(text, pemBegin) && !strings.HasPrefix(text, filePrefix)
}

func (c checker) tunnel() {
	if !slices.Contains([]LAN{LANPrivate, LANBlock}, c.Tunnel.LAN) {
		c.add("tunnel.lan", "%.40q is neither %q nor %q", c.Tunnel.LAN, LANPrivate, LANBlock)
	}
	if !slices.Contains([]Childless{ChildlessAllow, ChildlessNever, ChildlessForce}, c.Tunnel.Childless) {
		c.add("tunnel.childless", "%.40q is none of %q, %q and %q", c.Tunnel.Childless, ChildlessAllow, ChildlessNever, ChildlessForce)
	}
	for key, err := range map[string]error{
		"tunnel.mtu": saconfig.CheckMTU(c.Tunnel.MTU), "tunnel.path_mtu": saconfig.CheckPathMTU(c.Tunnel.PathMTU),
		"tunnel.replay_window": saconfig.CheckReplayWindow(c.Tunnel.ReplayWindow),
	} {
		if err != nil {
			c.add(key, "%v", err)
		}
	}
	if !c.Tunnel.NATTraversal && !c.Tunnel.NativeESP {
		c.add("tunnel.nat_traversal", "without it ESP goes in IP packets of its own: set native_esp = true as well")
	}
	for key, s := range map[string]string{"crypto.ike": c.Crypto.IKE, "crypto.esp": c.Crypto.ESP} {
		if strings.TrimSpace(s) == "" {
			c.add(key, "the proposals are missing: write %q, %q or proposals such as aes256gcm16-prfsha256-x25519", Modern, Compat)
		}
	}
}

func (c checker) timers() {
	c.Timers.Check(func(key, format string, args ...any) { c.add("timers."+key, format, args...) })
}
