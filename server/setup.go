package server

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/wayfarer-vpn/wayfarer/internal/atomicfile"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/pki"
)

// SetupOptions describe a new gateway.
type SetupOptions struct {
	Name      string   // DNS name, or address
	Addresses []string // where clients reach it
	ConfigDir string
	StateDir  string
	KeyType   pki.KeyType
	Pool4     netip.Prefix // chosen if not valid
	Pool6     netip.Prefix
	DNS       []netip.Addr // taken from the host's resolver if nil
	Force     bool         // make room by moving an earlier gateway's files aside
	Now       func() time.Time
}

// SetupResult tells what was made.
type SetupResult struct {
	Config      string          `json:"config"`
	StateDir    string          `json:"state_dir"`
	Authority   string          `json:"authority"`
	Certificate pki.Certificate `json:"certificate"`
	Pools       []netip.Prefix  `json:"pools"`
	DNS         []netip.Addr    `json:"dns"`
	// Kept names the files of an earlier setup that --force has moved aside.
	Kept []string `json:"kept,omitempty"`
}

// Setup makes a gateway: authority, certificate, configuration. The configuration is
// written last, so a setup that was interrupted can be repeated.
func Setup(o SetupOptions) (*SetupResult, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	out := &SetupResult{
		Config:    filepath.Join(o.ConfigDir, filepath.Base(DefaultConfigFile)),
		StateDir:  o.StateDir,
		Authority: filepath.Join(o.StateDir, authorityDir),
		Pools:     []netip.Prefix{o.Pool4, o.Pool6}, DNS: o.DNS,
	}
	if err := o.makeRoom(out); err != nil {
		return nil, err
	}
	for dir, mode := range map[string]fs.FileMode{o.ConfigDir: 0o755, o.StateDir: 0o700} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, err
		}
	}
	authority, err := pki.Create(out.Authority, pki.Options{Name: "Wayfarer " + o.Name, KeyType: o.KeyType, Now: o.Now})
	if errors.Is(err, pki.ErrExists) {
		authority, err = pki.Open(out.Authority) // of a setup that was interrupted
	}
	if err != nil {
		return nil, err
	}
	c := &Config{Name: o.Name, Addresses: o.Addresses}
	issued, err := issueGateway(authority, o.StateDir, c.hosts(), o.KeyType)
	if err != nil {
		return nil, err
	}
	out.Certificate = *issued
	text, err := o.file()
	if err != nil {
		return nil, err
	}
	// It holds no secret, but an administrator may add some.
	if err := atomicfile.WriteFile(out.Config, text, 0o600); err != nil {
		return nil, err
	}
	return out, nil
}

