package store

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// retryDelay is the pause after a failed write.
const retryDelay = 5 * time.Second

// Behind writes leases to a Store behind the back of those who lease: a slow or full
// disk delays no client. What changes while a write is under way goes into the next
// one. What cannot be written is kept, logged and tried again; per address only the
// last state waits, so what waits is bounded by the size of the pools.
type Behind struct {
	store Store
	log   *slog.Logger

	mu      sync.Mutex
	waiting map[netip.Addr]Lease
	failing error
	idle    bool          // nothing waits and nothing is being written
	calm    chan struct{} // closed when it becomes idle
	bell    chan struct{}
	stop    chan struct{}
	done    chan struct{}
}

// NewBehind starts writing to s. Close ends it.
func NewBehind(s Store, log *slog.Logger) *Behind {
	b := &Behind{
		store: s, log: log, waiting: make(map[netip.Addr]Lease),
		idle: true, calm: make(chan struct{}),
		bell: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	close(b.calm)
	go b.run()
	return b
}

// Put keeps a lease, soon. It does not wait.
func (b *Behind) Put(l Lease) {
	b.mu.Lock()
	b.waiting[l.Address] = l
	if b.idle {
		b.idle, b.calm = false, make(chan struct{})
	}
	b.mu.Unlock()
	select {
	case b.bell <- struct{}{}:
	default:
	}
}

// Flush waits until everything put before is durable.
func (b *Behind) Flush(ctx context.Context) error {
	b.mu.Lock()
	calm := b.calm
	b.mu.Unlock()
	select {
	case <-calm:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Err is the error of the last write, nil when it succeeded.
func (b *Behind) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failing
}

// Close makes a last attempt to write what waits, and closes the store.
func (b *Behind) Close() error {
	close(b.stop)
	<-b.done
	err := b.write()
	if cerr := b.store.Close(); err == nil {
		err = cerr
	}
	return err
}

func (b *Behind) run() {
	defer close(b.done)
	for {
		select {
		case <-b.stop:
			return
		case <-b.bell:
		}
		for b.write() != nil {
			select {
			case <-b.stop:
				return
			case <-time.After(retryDelay):
			}
		}
	}
}

// write writes what waits, until nothing does.
func (b *Behind) write() error {
	for {
		batch := b.take()
		if len(batch) == 0 {
			return nil
		}
		err := b.store.SaveLeases(batch)
		b.report(err, len(batch))
		if err != nil {
			b.putBack(batch)
			return err
		}
	}
}

func (b *Behind) take() []Lease {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		if !b.idle {
			b.idle = true
			close(b.calm)
		}
		return nil
	}
	batch := make([]Lease, 0, len(b.waiting))
	for _, l := range b.waiting {
		batch = append(batch, l)
	}
	clear(b.waiting)
	return batch
}

// putBack keeps what could not be written, unless something newer waits.
func (b *Behind) putBack(batch []Lease) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range batch {
		if _, newer := b.waiting[l.Address]; !newer {
			b.waiting[l.Address] = l
		}
	}
}

// report logs when writing begins to fail and when it works again.
func (b *Behind) report(err error, n int) {
	b.mu.Lock()
	before := b.failing
	b.failing = err
	b.mu.Unlock()
	switch {
	case err != nil && before == nil:
		b.log.Error("address leases cannot be written; sessions go on, but after a restart clients may get other addresses: make room on the disk or correct its permissions",
			"leases", n, "error", err)
	case err == nil && before != nil:
		b.log.Info("address leases are written again", "leases", n)
	}
}
