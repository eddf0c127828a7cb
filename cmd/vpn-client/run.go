package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/client"
	"github.com/wayfarer-vpn/wayfarer/internal/cli"
)

func runCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "run",
		Usage: "run the daemon in the foreground",
		Description: cli.Describe("SIGTERM and SIGINT end it, and give this machine its own network back. SIGHUP reads the log level again. It tells systemd when it is ready and serves its watchdog. The exit code is 78 when the configuration is invalid: trying again does not help then.",
			cli.Example{Command: "vpn-client run", Does: "With the default configuration"},
			cli.Example{Command: "vpn-client --config ./client.toml run", Does: "With another one"}),
		Action: func(c *urfave.Context) error {
			if _, err := cli.Args(c); err != nil {
				return err
			}
			return runDaemon(c)
		},
	}
}

func runDaemon(c *urfave.Context) error {
	cfg, warnings, err := loadConfig(c)
	if err != nil {
		return cli.Unstartable(err)
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	return cli.Unstartable(serve(c.Context, c, cfg, warnings, hangup))
}

// upInForeground runs a daemon for one profile, until interrupted.
func upInForeground(c *urfave.Context, name string) error {
	cfg, warnings, err := loadConfig(c)
	if err != nil {
		return err
	}
	if looksLikeFile(name) {
		p, more, err := client.LoadProfile(name, time.Now())
		if err != nil {
			return err
		}
		cfg.Profile, name, warnings = p, p.Name, append(warnings, more...)
	}
	if name == "" {
		return cli.Usagef("NAME is missing").WithHint("Name a profile or a file: vpn-client up --foreground ./alice.toml.")
	}
	if cfg.Profile == nil {
		if _, _, err := cfg.Store().Load(name, time.Now()); err != nil {
			return err
		}
	}
	cfg.Autoconnect = name
	ctx := c.Context
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1)
		// The terminal is gone, and with it whoever could interrupt.
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
	}
	return serve(ctx, c, cfg, warnings, nil)
}

// serve runs the daemon until ctx ends. What reload delivers makes it read its log level
// again.
func serve(ctx context.Context, c *urfave.Context, cfg *client.Config, warnings []string, reload <-chan os.Signal) error {
	if os.Geteuid() != 0 {
		return &cli.Error{Code: cli.ExitPermission, Message: "the daemon changes addresses and routes of this machine, which needs root", Hint: "Run it with sudo, or as a system service."}
	}
	s := client.Service{
		Config: cfg, Warnings: warnings, Version: cli.Version(), Output: c.App.ErrWriter, Reload: reload,
		Reread: func() (*client.Config, error) {
			cfg, _, err := loadConfig(c)
			return cfg, err
		},
	}
	return s.Run(ctx)
}
