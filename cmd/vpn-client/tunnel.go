package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/client"
	"github.com/wayfarer-vpn/wayfarer/internal/cli"
	"github.com/wayfarer-vpn/wayfarer/internal/control"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// defaultUpTimeout is how long "up" waits: enough for several addresses of a gateway
// and some lost packets.
const defaultUpTimeout = 30 * time.Second

func upCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "up",
		Usage:     "connect, and wait until the tunnel carries traffic",
		ArgsUsage: "[NAME]",
		Description: cli.Describe("Without a name it takes the only profile there is. The exit code tells how it went: 0 connected, 3 no daemon is running, 4 the gateway refused, 5 it did not answer. "+
			"A profile with reconnect = true is tried again in the background until it is brought down.",
			cli.Example{Command: "vpn-client up alice", Does: "Connect"},
			cli.Example{Command: "vpn-client up alice --timeout 10s", Does: "Give up waiting after ten seconds"},
			cli.Example{Command: "vpn-client up --foreground ./alice.toml", Does: "Without a daemon: stay connected until interrupted"}),
		Flags: []urfave.Flag{
			&urfave.DurationFlag{Name: "timeout", Usage: "wait for `TIME`, such as 10s or 2m", Value: defaultUpTimeout},
			&urfave.BoolFlag{Name: "foreground", Aliases: []string{"f"}, Usage: "run the daemon in this command, with a profile by name or file"},
			cli.JSONFlag(),
		},
		Action: up,
	}
}

func up(c *urfave.Context) error {
	args, err := cli.Args(c, "[NAME]")
	if err != nil {
		return err
	}
	name := ""
	if len(args) == 1 {
		name = args[0]
	}
	timeout := c.Duration("timeout")
	if timeout <= 0 {
		return cli.Usagef("--timeout must be more than zero")
	}
	if c.Bool("foreground") {
		return upInForeground(c, name)
	}
	d, err := daemon(c)
	if err != nil {
		return err
	}
	if looksLikeFile(name) {
		return cli.Usagef("%q is a file", name).WithHint("Take the profile in first: vpn-client import %s. Then: vpn-client up %s.", name, strings.TrimSuffix(filepath.Base(name), ".toml"))
	}
	var begun client.Status
	if err := d.Post(c.Context, client.PathUp, client.UpRequest{Profile: name, TimeoutMS: timeout.Milliseconds()}, &begun); err != nil {
		return withForegroundHint(err, name)
	}
	final, err := waitUntilUp(c, d, begun, timeout)
	if err != nil {
		return err
	}
	return cli.Print(c, final, func(w io.Writer) error { return printConnected(w, final) })
}

func looksLikeFile(name string) bool {
	return strings.ContainsRune(name, os.PathSeparator) || strings.HasSuffix(name, ".toml")
}

// withForegroundHint tells how to go without the daemon when there is none.
func withForegroundHint(err error, name string) error {
	var remote *control.Error
	if !errors.As(err, &remote) || remote.Code != reason.NotRunning {
		return err
	}
	if name == "" {
		name = "NAME"
	}
	return (&cli.Error{Err: err}).WithHint("%s Or connect without a daemon: vpn-client up --foreground %s.", remote.Hint, name)
}

// slack is what the daemon gets beyond the time it was given, to tell why it failed.
const slack = 3 * time.Second

// errWaited ends the watch of the status.
var errWaited = errors.New("waited long enough")

// waitUntilUp follows the status until it is decided.
func waitUntilUp(c *urfave.Context, d *control.Client, begun client.Status, timeout time.Duration) (client.Status, error) {
	ctx, cancel := context.WithTimeoutCause(c.Context, timeout+slack, errWaited)
	defer cancel()
	progress := newProgress(c)
	last, decided := begun, errors.New("decided")
	err := d.Stream(ctx, client.PathStatusStream, func(line json.RawMessage) error {
		var s client.Status
		if err := json.Unmarshal(line, &s); err != nil {
			return fmt.Errorf("the daemon's status is not understood: %w", err)
		}
		last = s
		progress.show(s)
		if outcomeOf(s, begun.Generation) != undecided {
			return decided
		}
		return nil
	})
	progress.end()
	switch {
	case c.Context.Err() != nil:
		return last, c.Context.Err()
	case err != nil && !errors.Is(err, decided) && ctx.Err() == nil:
		return last, err
	}
	return last, upError(last, begun.Generation, timeout)
}

// outcome is how an "up" stands.
type outcome int

const (
	undecided outcome = iota
	succeeded
	failed
)

// outcomeOf judges a status. A failure that trying again will not heal is one, even
// though the daemon goes on trying.
func outcomeOf(s client.Status, generation uint64) outcome {
	own := s.LastError != nil && s.LastError.Generation == generation
	switch {
	case s.Generation != generation:
		return failed // somebody else has given another command
	case s.Connected:
		return succeeded
	case s.State == client.Disconnected, own && s.LastError.Permanent:
		return failed
	case own && s.LastError.Code == reason.NoAnswer:
		return failed
	}
	return undecided
}

