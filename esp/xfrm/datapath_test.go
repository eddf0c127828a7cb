package xfrm

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

func TestAddedIsNotActive(t *testing.T) {
	w := newWorld(t, nil)
	w.ok(w.AddHost(1, home))
	w.ok(w.AddChild(childOf(1)))
	if n := len(w.kernel.states); n != 2 {
		t.Errorf("%d states", n)
	}
	if spi := w.sendsOn(); spi != 0 {
		t.Errorf("packets go out on %#x before the Child SA is active", spi)
	}
	if n := len(w.kernel.policies); n != 2 { // in and forward
		t.Errorf("%d policies accept packets", n)
	}
	w.ok(w.ActivateChild(1))
	if spi := w.sendsOn(); spi != 0x2001 {
		t.Errorf("packets go out on %#x", spi)
	}
	w.ok(w.RemoveHost(1))
	if len(w.kernel.states)+len(w.kernel.policies) != 0 || len(w.reqids) != 0 || len(w.spd) != 0 {
		t.Errorf("left: %v %v %v", w.kernel.states, w.kernel.policies, w.reqids)
	}
}

// TestRekey: at every step packets of the old and the new Child SA are accepted, and
// packets go out on the one activated last.
func TestRekey(t *testing.T) {
	w := newWorld(t, nil)
	w.up(home)
	w.ok(w.AddChild(childOf(2)))
	if spi := w.sendsOn(); spi != 0x2001 {
		t.Errorf("after adding: %#x", spi)
	}
	w.ok(w.ActivateChild(2))
	if spi := w.sendsOn(); spi != 0x2002 {
		t.Errorf("after activating: %#x", spi)
	}
	in := w.kernel.states[w.in(1)]
	for _, p := range w.kernel.policies {
		if p.dir != dirOut && (p.reqid != in.reqid || p.reqid != w.kernel.states[w.in(2)].reqid || p.spi != 0 || p.src.IsValid()) {
			t.Errorf("policy %+v does not accept both", p)
		}
	}
	w.ok(w.RemoveChild(1))
	if spi := w.sendsOn(); spi != 0x2002 {
		t.Errorf("after removing the old one: %#x", spi)
	}
	w.ok(w.AddChild(childOf(3)))
	w.ok(w.ActivateChild(3))
	w.ok(w.RemoveChild(3))
	if spi := w.sendsOn(); spi != 0x2002 {
		t.Errorf("after the successor failed: %#x", spi)
	}
}

// TestNarrowerAndWider: what a later Child SA covers is its own, whatever selectors
// others of the host have.
func TestNarrowerAndWider(t *testing.T) {
	w := newWorld(t, nil)
	w.ok(w.AddHost(1, home))
	narrow, wide := childOf(1), childOf(2)
	narrow.Remote = prefix("10.20.0.0/24")
	w.ok(w.AddChild(narrow))
	w.ok(w.ActivateChild(1))
	w.ok(w.AddChild(wide))
	w.ok(w.ActivateChild(2))
	for key, p := range w.kernel.policies {
		if key.dir == dirOut && p.spi != 0x2002 {
			t.Errorf("%v goes out on %#x", key.sel, p.spi)
		}
	}
	w.ok(w.RemoveChild(2))
	if n := len(w.kernel.policies); n != 3 {
		t.Errorf("%d policies are left", n)
	}
}

// TestSecondHost: a client that comes back before its old session has ended takes its
// addresses over; ending the old session then takes nothing away.
func TestSecondHost(t *testing.T) {
	w := newWorld(t, nil)
	w.up(home)
	w.ok(w.AddHost(2, nat))
	again := childOf(2)
	again.Host = 2
	w.ok(w.AddChild(again))
	w.ok(w.ActivateChild(2))
	w.ok(w.RemoveHost(1))
	if spi := w.sendsOn(); spi != 0x2002 {
		t.Errorf("packets go out on %#x", spi)
	}
	for _, p := range w.kernel.policies {
		if p.dir != dirOut && p.reqid != w.kernel.states[w.in(2)].reqid {
			t.Errorf("policy %+v accepts the old session's packets", p)
		}
	}
}

