package service

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Manager tells the service manager how it is going. Without one nobody is told.
type Manager struct{ Log *slog.Logger }

// Ready says that the daemon serves now; the status is for people.
func (m Manager) Ready(status string) { m.notify(daemon.SdNotifyReady + "\nSTATUS=" + status) }

// Stopping says that the daemon is about to end.
func (m Manager) Stopping(status string) { m.notify(daemon.SdNotifyStopping + "\nSTATUS=" + status) }

// Reloading runs a reload and tells of its begin and end. The notification before it
// must hold the time.
func (m Manager) Reloading(reload func()) {
	state := daemon.SdNotifyReloading
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
		state = fmt.Sprintf("%s\nMONOTONIC_USEC=%d", state, now.Nano()/1000)
	}
	m.notify(state)
	reload()
	m.notify(daemon.SdNotifyReady)
}

func (m Manager) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		m.Log.Warn("the service manager cannot be told", "error", err)
	}
}

// Watchdog tells the service manager that the daemon lives, as often as it wants to know
// (WatchdogSec=), until ctx ends. Alive is asked before, and has a third of that time: as
// long as it does not answer or gives an error, nothing is told, and the service manager
// starts the daemon anew.
func (m Manager) Watchdog(ctx context.Context, alive func(context.Context) error) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	m.watch(ctx, interval, alive, func() { m.notify(daemon.SdNotifyWatchdog) })
}

func (m Manager) watch(ctx context.Context, interval time.Duration, alive func(context.Context) error, ping func()) {
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		check, cancel := context.WithTimeout(ctx, interval/3)
		err := alive(check)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			m.Log.Error("the daemon does not answer itself", "error", err)
		default:
			ping()
		}
	}
}
