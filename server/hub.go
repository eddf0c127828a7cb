package server

import "sync"

// watcherBuffer is how many events a watcher may lag behind before it misses some.
const watcherBuffer = 256

// hub hands events to whoever watches. A watcher that is slow misses events; nobody
// waits for it.
type hub struct {
	mu       sync.Mutex
	watchers map[chan Event]bool
}

func newHub() *hub { return &hub{watchers: map[chan Event]bool{}} }

func (h *hub) publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		select {
		case w <- e:
		default:
		}
	}
}

// watch returns a channel of events and the function that ends it.
func (h *hub) watch() (<-chan Event, func()) {
	w := make(chan Event, watcherBuffer)
	h.mu.Lock()
	h.watchers[w] = true
	h.mu.Unlock()
	return w, func() {
		h.mu.Lock()
		delete(h.watchers, w)
		h.mu.Unlock()
	}
}