func TestMove(t *testing.T) {
	for _, m := range []struct {
		name     string
		from, to esp.Path
		change   func(*Config)
		refuse   bool
		readd    bool
	}{
		{name: "by migration", from: home, to: nat},
		{name: "to the other family", from: home, to: six},
		{name: "by migration, into UDP", from: native, to: nat},
		{name: "out of UDP, which migration cannot", from: nat, to: native, readd: true},
		{name: "by hand", from: home, to: nat, change: func(c *Config) { c.NoMigrate = true }, readd: true},
		{name: "the kernel refuses to migrate", from: home, to: nat, refuse: true, readd: true},
		{name: "another port only", from: nat, to: path("192.168.77.10:4500", "203.0.113.10:40001", true)},
	} {
		t.Run(m.name, func(t *testing.T) {
			w := newWorld(t, m.change)
			w.up(m.from)
			w.ok(w.AddChild(childOf(2))) // a rekey is under way
			w.kernel.refuseMigrate = m.refuse
			w.kernel.carry(t, w.out(1), 1<<33)
			w.kernel.carry(t, w.in(1), 7)
			w.kernel.log = nil
			w.ok(w.MoveHost(1, m.to))

			local, remote := ends(m.to)
			if len(w.kernel.states) != 4 {
				t.Fatalf("%d states", len(w.kernel.states))
			}
			for id, x := range w.kernel.states {
				wantDst, wantSrc := local, remote
				if x.outbound {
					wantDst, wantSrc = remote, local
				}
				if id.dst != wantDst || x.snapshot.src != wantSrc || (x.snapshot.encap != nil) != m.to.UDP {
					t.Errorf("state %v from %v, encapsulation %v", id, x.snapshot.src, x.snapshot.encap)
				}
			}
			if s, _ := w.kernel.State(w.out(1)); s.replay.out != 1<<33 || s.used.packets != 1<<33 {
				t.Errorf("outbound goes on at %d, having carried %d", s.replay.out, s.used.packets)
			}
			if s, _ := w.kernel.State(w.in(1)); s.replay.in != 7 {
				t.Errorf("inbound goes on at %d", s.replay.in)
			}
			if spi := w.sendsOn(); spi != 0x2001 {
				t.Errorf("packets go out on %#x", spi)
			}
			removed := slices.ContainsFunc(w.kernel.log, func(s string) bool { return s[:6] == "remove" })
			if removed != m.readd {
				t.Errorf("done by %q", w.kernel.log)
			}
			st, err := w.QueryHost(1)
			if w.ok(err); st.OutPackets != 1<<33 || st.InPackets != 7 {
				t.Errorf("counters %+v", st)
			}
			if len(w.kinds()) != 1 { // FirstInbound
				t.Error("events while moving")
			}
		})
	}
}

// TestMoveFails: a Child SA that cannot be put in again is reported as ended, so that
// another is negotiated.
func TestMoveFails(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.NoMigrate = true })
	w.up(home)
	w.kernel.refuseAdd = errors.New("out of memory")
	if err := w.MoveHost(1, nat); err == nil {
		t.Error("no error")
	}
	if got := w.kinds(); !slices.Equal(got, []esp.EventKind{esp.HardLimit}) {
		t.Errorf("events %v", got)
	}
	w.kernel.refuseAdd = nil
	w.ok(w.RemoveChild(1))
}

func TestFailedAddLeavesNothing(t *testing.T) {
	w := newWorld(t, nil)
	w.ok(w.AddHost(1, home))
	w.kernel.refuseAdd = errors.New("function not implemented")
	if err := w.AddChild(childOf(1)); err == nil {
		t.Error("no error")
	}
	opaque := childOf(2)
	opaque.Local[0].Protocol, opaque.Local[0].StartPort, opaque.Local[0].EndPort = 17, 65535, 0
	w.kernel.refuseAdd = nil
	if err := w.AddChild(opaque); !errors.Is(err, errSelector) {
		t.Errorf("opaque ports: %v", err)
	}
	if len(w.kernel.states)+len(w.kernel.policies)+len(w.children)+len(w.states) != 0 || len(w.reqids) != 1 {
		t.Errorf("left: %v %v", w.kernel.states, w.reqids)
	}
}

