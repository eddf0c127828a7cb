package xfrm

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// model is a kernel that holds states and policies as Linux does, and refuses what
// Linux refuses.
type model struct {
	states   map[stateID]*modelState
	policies map[policyKey]policy
	pins     map[locator.Pair]int
	mtu      int
	routes   map[netip.Prefix]int
	log      []string // what was asked, in order

	refuseMigrate bool
	refuseAdd     error
}

type modelState struct {
	state
	snapshot
}

func newModel() *model {
	return &model{states: map[stateID]*modelState{}, policies: map[policyKey]policy{}, pins: map[locator.Pair]int{}, routes: map[netip.Prefix]int{}}
}

func (m *model) note(format string, args ...any) { m.log = append(m.log, fmt.Sprintf(format, args...)) }

func (m *model) AddState(s *state) error {
	m.note("add %v", s.dst)
	if m.refuseAdd != nil {
		return m.refuseAdd
	}
	if m.states[s.stateID] != nil {
		return errors.New("file exists")
	}
	x := &modelState{state: *s}
	x.snapshot.src, x.snapshot.encap = s.src, s.encap
	if s.replay != nil {
		x.snapshot.replay = *s.replay
	}
	if s.used != nil {
		x.snapshot.used = *s.used
	}
	m.states[s.stateID] = x
	return nil
}

func (m *model) UpdatePorts(s *state) error {
	m.note("ports of %v", s.dst)
	x := m.states[s.stateID]
	if x == nil {
		return errGone
	}
	x.state.encap, x.snapshot.encap = s.encap, s.encap
	return nil
}

func (m *model) State(id stateID) (snapshot, error) {
	if x := m.states[id]; x != nil {
		return x.snapshot, nil
	}
	return snapshot{}, errGone
}

func (m *model) RemoveState(id stateID) (snapshot, error) {
	s, err := m.State(id)
	if err == nil {
		m.note("remove %v", id.dst)
	}
	delete(m.states, id)
	return s, err
}

// Migrate moves the first state that fits, and a policy with it.
func (m *model) Migrate(g migration) error {
	m.note("migrate to %v", g.newDst)
	if m.refuseMigrate {
		return errors.New("protocol not available")
	}
	if g.via != nil && m.policies[g.via.policyKey] != *g.via {
		return errors.New("no data available")
	}
	for id, x := range m.states {
		if id.dst != g.oldDst || x.state.src != g.oldSrc || x.reqid != g.reqid {
			continue
		}
		delete(m.states, id)
		x.dst, x.state.src, x.snapshot.src = g.newDst, g.newSrc, g.newSrc
		if g.encap != nil {
			x.state.encap, x.snapshot.encap = g.encap, g.encap
		}
		m.states[x.stateID] = x
		break
	}
	if g.via != nil {
		p := *g.via
		p.src, p.dst = g.newSrc, g.newDst
		m.policies[p.policyKey] = p
	}
	return nil
}

func (m *model) SetPolicy(p policy) error         { m.policies[p.policyKey] = p; return nil }
func (m *model) RemovePolicy(key policyKey) error { delete(m.policies, key); return nil }
func (m *model) Pin(p esp.Path) error             { m.pins[p.Pair]++; return nil }
func (m *model) Unpin(p esp.Path) error           { m.pins[p.Pair]--; return nil }
func (m *model) SetMTU(mtu int) error             { m.mtu = mtu; return nil }
func (m *model) SetRouteMTU(to netip.Prefix, mtu int) error {
	m.routes[to] = mtu
	return nil
}
func (m *model) Close() error { return nil }

// carry lets a state of a child carry packets.
func (m *model) carry(t *testing.T, id stateID, packets uint64) {
	t.Helper()
	x := m.states[id]
	if x == nil {
		t.Fatalf("the kernel has no state %v", id)
	}
	x.snapshot.used.packets += packets
	x.snapshot.used.octets += 100 * packets
	if x.outbound {
		x.snapshot.replay.out += packets
	} else {
		x.snapshot.replay.in += packets
	}
}

// world is a data path on a model, with a clock of its own.
type world struct {
	*DataPath
	t      *testing.T
	kernel *model
	now    time.Time
	events []esp.Event
}

func newWorld(t *testing.T, change func(*Config)) *world {
	w := &world{t: t, kernel: newModel(), now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)}
	cfg := Config{Owner: Laptop, Name: "wf0", Now: func() time.Time { return w.now }, Events: func(e esp.Event) { w.events = append(w.events, e) }}
	if change != nil {
		change(&cfg)
	}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	w.DataPath = newDataPath(cfg, w.kernel)
	return w
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// pass lets time go by, looking as often as the watch wants to.
func (w *world) pass(d time.Duration) {
	for end := w.now.Add(d); ; {
		next, any := w.look(w.now)
		if next = max(next, time.Millisecond); !any || w.now.Add(next).After(end) {
			w.now = end
			return
		}
		w.now = w.now.Add(next)
	}
}

// kinds takes the events so far.
func (w *world) kinds() (out []esp.EventKind) {
	for _, e := range w.events {
		out = append(out, e.Kind)
	}
	w.events = nil
	return out
}

func path(local, remote string, udp bool) esp.Path {
	p := esp.Path{Pair: locator.Pair{Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)}, UDP: udp}
	return p
}

var (
	home   = path("192.0.2.10:4500", "203.0.113.10:4500", true)
	native = path("192.0.2.10:4500", "203.0.113.10:4500", false)
	nat    = path("192.168.77.10:4500", "203.0.113.10:4500", true)
	six    = path("[2001:db8:a::10]:4500", "[2001:db8:113::10]:4500", true)
)

func prefix(s string) []esp.Selector {
	return []esp.Selector{esp.PrefixSelector(netip.MustParsePrefix(s))}
}

// childOf is Child SA n of host 1: SPIs 0x1000+n and 0x2000+n.
func childOf(n int) esp.Child {
	sa := func(spi int) esp.SA {
		return esp.SA{SPI: uint32(spi + n), Encr: suite.Encr{ID: suite.EncrAESGCM16, KeyBits: 128}, EncrKey: bytes.Repeat([]byte{byte(n)}, 20), ESN: true}
	}
	return esp.Child{ID: esp.ChildID(n), Host: 1, In: sa(0x1000), Out: sa(0x2000), Local: prefix("10.66.0.2/32"), Remote: prefix("0.0.0.0/0")}
}

// up adds host 1 with an active Child SA 1.
func (w *world) up(p esp.Path) {
	w.t.Helper()
	w.ok(w.AddHost(1, p))
	w.ok(w.AddChild(childOf(1)))
	w.ok(w.ActivateChild(1))
}

func (w *world) in(n int) stateID  { return w.children[esp.ChildID(n)].in.stateID }
func (w *world) out(n int) stateID { return w.children[esp.ChildID(n)].out.stateID }

// sendsOn is the SPI that packets to anywhere go out on; zero for none.
func (w *world) sendsOn() uint32 {
	key := policyKey{dirOut, selector{src: netip.MustParsePrefix("10.66.0.2/32"), dst: netip.MustParsePrefix("0.0.0.0/0")}}
	p, ok := w.kernel.policies[key]
	if !ok {
		return 0
	}
	if w.kernel.states[stateID{p.dst, p.spi}] == nil {
		w.t.Fatalf("the outbound policy leads to a state that is not there: %+v", p)
	}
	return p.spi
}
