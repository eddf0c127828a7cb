// Package simnet is a simulated packet network with a virtual clock, for engines
// that do no I/O. It loses, delays, duplicates, reorders and corrupts datagrams,
// translates addresses, takes links away, and lets hours pass in milliseconds.
// Everything that happens follows from a seed: a run that failed can be repeated
// bit by bit.
//
// A Node is an engine with its adapter. It is attached as a Host, gets Links with
// addresses, perhaps behind a NAT, and sends through its Host:
//
//	n := simnet.New(simnet.Config{Seed: seed})
//	home := n.AddNAT(simnet.NATConfig{Name: "home", Public: publicAddr})
//	laptop := n.Attach("laptop", laptopNode)
//	wifi := laptop.AddLink(simnet.LinkConfig{Name: "wifi", NAT: home, Addrs: ...})
//	wifi.SetConditions(simnet.Out, simnet.Conditions{Loss: 0.2, Delay: 30 * time.Millisecond})
//	n.OnStep(invariants)
//	err := n.RunFor(time.Hour)
//
// Nothing here is safe for use by several goroutines. A mistake in the topology
// (an address given twice) panics: it is one of the test that draws it.
package simnet

import (
	"container/heap"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Node is what is attached to the network: an engine that is told the time.
// It sends through its Host, from any of these methods or from outside.
type Node interface {
	// Receive takes a datagram. The pair is as this node sees it, data is its own.
	Receive(now time.Time, pair locator.Pair, data []byte)
	// Deadline says when Tick has something to do; false: never.
	Deadline() (time.Time, bool)
	// Tick does what is due.
	Tick(now time.Time)
}

// PathMTUObserver is a Node that is told when a datagram was dropped for being
// larger than a link carries, as ICMP does.
type PathMTUObserver interface {
	PathMTU(now time.Time, pair locator.Pair, mtu int)
}

// Config of a network. The zero value is usable.
type Config struct {
	Seed  uint64
	Start time.Time // of the clock; zero means DefaultStart
	Trace int       // how many events to remember; zero means 200
}

// DefaultStart is where the clock begins.
var DefaultStart = time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)

// sameInstant is how many steps may pass without the clock moving before a node
// is taken to ask for Tick for ever.
const sameInstant = 100_000

// Network is the whole simulated world.
type Network struct {
	seed  uint64
	start time.Time
	now   time.Time
	rng   *rand.Rand // what the network itself draws
	user  *rand.Rand // what Rand hands out

	queue     eventQueue
	sequence  uint64 // of events, decides between simultaneous ones
	steps     uint64
	standing  int // steps since the clock moved
	hosts     []*Host
	public    *realm
	transit   Conditions
	overrides map[path]Conditions
	paths     map[path]*direction
	blocked   map[path]bool
	filter    func(Packet) bool
	hooks     []func(*Network) error
	packets   uint64
	trace     trace
	stats     Stats
	failure   error
}

// New makes an empty network.
func New(cfg Config) *Network {
	if cfg.Start.IsZero() {
		cfg.Start = DefaultStart
	}
	if cfg.Trace <= 0 {
		cfg.Trace = 200
	}
	return &Network{
		seed: cfg.Seed, start: cfg.Start, now: cfg.Start,
		rng:       rand.New(rand.NewPCG(cfg.Seed, 1)),
		user:      rand.New(rand.NewPCG(cfg.Seed, 2)),
		public:    newRealm(nil),
		overrides: make(map[path]Conditions),
		paths:     make(map[path]*direction),
		blocked:   make(map[path]bool),
		trace:     newTrace(cfg.Trace),
	}
}

// Now returns the virtual time.
func (n *Network) Now() time.Time { return n.now }

// Seed returns what everything follows from.
func (n *Network) Seed() uint64 { return n.seed }

// Rand is for the schedule of a test. Drawing from it does not change what the
// network draws.
func (n *Network) Rand() *rand.Rand { return n.user }

// Reader returns a stream of random octets that follows from the seed and the
// label: the randomness of an engine.
func (n *Network) Reader(label string) io.Reader {
	h := fnv.New64a()
	io.WriteString(h, label)
	var key [32]byte
	stream := rand.NewPCG(n.seed, h.Sum64())
	for i := range key {
		key[i] = byte(stream.Uint64())
	}
	return rand.NewChaCha8(key)
}

// Attach makes a node known under a name, without links.
func (n *Network) Attach(name string, node Node) *Host {
	h := &Host{network: n, name: name, node: node}
	n.hosts = append(n.hosts, h)
	return h
}