// upError puts the outcome into words.
func upError(s client.Status, generation uint64, timeout time.Duration) error {
	switch outcomeOf(s, generation) {
	case succeeded:
		return nil
	case failed:
		if s.Generation != generation {
			return &cli.Error{Code: cli.ExitNotConnected, Message: "another command has changed the connection meanwhile", Hint: "See vpn-client status."}
		}
	}
	if s.LastError == nil || s.LastError.Generation != generation {
		return (&cli.Error{Code: cli.ExitTimeout, Message: fmt.Sprintf("not connected within %s; the last step was: %s", timeout, orElse(s.Step, string(s.State)))}).
			WithHint("%s", retryHint(s))
	}
	p := s.LastError
	e := &control.Error{Code: p.Code, Message: p.Message, Hint: p.Hint}
	if s.State != client.Disconnected {
		e.Hint = strings.TrimSpace(p.Hint + " " + retryHint(s))
	}
	return &cli.Error{Code: upExit(p), Err: e, Hint: e.Hint}
}

// upExit is the exit code for a failure: scripts tell refusal from silence.
func upExit(p *client.Problem) int {
	if p.Notify == client.NotifyTimeout {
		return cli.ExitTimeout
	}
	if p.Code == reason.ConfigInvalid {
		return cli.ExitUsage
	}
	return cli.ExitNotConnected
}

func retryHint(s client.Status) string {
	if s.State == client.Disconnected {
		return ""
	}
	return "The daemon goes on trying; vpn-client status tells how it goes, vpn-client down ends it."
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func printConnected(w io.Writer, s client.Status) error {
	var addresses []string
	for _, a := range s.Addresses {
		addresses = append(addresses, a.String())
	}
	_, err := fmt.Fprintf(w, "connected: %s through %s, address %s\n", s.Profile, s.Server, strings.Join(addresses, " and "))
	if err != nil || len(s.Blocked) == 0 {
		return err
	}
	_, err = fmt.Fprintf(w, "note: the gateway does not carry %s; packets to there are blocked, not sent past the tunnel\n", joined(s.Blocked))
	return err
}

// progress shows what the daemon is doing, on a terminal only.
type progress struct {
	w    io.Writer
	last string
}

func newProgress(c *urfave.Context) *progress {
	if cli.WantsJSON(c) || !cli.IsTerminal(os.Stderr) {
		return &progress{}
	}
	return &progress{w: c.App.ErrWriter}
}

func (p *progress) show(s client.Status) {
	if p.w == nil || s.Step == "" || s.Step == p.last {
		return
	}
	p.last = s.Step
	fmt.Fprintf(p.w, "\r\x1b[K%s …", cli.Clean(s.Step))
}

func (p *progress) end() {
	if p.w != nil && p.last != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

func downCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "down",
		Usage:     "disconnect, and give this machine its own network back",
		ArgsUsage: "[NAME]",
		Description: cli.Describe("It works without a daemon too, as root: then it removes what a daemon that crashed has left on this machine. "+
			"Programs that still hold sockets with an address of the tunnel cannot send with it past the tunnel afterwards either.",
			cli.Example{Command: "vpn-client down", Does: "Disconnect, or clean up after a crash"}),
		Flags:  []urfave.Flag{cli.JSONFlag()},
		Action: down,
	}
}

func down(c *urfave.Context) error {
	args, err := cli.Args(c, "[NAME]")
	if err != nil {
		return err
	}
	var in client.DownRequest
	if len(args) == 1 {
		in.Profile = args[0]
	}
	d, err := daemon(c)
	if err != nil {
		return err
	}
	var s client.Status
	err = d.Post(c.Context, client.PathDown, in, &s)
	var remote *control.Error
	if errors.As(err, &remote) && remote.Code == reason.NotRunning {
		return cleanUp(c)
	}
	if err != nil {
		return err
	}
	return cli.Print(c, s, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, "disconnected")
		return err
	})
}

// cleanUp does without a daemon.
func cleanUp(c *urfave.Context) error {
	cfg, _, err := loadConfig(c)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return &cli.Error{Code: cli.ExitPermission, Message: "no daemon is running; removing what it may have left on this machine needs root", Hint: "Run the command with sudo."}
	}
	log := slog.New(slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if err := client.Cleanup(c.Context, cfg, log); err != nil {
		return fmt.Errorf("restore this machine's network: %w", err)
	}
	return cli.Print(c, client.Status{State: client.Disconnected, Version: cli.Version()}, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, "no daemon is running; this machine has its own network")
		return err
	})
}