func TestUnknown(t *testing.T) {
	w := newWorld(t, nil)
	for _, err := range []error{w.MoveHost(1, home), w.RemoveHost(1), w.AddChild(childOf(1)), second(w.QueryHost(1))} {
		if !errors.Is(err, esp.ErrUnknownHost) {
			t.Errorf("%v", err)
		}
	}
	for _, err := range []error{w.ActivateChild(1), w.RemoveChild(1), second(w.QueryChild(1))} {
		if !errors.Is(err, esp.ErrUnknownChild) {
			t.Errorf("%v", err)
		}
	}
	if err := w.AddHost(1, path("0.0.0.0:4500", "203.0.113.10:4500", true)); err == nil {
		t.Error("a path without local address")
	}
	w.ok(w.Close())
	if err := w.AddHost(1, home); !errors.Is(err, esp.ErrDataPathClosed) {
		t.Errorf("%v", err)
	}
}

func second(_ esp.Stats, err error) error { return err }

func TestMTUFollowsThePath(t *testing.T) {
	w := newWorld(t, nil)
	w.up(home)
	narrow := home
	narrow.MTU = 1400
	w.ok(w.MoveHost(1, narrow))
	want, _ := esp.InnerMTU(1400, false, true, childOf(1).Out.Encr, childOf(1).Out.Integ)
	if w.kernel.mtu != want || w.MTU() != want || len(w.kernel.log) != 2 {
		t.Errorf("MTU %d instead of %d, %q", w.kernel.mtu, want, w.kernel.log)
	}
	w.ok(w.MoveHost(1, nat))
	if w.kernel.mtu != esp.DefaultMTU {
		t.Errorf("MTU %d after moving to another path", w.kernel.mtu)
	}
}

// TestGatewayNarrowsRoutes: a client behind a narrow path does not narrow the others.
func TestGatewayNarrowsRoutes(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Owner = Gateway })
	c := childOf(1)
	c.Local, c.Remote = prefix("0.0.0.0/0"), prefix("10.66.0.2/32")
	w.ok(w.AddHost(1, home))
	w.ok(w.AddChild(c))
	client := netip.MustParsePrefix("10.66.0.2/32")
	if w.kernel.routes[client] != 0 {
		t.Error("narrow before anything is known")
	}
	narrow := home
	narrow.MTU = 1400
	w.ok(w.MoveHost(1, narrow))
	want, _ := esp.InnerMTU(1400, false, true, c.Out.Encr, c.Out.Integ)
	if w.kernel.routes[client] != want || w.kernel.mtu != 0 {
		t.Errorf("route %d instead of %d, interface %d", w.kernel.routes[client], want, w.kernel.mtu)
	}
	w.ok(w.MoveHost(1, nat))
	if w.kernel.routes[client] != 0 {
		t.Error("narrow on the next path too")
	}
	w.ok(w.MoveHost(1, narrow))
	w.ok(w.RemoveHost(1))
	if w.kernel.routes[client] != 0 {
		t.Error("the route stays")
	}
}

func TestPins(t *testing.T) {
	w := newWorld(t, nil)
	w.up(home)
	w.ok(w.MoveHost(1, nat))
	w.ok(w.MoveHost(1, home))
	narrow := home
	narrow.MTU = 1400
	w.ok(w.MoveHost(1, narrow))
	w.ok(w.RemoveHost(1))
	for p, n := range w.kernel.pins {
		if n != 0 {
			t.Errorf("%v is pinned %d times", p, n)
		}
	}
}

