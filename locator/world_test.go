package locator

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
func ip(s string) netip.Addr     { return netip.MustParseAddr(s) }

// Addresses of the tests: two uplinks and two gateways, of both families.
var (
	wifi, lte = ip("192.0.2.10"), ip("198.51.100.20")
	wifi6     = ip("2001:db8:1::10")
	gw1, gw2  = ap("203.0.113.1:4500"), ap("203.0.113.2:4500")
	gw6       = ap("[2001:db8:ff::1]:4500")
)

const (
	wifiIf = 2
	lteIf  = 3
)

func onWifi(remote netip.AddrPort) Pair {
	return Pair{Local: netip.AddrPortFrom(wifi, 4500), Remote: remote, Interface: wifiIf}
}

func onLTE(remote netip.AddrPort) Pair {
	return Pair{Local: netip.AddrPortFrom(lte, 4500), Remote: remote, Interface: lteIf}
}

func onWifi6(remote netip.AddrPort) Pair {
	return Pair{Local: netip.AddrPortFrom(wifi6, 4500), Remote: remote, Interface: wifiIf}
}

func wifiLocal() Local  { return Local{Addr: wifi, Interface: wifiIf, Name: "wlan0"} }
func lteLocal() Local   { return Local{Addr: lte, Interface: lteIf, Name: "wwan0"} }
func wifi6Local() Local { return Local{Addr: wifi6, Interface: wifiIf, Name: "wlan0"} }

func foreigns(addrs ...netip.AddrPort) []Foreign {
	var out []Foreign
	for _, a := range addrs {
		out = append(out, Foreign{Addr: a})
	}
	return out
}

// link is what the network does to packets of one pair.
type link struct {
	out, in bool // packets get through from us, to us
	rtt     time.Duration
	loss    float64 // each way
}

// world is a network with virtual time around one entry. It carries out decisions
// as a dialect would and reports what comes back.
type world struct {
	t       failer
	e       *Entry
	now     time.Time
	links   map[Pair]link
	flights []flight
	// oneAnswer makes the peer answer a request once, as IKEv2 does: of a shared
	// probe only the fastest answer is seen, and it proves nothing if the request
	// went to several addresses.
	oneAnswer bool
	// lose decides whether a packet is lost; nil: by nothing.
	random *rand.Rand

	traffic     bool // the data path sends and expects answers all the time
	oneWay      bool // it sends, and the peer never answers
	answeredAt  time.Time
	nextTraffic time.Time
	nextReport  time.Time

	packets   []packet
	switches  []moved
	lost      []Lost
	unproven  []Unproven
	announced []time.Time
	ticks     int
	check     func(Decision) // called for each decision before it is carried out
}

// failer is what testing.TB and rapid.T have in common.
type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

type flight struct {
	at    time.Time
	pair  Pair
	rtt   time.Duration
	proof bool
	batch int
}

type packet struct {
	at    time.Time
	pair  Pair
	kind  string
	fresh bool
}

type moved struct {
	at time.Time
	Switch
}

func newWorld(t failer, p Policy, current Pair, options ...Option) *world {
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, now: start, links: map[Pair]link{}, answeredAt: start, nextTraffic: start, nextReport: start}
	w.e = NewEntry(p, start, current, options...)
	return w
}

const trafficStep = 10 * time.Millisecond

// up makes pairs work with a round trip; down breaks them.
func (w *world) up(rtt time.Duration, pairs ...Pair) {
	for _, p := range pairs {
		w.links[p] = link{out: true, in: true, rtt: rtt}
	}
}

func (w *world) down(pairs ...Pair) {
	for _, p := range pairs {
		delete(w.links, p)
	}
}

func (w *world) passed() time.Duration { return w.now.Sub(start) }

func (w *world) dropped(l link) bool {
	return w.random != nil && l.loss > 0 && w.random.Float64() < l.loss
}

// run lets the world go on for d.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	w.obey()
	for {
		next, what := end, "end"
		consider := func(t time.Time, name string) {
			if t.Before(next) || what == "end" && t.Equal(next) {
				next, what = t, name
			}
		}
		if w.traffic || w.oneWay {
			consider(w.nextTraffic, "traffic")
		}
		for _, f := range w.flights {
			consider(f.at, "answer")
		}
		if at, ok := w.e.Deadline(); ok {
			consider(at, "tick")
		}
		if next.After(w.now) {
			w.now = next
		}
		switch what {
		case "end":
			return
		case "traffic":
			w.carry()
		case "answer":
			w.land()
		case "tick":
			w.ticks++
			w.e.Tick(w.now)
			if at, ok := w.e.Deadline(); ok && !at.After(w.now) {
				w.t.Fatalf("deadline %v is not after %v", at, w.now)
			}
		}
		w.obey()
	}
}

