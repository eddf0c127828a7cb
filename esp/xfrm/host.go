package xfrm

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

// host is a peer. Its inbound states share a reqid, which inbound policies ask for.
type host struct {
	id       esp.HostID
	path     esp.Path
	reqid    uint32
	children map[esp.ChildID]*child
	former   esp.Stats // of Child SAs that are gone
	watch    hostWatch
	reported time.Time // the last SourceChanged event
	// narrowed are the routes to its addresses with an MTU of their own.
	narrowed map[netip.Prefix]int
}

// child is a Child SA pair: two states in the kernel, and what they are found by.
type child struct {
	id        esp.ChildID
	host      *host
	desc      esp.Child // with keys of its own, for adding states again
	selectors []selector
	in, out   half
	reqid     uint32 // of the outbound state

	active bool
	order  uint64 // of activation
	added  time.Time
	// What has been reported.
	seen, soft, hard bool
}

// half is one direction of a Child SA.
type half struct {
	state
	meter meter
}

// checkPath reports what the kernel cannot work with: its states and policies are about
// both ends.
func checkPath(p esp.Path) error {
	if err := p.Check(); err != nil {
		return err
	}
	local, remote := p.Pair.Local.Addr(), p.Pair.Remote.Addr()
	switch {
	case !local.IsValid() || local.IsUnspecified():
		return errors.New("path has no local address, which the kernel needs")
	case local.Unmap().Is4() != remote.Unmap().Is4():
		return fmt.Errorf("path from %v to %v: two address families", local, remote)
	case p.UDP && p.Pair.Local.Port() == 0:
		return fmt.Errorf("path %v in UDP has no local port", p.Pair)
	}
	return nil
}

// ends returns the addresses of a path as the kernel takes them.
func ends(p esp.Path) (local, remote netip.Addr) {
	return p.Pair.Local.Addr().Unmap().WithZone(""), p.Pair.Remote.Addr().Unmap().WithZone("")
}

// sameRoad says whether packets over both paths look the same from outside.
func sameRoad(a, b esp.Path) bool {
	al, ar := ends(a)
	bl, br := ends(b)
	if al != bl || ar != br || a.UDP != b.UDP {
		return false
	}
	return !a.UDP || a.Pair.Local.Port() == b.Pair.Local.Port() && a.Pair.Remote.Port() == b.Pair.Remote.Port()
}

// newChild prepares a Child SA; nothing is in the kernel yet.
func newChild(desc *esp.Child) (*child, error) {
	c := &child{id: desc.ID, desc: *desc}
	var err error
	if c.selectors, err = selectorsOf(desc.Local, desc.Remote); err != nil {
		return nil, err
	}
	for _, sa := range []*esp.SA{&desc.In, &desc.Out} {
		if err := checkSA(sa); err != nil {
			return nil, err
		}
	}
	c.desc.In, c.desc.Out = cloneSA(&desc.In), cloneSA(&desc.Out)
	return c, nil
}

func cloneSA(sa *esp.SA) esp.SA {
	out := *sa
	out.EncrKey, out.IntegKey = slices.Clone(sa.EncrKey), slices.Clone(sa.IntegKey)
	return out
}

// checkSA does what the kernel would refuse less clearly.
func checkSA(sa *esp.SA) error {
	const firstSPI = 256 // RFC 4303 §2.1
	switch {
	case sa.SPI < firstSPI:
		return fmt.Errorf("SPI %d is reserved", sa.SPI)
	case len(sa.EncrKey) != sa.Encr.KeyMaterialLen() || len(sa.IntegKey) != sa.Integ.KeyLen():
		return fmt.Errorf("keys of %d and %d octets do not fit %v and %v", len(sa.EncrKey), len(sa.IntegKey), sa.Encr, sa.Integ)
	}
	_, err := algorithmsOf(sa)
	return err
}

func (c *child) zero() {
	c.desc.In.Zero()
	c.desc.Out.Zero()
}

