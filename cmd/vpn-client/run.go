package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/client"
	"github.com/wayfarer-vpn/wayfarer/internal/cli"
)

func runCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "run",
		Usage: "run the daemon in the foreground",
		Description: cli.Describe("SIGTERM and SIGINT end it, and give this machine its own network back. SIGHUP reads the log level again. It tells systemd when it is ready.",
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
		return err
	}
	return serve(c, cfg, warnings)
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
	cfg.Autoconnect = name
	return serve(c, cfg, warnings)
}

// serve runs the daemon until a signal ends it.
func serve(c *urfave.Context, cfg *client.Config, warnings []string) error {
	if os.Geteuid() != 0 {
		return &cli.Error{Code: cli.ExitPermission, Message: "the daemon changes addresses and routes of this machine, which needs root", Hint: "Run it with sudo, or as a system service."}
	}
	journal := client.NewJournal(client.JournalLines).Tee(c.App.ErrWriter)
	level := &slog.LevelVar{}
	level.Set(cfg.LogLevel())
	log := newLog(cfg, journal, level)
	for _, w := range warnings {
		log.Warn(w)
	}
	d, err := client.NewDaemon(cfg, cli.Version(), log, journal)
	if err != nil {
		return err
	}
	go reloadLevel(c, level, log)
	go watchdog(c.Context)
	err = d.Run(c.Context, func() {
		log.Info("vpn-client is ready", "version", cli.Version(), "socket", cfg.Socket)
		notify(sd.SdNotifyReady)
	})
	notify(sd.SdNotifyStopping)
	if err != nil {
		return fmt.Errorf("run the daemon: %w", err)
	}
	return nil
}

func newLog(cfg *client.Config, w io.Writer, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// reloadLevel reads the log level again at SIGHUP. A broken file changes nothing.
func reloadLevel(c *urfave.Context, level *slog.LevelVar, log *slog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-c.Context.Done():
			return
		case <-hup:
		}
		cfg, _, err := loadConfig(c)
		if err != nil {
			log.Error("configuration not read again", "error", err)
			continue
		}
		level.Set(cfg.LogLevel())
		log.Info("log level read again; profiles are read at each up, other settings at a restart", "level", cfg.Log.Level)
	}
}

// watchdog tells systemd that we live, if it wants to know.
func watchdog(ctx context.Context) {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	ticker := time.NewTicker(interval / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			notify(sd.SdNotifyWatchdog)
		}
	}
}

// notify tells systemd; without systemd there is nobody to tell.
func notify(state string) { _, _ = sd.SdNotify(false, state) }