// carry is one step of traffic, as a data path sees it.
func (w *world) carry() {
	w.nextTraffic = w.now.Add(trafficStep)
	p, ok := w.e.Current()
	l := w.links[p]
	if ok && !w.oneWay && l.out && l.in && !w.dropped(l) && !w.dropped(l) {
		w.answeredAt = w.now
		w.e.Heard(w.now, p)
		return
	}
	if ok && w.now.Sub(w.answeredAt) >= w.e.policy.SuspectAfter && !w.now.Before(w.nextReport) {
		w.nextReport = w.now.Add(100 * time.Millisecond)
		w.e.Unanswered(w.now, w.answeredAt)
	}
}

// land delivers the answers that are due.
func (w *world) land() {
	for i := 0; i < len(w.flights); i++ {
		f := w.flights[i]
		if f.at.After(w.now) {
			continue
		}
		w.flights = slices.Delete(w.flights, i, i+1)
		i = -1
		if w.oneAnswer {
			w.flights = slices.DeleteFunc(w.flights, func(g flight) bool { return g.batch == f.batch })
		}
		if f.proof {
			w.e.Answered(w.now, f.pair, f.rtt)
		} else {
			w.e.Reached(w.now, f.pair, f.rtt)
		}
		w.obey()
	}
}

var batches int

// obey carries out decisions.
func (w *world) obey() {
	for {
		ds := w.e.Decisions()
		if len(ds) == 0 {
			return
		}
		for _, d := range ds {
			if w.check != nil {
				w.check(d)
			}
			switch d := d.(type) {
			case Probe:
				w.probe(d)
			case Keepalive:
				w.keepalive(d)
			case Switch:
				w.switches = append(w.switches, moved{w.now, d})
			case Lost:
				w.lost = append(w.lost, d)
			case Announce:
				w.announced = append(w.announced, w.now)
			case Unproven:
				w.unproven = append(w.unproven, d)
			}
		}
	}
}

func (w *world) probe(d Probe) {
	batches++
	proof := !w.oneAnswer || d.Fresh
	if w.oneAnswer && !slices.ContainsFunc(d.Pairs, func(p Pair) bool { return p.Remote != d.Pairs[0].Remote }) {
		proof = true
	}
	for _, p := range d.Pairs {
		w.packets = append(w.packets, packet{w.now, p, "probe", d.Fresh})
		w.fly(p, proof, batches)
	}
}

func (w *world) keepalive(d Keepalive) {
	w.packets = append(w.packets, packet{w.now, d.Pair, "keepalive", false})
	if d.Proof {
		batches++
		w.fly(d.Pair, true, batches)
	}
}

func (w *world) fly(p Pair, proof bool, batch int) {
	if l := w.links[p]; l.out && l.in && !w.dropped(l) && !w.dropped(l) {
		w.flights = append(w.flights, flight{w.now.Add(l.rtt), p, l.rtt, proof, batch})
	}
}

// Questions.

func (w *world) current() Pair {
	p, _ := w.e.Current()
	return p
}

func (w *world) info(p Pair) PairInfo {
	w.t.Helper()
	for _, i := range w.e.Pairs() {
		if i.Pair == p {
			return i
		}
	}
	w.t.Fatalf("no pair %v", p)
	return PairInfo{}
}

func (w *world) wantCurrent(want Pair) {
	w.t.Helper()
	if got, ok := w.e.Current(); !ok || got != want {
		w.t.Fatalf("after %v: current pair is %v (%v), want %v", w.passed(), got, ok, want)
	}
}

func (w *world) wantNone() {
	w.t.Helper()
	if got, ok := w.e.Current(); ok {
		w.t.Fatalf("after %v: current pair is %v, want none", w.passed(), got)
	}
}

func (w *world) wantSwitches(want ...Switch) {
	w.t.Helper()
	var got []Switch
	for _, s := range w.switches {
		got = append(got, s.Switch)
	}
	if !slices.Equal(got, want) {
		w.t.Fatalf("after %v: switches\n%v\nwant\n%v", w.passed(), got, want)
	}
}

// since counts packets sent since a time on a pair; the zero pair means all.
func (w *world) since(at time.Time, p Pair) int {
	n := 0
	for _, k := range w.packets {
		if !k.at.Before(at) && (p == Pair{} || k.pair == p) {
			n++
		}
	}
	return n
}

// twoUplinks is the usual case: a laptop on Wi-Fi and LTE, a gateway with two
// addresses, everything works.
func twoUplinks(t failer, p Policy) *world {
	w := newWorld(t, p, onWifi(gw1))
	w.up(10*time.Millisecond, onWifi(gw1), onWifi(gw2))
	w.up(40*time.Millisecond, onLTE(gw1), onLTE(gw2))
	w.e.SetForeign(w.now, foreigns(gw1, gw2))
	w.e.SetLocal(w.now, []Local{wifiLocal(), lteLocal()})
	w.run(2 * time.Second)
	return w
}
