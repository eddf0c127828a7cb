package shard

import "sync"

// Workers runs the engines' public-key work on a fixed number of goroutines, in the
// order it comes. How much can wait is bounded by the engines: each session has at
// most a few pieces of work under way, and the number of sessions that have proved
// nothing is limited.
type Workers struct {
	mu     sync.Mutex
	cond   *sync.Cond
	queue  []func()
	head   int
	closed bool
	wg     sync.WaitGroup
}

// NewWorkers starts n goroutines.
func NewWorkers(n int) *Workers {
	w := &Workers{}
	w.cond = sync.NewCond(&w.mu)
	for range max(1, n) {
		w.wg.Go(w.run)
	}
	return w
}

// Close ends the goroutines when they have finished what they are at. Work that waits
// is forgotten.
func (w *Workers) Close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cond.Broadcast()
	w.wg.Wait()
}

func (w *Workers) submit(f func()) {
	w.mu.Lock()
	if !w.closed {
		w.queue = append(w.queue, f)
	}
	w.mu.Unlock()
	w.cond.Signal()
}

func (w *Workers) run() {
	for {
		f := w.next()
		if f == nil {
			return
		}
		f()
	}
}

// next waits for work; nil means that there will be none.
func (w *Workers) next() func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.head == len(w.queue) && !w.closed {
		w.cond.Wait()
	}
	if w.closed {
		return nil
	}
	f := w.queue[w.head]
	w.queue[w.head] = nil
	w.head++
	w.compact()
	return f
}

// compact forgets the part of the queue that is done, in steps large enough to cost
// little.
func (w *Workers) compact() {
	const step = 256
	switch {
	case w.head == len(w.queue):
		w.queue, w.head = w.queue[:0], 0
		if cap(w.queue) > 4*step {
			w.queue = nil
		}
	case w.head >= step && w.head >= len(w.queue)/2:
		n := copy(w.queue, w.queue[w.head:])
		clear(w.queue[n:])
		w.queue, w.head = w.queue[:n], 0
	}
}
