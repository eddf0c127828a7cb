package tun

import (
	"maps"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

// Watching for traffic that goes unanswered costs the fast path one atomic load: a
// packet sent while none waits for an answer leaves its stamp, a valid packet from
// where the path leads takes it away. While there is traffic a goroutine looks at
// the stamps a few times per Path.UnansweredAfter; without, it sleeps.

// waits notes that packets went out.
func (d *DataPath) waits(h *host, path *esp.Path, stamp int64) {
	if path.UnansweredAfter == 0 || h.waiting.Load() != 0 {
		return
	}
	if h.waiting.CompareAndSwap(0, max(stamp, 1)) && d.watchAsleep.Load() {
		select {
		case d.watch <- struct{}{}:
		default:
		}
	}
}

// watchLoop raises Unanswered events.
func (d *DataPath) watchLoop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	busy := time.Time{}
	for {
		now := d.cfg.Now()
		d.watchAsleep.Store(true) // before looking: a stamp set now rings the bell
		every, waiting := d.lookForAnswers(now)
		if waiting {
			busy = now
		}
		timer.Stop()
		if every > 0 && now.Sub(busy) < esp.WatchRest {
			d.watchAsleep.Store(false)
			timer.Reset(every)
		}
		select {
		case <-d.closing:
			return
		case <-d.watch:
		case <-timer.C:
		}
	}
}

// lookForAnswers raises what is due. It returns how soon to look again, zero when
// no host is watched, and whether any host waits for an answer.
func (d *DataPath) lookForAnswers(now time.Time) (every time.Duration, waiting bool) {
	stamp := d.stamp(now)
	for _, h := range d.watchedHosts() {
		limit := h.path.Load().UnansweredAfter
		if limit == 0 {
			continue // moved just now
		}
		if every == 0 || limit/4 < every {
			every = limit / 4
		}
		since := h.waiting.Load()
		if since == 0 {
			continue
		}
		waiting = true
		if stamp-since < int64(limit) || stamp-h.complained < int64(limit) {
			continue
		}
		h.complained = stamp
		d.cfg.Events(esp.Event{Kind: esp.Unanswered, Host: h.id, Since: d.instant(since)})
	}
	return every, waiting
}

func (d *DataPath) watchedHosts() []*host {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.watched))
}
