package main

import (
	"fmt"
	"io"
	"net/netip"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/client"
	"github.com/wayfarer-vpn/wayfarer/internal/cli"
)

func pathsCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "paths",
		Usage: "show the pairs of addresses that the session could go over",
		Description: cli.Describe("One line a pair: ours and the gateway's address, whether the gateway has answered there (verified), whether packets get through now, the largest packet known to arrive (MTU), "+
			"and which pair is in use and why.",
			cli.Example{Command: "vpn-client paths", Does: "All pairs"},
			cli.Example{Command: "vpn-client paths --json", Does: "For programs"}),
		Flags:  []urfave.Flag{cli.JSONFlag()},
		Action: paths,
	}
}

func paths(c *urfave.Context) error {
	if _, err := cli.Args(c); err != nil {
		return err
	}
	d, err := daemon(c)
	if err != nil {
		return err
	}
	var list []client.Path
	if err := d.Get(c.Context, client.PathPaths, &list); err != nil {
		return err
	}
	return cli.Print(c, list, func(w io.Writer) error { return printPaths(w, list) })
}

func printPaths(w io.Writer, list []client.Path) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "none: there is no session, this machine has no network, or the session cannot move (MOBIKE is off on one side)")
		return err
	}
	t := cli.NewTable("", "INTERFACE", "LOCAL", "GATEWAY", "ADDRESS", "PATH", "RTT", "MTU", "NAT", "WHY")
	for _, p := range list {
		mark, why := "", p.Why
		switch {
		case p.Current:
			mark, why = "*", p.Chosen
		case p.Standby:
			mark = "standby"
		}
		rtt := "-"
		if p.RTTMS > 0 {
			rtt = fmt.Sprintf("%.1f ms", p.RTTMS)
		}
		mtu := "-"
		if p.MTU > 0 {
			mtu = fmt.Sprint(p.MTU)
		}
		t.Row(mark, p.Interface, hostPort(p.Local), hostPort(p.Remote), p.Verification, p.Reachability, rtt, mtu, p.NAT, why)
	}
	return t.Print(w)
}

func hostPort(e client.Endpoint) string { return netip.AddrPortFrom(e.Address, e.Port).String() }
