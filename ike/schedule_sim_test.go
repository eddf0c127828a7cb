package ike

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/simnet"
)

// runSim plays a whole setup: connect, live, calm down and agree, end.
func runSim(t testing.TB, s simSetup) *simWorld {
	w := buildSim(t, s)
	w.report(w.play())
	return w
}

// report ends the test when the run has failed, with all that is needed to see why
// and to repeat it.
func (w *simWorld) report(err error) {
	if err == nil {
		return
	}
	w.t.Helper()
	var f *simnet.Failure
	if errors.As(err, &f) {
		err = fmt.Errorf("step %d, after %v: %w", f.Step, f.After, f.Err)
	}
	w.t.Fatalf("seed %d, which WAYFARER_SIM_SEED=%d repeats: %v\n%+v\n%s",
		w.setup.Seed, w.setup.Seed, err, w.setup, strings.Join(w.story, "\n"))
}

func (w *simWorld) play() error {
	for _, c := range w.clients {
		w.net.After(time.Duration(w.rng.Int64N(int64(2*time.Second))), c.connect)
	}
	w.traffic = true
	w.net.After(0, w.stream)
	end := w.net.Now().Add(w.setup.Active)
	w.net.After(time.Duration(w.rng.Int64N(int64(4*time.Second))), func() { w.meddle(end) })
	if w.hostile != nil {
		w.hostile.begin(end)
	}
	if err := w.net.Run(end); err != nil {
		return err
	}
	if err := w.calm(); err != nil {
		return err
	}
	return w.end()
}

// stream sends a packet in every direction now and then.
func (w *simWorld) stream() {
	if !w.traffic {
		return
	}
	for _, n := range append([]*simNode{w.server}, w.clients...) {
		for _, id := range n.upSessions() {
			w.talk(n, id)
		}
	}
	w.net.After(50*time.Millisecond+time.Duration(w.rng.Int64N(int64(300*time.Millisecond))), w.stream)
}

// talk sends one packet of a session, which must have a Child SA for it.
func (w *simWorld) talk(n *simNode, id SessionID) {
	info, ok := n.owner[id].Session(id)
	if !ok || info.State != Up || len(info.Children) == 0 {
		if ok && info.State == Up && !w.conns[n.original[id]].doomed {
			w.ledger.fail("%s: session %d has no Child SA", n.name, id)
		}
		return
	}
	c := info.Children[w.rng.IntN(len(info.Children))]
	w.packetID++
	p := simInnerPacket(c.Local[0].Start.Next(), c.Remote[len(c.Remote)-1].Start, w.packetID)
	if c.Local[0].Start == c.Local[0].End {
		p = simInnerPacket(c.Local[0].Start, c.Remote[len(c.Remote)-1].Start.Next(), w.packetID)
	}
	w.ledger.packets[w.packetID] = false
	if !n.data.send(w.net.Now(), esp.HostID(id), p) {
		w.ledger.fail("%s: session %d has nothing to send on", n.name, id)
	}
}

// meddle does something at random, again and again.
func (w *simWorld) meddle(end time.Time) {
	if w.net.Now().After(end) {
		return
	}
	c := w.clients[w.rng.IntN(len(w.clients))]
	w.act(c, w.rng.IntN(50))
	w.net.After(time.Duration(w.rng.Int64N(int64(4*time.Second))), func() { w.meddle(end) })
}

// side is a session as one of its two machines knows it.
type side struct {
	n  *simNode
	e  *Engine
	id SessionID
}

// sides are the two ends of a client's session; nil while it is not up.
func (w *simWorld) sides(c *simNode) []side {
	var out []side
	if e := c.owner[c.session]; e != nil {
		out = append(out, side{c, e, c.session})
	}
	for _, id := range w.server.upSessions() {
		if w.conns[w.server.original[id]] == c.conn {
			out = append(out, side{w.server, w.server.owner[id], id})
		}
	}
	if len(out) != 2 {
		return nil
	}
	return out
}

func (w *simWorld) rekeyIKE(s side) {
	_ = s.e.RekeyIKE(w.net.Now(), s.id)
	s.n.settle(s.e)
}

func (w *simWorld) rekeyChild(s side) {
	info, _ := s.e.Session(s.id)
	if len(info.Children) > 0 {
		_ = s.e.RekeyChild(w.net.Now(), s.id, info.Children[w.rng.IntN(len(info.Children))].ID)
		s.n.settle(s.e)
	}
}

