package server

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/clock"
	"github.com/wayfarer-vpn/wayfarer/internal/control"
	"github.com/wayfarer-vpn/wayfarer/internal/service"
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
	log := slog.New(service.NewHandler(d.Output, d.Settings.Config.Log.Format, level))
	manager := service.Manager{Log: log}
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
		go manager.Watchdog(ctx, s.Alive)
		go d.lookAgain(ctx, manager, s)
		log.Info("gateway is ready", "name", d.Settings.Config.Name, "config", d.Settings.Path, "version", d.Version,
			"device", d.Settings.Config.Tunnel.Device, "socket", c.Socket)
		manager.Ready("serving clients")
		context.AfterFunc(ctx, func() {
			log.Info("gateway is shutting down")
			manager.Stopping("telling clients")
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

// lookAgain carries out reloads that are asked for by signal, and looks for changed
// files now and then.
func (d *Daemon) lookAgain(ctx context.Context, manager service.Manager, s *Server) {
	hour := time.NewTicker(refreshInterval)
	defer hour.Stop()
	o := occasions{hour: hour.C, clockSet: clock.WhenSet(ctx), reload: d.Reload}
	o.serve(ctx, func() {
		if err := s.Refresh(ctx); err != nil {
			manager.Log.Warn("certificates and users could not be read again; those in force stay", "error", err)
		}
	}, func() {
		manager.Reloading(func() { _, _ = s.Reload(ctx) }) // it has logged how it went
	})
}

// occasions to look at files again.
type occasions struct {
	hour     <-chan time.Time
	clockSet <-chan struct{} // a revocation list made by the former time may be of no use
	reload   <-chan os.Signal
}

// serve calls refresh and reload, one at a time, until ctx ends.
func (o occasions) serve(ctx context.Context, refresh, reload func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.hour:
			refresh()
		case _, ok := <-o.clockSet:
			if !ok {
				o.clockSet = nil // the kernel cannot tell
				continue
			}
			refresh()
		case <-o.reload:
			reload()
		}
	}
}