// complete fills in what was left out.
func (o *SetupOptions) complete() error {
	if err := profile.CheckHost(o.Name); err != nil {
		return reason.Wrap(reason.InvalidRequest, fmt.Errorf("name, which clients know the gateway by: %w", err))
	}
	for _, a := range o.Addresses {
		if err := profile.CheckHost(a); err != nil {
			return reason.Wrap(reason.InvalidRequest, fmt.Errorf("address: %w", err))
		}
	}
	if len(o.Addresses) == 0 {
		o.Addresses = []string{o.Name}
	}
	for _, dir := range []*string{&o.ConfigDir, &o.StateDir} {
		if err := absolute(dir); err != nil {
			return err
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if !o.Pool4.IsValid() {
		o.Pool4 = freePool4(hostNetworks())
	}
	if !o.Pool6.IsValid() {
		pool, err := randomPool6()
		if err != nil {
			return err
		}
		o.Pool6 = pool
	}
	if o.DNS == nil {
		o.DNS = hostResolvers("/etc/resolv.conf")
	}
	return nil
}

// absolute makes a directory good for a configuration, which is UTF-8 and read
// wherever the daemon is started.
func absolute(dir *string) error {
	if *dir == "" || !utf8.ValidString(*dir) {
		return reason.New(reason.InvalidRequest, "directory %q: the name is empty or not UTF-8", *dir)
	}
	path, err := filepath.Abs(*dir)
	if err != nil {
		return fmt.Errorf("directory %s: %w", *dir, err)
	}
	*dir = path
	return nil
}

// makeRoom refuses to overwrite a gateway, or with Force moves aside what makes it up:
// neither configuration nor users are to be lost by a slip, and users of the earlier
// gateway are none of the new one. The configuration goes last, so that an attempt that
// was interrupted has to be repeated with Force, too.
func (o *SetupOptions) makeRoom(out *SetupResult) error {
	_, err := os.Lstat(out.Config)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !o.Force:
		return reason.New(reason.AlreadyExists, "%s: --force moves it aside and makes a new authority, so that every user needs a new profile", out.Config)
	}
	suffix := o.Now().UTC().Format(".20060102T150405Z")
	former := []string{out.Config}
	for _, name := range []string{gatewayFile, keyUsersFile, profilesDir, authorityDir} {
		former = append(former, filepath.Join(o.StateDir, name))
	}
	for _, path := range slices.Backward(former) {
		kept := path + suffix
		if _, err := os.Lstat(kept); err == nil {
			return reason.New(reason.AlreadyExists, "%s: try again in a second", kept)
		}
		err := os.Rename(path, kept)
		if err == nil {
			out.Kept = append(out.Kept, kept)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// hostNetworks are the networks that this machine is attached to.
func hostNetworks() []netip.Prefix {
	var out []netip.Prefix
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// freePool4 chooses a pool that none of the networks overlaps.
func freePool4(taken []netip.Prefix) netip.Prefix {
	const first, count = 66, 64
	for i := range count {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(first + i), 0, 0}), 22)
		free := true
		for _, t := range taken {
			free = free && !p.Overlaps(t)
		}
		if free {
			return p
		}
	}
	return netip.MustParsePrefix("10.66.0.0/22")
}

// randomPool6 chooses a unique local network (RFC 4193 §3.2).
func randomPool6() (netip.Prefix, error) {
	var a [16]byte
	a[0] = 0xfd
	if _, err := rand.Read(a[1:6]); err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), 112), nil
}

// maxResolvers is how many name servers a resolver uses (resolv.conf(5)).
const maxResolvers = 3

