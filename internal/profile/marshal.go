package profile

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/wayfarer-vpn/wayfarer/internal/config"
)

// Marshal writes the profile as a file for people: what is set stands first, and
// every key that has its default stands as a comment that shows it. The secrets
// are in it. What it writes is what Parse reads.
func (p *Profile) Marshal() ([]byte, error) {
	problems := &config.Problems{}
	p.Check("", problems)
	if err := problems.Err(); err != nil {
		return nil, fmt.Errorf("write profile %s: %w", p.Name, err)
	}
	w := &writer{defaults: New("")}
	w.line("# Profile of a Wayfarer VPN connection. It holds a secret: keep it to yourself.")
	w.line("#")
	w.line("#     vpn-client import %s.toml && vpn-client up %s", p.Name, p.Name)
	w.line("")
	p.writeIdentity(w)
	p.writeAuth(w)
	p.writeTunnel(w)
	p.writeRoaming(w)
	p.writeCrypto(w)
	p.writeTimers(w)
	if w.err != nil {
		return nil, fmt.Errorf("write profile %s: %w", p.Name, w.err)
	}
	return []byte(w.b.String()), nil
}

// writer collects lines. Keys with their default value become comments.
type writer struct {
	b        strings.Builder
	defaults *Profile
	err      error
}

func (w *writer) line(format string, args ...any) { fmt.Fprintf(&w.b, format+"\n", args...) }

// key writes a key; value and standard are TOML already.
func (w *writer) key(name, value, standard, comment string) {
	mark := ""
	if value == standard {
		mark = "# "
	}
	if comment != "" {
		w.line("# %s", comment)
	}
	w.line("%s%s = %s", mark, name, value)
}

// text writes a string of one line if there is one.
func (w *writer) text(name, value, comment string) {
	if value == "" {
		return
	}
	w.valid(name, value)
	w.key(name, config.Quote(value), "", comment)
}

// pem writes a block of text that keeps its lines.
func (w *writer) pem(name, value string) {
	if value == "" {
		return
	}
	w.valid(name, value)
	value = strings.TrimSpace(strings.ReplaceAll(value, "\r\n", "\n"))
	if strings.Contains(value, "'''") || strings.ContainsFunc(value, isControl) {
		w.line("%s = %s", name, config.Quote(value))
		return
	}
	w.line("%s = '''\n%s\n'''", name, value)
}

// isControl finds what a literal string cannot hold.
func isControl(r rune) bool { return r < 0x20 && r != '\n' && r != '\t' || r == 0x7f }

func (w *writer) valid(name, value string) {
	if !utf8.ValidString(value) {
		w.err = fmt.Errorf("%s %w", name, errNotText)
	}
}

func (p *Profile) writeIdentity(w *writer) {
	w.text("name", p.Name, "")
	if len(p.Server) == 1 {
		w.text("server", p.Server[0], "Host name or address of the gateway, or a list of them.")
	} else {
		var words []string
		for _, s := range p.Server {
			words = append(words, config.Quote(s))
		}
		w.key("server", "["+strings.Join(words, ", ")+"]", "", "Host names and addresses of the gateway, in order of preference.")
	}
	w.text("remote_id", p.RemoteID, "What the gateway must prove to be.")
	w.text("id", p.ID, "Who we are.")
	w.key("reconnect", fmt.Sprint(p.Reconnect), fmt.Sprint(w.defaults.Reconnect), "Come back after failures until told to go down.")
}

func (p *Profile) writeAuth(w *writer) {
	w.line("\n[auth]")
	w.text("method", string(p.Auth.Method), "")
	if !p.Auth.PSK.IsZero() {
		psk := string(p.Auth.PSK.Bytes())
		if strings.HasPrefix(psk, filePrefix) || psk == p.Auth.PSK.String() {
			w.err = errors.New("auth.psk would be read as something else than a key: choose another one")
		}
		w.text("psk", psk, "")
	}
	w.pem("ca", p.Auth.CA)
	w.pem("certificate", p.Auth.Certificate)
	w.pem("chain", p.Auth.Chain)
	w.pem("key", string(p.Auth.Key.Bytes()))
	w.pem("crl", p.Auth.CRL)
}

