package xfrm

import (
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// The kernel tells of limits and of packets from elsewhere by itself. The rest is
// found by looking at counters: that a Child SA has received its first packet, and
// that packets go out and nothing comes back. The watch looks as often as is needed
// for that, and not at all where nobody waits for either.

// restfulLook is how often a path is looked at that carries nothing, or that is Sparing:
// traffic that begins is noticed so late at most.
const restfulLook = 250 * time.Millisecond

// firstLooks say how often to look for the first packet on a Child SA of some age. A
// responder's rekeying waits for it, and its packet comes at once or, on an idle
// tunnel, any time later, when nothing depends on it any more.
var firstLooks = []struct{ age, every time.Duration }{
	{2 * time.Second, 25 * time.Millisecond},
	{30 * time.Second, 250 * time.Millisecond},
	{10 * time.Minute, 2 * time.Second},
}

// hostWatch is what the watch knows of a host.
type hostWatch struct {
	waiting    time.Time // since when packets wait for an answer; zero when none does
	complained time.Time // the last Unanswered event
	busy       time.Time // when there was traffic last
	looked     time.Time
	keepalive  time.Time // when the next one is due; zero for none
}

// moved begins anew with another path.
func (w *hostWatch) moved(p esp.Path, now time.Time) {
	w.waiting, w.complained, w.busy = time.Time{}, time.Time{}, now
	w.keepalive = time.Time{}
	if p.UDP && p.Keepalive > 0 {
		w.keepalive = now.Add(p.Keepalive)
	}
}

// ring makes the watch look at once.
func (d *DataPath) ring() {
	select {
	case d.bell <- struct{}{}:
	default:
	}
}

func (d *DataPath) watchLoop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Stop()
		if next, any := d.look(d.cfg.Now()); any {
			timer.Reset(max(next, time.Millisecond))
		}
		select {
		case <-d.closing:
			return
		case <-d.bell:
		case <-timer.C:
		}
	}
}

// look does what is due and returns how soon to look again; any is false when there is
// nothing to wait for.
func (d *DataPath) look(now time.Time) (next time.Duration, any bool) {
	d.mu.Lock()
	var keepalives []locator.Pair
	soon := func(in time.Duration) {
		if !any || in < next {
			next, any = in, true
		}
	}
	for _, h := range d.hosts {
		if every := d.lookAt(h, now); every > 0 {
			soon(every)
		}
		if at := h.watch.keepalive; !at.IsZero() {
			if !now.Before(at) {
				keepalives = append(keepalives, h.path.Pair)
				h.watch.keepalive = now.Add(h.path.Keepalive)
			}
			soon(h.watch.keepalive.Sub(now))
		}
	}
	d.unlock()
	d.sendKeepalives(keepalives)
	return next, any
}

// sendKeepalives keeps NATs open. They go whether there is other traffic or not, whose
// time the kernel does not tell exactly.
func (d *DataPath) sendKeepalives(pairs []locator.Pair) {
	sender := d.sender.Load()
	if sender == nil {
		return
	}
	for _, p := range pairs {
		if err := (*sender).SendKeepalive(p); err != nil {
			d.cfg.Log.Debug("NAT keepalive could not be sent", "pair", p.String(), "error", err)
		}
	}
}

// lookAt reads the counters of a host if that is due, and returns when it is again;
// zero for never.
func (d *DataPath) lookAt(h *host, now time.Time) time.Duration {
	every := h.interval(now)
	if every == 0 {
		return 0
	}
	if passed := now.Sub(h.watch.looked); passed < every && passed >= 0 {
		return every - passed
	}
	h.watch.looked = now
	var in, out bool
	for _, c := range h.children {
		i, o := d.read(c, now)
		in, out = in || i, out || o
	}
	if in || out {
		h.watch.busy = now
	}
	if in && h.path.Sparing {
		d.returned(h)
	}
	d.judge(h, in, out, now)
	return h.interval(now)
}

// interval is how often a host is to be looked at now.
func (h *host) interval(now time.Time) (every time.Duration) {
	consider := func(d time.Duration) {
		if every == 0 || d < every {
			every = d
		}
	}
	for _, c := range h.children {
		if c.seen || c.hard {
			continue
		}
		for _, l := range firstLooks {
			if now.Sub(c.added) < l.age {
				consider(l.every)
				break
			}
		}
	}
	if h.path.Sparing {
		consider(restfulLook)
	}
	if limit := h.path.UnansweredAfter; limit > 0 && len(h.children) > 0 {
		if now.Sub(h.watch.busy) < esp.WatchRest || !h.watch.waiting.IsZero() {
			consider(limit / 4)
		} else {
			consider(restfulLook)
		}
	}
	return every
}

// returned ends the restraint of a path that is Sparing: the host is there.
func (d *DataPath) returned(h *host) {
	h.path.Sparing = false
	if err := d.reinstall(h); err != nil {
		d.cfg.Log.Warn("a host that has returned cannot be sent to", "host", uint64(h.id), "error", err)
	}
}

// judge raises Unanswered. Between two looks nobody knows what came first, so an
// answer counts for everything that went out.
func (d *DataPath) judge(h *host, in, out bool, now time.Time) {
	w, limit := &h.watch, h.path.UnansweredAfter
	switch {
	case in:
		w.waiting = time.Time{}
	case out && w.waiting.IsZero():
		w.waiting = now
	}
	if limit == 0 || w.waiting.IsZero() || now.Sub(w.waiting) < limit || now.Sub(w.complained) < limit {
		return
	}
	w.complained = now
	d.raise(esp.Event{Kind: esp.Unanswered, Host: h.id, Since: w.waiting})
}

// kernelEvent takes what the kernel tells.
func (d *DataPath) kernelEvent(e kernelEvent) {
	d.mu.Lock()
	defer d.unlock()
	c := d.states[e.id]
	if c == nil {
		return
	}
	switch e.kind {
	case stateExpired:
		d.expired(c, e)
	case mappingChanged:
		d.mapped(c, e.source)
	}
}

func (d *DataPath) expired(c *child, e kernelEvent) {
	ev := esp.Event{Kind: esp.SoftLimit, Host: c.host.id, Child: c.id, SPI: e.id.spi}
	if !e.hard {
		if !c.soft {
			c.soft = true
			d.raise(ev)
		}
		return
	}
	x := &c.in
	if e.id == c.out.stateID {
		x = &c.out
	}
	// The kernel has removed the state: these are its last counters.
	last := snapshot{used: e.used, replayed: x.meter.last.replayed, failed: x.meter.last.failed}
	x.meter.read(&last, d.cfg.Now())
	if !c.hard {
		c.hard = true
		ev.Kind = esp.HardLimit
		d.raise(ev)
	}
}

// mapped reports that the peer's packets come from elsewhere.
func (d *DataPath) mapped(c *child, source netip.AddrPort) {
	h, now := c.host, d.cfg.Now()
	if _, remote := ends(h.path); source == netip.AddrPortFrom(remote, h.path.Pair.Remote.Port()) {
		return // told before the host was moved there
	}
	if !h.reported.IsZero() && now.Sub(h.reported) < esp.SourceReportInterval {
		return
	}
	h.reported = now
	seen := h.path.Pair
	seen.Local = netip.AddrPortFrom(c.in.dst, seen.Local.Port())
	seen.Remote = source
	d.raise(esp.Event{Kind: esp.SourceChanged, Host: h.id, Child: c.id, SPI: c.in.spi, Observed: seen})
}