func (w *simWorld) act(c *simNode, what int) {
	ends := w.sides(c)
	if ends == nil {
		return
	}
	one := ends[w.rng.IntN(2)]
	now := w.net.Now()
	switch {
	case what < 8:
		w.rekeyIKE(one)
	case what < 18:
		w.rekeyChild(one)
	case what < 22:
		w.rekeyIKE(ends[0])
		w.rekeyIKE(ends[1])
	case what < 28:
		w.rekeyChild(ends[0])
		w.rekeyChild(ends[1])
	case what < 32:
		w.rekeyIKE(one)
		w.rekeyChild(ends[w.rng.IntN(2)])
	case what < 34:
		_ = one.e.CheckLiveness(now, one.id)
		one.n.settle(one.e)
	case what < 38:
		w.softLimit(one)
	case what < 41:
		w.anotherChild(ends[0])
	case what < 43:
		one.n.close(one.id)
	case what < 45:
		ends[0].n.close(ends[0].id)
		ends[1].n.close(ends[1].id)
	case what < 46:
		w.server.crash()
	default:
		w.ledger.counts.Disconnected++
		c.link.SetUp(false)
		w.net.After(time.Second+time.Duration(w.rng.Int64N(int64(12*time.Second))), func() { c.link.SetUp(!c.vanished) })
	}
}

func (w *simWorld) softLimit(s side) {
	info, _ := s.e.Session(s.id)
	for _, c := range info.Children {
		s.e.DataPathEvent(w.net.Now(), esp.Event{Kind: esp.SoftLimit, Host: esp.HostID(s.id), Child: c.ID})
	}
	s.n.settle(s.e)
}

// anotherChild asks for one more Child SA, for a network of its own.
func (w *simWorld) anotherChild(s side) {
	info, _ := s.e.Session(s.id)
	if len(info.Children) > 2 {
		return
	}
	w.networks++
	net := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, w.networks, 0}), 24)
	_ = s.e.CreateChild(w.net.Now(), s.id, nil, []esp.Selector{esp.PrefixSelector(net)})
	s.n.settle(s.e)
}

// calm lets the network become perfect, ends the rekeying by age, and waits until
// all agree, nothing is left of what was replaced, and packets flow both ways.
func (w *simWorld) calm() error {
	for _, p := range append([]*simNode{w.server}, w.clients...) {
		p.policy.RekeyIKE, p.policy.RekeyChild = 0, 0
	}
	for _, c := range w.clients {
		c.link.SetUp(true)
		gentle := simnet.Conditions{Delay: w.setup.Conditions.Delay}
		c.link.SetConditions(simnet.Out, gentle)
		c.link.SetConditions(simnet.In, gentle)
	}
	limit := w.net.Now().Add(6 * time.Minute)
	for {
		err := w.net.RunFor(time.Second)
		if err != nil {
			return err
		}
		if err = w.agree(); err == nil {
			break
		}
		if w.net.Now().After(limit) {
			return fmt.Errorf("no agreement after all has calmed down: %w", err)
		}
	}
	w.traffic = false
	if err := w.net.RunFor(time.Second); err != nil {
		return err
	}
	return w.pingAll()
}

// pingAll sends one packet each way for every client and wants them delivered.
func (w *simWorld) pingAll() error {
	from := w.packetID
	for _, c := range w.clients {
		for _, s := range w.sides(c) {
			w.talk(s.n, s.id)
		}
	}
	if err := w.net.RunFor(time.Second); err != nil {
		return err
	}
	if w.packetID-from != uint64(2*len(w.clients)) {
		return fmt.Errorf("%d packets sent by %d clients and the gateway", w.packetID-from, len(w.clients))
	}
	for id := from + 1; id <= w.packetID; id++ {
		if !w.ledger.packets[id] {
			return fmt.Errorf("packet %d was not delivered though nothing disturbs", id)
		}
	}
	return nil
}

// end finishes every session in one of three ways and wants nothing left over.
func (w *simWorld) end() error {
	for _, c := range w.clients {
		c.wanted = false
		ends := w.sides(c)
		c.conn.doomed = true
		switch w.rng.IntN(3) {
		case 0:
			ends[0].n.close(ends[0].id)
		case 1:
			ends[1].n.close(ends[1].id)
		case 2:
			c.vanished = true
			c.link.SetUp(false)
		}
	}
	if err := w.net.RunFor(6 * time.Minute); err != nil {
		return err
	}
	for _, n := range append([]*simNode{w.server}, w.clients...) {
		for _, e := range n.engines {
			if err := e.leftovers(); err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
		}
		if len(n.data.hosts) != 0 || len(n.data.children) != 0 {
			return fmt.Errorf("%s: the data path keeps %d hosts and %d Child SAs", n.name, len(n.data.hosts), len(n.data.children))
		}
	}
	return nil
}

