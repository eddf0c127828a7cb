package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

var _ Engine = (*ike.Engine)(nil)

// script is an Engine that notes what it is told and wants what the test says.
type script struct {
	told     []string
	actions  []ike.Action
	deadline time.Time
	onData   func(data []byte)
	onTick   func(now time.Time)
}

func (e *script) note(format string, args ...any) {
	e.told = append(e.told, fmt.Sprintf(format, args...))
}
func (e *script) want(a ...ike.Action) { e.actions = append(e.actions, a...) }

func (e *script) Receive(_ time.Time, _ locator.Pair, data []byte) {
	e.note("receive %x", data[:1])
	if e.onData != nil {
		e.onData(data)
	}
}
func (e *script) Tick(now time.Time) {
	e.note("tick")
	e.deadline = time.Time{}
	if e.onTick != nil {
		e.onTick(now)
	}
}
func (e *script) Deadline() (time.Time, bool) { return e.deadline, !e.deadline.IsZero() }
func (e *script) Actions() []ike.Action {
	a := e.actions
	e.actions = nil
	return a
}
func (e *script) Initiate(time.Time, *ike.Policy, locator.Pair) (ike.SessionID, error) { return 0, nil }
func (e *script) Complete(_ time.Time, id ike.WorkID, result any) {
	e.note("complete %d %v", id, result)
}
func (e *script) Authorize(_ time.Time, id ike.SessionID, g ike.Grant) {
	e.note("authorize %d %s", id, g.Refuse)
}
func (e *script) Close(_ time.Time, id ike.SessionID, why reason.Code) {
	e.note("close %d %s", id, why)
}
func (e *script) CheckLiveness(time.Time, ike.SessionID) error { return nil }
func (e *script) Abort(_ time.Time, id ike.SessionID, why reason.Code) {
	e.note("abort %d %s", id, why)
}
func (e *script) Repeat(time.Time, ike.SessionID) {}
func (e *script) CreateChild(time.Time, ike.SessionID, []esp.Selector, []esp.Selector) error {
	return nil
}
func (e *script) WithSession(time.Time, ike.SessionID, func(time.Time, *ike.Session)) error {
	return nil
}
func (e *script) EachSession(time.Time, func(time.Time, *ike.Session)) {}
func (e *script) Compete(time.Time, *ike.Race, *ike.Policy, locator.Pair) (ike.SessionID, error) {
	return 0, nil
}
func (e *script) DataPathEvent(_ time.Time, ev esp.Event) {
	e.note("event %d host %d", ev.Kind, ev.Host)
}
func (e *script) ChildFailed(_ time.Time, id ike.SessionID, c esp.ChildID, err error) {
	e.note("child %d of %d failed: %v", c, id, err)
}
func (e *script) SetResponder(*ike.ResponderConfig)             {}
func (e *script) Session(ike.SessionID) (ike.SessionInfo, bool) { return ike.SessionInfo{}, false }
func (e *script) Sessions() []ike.SessionInfo                   { return []ike.SessionInfo{{ID: 1}} }
func (e *script) Counts() (int, int)                            { return 2, 3 }

// path is a data path that notes what it is told.
type path struct {
	told []string
	fail error
}

func (p *path) note(err error, format string, args ...any) error {
	p.told = append(p.told, fmt.Sprintf(format, args...))
	return err
}
func (p *path) AddHost(h esp.HostID, _ esp.Path) error  { return p.note(nil, "add host %d", h) }
func (p *path) MoveHost(h esp.HostID, _ esp.Path) error { return p.note(nil, "move host %d", h) }
func (p *path) RemoveHost(h esp.HostID) error           { return p.note(nil, "remove host %d", h) }
func (p *path) AddChild(c esp.Child) error              { return p.note(p.fail, "add child %d", c.ID) }
func (p *path) ActivateChild(c esp.ChildID) error       { return p.note(p.fail, "activate child %d", c) }
func (p *path) RemoveChild(c esp.ChildID) error         { return p.note(nil, "remove child %d", c) }
func (p *path) QueryChild(esp.ChildID) (esp.Stats, error) {
	return esp.Stats{}, nil
}
func (p *path) QueryHost(esp.HostID) (esp.Stats, error) { return esp.Stats{}, nil }
func (p *path) Close() error                            { return nil }

