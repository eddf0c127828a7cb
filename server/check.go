package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/control"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/server/network"
)

// CheckResult is what is wrong with a configuration.
type CheckResult struct {
	File     string         `json:"file"`
	OK       bool           `json:"ok"`
	Problems []CheckProblem `json:"problems"`
	Warnings []string       `json:"warnings"`
}

// CheckProblem is one thing that is wrong.
type CheckProblem struct {
	Line int    `json:"line,omitempty"`
	Key  string `json:"key,omitempty"`
	Text string `json:"text"`
}

// Check checks a configuration, everything that it names, and how it fits this
// machine.
func Check(path string, now time.Time) *CheckResult {
	out := &CheckResult{File: path, Problems: []CheckProblem{}, Warnings: []string{}}
	settings, err := Load(path, now)
	if err != nil {
		list, ok := config.AsProblems(err)
		if !ok {
			out.Problems = append(out.Problems, CheckProblem{Text: err.Error()})
		}
		for _, p := range list {
			out.Problems = append(out.Problems, CheckProblem{p.Line, p.Key, p.Error()})
		}
		return out
	}
	out.OK = true
	out.Warnings = append(out.Warnings, settings.Warnings...)
	out.Warnings = append(out.Warnings, settings.fits(hostAddresses())...)
	if settings.Config.Network.Manage {
		if chains, err := network.ForwardDroppers(); err == nil {
			for _, chain := range chains {
				out.Warnings = append(out.Warnings, fmt.Sprintf("the packet filter chain %q drops forwarded packets by default: allow those from and to %s there", chain, settings.Config.Tunnel.Device))
			}
		}
	}
	return out
}

// hostAddress is an address of this machine with its network and interface.
type hostAddress struct {
	prefix netip.Prefix
	device string
}

func hostAddresses() []hostAddress {
	var out []hostAddress
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, hostAddress{p, i.Name})
			}
		}
	}
	return out
}

// fits says where the settings do not fit a machine with these addresses.
func (s *Settings) fits(host []hostAddress) []string {
	var out []string
	for _, q := range s.Pools() {
		for _, h := range host {
			if h.device != s.Config.Tunnel.Device && h.prefix.Bits() > 0 && q.Overlaps(h.prefix.Masked()) {
				out = append(out, fmt.Sprintf("the pool %s overlaps the network %s of %s: hosts there will not be reachable", q, h.prefix.Masked(), h.device))
			}
		}
	}
	for _, a := range s.Config.Listen.Addresses {
		found := false
		for _, h := range host {
			found = found || h.prefix.Addr() == a.WithZone("")
		}
		if !found {
			out = append(out, fmt.Sprintf("listen.addresses: this machine does not have %s now", a))
		}
	}
	return out
}

// Running is an error when a daemon answers on a control socket.
func Running(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := control.NewClient(socket, "vpn-server").Get(ctx, PathStatus, nil)
	if control.HasCode(err, reason.NotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	return reason.New(reason.Conflict, "the gateway is running: end it first")
}