// At calls f at a time, or now when that has passed.
func (n *Network) At(t time.Time, f func()) {
	if t.Before(n.now) {
		t = n.now
	}
	n.sequence++
	heap.Push(&n.queue, event{t, n.sequence, f})
}

// After calls f when d has passed.
func (n *Network) After(d time.Duration, f func()) { n.At(n.now.Add(d), f) }

// OnStep calls check after every step. An error ends the run: it is returned by
// Run with the seed and the last events.
func (n *Network) OnStep(check func(*Network) error) { n.hooks = append(n.hooks, check) }

// SetTransit sets the conditions between all links of the public network, where
// no path has its own.
func (n *Network) SetTransit(c Conditions) { n.transit = c }

// SetPath sets the conditions from one public address to another, one way.
func (n *Network) SetPath(from, to netip.Addr, c Conditions) { n.overrides[path{from, to}] = c }

// ClearPath lets a path have the conditions of SetTransit again.
func (n *Network) ClearPath(from, to netip.Addr) { delete(n.overrides, path{from, to}) }

// Block makes a black hole of the way between two addresses, in one direction.
// The zero Addr stands for every address. Addresses are compared as the sender
// wrote them, and again behind its NAT.
func (n *Network) Block(from, to netip.Addr) { n.blocked[path{from, to}] = true }

// Unblock undoes Block.
func (n *Network) Unblock(from, to netip.Addr) { delete(n.blocked, path{from, to}) }

// SetFilter lets a test drop chosen packets: those for which drop returns true.
// It sees them as the sender wrote them, and must not change them.
func (n *Network) SetFilter(drop func(Packet) bool) { n.filter = drop }

// next says when something happens next, and to which node if it is a Tick.
func (n *Network) next() (at time.Time, node *Host, ok bool) {
	if len(n.queue) > 0 {
		at, ok = n.queue[0].at, true
	}
	for _, h := range n.hosts {
		deadline, set := h.node.Deadline()
		if !set {
			continue
		}
		if deadline.Before(n.now) {
			deadline = n.now
		}
		if !ok || deadline.Before(at) {
			at, node, ok = deadline, h, true
		}
	}
	return at, node, ok
}

// Step moves the clock to the next thing that happens and lets it happen. It
// returns false when nothing is left to happen, or the run has failed.
func (n *Network) Step() bool {
	at, node, ok := n.next()
	if !ok || n.failure != nil {
		return false
	}
	return n.step(at, node)
}

// step is Step when it is known what comes next.
func (n *Network) step(at time.Time, node *Host) bool {
	n.standing++
	if at.After(n.now) {
		n.now, n.standing = at, 0
	}
	n.steps++
	if node != nil {
		n.trace.add(record{step: n.steps, at: n.now, what: "tick", text: node.name})
		node.node.Tick(n.now)
	} else {
		heap.Pop(&n.queue).(event).run()
	}
	n.check()
	return n.failure == nil
}

// check asks the hooks whether all is well.
func (n *Network) check() {
	if n.standing > sameInstant {
		n.fail(fmt.Errorf("the clock stands still: %d steps at one instant", n.standing))
		return
	}
	for _, hook := range n.hooks {
		if err := hook(n); err != nil {
			n.fail(err)
			return
		}
	}
}

func (n *Network) fail(err error) {
	if n.failure == nil {
		n.failure = &Failure{Seed: n.seed, Step: n.steps, After: n.now.Sub(n.start), Err: err, Trace: n.Trace()}
	}
}

// Run lets everything happen until a time, where the clock then stands. It
// returns the error of a hook.
func (n *Network) Run(until time.Time) error {
	n.RunUntil(func() bool { return false }, until)
	return n.failure
}

// RunFor is Run for a duration.
func (n *Network) RunFor(d time.Duration) error { return n.Run(n.now.Add(d)) }

// RunUntil lets things happen until done returns true, which it reports, but
// not beyond limit.
func (n *Network) RunUntil(done func() bool, limit time.Time) bool {
	for n.failure == nil {
		if done() {
			return true
		}
		at, node, ok := n.next()
		if !ok || at.After(limit) {
			break
		}
		n.step(at, node)
	}
	if n.failure == nil && limit.After(n.now) {
		n.now, n.standing = limit, 0
	}
	return n.failure == nil && done()
}

// Err returns why the run failed, or nil.
func (n *Network) Err() error { return n.failure }

// Stats returns what happened to the packets so far.
func (n *Network) Stats() Stats { return n.stats }
