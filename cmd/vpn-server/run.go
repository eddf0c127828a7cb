package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/internal/cli"
	"github.com/wayfarer-vpn/wayfarer/internal/service"
	"github.com/wayfarer-vpn/wayfarer/server"
)

func runCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "run",
		Usage: "run the gateway in the foreground",
		Description: cli.Describe("SIGTERM and SIGINT end it: clients are told, and what it has installed is removed, except for the routes that keep packets for clients from leaving in clear. "+
			"SIGHUP reads the configuration again. It tells systemd when it is ready and serves its watchdog. The exit code is 78 when the configuration is invalid: trying again does not help then. "+
			"An identity that has as many sessions as [limits] sessions_per_identity allows, 16 by default, gets a further one in place of one of its own that is away, or none; what a second session means at all says [auth] unique.",
			cli.Example{Command: "vpn-server run", Does: "Run with the default configuration"},
			cli.Example{Command: "vpn-server run --config ./server.toml", Does: "Run with another one"}),
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c); err != nil {
				return err
			}
			return run(c)
		},
	}
}

func run(c *urfave.Context) error {
	settings, err := server.Load(c.String(flagConfig), time.Now())
	if err != nil {
		return cli.Unstartable(configError(c, err))
	}
	collectEarly()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	d := &server.Daemon{Settings: settings, Version: cli.Version(), Output: os.Stderr, Reload: hangup}
	return cli.Unstartable(explainRun(d.Run(c.Context)))
}

// gcPercent is how much garbage may lie about beside what is in use, in percent of it.
// Sessions are small and live long, and the data path makes no garbage: collecting more
// often than Go does by default costs little and halves the memory of a client
// (test/bench.sh handshakes: 29 KiB of the process by default, 14 KiB so).
const gcPercent = 40

// collectEarly sets it, unless the administrator has an opinion.
func collectEarly() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// configError gives errors of the configuration their exit code, and a way out where
// there is no configuration at all.
func configError(c *urfave.Context, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return &cli.Error{Code: cli.ExitUsage, Err: err, Hint: fmt.Sprintf("Make a gateway with vpn-server init, or name its configuration with --config (now %s).", c.String(flagConfig))}
	}
	return &cli.Error{Code: cli.ExitUsage, Err: err}
}

// explainRun adds what to do to errors that the machine causes.
func explainRun(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission):
		return &cli.Error{Code: cli.ExitPermission, Err: err, Hint: "The gateway needs root, or the capabilities CAP_NET_ADMIN, CAP_NET_BIND_SERVICE and, for native ESP, CAP_NET_RAW."}
	case errors.Is(err, syscall.EADDRINUSE):
		return &cli.Error{Err: err, Hint: "Another IKE daemon is running: ss -ulpn 'sport = :500' names it. End it, or give the gateway other ports in [listen]."}
	}
	return err
}

func checkCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "check",
		Usage: "check the configuration and everything it names",
		Description: cli.Describe("All problems are reported at once, with file and line. Certificates that have expired, and firewalls that will drop the clients' traffic, are warnings. The exit code is 2 when something is wrong.",
			cli.Example{Command: "vpn-server check", Does: "Check the default configuration"},
			cli.Example{Command: "vpn-server check --config new.toml && mv new.toml /etc/wayfarer/server.toml", Does: "Check before using"}),
		Flags: []urfave.Flag{cli.JSONFlag()},
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c); err != nil {
				return err
			}
			result := server.Check(c.String(flagConfig), time.Now())
			if err := cli.Print(c, result, func(w io.Writer) error { return printCheck(w, result) }); err != nil {
				return err
			}
			if result.OK {
				return nil
			}
			return cli.Exitf(cli.ExitUsage, "%s cannot be used", c.String(flagConfig))
		},
	}
}

func printCheck(w io.Writer, r *server.CheckResult) error {
	for _, p := range r.Problems {
		fmt.Fprintln(w, cli.Clean(p.Text))
	}
	for _, text := range r.Warnings {
		fmt.Fprintln(w, "warning: "+cli.Clean(text))
	}
	if r.OK {
		fmt.Fprintln(w, r.File+": good")
	}
	return nil
}

func cleanupCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "cleanup",
		Usage: "remove what a gateway has left on this machine's network",
		Description: cli.Describe("After its end the gateway leaves routes and rules that make the clients' addresses unreachable, so that no packet for a client leaves in clear. "+
			"This removes them, for a machine that will not be a gateway any more, and with them what a crash has left of the kernel's IPsec: the tunnel's interface, states and policies. "+
			"A reboot does the same. It must not run beside the gateway.",
			cli.Example{Command: "systemctl disable --now vpn-server && vpn-server cleanup", Does: "When the machine retires as a gateway"}),
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c); err != nil {
				return err
			}
			stateDir := server.DefaultStateDir
			if a, err := server.OpenAdmin(c.String(flagConfig)); err == nil {
				stateDir = a.Config.StateDir
			}
			return server.Cleanup(c.Context, stateDir, socketPath(c), slog.New(service.NewHandler(os.Stderr, "text", nil)))
		},
	}
}