// TestLimits of 32-bit sequence numbers, and that limits are passed on.
func TestLimits(t *testing.T) {
	w := newWorld(t, nil)
	w.ok(w.AddHost(1, home))
	c := childOf(1)
	c.Out.ESN = false
	c.Lifetime = esp.Lifetime{SoftBytes: 1000, HardPackets: 1 << 40}
	w.ok(w.AddChild(c))
	out, in := w.kernel.states[w.out(1)].limits, w.kernel.states[w.in(1)].limits
	if out != (esp.Lifetime{SoftBytes: 1000, SoftPackets: 3 << 30, HardPackets: 1<<32 - 1}) || in != c.Lifetime {
		t.Errorf("out %+v, in %+v", out, in)
	}
	w.kernelEvent(kernelEvent{kind: stateExpired, id: w.out(1)})
	w.kernelEvent(kernelEvent{kind: stateExpired, id: w.in(1)})
	if got := w.kinds(); !slices.Equal(got, []esp.EventKind{esp.SoftLimit}) {
		t.Errorf("soft: %v", got)
	}
	last := w.out(1)
	delete(w.kernel.states, last)
	w.kernelEvent(kernelEvent{kind: stateExpired, id: last, hard: true, used: usage{1200, 12}})
	w.kernelEvent(kernelEvent{kind: stateExpired, id: stateID{last.dst, 99}, hard: true})
	if got := w.kinds(); !slices.Equal(got, []esp.EventKind{esp.HardLimit}) {
		t.Errorf("hard: %v", got)
	}
	if st, err := w.QueryChild(1); err != nil || st.OutBytes != 1200 || st.OutPackets != 12 {
		t.Errorf("%+v %v", st, err)
	}
	w.ok(w.RemoveChild(1))
}

func TestFormerChildrenCount(t *testing.T) {
	w := newWorld(t, nil)
	w.up(home)
	w.kernel.carry(t, w.in(1), 5)
	w.ok(w.RemoveChild(1))
	if st, err := w.QueryHost(1); err != nil || st.InPackets != 5 || st.LastIn != w.now {
		t.Errorf("%+v %v", st, err)
	}
}

func TestMeter(t *testing.T) {
	var m meter
	now := time.Unix(1000, 0)
	s := snapshot{used: usage{500, 5}, replayed: 1, outside: 2, failed: 3}
	if !m.read(&s, now) || m.read(&s, now.Add(time.Second)) || m.seenAt != now {
		t.Errorf("%+v", m)
	}
	s = snapshot{used: usage{100, 1}, failed: 1} // a new state
	if !m.read(&s, now) || m.total() != (counts{600, 6, 3, 4}) {
		t.Errorf("%+v", m.total())
	}
	s.used.packets, s.lastUsed = 2, now.Add(10*time.Second)
	if m.read(&s, now.Add(time.Minute)); m.seenAt != s.lastUsed {
		t.Errorf("the kernel's stamp is not used: %v", m.seenAt)
	}
}

// TestSparing: nothing goes to a host that has been silent for long, until it is heard of.
func TestSparing(t *testing.T) {
	sparing := func(p esp.Path) esp.Path { p.Sparing = true; return p }
	w := newWorld(t, nil)
	w.up(home)
	blocked := func() bool {
		p, ok := w.kernel.policies[policyKey{dirOut, w.children[1].selectors[0]}]
		if !ok {
			t.Fatal("packets would leave in clear")
		}
		return p.block
	}
	w.ok(w.MoveHost(1, sparing(home)))
	w.pass(10 * time.Second)
	if !blocked() {
		t.Fatal("not spared")
	}
	w.kernel.carry(t, w.in(1), 1)
	w.pass(restfulLook + 10*time.Millisecond)
	if blocked() || w.sendsOn() == 0 {
		t.Error("still spared after it was heard of")
	}
	w.ok(w.MoveHost(1, sparing(home)))
	w.ok(w.MoveHost(1, nat)) // it says where it is
	if blocked() || w.sendsOn() == 0 {
		t.Error("still spared after it has moved")
	}
}
