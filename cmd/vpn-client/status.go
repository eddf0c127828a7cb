package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/client"
	"github.com/wayfarer-vpn/wayfarer/internal/cli"
)

func statusCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "status",
		Usage: "show whether this machine is connected, and how",
		Description: cli.Describe("\"connected\" means that the gateway answers. When it does not, the state is \"degraded\", with the reason.",
			cli.Example{Command: "vpn-client status", Does: "Once"},
			cli.Example{Command: "vpn-client status --watch", Does: "Follow it until interrupted"},
			cli.Example{Command: "vpn-client status --check || notify-send 'VPN is down'", Does: "In a script"}),
		Flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "go on showing it as it changes"},
			&urfave.BoolFlag{Name: "check", Usage: "print nothing; the exit code is 4 unless connected"},
			cli.JSONFlag(),
		},
		Action: status,
	}
}

func status(c *urfave.Context) error {
	if _, err := cli.Args(c); err != nil {
		return err
	}
	d, err := daemon(c)
	if err != nil {
		return err
	}
	if c.Bool("watch") {
		return watchStatus(c)
	}
	var s client.Status
	if err := d.Get(c.Context, client.PathStatus, &s); err != nil {
		return err
	}
	if c.Bool("check") {
		if s.Connected {
			return nil
		}
		return &cli.Error{Code: cli.ExitNotConnected, Message: "the tunnel is " + string(s.State)}
	}
	return cli.Print(c, s, func(w io.Writer) error { return printStatus(w, s, time.Now()) })
}

// watchStatus shows the status until interrupted: on a terminal in place, otherwise
// one after the other. With --json each is a line.
func watchStatus(c *urfave.Context) error {
	d, err := daemon(c)
	if err != nil {
		return err
	}
	w := c.App.Writer
	inPlace := w == os.Stdout && cli.IsTerminal(os.Stdout)
	return d.Stream(c.Context, client.PathStatusStream, func(line json.RawMessage) error {
		if cli.WantsJSON(c) {
			_, err := fmt.Fprintf(w, "%s\n", line)
			return err
		}
		var s client.Status
		if err := json.Unmarshal(line, &s); err != nil {
			return fmt.Errorf("the daemon's status is not understood: %w", err)
		}
		separator := "\n"
		if inPlace {
			separator = "\x1b[H\x1b[2J"
		}
		if _, err := io.WriteString(w, separator); err != nil {
			return err
		}
		return printStatus(w, s, time.Now())
	})
}

// printStatus is the status for people.
func printStatus(w io.Writer, s client.Status, now time.Time) error {
	var f cli.Fields
	f.Add("state", stateLine(s, now))
	add(&f, "profile", s.Profile)
	add(&f, "gateway", gatewayLine(s))
	add(&f, "our identity", s.LocalID)
	if s.Local != nil && s.Remote != nil {
		f.Add("path", pathLine(s))
	}
	if h := s.Handover; h != nil {
		f.Add("last move", moveLine(h, now))
	}
	add(&f, "addresses", joined(s.Addresses))
	add(&f, "routes", joined(s.Routes))
	add(&f, "blocked", joined(s.Blocked))
	add(&f, "name servers", joined(s.DNS))
	add(&f, "domains", strings.Join(s.Domains, ", "))
	if s.Interface != "" {
		text := s.Interface
		if s.MTU > 0 {
			text += fmt.Sprintf(", MTU %d", s.MTU)
		}
		f.Add("interface", text)
	}
	if s.PathMTU != 0 {
		f.Add("path MTU", fmt.Sprint(s.PathMTU))
	}
	if s.DataPath != nil {
		f.Add("data path", fmt.Sprintf("%s: %s", s.DataPath.Kind, s.DataPath.Why))
	}
	if s.Traffic != nil {
		f.Add("traffic", fmt.Sprintf("%s in, %s out", cli.Octets(s.Traffic.InBytes), cli.Octets(s.Traffic.OutBytes)))
	}
	add(&f, "IKE SA", ikeLine(s))
	for _, ch := range s.Children {
		f.Add("Child SA", fmt.Sprintf("in %s, out %s, %s", ch.SPIIn, ch.SPIOut, ch.Algorithm))
	}
	if s.Problem != nil {
		f.Add("problem", s.Problem.Message)
		add(&f, "hint", s.Problem.Hint)
	} else if s.LastError != nil {
		f.Add("last error", fmt.Sprintf("%s (%s ago)", s.LastError.Message, cli.Span(now.Sub(s.LastError.Time))))
	}
	for _, warning := range s.Warnings {
		f.Add("warning", warning)
	}
	return f.Print(w)
}

