package simnet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

var (
	addrA = netip.MustParseAddr("192.0.2.1")
	addrB = netip.MustParseAddr("198.51.100.1")
	addrC = netip.MustParseAddr("203.0.113.1")
)

// arrival is one datagram that a probe received.
type arrival struct {
	at   time.Time
	pair locator.Pair
	data []byte
}

// probe is a node that keeps what arrives and can have timers.
type probe struct {
	host   *Host
	got    []arrival
	timers []time.Time // ascending
	ticks  []time.Time
	mtus   []int
	answer bool
}

func (p *probe) Receive(now time.Time, pair locator.Pair, data []byte) {
	p.got = append(p.got, arrival{now, pair, data})
	if p.answer {
		_ = p.host.Send(pair, data)
	}
}

func (p *probe) Deadline() (time.Time, bool) {
	if len(p.timers) == 0 {
		return time.Time{}, false
	}
	return p.timers[0], true
}

func (p *probe) Tick(now time.Time) {
	for len(p.timers) > 0 && !p.timers[0].After(now) {
		p.ticks = append(p.ticks, now)
		p.timers = p.timers[1:]
	}
}

func (p *probe) PathMTU(_ time.Time, _ locator.Pair, mtu int) { p.mtus = append(p.mtus, mtu) }

// attach puts a probe into the network, with one link.
func attach(n *Network, name string, nat *NAT, addrs ...netip.Addr) (*probe, *Link) {
	p := new(probe)
	p.host = n.Attach(name, p)
	return p, p.host.AddLink(LinkConfig{Name: "eth0", NAT: nat, Addrs: addrs})
}

// two is a network with a probe at addrA and one at addrB.
func two(t testing.TB, seed uint64) (n *Network, a, b *probe) {
	n = New(Config{Seed: seed})
	n.Report(t)
	a, _ = attach(n, "a", nil, addrA)
	b, _ = attach(n, "b", nil, addrB)
	return n, a, b
}

func pairOf(from, to netip.Addr) locator.Pair {
	return locator.Pair{Local: netip.AddrPortFrom(from, 4500), Remote: netip.AddrPortFrom(to, 4500)}
}

var aToB = pairOf(addrA, addrB)

func run(t testing.TB, n *Network, d time.Duration) {
	t.Helper()
	if err := n.RunFor(d); err != nil {
		t.Fatal(err)
	}
}

