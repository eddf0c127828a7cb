package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/wayfarer-vpn/wayfarer/test/bench/dataplane/result"
	"github.com/wayfarer-vpn/wayfarer/test/bench/dataplane/udprate"
)

// values are what one measurement yields, by metric.
type values map[string]float64

// measurement is a kind of measurement that -only can name.
type measurement struct {
	kind    string
	tunnel  bool // makes no sense without one
	measure func(ctx context.Context, p *peer, o *options) (values, error)
}

var measurements = []measurement{
	{"tcp", false, func(ctx context.Context, p *peer, o *options) (values, error) { return tcp(ctx, p, o, "tcp1", "cpu1") }},
	{"tcp", false, func(ctx context.Context, p *peer, o *options) (values, error) {
		return tcp(ctx, p, o, "tcp4", "cpu4", "-P", "4")
	}},
	{"tcp", false, func(ctx context.Context, p *peer, o *options) (values, error) {
		return tcp(ctx, p, o, "tcpr", "cpur", "-R")
	}},
	{"ping", false, ping},
	{"load", true, pingBesideTCP},
	{"udp", true, func(ctx context.Context, p *peer, o *options) (values, error) { return udp(p, o, 64, "udp64") }},
	{"udp", true, func(ctx context.Context, p *peer, o *options) (values, error) { return udp(p, o, 1372, "udp1372") }},
}

// tcp measures the goodput at the receiver and what the tunnel's processes cost.
func tcp(ctx context.Context, p *peer, o *options, rate, cpu string, args ...string) (values, error) {
	before := spent(p.pids[0]).total() + spent(p.pids[1]).total()
	seconds := strconv.FormatFloat(o.duration.Seconds(), 'f', -1, 64)
	ctx, cancel := context.WithTimeout(ctx, o.duration+30*time.Second)
	defer cancel()
	out, err := p.inClient(ctx, append([]string{"iperf3", "-J", "-c", p.inner.String(), "-t", seconds}, args...)...)
	if err != nil {
		return nil, err
	}
	used := spent(p.pids[0]).total() + spent(p.pids[1]).total() - before
	bits, bytes, err := parseIperf(out)
	if err != nil {
		return nil, err
	}
	v := values{rate: bits / 1e9}
	if kind(p.name) != "veth" {
		v[cpu] = used / (bytes / 1e9)
	}
	return v, nil
}

// parseIperf reads goodput in bits per second and the octets received.
func parseIperf(out []byte) (bits, bytes float64, err error) {
	var r struct {
		Error string `json:"error"`
		End   struct {
			Received struct {
				Bits  float64 `json:"bits_per_second"`
				Bytes float64 `json:"bytes"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return 0, 0, fmt.Errorf("output of iperf3: %w", err)
	}
	if r.Error != "" {
		return 0, 0, fmt.Errorf("iperf3: %s", r.Error)
	}
	if r.End.Received.Bytes <= 0 {
		return 0, 0, errors.New("iperf3 received nothing")
	}
	return r.End.Received.Bits, r.End.Received.Bytes, nil
}

// ping measures the round trip on an idle tunnel.
func ping(ctx context.Context, p *peer, _ *options) (values, error) {
	median, p95, err := pings(ctx, p, 1000, "0.002")
	return values{"ping": median, "ping95": p95}, err
}

// pingBesideTCP measures the round trip while a TCP stream fills the tunnel.
func pingBesideTCP(ctx context.Context, p *peer, o *options) (values, error) {
	ctx, cancel := context.WithTimeout(ctx, o.duration+30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := p.inClient(ctx, "iperf3", "-c", p.inner.String(), "-t", strconv.FormatFloat(o.duration.Seconds(), 'f', -1, 64))
		done <- err
	}()
	time.Sleep(o.duration / 5)
	n := int(o.duration / 2 / (10 * time.Millisecond))
	median, p95, err := pings(ctx, p, n, "0.01")
	return values{"load": median, "load95": p95}, errors.Join(err, <-done)
}

func pings(ctx context.Context, p *peer, n int, interval string) (median, p95 float64, err error) {
	out, err := p.inClient(ctx, "ping", "-n", "-c", strconv.Itoa(n), "-i", interval, p.inner.String())
	if err != nil {
		return 0, 0, err
	}
	us := parsePing(string(out))
	if len(us) < n*9/10 {
		return 0, 0, fmt.Errorf("only %d of %d pings were answered", len(us), n)
	}
	slices.Sort(us)
	return result.Median(us), us[len(us)*95/100], nil
}

var pingTime = regexp.MustCompile(`time=([\d.]+) ms`)

// parsePing returns round trips in microseconds.
func parsePing(out string) (us []float64) {
	for _, m := range pingTime.FindAllStringSubmatch(out, -1) {
		if ms, err := strconv.ParseFloat(m[1], 64); err == nil {
			us = append(us, ms*1000)
		}
	}
	return us
}

// udp finds the highest rate with almost no loss, in thousands of packets per second.
func udp(p *peer, o *options, size int, metric string) (values, error) {
	path, err := udprate.Open(p.server, p.client, p.inner, size, o.trial)
	if err != nil {
		return nil, err
	}
	defer path.Close()
	path.Try(20000) // warms up
	best, _ := udprate.Search(udprate.Limits{Loss: o.loss, Steps: o.steps}, path.Try)
	return values{metric: best / 1000}, nil
}
