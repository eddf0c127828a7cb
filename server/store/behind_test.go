package store

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// memory is a Store whose writes can be slow and can fail.
type memory struct {
	mu     sync.Mutex
	leases map[netip.Addr]Lease
	writes int
	slow   time.Duration
	fail   error
	closed bool
}

func (m *memory) Leases() ([]Lease, error) { return nil, nil }

func (m *memory) SaveLeases(ls []Lease) error {
	time.Sleep(m.slow)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	if m.fail != nil {
		return m.fail
	}
	for _, l := range ls {
		m.leases[l.Address] = l
	}
	return nil
}

func (m *memory) Close() error { m.closed = true; return nil }

func (m *memory) setFail(err error) {
	m.mu.Lock()
	m.fail = err
	m.mu.Unlock()
}

func (m *memory) owner(a string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leases[netip.MustParseAddr(a)].Owner
}

func TestBehindWritesTogetherWhatComesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{leases: map[netip.Addr]Lease{}, slow: time.Second}
		b := NewBehind(m, slog.New(slog.DiscardHandler))
		begin := time.Now()
		b.Put(lease("10.0.0.1", "first", 0))
		synctest.Wait() // its write is under way
		for _, o := range []string{"a", "b", "c"} {
			b.Put(lease("10.0.0.2", o, 0))
			b.Put(lease("10.0.0.3", o, 0))
		}
		if time.Since(begin) != 0 {
			t.Error("Put waited for the disk")
		}
		if err := b.Flush(context.Background()); err != nil {
			t.Fatal(err)
		}
		if m.writes != 2 || m.owner("10.0.0.1") != "first" || m.owner("10.0.0.2") != "c" || m.owner("10.0.0.3") != "c" {
			t.Errorf("%d writes: %v", m.writes, m.leases)
		}
		if err := b.Close(); err != nil || !m.closed {
			t.Errorf("close: %v, closed %v", err, m.closed)
		}
	})
}

func TestBehindTriesAgainAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		m := &memory{leases: map[netip.Addr]Lease{}}
		full := errors.New("no space left on device")
		m.setFail(full)
		b := NewBehind(m, slog.New(slog.NewTextHandler(&logged, nil)))
		b.Put(lease("10.0.0.1", "old", 0))
		time.Sleep(4 * retryDelay)
		b.Put(lease("10.0.0.1", "new", 0))
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := b.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(b.Err(), full) {
			t.Errorf("flush: %v, error: %v", err, b.Err())
		}
		m.setFail(nil)
		if err := b.Flush(context.Background()); err != nil || b.Err() != nil || m.owner("10.0.0.1") != "new" {
			t.Errorf("flush: %v, error: %v, %v", err, b.Err(), m.leases)
		}
		if n := strings.Count(logged.String(), "\n"); n != 2 {
			t.Errorf("%d log lines, want one when it begins and one when it ends:\n%s", n, logged.String())
		}
		b.Close()
	})
}

func TestBehindCloseWritesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{leases: map[netip.Addr]Lease{}}
		m.setFail(errors.New("not yet"))
		b := NewBehind(m, slog.New(slog.DiscardHandler))
		b.Put(lease("10.0.0.1", "alice", 0))
		time.Sleep(retryDelay / 2)
		m.setFail(nil)
		if err := b.Close(); err != nil || m.owner("10.0.0.1") != "alice" {
			t.Errorf("close: %v, %v", err, m.leases)
		}
	})
}
