package result

import "strings"

// Metric says what is measured and how it is shown.
type Metric struct {
	Key    string
	Title  string
	Unit   string
	Digits int  // behind the point
	More   bool // more is better
}

// Metrics in the order of the tables.
var Metrics = []Metric{
	{"tcp1", "TCP, one stream", "Gbit/s", 2, true},
	{"tcp4", "TCP, four streams", "Gbit/s", 2, true},
	{"tcpr", "TCP, one stream back", "Gbit/s", 2, true},
	{"udp64", "UDP 64 B, ≤ 0.1 % loss", "kpps", 1, true},
	{"udp1372", "UDP 1372 B, ≤ 0.1 % loss", "kpps", 1, true},
	{"cpu1", "VPN CPU, one stream", "s/GB", 2, false},
	{"cpu4", "VPN CPU, four streams", "s/GB", 2, false},
	{"cpur", "VPN CPU, one stream back", "s/GB", 2, false},
	{"ping", "ping, median", "µs", 0, false},
	{PingAdded, "ping, added to no tunnel", "µs", 0, false},
	{"ping95", "ping, 95th percentile", "µs", 0, false},
	{"load", "ping beside TCP, median", "µs", 0, false},
	{"load95", "ping beside TCP, 95th percentile", "µs", 0, false},
	{"rss_server", "RSS after load, server", "MiB", 1, false},
	{"rss_client", "RSS after load, client", "MiB", 1, false},
}

// PingAdded is what the tunnel adds to the median of ping.
const PingAdded = "ping_added"

// noTunnel is the peer that carries packets in the clear.
const noTunnel = "veth"

// pingAdded is derived from the pings of a peer and those without a tunnel.
func (f *File) pingAdded(peer string) []float64 {
	if strings.HasPrefix(peer, noTunnel) {
		return nil
	}
	name := noTunnel
	if _, underlay, ok := strings.Cut(peer, "+"); ok {
		name += "+" + underlay
	}
	plain := f.measured(name, "ping")
	if len(plain) == 0 { // offloads do not matter to a ping
		plain = f.measured(noTunnel, "ping")
	}
	if len(plain) == 0 {
		return nil
	}
	var out []float64
	for _, v := range f.measured(peer, "ping") {
		out = append(out, v-Median(plain))
	}
	return out
}