// bench is a shard with everything around it noting.
type bench struct {
	*Shard
	engine  *script
	path    *path
	sent    []string
	events  []string
	workers *Workers
	cancel  context.CancelFunc
	done    chan struct{}
}

// start runs a shard inside of a synctest bubble.
func start(t *testing.T, change func(*Config)) *bench {
	b := &bench{engine: &script{}, path: &path{}, workers: NewWorkers(1), done: make(chan struct{})}
	cfg := Config{
		Engine: b.engine, DataPath: b.path, Workers: b.workers, Log: slog.New(slog.DiscardHandler),
		Send: func(pair locator.Pair, data []byte) error {
			b.sent = append(b.sent, string(data))
			return nil
		},
		Events: func(_ *Shard, a ike.Action) { b.events = append(b.events, fmt.Sprintf("%T", a)) },
	}
	if change != nil {
		change(&cfg)
	}
	b.Shard = New(cfg)
	return b
}

func (b *bench) run() {
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	go func() { b.Run(ctx); close(b.done) }()
	synctest.Wait()
}

func (b *bench) stop() {
	b.cancel()
	<-b.done
	b.workers.Close()
}

// known and fresh are messages for an existing and for a new IKE SA, told apart by
// their first octet.
func known(tag byte) []byte {
	m := make([]byte, message.HeaderLen)
	m[0], m[15], m[18] = tag, 1, byte(message.Informational)
	return m
}

func fresh(tag byte) []byte {
	m := make([]byte, message.HeaderLen)
	m[0], m[18], m[19] = tag, byte(message.IKESAInit), byte(message.FlagInitiator)
	return m
}

func equal(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestActionsAreCarriedOutInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		key := []byte{1, 2, 3}
		b.engine.onData = func([]byte) {
			b.engine.want(
				ike.Send{Data: []byte("one")},
				ike.AddHost{Session: 7}, ike.AddChild{Session: 7, Child: esp.Child{ID: 9, In: esp.SA{EncrKey: key}}}, ike.ActivateChild{Session: 7, Child: 9},
				ike.Established{Session: 7}, ike.MoveHost{Session: 7}, ike.RemoveChild{Session: 7, Child: 9}, ike.RemoveHost{Session: 7},
				ike.Closed{Session: 7}, ike.Refused{}, ike.AuthorizeRequest{}, ike.Rekeyed{}, ike.ChildDown{}, ike.Send{Data: []byte("two")},
				ike.Work{ID: 5, Run: func() any { return "result" }},
			)
		}
		b.run()
		b.Receive(locator.Pair{}, known(1))
		synctest.Wait()
		equal(t, "data path", b.path.told, "add host 7", "add child 9", "activate child 9", "move host 7", "remove child 9", "remove host 7")
		equal(t, "sent", b.sent, "one", "two")
		equal(t, "events", b.events, "ike.Established", "ike.Closed", "ike.Refused", "ike.AuthorizeRequest", "ike.Rekeyed", "ike.ChildDown")
		equal(t, "engine", b.engine.told, "receive 01", "complete 5 result")
		if !slices.Equal(key, make([]byte, 3)) {
			t.Error("the keys were not zeroed")
		}
		b.stop()
	})
}

func TestFailuresGoBackToTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(c *Config) { c.Send = func(locator.Pair, []byte) error { return errors.New("no route") } })
		b.path.fail = errors.New("no room")
		b.engine.onData = func([]byte) {
			b.engine.want(ike.AddChild{Session: 7, Child: esp.Child{ID: 9}}, ike.ActivateChild{Session: 7, Child: 9}, ike.Send{Session: 7})
		}
		b.run()
		b.Receive(locator.Pair{}, known(1))
		synctest.Wait()
		equal(t, "engine", b.engine.told, "receive 01", "child 9 of 7 failed: no room", "child 9 of 7 failed: no room")
		if b.Stats().SendErrors != 1 {
			t.Errorf("stats: %+v", b.Stats())
		}
		b.stop()
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		begin := time.Now()
		var ticks []time.Duration
		b.engine.deadline = begin.Add(time.Minute)
		b.engine.onTick = func(now time.Time) {
			ticks = append(ticks, now.Sub(begin))
			if len(ticks) < 3 {
				b.engine.deadline = now.Add(time.Second)
			}
		}
		b.run()
		time.Sleep(time.Hour)
		synctest.Wait()
		if want := []time.Duration{time.Minute, time.Minute + time.Second, time.Minute + 2*time.Second}; !slices.Equal(ticks, want) {
			t.Errorf("ticks at %v, want %v", ticks, want)
		}
		// A command may bring the deadline forward.
		b.engine.deadline = time.Time{}
		b.Do(func(now time.Time, e Engine) { b.engine.deadline = now.Add(5 * time.Second) })
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if len(ticks) != 4 {
			t.Errorf("%d ticks, want a fourth", len(ticks))
		}
		b.stop()
	})
}

// Requests for new IKE SAs cannot push out messages of sessions, neither by number nor
// by size.
func TestFullInboxDropsNewSAsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(c *Config) { c.MaxDatagrams, c.MaxInits, c.MaxOctets = 4, 2, 1000 })
		got := map[bool]int{}
		for range 10 {
			got[b.Receive(locator.Pair{}, fresh(1))]++
		}
		b.Receive(locator.Pair{}, []byte("short"))
		for i := range 4 {
			if !b.Receive(locator.Pair{}, known(byte(0x10+i))) {
				t.Errorf("message %d of a session was dropped", i)
			}
		}
		if b.Receive(locator.Pair{}, known(0x20)) {
			t.Error("a fifth message was taken")
		}
		b.run()
		equal(t, "order", b.engine.told, "receive 10", "receive 11", "receive 12", "receive 13", "receive 01", "receive 01")
		if st := b.Stats(); got[true] != 2 || st != (Stats{Received: 6, DroppedKnown: 1, DroppedInits: 9}) {
			t.Errorf("stats: %+v, %v", st, got)
		}
		if big := make([]byte, 600); !b.Receive(locator.Pair{}, append(known(1), big...)) || b.Receive(locator.Pair{}, append(known(1), big...)) {
			t.Error("octets are not limited")
		}
		b.stop()
	})
}

func TestCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		b.run()
		b.Authorize(3, ike.Grant{Refuse: reason.PoolExhausted})
		b.DataPathEvent(esp.Event{Kind: esp.SoftLimit, Host: 3})
		if err := b.Call(t.Context(), func(now time.Time, e Engine) { e.Close(now, 3, reason.Shutdown) }); err != nil {
			t.Error(err)
		}
		equal(t, "engine", b.engine.told, "authorize 3 pool-exhausted", "event 2 host 3", "close 3 shutdown")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		block := make(chan struct{})
		b.Do(func(time.Time, Engine) { <-block })
		if err := b.Call(ctx, func(time.Time, Engine) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a call that waits: %v", err)
		}
		close(block)
		b.stop()
		if err := b.Call(t.Context(), func(time.Time, Engine) { t.Error("ran after the end") }); !errors.Is(err, ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
		if b.Do(func(time.Time, Engine) {}) || b.Receive(locator.Pair{}, known(1)) {
			t.Error("something was taken in after the end")
		}
	})
}

func TestACallThatWaitsWhenTheShardStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		b.run()
		block := make(chan struct{})
		b.Do(func(time.Time, Engine) { b.cancel(); <-block })
		failed := make(chan error, 1)
		go func() { failed <- b.Call(context.Background(), func(time.Time, Engine) {}) }()
		synctest.Wait()
		close(block)
		err := <-failed
		if err != nil && !errors.Is(err, ErrStopped) {
			t.Errorf("error: %v", err)
		}
		b.stop()
	})
}