func add(f *cli.Fields, name, value string) {
	if value != "" {
		f.Add(name, value)
	}
}

// moveLine says when the session moved, from where to where, why, and what it cost.
func moveLine(h *client.Handover, now time.Time) string {
	gap := fmt.Sprintf("%.0f ms without a path", h.GapMS)
	if !h.Confirmed {
		gap = "the gateway has not followed yet"
	}
	from, to := h.From.String(), h.To.String()
	if h.FromGateway != h.Gateway {
		from, to = from+" > "+h.FromGateway.String(), to+" > "+h.Gateway.String()
	}
	return fmt.Sprintf("%s ago, from %s to %s, because of %s, %s", cli.Span(now.Sub(h.Time)), from, to, h.Cause, gap)
}

func stateLine(s client.Status, now time.Time) string {
	line := string(s.State)
	switch {
	case s.Connected && s.Since != nil:
		line += " for " + cli.Span(now.Sub(*s.Since))
	case s.RetryAt != nil:
		line += ", trying again in " + cli.Span(max(0, s.RetryAt.Sub(now)))
	case s.Step != "":
		line += ": " + s.Step
	}
	return line
}

func gatewayLine(s client.Status) string {
	if s.RemoteID == "" || s.RemoteID == s.Server {
		return s.Server
	}
	return fmt.Sprintf("%s (%s)", s.Server, s.RemoteID)
}

func pathLine(s client.Status) string {
	line := fmt.Sprintf("%s > %s, ESP ", endpoint(s.Local), endpoint(s.Remote))
	if s.Encapsulation == "udp" {
		line += "in UDP"
	} else {
		line += "as protocol 50"
	}
	switch {
	case s.NAT == nil:
	case s.NAT.Local:
		// That the gateway is behind one is often only said, to get ESP in UDP.
		line += ", we are behind a NAT"
	}
	return line
}

func endpoint(e *client.Endpoint) string {
	if e.Address.Is6() {
		return fmt.Sprintf("[%s]:%d", e.Address, e.Port)
	}
	return fmt.Sprintf("%s:%d", e.Address, e.Port)
}

func ikeLine(s client.Status) string {
	if s.SPIi == "" {
		return ""
	}
	return fmt.Sprintf("%s %s, %s", s.SPIi, s.SPIr, s.Algorithm)
}

func joined[T fmt.Stringer](list []T) string {
	var words []string
	for _, v := range list {
		words = append(words, v.String())
	}
	return strings.Join(words, ", ")
}

func logsCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "logs",
		Usage: "show the daemon's log",
		Description: cli.Describe("The daemon keeps its last lines; with systemd, journalctl -u vpn-client has them all.",
			cli.Example{Command: "vpn-client logs --follow", Does: "Follow it until interrupted"},
			cli.Example{Command: "vpn-client logs --json", Does: "One JSON object per line"}),
		Flags: []urfave.Flag{cli.JSONFlag(), &urfave.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with new lines"}},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c); err != nil {
				return err
			}
			d, err := daemon(c)
			if err != nil {
				return err
			}
			return d.Stream(c.Context, fmt.Sprintf("%s?follow=%t", client.PathLogs, c.Bool("follow")), func(line json.RawMessage) error {
				if cli.WantsJSON(c) {
					_, err := fmt.Fprintf(c.App.Writer, "%s\n", line)
					return err
				}
				var l client.LogLine
				if err := json.Unmarshal(line, &l); err != nil {
					return err
				}
				_, err := fmt.Fprintln(c.App.Writer, cli.Clean(l.Line))
				return err
			})
		},
	}
}