// hostResolvers are the name servers of this machine that others can reach too.
func hostResolvers(path string) []netip.Addr {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var out []netip.Addr
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() && len(out) < maxResolvers {
		f := strings.Fields(lines.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() {
			continue
		}
		out = append(out, a)
	}
	return out
}

// file is the text of the configuration.
func (o *SetupOptions) file() ([]byte, error) {
	defaults := NewConfig()
	var b bytes.Buffer
	err := configTemplate.Execute(&b, map[string]any{
		"Name": config.Quote(o.Name), "Addresses": quoted(o.Addresses), "StateDir": config.Quote(o.StateDir), "OtherStateDir": o.StateDir != defaults.StateDir,
		"Pool4": o.Pool4, "Pool6": o.Pool6,
		"Gateway": quoted([]netip.Addr{o.Pool4.Addr().Next(), o.Pool6.Addr().Next()}),
		"DNS":     quoted(o.DNS), "HasDNS": len(o.DNS) > 0,
		"Default": defaults,
	})
	return b.Bytes(), err
}

// quoted writes a TOML list of strings.
func quoted[T any](list []T) string {
	var parts []string
	for _, v := range list {
		parts = append(parts, config.Quote(fmt.Sprint(v)))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

var configTemplate = template.Must(template.New("server.toml").Parse(`# Configuration of vpn-server. Lines that begin with # show the defaults.
# "vpn-server check" says what is wrong; "systemctl reload vpn-server" (or SIGHUP)
# puts changes in force without ending sessions.

name = {{.Name}}
addresses = {{.Addresses}} # where clients reach this gateway, for their profiles
# id = {{.Name}} # the identity that it proves
{{if .OtherStateDir}}state_dir = {{.StateDir}}{{else}}# state_dir = {{.StateDir}}{{end}}

[network]
pool4 = "{{.Pool4}}" # addresses for clients
pool6 = "{{.Pool6}}"
gateway = {{.Gateway}} # addresses of the gateway among them
networks = ["0.0.0.0/0", "::/0"] # what clients reach through it: everything
{{if .HasDNS}}dns = {{.DNS}} # name servers for clients{{else}}# dns = ["9.9.9.9", "2620:fe::fe"] # name servers for clients{{end}}
# domains = ["corp.example.org"]
masquerade = true # clients appear with the gateway's own address
# manage = true # set routes, forwarding and packet filter rules

[listen]
# addresses = [] # all
# port = {{.Default.Listen.Port}}
# natt_port = {{.Default.Listen.NATTPort}}

[auth]
# methods = ["certificate", "psk"] # by default those there are credentials for
# remote_id = ["*"] # who may connect: identities, "*@example.org", "*.example.org"
# A second session of an identity: "no" lets both live, unless the client says that it has no other; "never" does so in any
# case, for several devices with one identity; "replace" ends the first; "keep" refuses the second while the first lives.
# unique = "{{.Default.Auth.Unique}}"
# send_certificate = {{.Default.Auth.SendCertificate}}
# Certificates of another authority in place of the gateway's own:
# certificate = "gateway.pem"
# key = "gateway.key"
# chain = ["intermediate.pem"]
# ca = ["ca.pem"]
# crl = ["crl.pem"]
# require_crl = {{.Default.Auth.RequireCRL}}

# A pre-shared key; id is an identity, a pattern, or "*" for everybody.
# [[psk]]
# id = "phone@example.org"
# secret = "file:/etc/wayfarer/phone.psk"

[tunnel]
# device = "{{.Default.Tunnel.Device}}"
# mtu = 0 # chosen
# queues = 0 # processors that carry ESP each way; 0 is half of them, 8 at most
# path_mtu = 0 # found out for each client
# datapath = "{{.Default.Tunnel.DataPath}}" # xfrm: the kernel seals; tun: this daemon does; auto: the kernel if it can
# dscp = "clear" # of packets outside; "copy" from those inside, or "0" to "63"
# tfc_padding = false # true: all packets outside as long as the largest
# native_esp = {{.Default.Tunnel.NativeESP}} # ESP without UDP where there is no NAT
# replay_window = 0 # packets; the default is 2048
# fragmentation = {{.Default.Tunnel.Fragmentation}}
# mobike = {{.Default.Tunnel.MOBIKE}}
# childless = "{{.Default.Tunnel.Childless}}" # allow, never or force
# nat_traversal = {{.Default.Tunnel.NATTraversal}} # without it, which needs native_esp, no NAT may be on the way

[roaming]
# return_routability = "{{.Default.Roaming.ReturnRoutability}}" # check a client's new address before or after it gets traffic, or never
# probe_burst = {{.Default.Roaming.ProbeBurst}} # packets that the checks of one session may cost at once, and a second
# probes_per_second = {{.Default.Roaming.ProbesPerSecond}}
# unproven_burst = {{.Default.Roaming.UnprovenBurst}} # of these, to addresses that have never answered, and a minute
# unproven_per_minute = {{.Default.Roaming.UnprovenPerMinute}}

[crypto]
# ike = "{{.Default.Crypto.IKE}}" # or proposals such as aes256gcm16-prfsha384-x25519
# esp = "{{.Default.Crypto.ESP}}"

[timers]
# rekey_ike = "{{.Default.Timers.RekeyIKE}}" # 0 for never
# rekey_child = "{{.Default.Timers.RekeyChild}}"
# jitter = {{.Default.Timers.Jitter}} # a rekeying comes earlier by up to this fraction
# rekey_bytes = 0 # renew a Child SA after so much, such as "64GiB"
# rekey_packets = 0
# dpd_delay = "{{.Default.Timers.DPDDelay}}" # silence after which a client is asked whether it lives
# dpd_timeout = "5m" # until an unanswered request gives it up
# away_timeout = "24h" # the same for clients that move (MOBIKE): they sleep; dpd_timeout if that is set

[limits]
# cookie_threshold = 32 # half-open IKE SAs from which cookies are demanded
# half_open = 4096
# half_open_per_address = 64
# half_open_timeout = "15s"
# sessions = 0 # no limit
# One more session of an identity takes the place of one that is away, or is refused. 0 is no limit.
# sessions_per_identity = {{.Default.Limits.SessionsPerIdentity}}

[control]
# socket = "{{.Default.Control.Socket}}"
# group = "" # may use the socket besides root

[log]
# level = "{{.Default.Log.Level}}"
# format = "{{.Default.Log.Format}}" # or json
`))
