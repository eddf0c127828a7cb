package dns

import (
	"bufio"
	"bytes"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// resolvedDir is where systemd-resolved keeps the files that resolv.conf may be
	// a link to (systemd-resolved.service(8)).
	resolvedDir = "/run/systemd/resolve/"
	// resolvedUpstream lists the servers that systemd-resolved asks.
	resolvedUpstream = resolvedDir + "resolv.conf"
	// maxServers is how many servers the C library reads (MAXNS of resolv.conf(5)).
	maxServers = 3
	// maxResolvConf bounds what is read and kept.
	maxResolvConf = 64 << 10
)

// resolvedStubs are the addresses on which systemd-resolved listens.
var resolvedStubs = []netip.Addr{netip.MustParseAddr("127.0.0.53"), netip.MustParseAddr("127.0.0.54")}

// resolvConf is the text of a resolv.conf.
type resolvConf []byte

// readResolvConf reads a file; what cannot be read is empty.
func readResolvConf(path string) resolvConf {
	data, err := readSmall(path)
	if err != nil {
		return nil
	}
	return data
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxResolvConf))
}

// servers returns the name servers in the file.
func (r resolvConf) servers() (out []netip.Addr) {
	lines := bufio.NewScanner(bytes.NewReader(r))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// others returns the lines that are not about name servers: options, search list.
func (r resolvConf) others() (out []string) {
	lines := bufio.NewScanner(bytes.NewReader(r))
	for lines.Scan() {
		switch fields := strings.Fields(lines.Text()); {
		case len(fields) == 0, fields[0] == "nameserver", strings.HasPrefix(fields[0], "#"), strings.HasPrefix(fields[0], ";"):
		default:
			out = append(out, lines.Text())
		}
	}
	return out
}

// heading begins the file that we write.
const heading = "# Written by vpn-client while the tunnel is up; what was here before is restored.\n"

// tunneled is the file for a tunnel: its servers first. With a full tunnel they are
// the only ones. With a split tunnel the machine's own follow, as a way out when the
// tunnel's do not answer; that they are asked for the tunnel's names then is all
// that resolv.conf can express.
func (r resolvConf) tunneled(s Settings) resolvConf {
	servers := slices.Clone(s.Servers)
	if !s.Full {
		for _, a := range r.servers() {
			if !slices.Contains(servers, a) {
				servers = append(servers, a)
			}
		}
	}
	var b strings.Builder
	b.WriteString(heading)
	for _, a := range servers[:min(len(servers), maxServers)] {
		b.WriteString("nameserver " + a.String() + "\n")
	}
	for _, line := range r.others() {
		b.WriteString(line + "\n")
	}
	return resolvConf(b.String())
}

// pointsAtResolved says whether a resolv.conf makes programs ask systemd-resolved,
// or read what it writes.
func pointsAtResolved(path string) bool {
	if target, err := filepath.EvalSymlinks(path); err == nil && strings.HasPrefix(target, resolvedDir) {
		return true
	}
	servers := readResolvConf(path).servers()
	return len(servers) > 0 && !slices.ContainsFunc(servers, func(a netip.Addr) bool { return !slices.Contains(resolvedStubs, a) })
}
