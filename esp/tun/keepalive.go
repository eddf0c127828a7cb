package tun

import (
	"maps"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// keepaliveSlack is how much early a keepalive may go, so that those of many hosts
// share one wake-up. The loop never wakes up more often than that.
const keepaliveSlack = 250 * time.Millisecond

// kickKeepalives makes the loop look at the hosts again.
func (d *DataPath) kickKeepalives() {
	select {
	case d.keepalives <- struct{}{}:
	default:
	}
}

// keepaliveLoop sends NAT keepalives for every host that has been silent for the
// interval of its path (RFC 3948 §4). Without such a host it sleeps for good.
func (d *DataPath) keepaliveLoop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Stop()
		if wait, any := d.sendKeepalives(d.cfg.Now()); any {
			timer.Reset(max(wait, keepaliveSlack))
		}
		select {
		case <-d.closing:
			return
		case <-d.keepalives:
		case <-timer.C:
		}
	}
}

// sendKeepalives sends what is due and returns the time until the next is.
func (d *DataPath) sendKeepalives(now time.Time) (wait time.Duration, any bool) {
	stamp := d.stamp(now)
	for _, h := range d.keptHosts() {
		path := h.path.Load()
		if path.Keepalive == 0 || !path.UDP {
			continue
		}
		left := path.Keepalive - time.Duration(stamp-h.lastOut.Load())
		if left <= keepaliveSlack {
			d.keepalive(h, stamp)
			left = path.Keepalive
		}
		if !any || left < wait {
			wait, any = left, true
		}
	}
	return wait, any
}

// schedule notes what a host's path asks for, so that the loops look only at hosts
// that ask for something: a gateway has many, and keeps few alive.
func (d *DataPath) schedule(h *host, path *esp.Path) {
	_, kept := d.kept[h]
	keep := path.UDP && path.Keepalive > 0
	note(d.kept, h, keep)
	if kept || keep {
		d.kickKeepalives()
	}
	note(d.watched, h, path.UnansweredAfter > 0)
}

func note(set map[*host]struct{}, h *host, member bool) {
	if member {
		set[h] = struct{}{}
	} else {
		delete(set, h)
	}
}

// keptHosts returns the hosts whose path asks for keepalives. Sending happens
// without the lock, since a socket may be full.
func (d *DataPath) keptHosts() []*host {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.kept))
}

func (d *DataPath) keepalive(h *host, stamp int64) {
	// Also when sending fails: the next try is an interval away.
	h.lastOut.Store(stamp)
	sender := d.sender.Load()
	if sender == nil {
		return
	}
	path := h.path.Load()
	if err := (*sender).SendKeepalive(path.Pair); err != nil {
		d.warn("NAT keepalive could not be sent", "host", h.id, "pair", path.Pair, "error", err)
		return
	}
	d.counters.keepalives.Add(1)
}

// Sent notes that something else than ESP, an IKE message, has just left over a pair. If
// that is the host's path, its NAT binding needs no keepalive for a while.
func (d *DataPath) Sent(id esp.HostID, pair locator.Pair) {
	d.mu.Lock()
	h := d.hosts[id]
	d.mu.Unlock()
	if h == nil || h.path.Load().Pair != pair {
		return
	}
	h.lastOut.Store(d.stamp(d.cfg.Now()))
}
