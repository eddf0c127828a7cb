package client

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// slowEngine begins a session when the test says so.
type slowEngine struct {
	shard.Engine
	begins, proceed chan struct{}
	aborted         chan ike.SessionID
}

func (e *slowEngine) Deadline() (time.Time, bool) { return time.Time{}, false }
func (e *slowEngine) Actions() []ike.Action       { return nil }

func (e *slowEngine) Compete(time.Time, *ike.Race, *ike.Policy, locator.Pair) (ike.SessionID, error) {
	e.begins <- struct{}{}
	<-e.proceed
	return 7, nil
}

func (e *slowEngine) Session(ike.SessionID) (ike.SessionInfo, bool) {
	e.begins <- struct{}{}
	<-e.proceed
	return ike.SessionInfo{ID: 7}, true
}

func (e *slowEngine) Abort(_ time.Time, id ike.SessionID, _ reason.Code) { e.aborted <- id }

func slowStack(t *testing.T) (*stack, *slowEngine) {
	t.Helper()
	e := &slowEngine{begins: make(chan struct{}), proceed: make(chan struct{}), aborted: make(chan ike.SessionID, 1)}
	s := &stack{log: discard, shard: shard.New(shard.Config{Engine: e, Log: discard})}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); s.shard.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ran })
	return s, e
}

// TestOrphanIsAborted: a session whose beginner has gone away while the engine began it
// does not stay.
func TestOrphanIsAborted(t *testing.T) {
	s, e := slowStack(t)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-e.begins
		cancel()
	}()
	remote := netip.MustParseAddrPort("192.0.2.1:500")
	id, err := s.compete(ctx, &ike.Policy{}, locator.Pair{Local: remote, Remote: remote}, &ike.Race{})
	if id != 0 || !errors.Is(err, context.Canceled) {
		t.Fatalf("session %d, %v", id, err)
	}
	close(e.proceed)
	if id := <-e.aborted; id != 7 {
		t.Errorf("session %d was aborted", id)
	}
}

// TestBegunIsNotAborted: one that somebody waits for does.
func TestBegunIsNotAborted(t *testing.T) {
	s, e := slowStack(t)
	close(e.proceed)
	go func() { <-e.begins }()
	id, err := s.compete(context.Background(), &ike.Policy{}, locator.Pair{}, &ike.Race{})
	if id != 7 || err != nil {
		t.Fatalf("session %d, %v", id, err)
	}
	if err := s.shard.Call(context.Background(), func(time.Time, shard.Engine) {}); err != nil {
		t.Fatal(err)
	}
	if len(e.aborted) != 0 {
		t.Error("the session was aborted")
	}
}

// TestStackAlive: an engine that is busy for long is not alive, one that has ended is.
func TestStackAlive(t *testing.T) {
	s, e := slowStack(t)
	if err := s.Alive(t.Context()); err != nil {
		t.Errorf("idle: %v", err)
	}
	s.shard.Do(func(_ time.Time, e shard.Engine) { e.Session(7) })
	<-e.begins
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Alive(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("busy: %v", err)
	}
	close(e.proceed)
	stopped := &stack{shard: shard.New(shard.Config{Engine: e, Log: discard})}
	ended, end := context.WithCancel(t.Context())
	end()
	stopped.shard.Run(ended)
	if err := stopped.Alive(t.Context()); err != nil {
		t.Errorf("ended: %v", err)
	}
}

// TestSnapshotNotAwaited: an answer that comes too late is written nowhere.
func TestSnapshotNotAwaited(t *testing.T) {
	s, e := slowStack(t)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-e.begins
		cancel()
	}()
	info, ok := s.Session(ctx, 7)
	close(e.proceed)
	if ok || info.ID != 0 {
		t.Errorf("%+v %v", info, ok)
	}
}