// simRuns is how many seeds a test plays: WAYFARER_SIM_RUNS, or a number that
// fits into every test run.
func simRuns(t *testing.T, usual uint64) uint64 {
	if v, err := strconv.ParseUint(os.Getenv("WAYFARER_SIM_RUNS"), 10, 64); err == nil {
		return v
	}
	if testing.Short() || raceDetector {
		return usual / 10
	}
	return usual
}

// simSeeds plays seeds, some at a time, and adds up what they exercised.
func simSeeds(t *testing.T, runs uint64, one func(t testing.TB, seed uint64) simCounts) simCounts {
	if v, err := strconv.ParseUint(os.Getenv("WAYFARER_SIM_SEED"), 10, 64); err == nil {
		return one(t, v)
	}
	var mu sync.Mutex
	var sum simCounts
	t.Run("seeds", func(t *testing.T) {
		const blocks = 8
		for b := range uint64(blocks) {
			t.Run(fmt.Sprint(b), func(t *testing.T) {
				t.Parallel()
				for seed := b; seed < runs; seed += blocks {
					c := one(t, seed)
					mu.Lock()
					sum.add(c)
					mu.Unlock()
				}
			})
		}
	})
	return sum
}

// TestSimulation plays random lives of a gateway and its clients.
func TestSimulation(t *testing.T) {
	sum := simSeeds(t, simRuns(t, 500), func(t testing.TB, seed uint64) simCounts {
		return runSim(t, drawSetup(seed)).ledger.counts
	})
	t.Logf("%+v", sum)
	sum.want(t, "Connected", sum.Connected, "Rekeyed", sum.Rekeyed, "Childs", sum.Childs, "Closed", sum.Closed,
		"Delivered", sum.Delivered, "Native", sum.Native, "Fragments", sum.Fragments, "Cookies", sum.Cookies,
		"OtherGroup", sum.OtherGroup, "Repeated", sum.Repeated, "Injected", sum.Injected,
		"ForeignInits", sum.ForeignInits, "Disconnected", sum.Disconnected, "Crashes", sum.Crashes)
}

// TestHandshakesInBadNetworks connects and disconnects, with nothing in between,
// under the worst conditions.
func TestHandshakesInBadNetworks(t *testing.T) {
	sum := simSeeds(t, simRuns(t, 1500), func(t testing.TB, seed uint64) simCounts {
		s := drawSetup(seed)
		s.Conditions.Loss = 0.2
		w := buildSim(t, s)
		w.report(w.connectAndLeave())
		return w.ledger.counts
	})
	sum.want(t, "Connected", sum.Connected, "Cookies", sum.Cookies, "OtherGroup", sum.OtherGroup,
		"Fragments", sum.Fragments, "Repeated", sum.Repeated, "Injected", sum.Injected, "ForeignInits", sum.ForeignInits)
}

func (w *simWorld) connectAndLeave() error {
	for _, c := range w.clients {
		w.net.After(time.Duration(w.rng.Int64N(int64(2*time.Second))), c.connect)
	}
	if w.hostile != nil {
		w.hostile.begin(w.net.Now().Add(20 * time.Second))
	}
	together := func() bool {
		for _, c := range w.clients {
			if w.sides(c) == nil {
				return false
			}
		}
		return true
	}
	if !w.net.RunUntil(together, w.net.Now().Add(10*time.Minute)) {
		return errors.Join(errors.New("not all connected in ten minutes"), w.net.Err())
	}
	return w.end()
}

// want checks that a test has exercised what it is for.
func (simCounts) want(t *testing.T, named ...any) {
	if os.Getenv("WAYFARER_SIM_SEED") != "" || os.Getenv("WAYFARER_SIM_RUNS") != "" {
		return
	}
	for i := 0; i < len(named); i += 2 {
		if named[i+1] == 0 {
			t.Errorf("%v: not exercised once", named[i])
		}
	}
}

// TestSeedRepeats plays seeds twice: all that happens must be the same, bit by bit.
func TestSeedRepeats(t *testing.T) {
	digests := make(map[uint64]uint64)
	for seed := range uint64(12) {
		s := drawSetup(seed)
		first, again := runSim(t, s), runSim(t, s)
		if a, b := first.net.Digest(), again.net.Digest(); a != b {
			t.Errorf("seed %d: digest %x, then %x", seed, a, b)
		}
		digests[first.net.Digest()] = seed
	}
	if len(digests) != 12 {
		t.Errorf("%d different digests of 12 seeds", len(digests))
	}
}