func send(t testing.TB, from *probe, pair locator.Pair, data string) {
	t.Helper()
	if err := from.host.Send(pair, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

func (p *probe) texts() string {
	var s []string
	for _, a := range p.got {
		s = append(s, string(a.data))
	}
	return strings.Join(s, " ")
}

func TestDelivery(t *testing.T) {
	n, a, b := two(t, 1)
	n.SetTransit(Conditions{Delay: 20 * time.Millisecond})
	a.host.Links()[0].SetConditions(Out, Conditions{Delay: 5 * time.Millisecond})
	b.host.Links()[0].SetConditions(In, Conditions{Delay: time.Millisecond})
	send(t, a, aToB, "hello")
	run(t, n, time.Second)
	if len(b.got) != 1 || string(b.got[0].data) != "hello" {
		t.Fatalf("b got %v", b.got)
	}
	got := b.got[0]
	if took := got.at.Sub(DefaultStart); took != 26*time.Millisecond {
		t.Errorf("took %s, want 26ms", took)
	}
	if want := (locator.Pair{Local: aToB.Remote, Remote: aToB.Local, Interface: 1}); got.pair != want {
		t.Errorf("pair %v, want %v", got.pair, want)
	}
	if now := n.Now().Sub(DefaultStart); now != time.Second {
		t.Errorf("the clock stands at %s", now)
	}
}

// TestReentrance checks that nothing is received while it is being sent.
func TestReentrance(t *testing.T) {
	n, a, b := two(t, 1)
	b.answer = true
	send(t, a, aToB, "hello")
	if len(b.got) != 0 {
		t.Fatal("received within Send")
	}
	run(t, n, 0)
	if len(a.got) != 1 {
		t.Errorf("a got %d answers at the same instant, want 1", len(a.got))
	}
}

func TestTimers(t *testing.T) {
	n, a, b := two(t, 1)
	at := func(ms int) time.Time { return DefaultStart.Add(time.Duration(ms) * time.Millisecond) }
	a.timers = []time.Time{at(10), at(30), at(30)}
	b.timers = []time.Time{at(-5), at(20)}
	var order []string
	n.After(15*time.Millisecond, func() { order = append(order, "event") })
	n.OnStep(func(n *Network) error {
		order = append(order, fmt.Sprint(n.Now().Sub(DefaultStart).Milliseconds()))
		return nil
	})
	run(t, n, 25*time.Millisecond)
	if got, want := strings.Join(order, " "), "0 10 event 15 20"; got != want {
		t.Errorf("order %q, want %q", got, want)
	}
	run(t, n, time.Hour)
	if len(a.ticks) != 3 || !a.ticks[2].Equal(at(30)) {
		t.Errorf("ticks of a: %v", a.ticks)
	}
	if n.Step() {
		t.Error("something happens though nothing is left")
	}
}

func TestRunUntil(t *testing.T) {
	n, a, b := two(t, 1)
	n.SetTransit(Conditions{Delay: time.Minute})
	send(t, a, aToB, "hello")
	limit := DefaultStart.Add(time.Hour)
	if !n.RunUntil(func() bool { return len(b.got) > 0 }, limit) {
		t.Error("nothing arrived")
	}
	if now := n.Now().Sub(DefaultStart); now != time.Minute {
		t.Errorf("stopped at %s", now)
	}
	if n.RunUntil(func() bool { return len(b.got) > 1 }, limit) {
		t.Error("a second packet arrived")
	}
	if !n.Now().Equal(limit) {
		t.Errorf("stopped at %s, want the limit", n.Now())
	}
}

// TestNoAliasing lets sender, receiver and receivers of duplicates write to
// their buffers.
func TestNoAliasing(t *testing.T) {
	n, a, b := two(t, 1)
	n.SetTransit(Conditions{Duplicate: 1})
	data := []byte("hello")
	var seen [][]byte
	n.SetFilter(func(p Packet) bool { seen = append(seen, p.Data); return false })
	if err := a.host.Send(aToB, data); err != nil {
		t.Fatal(err)
	}
	copy(data, "XXXXX")
	if !n.RunUntil(func() bool { return len(b.got) == 1 }, DefaultStart) {
		t.Fatal("nothing arrived")
	}
	if string(b.got[0].data) != "hello" {
		t.Errorf("the sender changed %q in flight", b.got[0].data)
	}
	copy(b.got[0].data, "YYYYY")
	run(t, n, 0)
	if len(b.got) != 2 || string(b.got[1].data) != "hello" {
		t.Errorf("the duplicate is %q", b.got[1].data)
	}
	if &seen[0][0] == &data[0] {
		t.Error("the packet is the sender's buffer")
	}
}

// roam is a run with everything in it: bad links, NATs that rebind, links that
// come and go.
func roam(seed uint64) *Network {
	n := New(Config{Seed: seed, Trace: 1000})
	bad := Conditions{Loss: 0.2, Delay: 30 * time.Millisecond, Jitter: 40 * time.Millisecond,
		Duplicate: 0.1, Reorder: 0.1, Corrupt: 0.05, Bandwidth: 1 << 20, Queue: 5000, MTU: 1280}
	n.SetTransit(bad)
	home := n.AddNAT(NATConfig{Name: "home", Public: addrC, Mapping: AddressAndPortDependent,
		Filtering: AddressDependent, Lifetime: 20 * time.Second})
	inside := netip.MustParseAddr("10.0.0.2")
	a, wifi := attach(n, "a", home, inside)
	b, _ := attach(n, "b", nil, addrB)
	attach(n, "c", nil, netip.MustParseAddr("198.51.100.2"))
	b.answer = true
	r := n.Rand()
	for range 400 {
		at := time.Duration(r.Int64N(int64(5 * time.Minute)))
		size := r.IntN(3000)
		host := r.IntN(2) + 1
		what := r.IntN(40)
		n.After(at, func() {
			switch what {
			case 0:
				home.Rebind()
			case 1:
				wifi.SetUp(false)
			case 2:
				wifi.SetUp(true)
			default:
				to := addrB
				if host == 2 {
					to = to.Next()
				}
				_ = a.host.Send(pairOf(netip.Addr{}, to), bytes.Repeat([]byte{byte(what)}, size))
			}
		})
	}
	if err := n.RunFor(10 * time.Minute); err != nil {
		panic(err)
	}
	return n
}

func TestDeterminism(t *testing.T) {
	digests := make(map[uint64]uint64)
	for seed := range uint64(20) {
		one, other := roam(seed), roam(seed)
		if one.Digest() != other.Digest() || one.Trace() != other.Trace() || one.Stats() != other.Stats() {
			t.Errorf("two runs of seed %d differ", seed)
		}
		if twin, ok := digests[one.Digest()]; ok {
			t.Errorf("seeds %d and %d give the same run", twin, seed)
		}
		digests[one.Digest()] = seed
	}
}

// TestConservation checks that every packet is accounted for.
func TestConservation(t *testing.T) {
	for seed := range uint64(20) {
		s := roam(seed).Stats()
		if s.Sent+s.Duplicated != s.Delivered+s.TotalDropped() {
			t.Errorf("seed %d: %+v do not add up", seed, s)
		}
		if s.Delivered == 0 || s.Dropped[Lost] == 0 || s.Corrupted == 0 {
			t.Errorf("seed %d: %+v: the run tests nothing", seed, s)
		}
	}
}

func TestRandomStreams(t *testing.T) {
	read := func(seed uint64, label string) string {
		b := make([]byte, 32)
		if _, err := io.ReadFull(New(Config{Seed: seed}).Reader(label), b); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if again := read(1, "a"); again != read(1, "a") {
		t.Error("one seed and label give two streams")
	}
	if read(1, "a") == read(1, "b") || read(1, "a") == read(2, "a") {
		t.Error("two streams are the same")
	}
	// What a test draws for its schedule leaves the network's own draws alone.
	lost := func(draw int) Stats {
		n, a, _ := two(t, 7)
		n.SetTransit(Conditions{Loss: 0.5})
		for range 100 {
			for range draw {
				n.Rand().Uint64()
			}
			send(t, a, aToB, "x")
		}
		return n.Stats()
	}
	if lost(0) != lost(3) {
		t.Error("Rand changes the network")
	}
}

// TestFailure checks that a broken promise ends the run and can be found again.
func TestFailure(t *testing.T) {
	broken := errors.New("two owners of one lease")
	n := New(Config{Seed: 0xfeed, Trace: 5})
	a, _ := attach(n, "a", nil, addrA)
	b, _ := attach(n, "b", nil, addrB)
	n.SetTransit(Conditions{Delay: time.Second})
	n.OnStep(func(*Network) error {
		if len(b.got) == 3 {
			return broken
		}
		return nil
	})
	for i := range 5 {
		n.After(time.Duration(i)*time.Minute, func() { _ = a.host.Send(aToB, []byte{byte(i)}) })
	}
	err := n.RunFor(time.Hour)
	if !errors.Is(err, broken) || n.Err() != err {
		t.Fatalf("Run returned %v", err)
	}
	var failure *Failure
	if !errors.As(err, &failure) || failure.Seed != 0xfeed || failure.After != 2*time.Minute+time.Second {
		t.Errorf("failure %+v", failure)
	}
	text := err.Error()
	for _, want := range []string{"seed 0xfeed", "two owners", "receive", "192.0.2.1:4500 > 198.51.100.1:4500", "b/eth0"} {
		if !strings.Contains(text, want) {
			t.Errorf("error does not tell %q:\n%s", want, text)
		}
	}
	if lines := strings.Count(failure.Trace, "\n"); lines != 5 {
		t.Errorf("the trace has %d lines, want the last 5", lines)
	}
	if n.Step() || n.RunFor(time.Hour) != err || len(b.got) != 3 {
		t.Error("the run went on")
	}
}

func TestStandingClock(t *testing.T) {
	n := New(Config{})
	n.Attach("restless", restless{})
	if err := n.RunFor(time.Second); err == nil {
		t.Error("a node that is always due was not noticed")
	}
}

// restless is a node whose deadline never moves.
type restless struct{}

func (restless) Receive(time.Time, locator.Pair, []byte) {}
func (restless) Deadline() (time.Time, bool)             { return DefaultStart, true }
func (restless) Tick(time.Time)                          {}

// recordingTB is a test that has failed.
type recordingTB struct {
	testing.TB
	cleanup func()
	failed  bool
	text    string
}

func (r *recordingTB) Helper()          {}
func (r *recordingTB) Failed() bool     { return r.failed }
func (r *recordingTB) Cleanup(f func()) { r.cleanup = f }
func (r *recordingTB) Logf(format string, args ...any) {
	r.text += fmt.Sprintf(format, args...)
}

func TestReport(t *testing.T) {
	for _, failed := range []bool{false, true} {
		tb := &recordingTB{failed: failed}
		n, a, _ := two(tb, 0xabc)
		send(t, a, aToB, "hello")
		n.Note("about to %s", "rekey")
		tb.cleanup()
		if told := strings.Contains(tb.text, "seed 0xabc") && strings.Contains(tb.text, "about to rekey"); told != failed {
			t.Errorf("failed %v: reported %q", failed, tb.text)
		}
	}
}

func BenchmarkExchange(b *testing.B) {
	n, alice, bob := two(b, 1)
	bob.answer = true
	n.SetTransit(Conditions{Loss: 0.2, Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond})
	data := make([]byte, 400)
	b.ReportAllocs()
	for b.Loop() {
		_ = alice.host.Send(aToB, data)
		_ = n.RunFor(100 * time.Millisecond)
		alice.got, bob.got = alice.got[:0], bob.got[:0]
	}
}
