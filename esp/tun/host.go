package tun

import (
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
)

// host is a peer. All of its Child SAs point here, so moving it is one store.
type host struct {
	id      esp.HostID
	path    atomic.Pointer[esp.Path] // what it points to is never changed
	first   esp.Path                 // the first path, beside what else a packet needs
	lastOut atomic.Int64             // stamp of the last packet or keepalive sent
	// stranded are packets that could not be sent over the path.
	stranded stranded
	// reported is the stamp of the last SourceChanged event.
	reported atomic.Int64

	// waiting is the stamp of the first packet sent since a valid one came back, zero
	// when none was; complained that of the last Unanswered event, the watch's own.
	waiting    atomic.Int64
	complained int64
	// spared is the stamp of the last packet that was sent over a path that is Sparing.
	spared atomic.Int64

	children map[esp.ChildID]*child // guarded by DataPath.mu, as is former
	former   esp.Stats              // of Child SAs that are gone
}

// move makes path the current one. The time until the first keepalive counts from
// the move: whoever moves a host has just talked over the new path.
func (h *host) move(path esp.Path, stamp int64) {
	if old := h.path.Load(); old == nil || old.Pair != path.Pair {
		h.lastOut.Store(stamp)
		h.waiting.Store(0)
	}
	if h.path.Load() == nil {
		h.first = path
		h.path.Store(&h.first)
		return
	}
	h.path.Store(&path)
}

// mayProbe says whether a packet may be sent over a path that is Sparing: one a second
// shows whether somebody is there.
func (h *host) mayProbe(stamp int64) bool {
	last := h.spared.Load()
	return (last == 0 || stamp-last >= int64(time.Second)) && h.spared.CompareAndSwap(last, stamp)
}

// returned ends the restraint of a path that is Sparing: the host is there.
func (h *host) returned(path *esp.Path) {
	again := *path
	again.Sparing = false
	h.path.CompareAndSwap(path, &again)
}

// sameSource reports whether a packet came from where the path leads to.
func sameSource(p *esp.Path, t *transport.ESPTrain) bool {
	remote, source := p.Pair.Remote, t.Pair.Remote
	if p.UDP != t.UDP || remote.Addr().Unmap() != source.Addr().Unmap() {
		return false
	}
	return !p.UDP || remote.Port() == source.Port()
}

// sameDestination reports whether a packet came to where the path starts from.
func sameDestination(p *esp.Path, t *transport.ESPTrain) bool {
	local := p.Pair.Local.Addr()
	return !local.IsValid() || local.IsUnspecified() || local.Unmap() == t.Pair.Local.Addr().Unmap()
}

// child is a Child SA pair. What a packet needs lies together, outbound first: among
// many SAs each page of memory that has to be looked at costs as much as the cipher.
type child struct {
	id      esp.ChildID
	host    *host
	lastOut atomic.Int64
	sealer  esp.Sealer

	lastIn           atomic.Int64
	seen             atomic.Bool // a valid packet has arrived
	soft, hard       atomic.Bool // limits that have been reported, of either direction
	active           bool        // guarded by DataPath.mu
	tfc              bool        // packets are padded
	selectors        *esp.Selectors
	opener           esp.Opener
	selectorMismatch atomic.Uint64
	remote           []esp.Selector // keys of its entries in the SPD
}

func newChild(desc *esp.Child, rand io.Reader) (*child, error) {
	selectors, err := esp.NewSelectors(desc.Local, desc.Remote)
	if err != nil {
		return nil, err
	}
	c := &child{id: desc.ID, selectors: selectors, remote: slices.Clone(desc.Remote)}
	if err := c.opener.Init(&desc.In, desc.Lifetime, desc.ReplayWindow); err != nil {
		return nil, err
	}
	if err := c.sealer.Init(&desc.Out, desc.Lifetime, rand); err != nil {
		c.opener.Close()
		return nil, err
	}
	return c, nil
}

func (c *child) close() {
	c.sealer.Close()
	c.opener.Close()
}

// limitEvents appends the events for limits that one direction has crossed and the
// other had not.
func (c *child) limitEvents(events []esp.Event, spi uint32, crossed esp.Limit) []esp.Event {
	if crossed&esp.LimitSoft != 0 && c.soft.CompareAndSwap(false, true) {
		events = append(events, esp.Event{Kind: esp.SoftLimit, Host: c.host.id, Child: c.id, SPI: spi})
	}
	if crossed&esp.LimitHard != 0 && c.hard.CompareAndSwap(false, true) {
		events = append(events, esp.Event{Kind: esp.HardLimit, Host: c.host.id, Child: c.id, SPI: spi})
	}
	return events
}

// innerMTU is what a packet of the Child SA may measure on a path: no more than
// the device's MTU, and what is left of the path's, taken as 1500 while unknown.
func (c *child) innerMTU(p *esp.Path, deviceMTU int) int {
	mtu := p.MTU
	if mtu == 0 {
		mtu = esp.DefaultPathMTU
	}
	return min(deviceMTU, c.sealer.Layout().InnerMTU(mtu, p.Pair.Remote.Addr().Unmap().Is6(), p.UDP))
}

func (d *DataPath) stats(c *child) esp.Stats {
	in := c.opener.Stats()
	packets, octets := c.sealer.Used()
	return esp.Stats{
		InPackets: in.Packets, InBytes: in.Octets, OutPackets: packets, OutBytes: octets,
		Replayed: in.Replayed, AuthFailed: in.AuthFailed, SelectorMismatch: c.selectorMismatch.Load(),
		LastIn: d.instant(c.lastIn.Load()), LastOut: d.instant(c.lastOut.Load()),
	}
}
