package client

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/wayfarer-vpn/wayfarer/internal/service"
)

// Service is a daemon with what surrounds it: the log, the service manager, reload.
type Service struct {
	Config *Config
	// Warnings of the configuration, to be logged.
	Warnings []string
	Version  string
	// Output is where the log goes.
	Output io.Writer
	// Reload asks for a reload each time it delivers something, Reread reads the
	// configuration then.
	Reload <-chan os.Signal
	Reread func() (*Config, error)
}

// Run runs the daemon until ctx ends, and gives this machine its own network back.
func (s *Service) Run(ctx context.Context) error {
	level := &slog.LevelVar{}
	level.Set(s.Config.LogLevel())
	journal := NewJournal(JournalLines)
	format := s.Config.Log.Format
	log := slog.New(slog.NewMultiHandler(service.NewHandler(s.Output, format, level), service.NewHandler(journal, format, level)))
	for _, w := range s.Warnings {
		log.Warn(w)
	}
	d, err := NewDaemon(s.Config, s.Version, log, journal)
	if err != nil {
		return err
	}
	manager := service.Manager{Log: log}
	go s.reloads(ctx, manager, level)
	err = d.Run(ctx, func() {
		go manager.Watchdog(ctx, d.Alive)
		log.Info("vpn-client is ready", "version", s.Version, "socket", s.Config.Socket)
		manager.Ready("taking commands")
		context.AfterFunc(ctx, func() { manager.Stopping("giving this machine its own network back") })
	})
	if err != nil {
		return fmt.Errorf("run the daemon: %w", err)
	}
	return nil
}

// reloads reads the log level again when asked. A broken file changes nothing.
func (s *Service) reloads(ctx context.Context, manager service.Manager, level *slog.LevelVar) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Reload:
		}
		manager.Reloading(func() { s.reload(manager.Log, level) })
	}
}

func (s *Service) reload(log *slog.Logger, level *slog.LevelVar) {
	cfg, err := s.Reread()
	if err != nil {
		log.Error("configuration not read again", "error", err)
		return
	}
	level.Set(cfg.LogLevel())
	log.Info("log level read again; profiles are read at each up, other settings at a restart", "level", cfg.Log.Level)
}

// Alive is nil when the engine of the tunnel answers, or when there is none, for the
// watchdog.
func (d *Daemon) Alive(ctx context.Context) error {
	d.mu.Lock()
	c := d.current
	d.mu.Unlock()
	if c == nil {
		return nil
	}
	c.mu.Lock()
	st := c.st.stack
	c.mu.Unlock()
	if st == nil {
		return nil
	}
	return st.Alive(ctx)
}
