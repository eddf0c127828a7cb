package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/control"
)

// refreshInterval is how often the daemon looks whether files that its configuration
// names have changed: revocation lists above all, which expire.
const refreshInterval = time.Hour

// Daemon is a gateway with what surrounds it as a service: control socket, service
// manager, reload.
type Daemon struct {
	Settings *Settings
	Version  string
	// Output is where the log goes.
	Output *os.File
	// Reload asks for a reload each time it delivers something.
	Reload <-chan os.Signal
}

// Run runs until ctx ends.
func (d *Daemon) Run(ctx context.Context) error {
	level := &slog.LevelVar{}
	level.Set(d.Settings.LogLevel)
	log := NewLog(d.Output, d.Settings.Config.Log.Format, level)
	slog.SetDefault(log)

	c := d.Settings.Config.Control
	listener, err := control.Listen(c.Socket, c.Group)
	if err != nil {
		return err
	}
	defer listener.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	served := make(chan struct{})
	serving := false
	err = Run(ctx, d.Settings, Options{Log: log, LogLevel: level, Version: d.Version}, func(s *Server) {
		serving = true
		dropPrivileges(log)
		go func() {
			defer close(served)
			if err := control.Serve(ctx, listener, Handler(s)); err != nil {
				cancel(err)
			}
		}()
		go d.watchdog(ctx, log, s)
		go d.reloads(ctx, log, s)
		log.Info("gateway is ready", "name", d.Settings.Config.Name, "config", d.Settings.Path, "version", d.Version,
			"device", d.Settings.Config.Tunnel.Device, "socket", c.Socket)
		d.notify(log, daemon.SdNotifyReady+"\nSTATUS=serving clients")
		context.AfterFunc(ctx, func() {
			log.Info("gateway is shutting down")
			d.notify(log, daemon.SdNotifyStopping+"\nSTATUS=telling clients")
		})
	})
	cause := context.Cause(ctx)
	cancel(nil)
	if serving {
		<-served
	}
	if err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	if err == nil {
		log.Info("gateway has ended")
	}
	return err
}

// NewLog makes the daemon's log. Under a service manager that stamps lines itself the
// time is left out of text.
func NewLog(out *os.File, format string, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(out, o))
	}
	if os.Getenv("JOURNAL_STREAM") != "" {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(out, o))
}

// notify tells the service manager, if there is one (sd_notify(3)).
func (d *Daemon) notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("the service manager cannot be told", "error", err)
	}
}

// watchdog tells the service manager that the engines answer, while they do.
func (d *Daemon) watchdog(ctx context.Context, log *slog.Logger, s *Server) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		check, cancel := context.WithTimeout(ctx, interval/3)
		err := s.Alive(check)
		cancel()
		if err != nil {
			log.Error("an engine does not answer", "error", err)
			continue
		}
		d.notify(log, daemon.SdNotifyWatchdog)
	}
}

// reloads carries out reloads that are asked for by signal, and looks for changed
// files now and then.
func (d *Daemon) reloads(ctx context.Context, log *slog.Logger, s *Server) {
	refresh := time.NewTicker(refreshInterval)
	defer refresh.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-refresh.C:
			if err := s.Refresh(ctx); err != nil {
				log.Warn("certificates and users could not be read again; those in force stay", "error", err)
			}
		case <-d.Reload:
			d.notify(log, reloading())
			_, _ = s.Reload(ctx) // it has logged how it went
			d.notify(log, daemon.SdNotifyReady)
		}
	}
}

// reloading is the notification before a reload, which must hold the time.
func reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return daemon.SdNotifyReloading
	}
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000)
}