func TestWorkersRunEverythingAndNoMoreThanN(t *testing.T) {
	const jobs, limit = 2000, 3
	w := NewWorkers(limit)
	var running, most, ran atomic.Int64
	var wg sync.WaitGroup
	wg.Add(jobs)
	for range jobs {
		w.submit(func() {
			defer wg.Done()
			n := running.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			runtime.Gosched()
			ran.Add(1)
			running.Add(-1)
		})
	}
	wg.Wait()
	if ran.Load() != jobs || most.Load() > limit {
		t.Errorf("%d of %d ran, %d at once", ran.Load(), jobs, most.Load())
	}
	w.Close()
	w.submit(func() { t.Error("ran after the end") })
}

func TestGroupRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 4
		var benches []*bench
		g := NewGroup(n, func(i int) Config {
			b := start(t, nil)
			benches = append(benches, b)
			return b.Shard.cfg
		})
		var malformed int
		g.Malformed = func(locator.Pair) { malformed++ }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { g.Run(ctx); close(done) }()

		pair := locator.Pair{Remote: netip.MustParseAddrPort("192.0.2.1:500")}
		g.HandleIKE(pair, []byte("no IKE message"))
		retransmitted := make([]byte, message.HeaderLen)
		copy(retransmitted, fresh(0x42))
		retransmitted[16], retransmitted[17], retransmitted[27] = byte(message.TypeSA), 0x20, message.HeaderLen
		for range 3 {
			g.HandleIKE(pair, slices.Clone(retransmitted))
		}
		for i := range 8 {
			id := ike.SessionID(100 + i)
			g.DataPathEvent(esp.Event{Kind: esp.SoftLimit, Host: esp.HostID(id)})
			if g.Of(id) != g.Shards()[(100+i)%n] {
				t.Errorf("session %d is in another shard", id)
			}
		}
		g.DataPathEvent(esp.Event{Kind: esp.UnknownSPI})
		synctest.Wait()
		inits := 0
		for i, b := range benches {
			for _, s := range b.engine.told {
				if s == "receive 42" {
					inits++
				}
			}
			if inits != 0 && inits != 3 {
				t.Errorf("a request and its retransmissions went to different shards")
			}
			if !slices.Contains(b.engine.told, fmt.Sprintf("event 2 host %d", 100+i)) {
				t.Errorf("shard %d was told %q", i, b.engine.told)
			}
		}
		st, unroutable := g.Stats()
		if inits != 3 || malformed != 1 || unroutable != 1 || st.Received != 3 {
			t.Errorf("inits %d, malformed %d, unroutable %d, %+v", inits, malformed, unroutable, st)
		}
		if all, err := g.Sessions(ctx); err != nil || len(all) != n {
			t.Errorf("sessions: %d, %v", len(all), err)
		}
		if h, e, err := g.Counts(ctx); h != 2*n || e != 3*n || err != nil {
			t.Errorf("counts: %d, %d, %v", h, e, err)
		}
		cancel()
		<-done
		for _, b := range benches {
			b.workers.Close()
		}
		if _, err := g.Sessions(t.Context()); !errors.Is(err, ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// A flood costs bounded memory: what waits is limited whatever comes.
func TestFloodMemoryIsBounded(t *testing.T) {
	b := start(t, nil)
	defer b.workers.Close()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	junk := make([]byte, 1400)
	for i := range 200_000 {
		m := known(1)
		if i%2 == 0 {
			m = fresh(1)
		}
		b.Receive(locator.Pair{}, append(m, junk...))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("200000 messages made the heap grow by %d octets", grown)
	}
	if st := b.Stats(); st.DroppedInits == 0 || st.DroppedKnown == 0 {
		t.Errorf("stats: %+v", st)
	}
}

func BenchmarkReceive(b *testing.B) {
	e := &script{}
	s := New(Config{Engine: e, Workers: NewWorkers(1), DataPath: &path{}, Events: func(*Shard, ike.Action) {}})
	m := known(1)
	b.ReportAllocs()
	for b.Loop() {
		s.Receive(locator.Pair{}, m)
		e.told = e.told[:0]
		s.work()
	}
}
