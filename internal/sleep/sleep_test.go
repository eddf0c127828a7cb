package sleep

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestJudge(t *testing.T) {
	start := Clocks{Monotonic: time.Hour, Boot: 2 * time.Hour, Wall: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	after := func(ran, suspended, paused time.Duration) Clocks {
		return Clocks{start.Monotonic + ran, start.Boot + ran + suspended, start.Wall.Add(ran + suspended + paused)}
	}
	for _, tt := range []struct {
		name  string
		now   Clocks
		told  bool
		slept time.Duration
		woken bool
	}{
		{"nothing", after(look, 0, 0), false, 0, false},
		{"an hour suspended", after(time.Second, time.Hour, 0), false, time.Hour, true},
		{"too short to matter", after(time.Second, least/2, 0), false, 0, false},
		{"a virtual machine paused, its clock set afterwards", after(time.Second, 0, time.Hour), false, time.Hour, true},
		{"the clock set a little", after(time.Second, 0, 2*time.Second), false, 0, false},
		{"the clock set back", after(time.Second, 0, -time.Hour), false, 0, false},
		{"frozen, with all clocks running", after(look+time.Minute, 0, 0), false, time.Minute, true},
		{"a busy machine", after(look+5*time.Second, 0, 0), false, 0, false},
		{"logind says so", after(time.Second, 0, 0), true, 0, true},
		{"logind says so, and the clocks too", after(time.Second, time.Hour, 0), true, time.Hour, true},
	} {
		w := watcher{last: start}
		ev, woken := w.judge(tt.now, tt.told)
		if woken != tt.woken || ev.Slept != tt.slept {
			t.Errorf("%s: %v %v, want %v %v", tt.name, woken, ev.Slept, tt.woken, tt.slept)
		}
		if _, again := w.judge(tt.now, tt.told); again && woken {
			t.Errorf("%s: told twice", tt.name)
		}
	}
}

// machine is one whose lid can be closed.
type machine struct {
	start     time.Time
	suspended atomic.Int64 // a time.Duration
	signals   chan Signal
	set       chan struct{}
	events    []Event
}

func (m *machine) watch(ctx context.Context) {
	m.start = time.Now()
	m.signals, m.set = make(chan Signal, 8), make(chan struct{}, 1)
	go Watch(ctx, Config{
		Clocks: func() Clocks {
			ran, all := time.Since(m.start), time.Since(m.start)+time.Duration(m.suspended.Load())
			return Clocks{ran, all, m.start.Add(all).Round(0)}
		},
		Bus:      func(context.Context, *slog.Logger) <-chan Signal { return m.signals },
		ClockSet: func(context.Context) <-chan struct{} { return m.set },
	}, func(ev Event) { m.events = append(m.events, ev) })
	synctest.Wait()
}

func (m *machine) expect(t *testing.T, witness string, n int) {
	t.Helper()
	synctest.Wait()
	if len(m.events) != n || n > 0 && m.events[n-1].Witness != witness {
		t.Errorf("events %v, want %d, the last by %s", m.events, n, witness)
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := &machine{}
		m.watch(ctx)
		time.Sleep(time.Hour)
		m.expect(t, "", 0)

		// A suspend as all witnesses see it is one event, at once.
		m.signals <- GoingToSleep
		synctest.Wait()
		m.suspended.Add(int64(time.Hour))
		m.set <- struct{}{}
		m.expect(t, "kernel", 1)
		m.signals <- WokenUp
		m.expect(t, "kernel", 1)
		if m.events[0].Slept != time.Hour {
			t.Errorf("slept %v", m.events[0].Slept)
		}

		// Without witnesses the clocks tell, a little later.
		close(m.signals)
		close(m.set)
		time.Sleep(time.Minute)
		synctest.Wait() // a look may be due at this very instant
		m.suspended.Add(int64(10 * time.Minute))
		time.Sleep(look)
		m.expect(t, "clocks", 2)
		cancel()
		synctest.Wait()
	})
}

// TestRealClocks: they run, and an ordinary moment is no sleep.
func TestRealClocks(t *testing.T) {
	a := Now()
	if a.Monotonic == 0 || a.Boot < a.Monotonic || a.Wall.IsZero() {
		t.Errorf("clocks %+v", a)
	}
	w := watcher{last: a}
	if ev, woken := w.judge(Now(), false); woken {
		t.Errorf("woken: %+v", ev)
	}
}