func (p *Profile) writeTunnel(w *writer) {
	t, d := p.Tunnel, w.defaults.Tunnel
	w.line("\n[tunnel]")
	w.key("routes", t.Routes.String(), d.Routes.String(), `What goes through the tunnel: "full" (everything), "server" (what the gateway offers), or a list of networks.`)
	w.key("lan", config.Quote(string(t.LAN)), config.Quote(string(d.LAN)), `With a full tunnel: "private" keeps attached private networks reachable, "block" does not.`)
	w.key("dns", fmt.Sprint(t.DNS), fmt.Sprint(d.DNS), "Use the gateway's name servers.")
	w.key("mtu", fmt.Sprint(t.MTU), fmt.Sprint(d.MTU), "0 chooses one.")
	w.key("path_mtu", fmt.Sprint(t.PathMTU), fmt.Sprint(d.PathMTU), "The largest packet that the network outside carries; 0 finds out.")
	w.key("dscp", config.Quote(t.DSCP.String()), config.Quote(d.DSCP.String()), `Priority of the packets outside: "clear", "copy" from those inside, or a DSCP from 0 to 63 in quotes.`)
	w.key("tfc_padding", fmt.Sprint(t.TFC), fmt.Sprint(d.TFC), "All packets outside as long as the largest, so that their sizes tell nothing.")
	w.key("native_esp", fmt.Sprint(t.NativeESP), fmt.Sprint(d.NativeESP), "IP protocol 50 in place of UDP where no NAT is in the way.")
	w.key("nat_traversal", fmt.Sprint(t.NATTraversal), fmt.Sprint(d.NATTraversal), "Without it, which needs native_esp, whoever changes addresses on the way is an attacker (RFC 4555 section 3.9).")
	w.key("replay_window", fmt.Sprint(t.ReplayWindow), fmt.Sprint(d.ReplayWindow), "In packets; 0 for the default.")
	w.key("fragmentation", fmt.Sprint(t.Fragmentation), fmt.Sprint(d.Fragmentation), "IKE fragmentation (RFC 7383).")
	w.key("mobike", fmt.Sprint(t.MOBIKE), fmt.Sprint(d.MOBIKE), "Move between networks (RFC 4555).")
	w.key("childless", config.Quote(string(t.Childless)), config.Quote(string(d.Childless)), `"never", "allow" or "force" (RFC 6023).`)
}

func (p *Profile) writeCrypto(w *writer) {
	c, d := p.Crypto, w.defaults.Crypto
	w.line("\n[crypto]")
	w.line(`# "modern", "compat", or proposals such as aes256gcm16-prfsha256-x25519, separated by commas.`)
	w.valid("crypto", c.IKE+c.ESP)
	w.key("ike", config.Quote(c.IKE), config.Quote(d.IKE), "")
	w.key("esp", config.Quote(c.ESP), config.Quote(d.ESP), "")
}

func (p *Profile) writeTimers(w *writer) {
	t, d := p.Timers, w.defaults.Timers
	w.line("\n[timers]")
	w.duration("rekey_ike", t.RekeyIKE, d.RekeyIKE, "Age at which keys are renewed; 0 for never.")
	w.duration("rekey_child", t.RekeyChild, d.RekeyChild, "")
	w.key("jitter", fmt.Sprint(t.Jitter), fmt.Sprint(d.Jitter), "Largest fraction by which a renewal comes earlier.")
	w.duration("dpd_delay", t.DPDDelay, d.DPDDelay, "Silence after which the gateway is asked whether it lives; 0 for never.")
	w.duration("dpd_timeout", t.DPDTimeout, d.DPDTimeout, "How long an unanswered exchange is repeated; 0 for the default.")
	w.duration("away_timeout", t.AwayTimeout, d.AwayTimeout, "How long a session outlives a network that is gone; 0 for the default, 24h or dpd_timeout if that is set.")
	w.key("rekey_bytes", config.Quote(t.RekeyBytes.String()), config.Quote(d.RekeyBytes.String()), "Traffic after which a Child SA is renewed; 0 for no limit.")
	w.key("rekey_packets", fmt.Sprint(t.RekeyPackets), fmt.Sprint(d.RekeyPackets), "")
}

func (w *writer) duration(name string, value, standard config.Duration, comment string) {
	w.key(name, config.Quote(value.String()), config.Quote(standard.String()), comment)
}
