// Package sleep tells when this machine has slept: a lid that was closed, a virtual
// machine that was paused, a container that was frozen. Afterwards addresses, NAT
// mappings and the patience of peers are not what they were, and nobody has said so.
//
// Three witnesses, of which any one is enough:
//
//   - logind, which announces suspend and resume on the system bus (PrepareForSleep in
//     org.freedesktop.login1(5));
//   - the kernel, which ends a timer that is to be cancelled when the clock is set
//     (TFD_TIMER_CANCEL_ON_SET in timerfd_create(2)): it counts a resume as that;
//   - the clocks themselves, compared at the other two and now and then: CLOCK_BOOTTIME
//     goes on during suspend and CLOCK_MONOTONIC does not (clock_gettime(2)); the wall
//     clock has gone on when a paused virtual machine gets it set; and when both stood,
//     because all of the machine did, this program was not run for longer than it asked.
//
// A false alarm costs its listeners a few packets, so the judgement is generous.
package sleep

import (
	"context"
	"log/slog"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/clock"
)

// Clocks are what the machine's clocks show at one moment.
type Clocks struct {
	Monotonic time.Duration // CLOCK_MONOTONIC: stands during suspend
	Boot      time.Duration // CLOCK_BOOTTIME: does not
	Wall      time.Time     // CLOCK_REALTIME, without monotonic reading
}

const (
	// look is how often the clocks are compared without an occasion. It is rare: all
	// ordinary suspends have a better witness.
	look = 30 * time.Second
	// least is the shortest sleep that counts. Shorter ones change nothing.
	least = time.Second
	// overslept is how late a look may come because the machine was busy.
	overslept = 15 * time.Second
	// wallStep is how far the wall clock may be set without that counting as sleep.
	wallStep = 5 * time.Second
	// settle merges what several witnesses say of one sleep.
	settle = 2 * time.Second
)

// Config is what a Watcher works with. The zero value is the real machine without log.
type Config struct {
	// Clocks reads the clocks; nil means those of this machine.
	Clocks func() Clocks
	// Bus delivers logind's signals; nil means the system bus.
	Bus func(ctx context.Context, log *slog.Logger) <-chan Signal
	// ClockSet delivers a token whenever the kernel says that the clock was set, or the
	// machine resumed; nil means the kernel of this machine.
	ClockSet func(ctx context.Context) <-chan struct{}
	Log      *slog.Logger
}

// Signal is what logind announces.
type Signal int

// Signals.
const (
	GoingToSleep Signal = iota + 1
	WokenUp
)

// Event is one sleep that is over.
type Event struct {
	// Slept is how long it was, as far as the clocks know; zero if they do not.
	Slept   time.Duration
	Witness string // logind, kernel or clocks; for the log
}

// Watch calls woken after each sleep, soon and once, until ctx ends. Calls come from one
// goroutine.
func Watch(ctx context.Context, cfg Config, woken func(Event)) {
	cfg.defaults()
	signals, clockSet := cfg.Bus(ctx, cfg.Log), cfg.ClockSet(ctx)
	w := watcher{last: cfg.Clocks()}
	timer := time.NewTimer(look)
	defer timer.Stop()
	for {
		witness := "clocks"
		told := false
		select {
		case <-ctx.Done():
			return
		case s, ok := <-signals:
			if !ok {
				signals = nil
				continue
			}
			cfg.Log.Debug("logind", "awake", s == WokenUp)
			witness, told = "logind", s == WokenUp
		case _, ok := <-clockSet:
			if !ok {
				clockSet = nil
				continue
			}
			witness = "kernel"
		case <-timer.C:
		}
		if ev, ok := w.judge(cfg.Clocks(), told); ok {
			ev.Witness = witness
			woken(ev)
		}
		timer.Reset(look)
	}
}

func (c *Config) defaults() {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clocks == nil {
		c.Clocks = Now
	}
	if c.Bus == nil {
		c.Bus = logind
	}
	if c.ClockSet == nil {
		c.ClockSet = clock.WhenSet
	}
}

// watcher compares the clocks with what they were at the last look.
type watcher struct {
	last    Clocks
	wokenAt time.Duration // CLOCK_BOOTTIME of the last event
	woken   bool
}

// judge says whether the machine has slept since the last look. Told means that
// somebody who knows has said so.
func (w *watcher) judge(now Clocks, told bool) (Event, bool) {
	ran := now.Monotonic - w.last.Monotonic
	suspended := (now.Boot - w.last.Boot) - ran
	paused := now.Wall.Sub(w.last.Wall) - (now.Boot - w.last.Boot)
	late := ran - look
	w.last = now
	slept := time.Duration(0)
	switch {
	case suspended >= least:
		slept = suspended
	case paused >= wallStep: // set forward; set back it was only wrong
		slept = paused
	case late >= overslept:
		slept = late
	case !told:
		return Event{}, false
	}
	if slept == 0 && w.woken && now.Boot-w.wokenAt < settle {
		return Event{}, false // one sleep, told twice
	}
	w.woken, w.wokenAt = true, now.Boot
	return Event{Slept: slept}, true
}