// maxReplayWindow is the kernel's (XFRMA_REPLAY_ESN_MAX).
const maxReplayWindow = 4096

// place sets both states for a path; counters and anti-replay state stay.
func (c *child) place(p esp.Path) {
	c.in.state, c.out.state = c.statesFor(p)
}

// statesFor describes both states for a path.
func (c *child) statesFor(p esp.Path) (in, out state) {
	local, remote := ends(p)
	window := c.desc.ReplayWindow
	if window == 0 {
		window = esp.DefaultReplayWindow
	}
	window = min(window, maxReplayWindow)
	in = state{stateID: stateID{local, c.desc.In.SPI}, src: remote, sa: &c.desc.In, reqid: c.host.reqid, window: window, limits: c.desc.Lifetime}
	out = state{stateID: stateID{remote, c.desc.Out.SPI}, src: local, sa: &c.desc.Out, reqid: c.reqid, outbound: true, tfc: c.desc.TFC, window: window,
		limits: outboundLimits(c.desc.Lifetime, c.desc.Out.ESN)}
	if p.UDP {
		here, there := p.Pair.Local.Port(), p.Pair.Remote.Port()
		in.encap, out.encap = &encap{there, here}, &encap{here, there}
	}
	return in, out
}

// outboundLimits adds those of 32-bit sequence numbers: time to rekey at 3/4, the end
// before one is used twice.
func outboundLimits(l esp.Lifetime, esn bool) esp.Lifetime {
	if esn {
		return l
	}
	l.SoftPackets = lower(l.SoftPackets, 3<<30)
	l.HardPackets = lower(l.HardPackets, math.MaxUint32)
	return l
}

// lower is the lower of two limits, where zero is none.
func lower(limit, bound uint64) uint64 {
	if limit == 0 {
		return bound
	}
	return min(limit, bound)
}

// meter keeps the counters of one direction over moves and removal of its state.
type meter struct {
	base, last counts
	seenAt     time.Time // of the last packet, as far as known
}

type counts struct{ octets, packets, replayed, failed uint64 }

// read takes the counters of a snapshot and reports whether packets have come since
// the last one.
func (m *meter) read(s *snapshot, now time.Time) (more bool) {
	at := counts{s.used.octets, s.used.packets, s.replayed + s.outside, s.failed}
	before := m.total().packets
	for _, c := range []struct{ base, last, now *uint64 }{
		{&m.base.octets, &m.last.octets, &at.octets}, {&m.base.packets, &m.last.packets, &at.packets},
		{&m.base.replayed, &m.last.replayed, &at.replayed}, {&m.base.failed, &m.last.failed, &at.failed},
	} {
		if *c.now < *c.last { // a new state, begun at zero
			*c.base += *c.last
		}
		*c.last = *c.now
	}
	if m.total().packets == before {
		return false
	}
	// The kernel's own stamp is cut off to seconds and younger kernels' alone.
	const coarse = 2 * time.Second
	m.seenAt = now
	if s.lastUsed.After(time.Time{}) && now.Sub(s.lastUsed) > coarse {
		m.seenAt = s.lastUsed
	}
	return true
}

func (m *meter) total() counts {
	return counts{m.base.octets + m.last.octets, m.base.packets + m.last.packets, m.base.replayed + m.last.replayed, m.base.failed + m.last.failed}
}

// stats are the counters as they were read last.
func (c *child) stats() esp.Stats {
	in, out := c.in.meter.total(), c.out.meter.total()
	return esp.Stats{
		InPackets: in.packets, InBytes: in.octets, OutPackets: out.packets, OutBytes: out.octets,
		Replayed: in.replayed, AuthFailed: in.failed, LastIn: c.in.meter.seenAt, LastOut: c.out.meter.seenAt,
	}
}

// sortedChildren are the host's, in the order of their making.
func (h *host) sortedChildren() []*child {
	return slices.SortedFunc(maps.Values(h.children), func(a, b *child) int { return int(int64(a.id) - int64(b.id)) })
}
