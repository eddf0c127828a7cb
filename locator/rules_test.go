package locator

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestScopeOf(t *testing.T) {
	for addr, want := range map[string]Scope{
		"0.0.0.0": ScopeNone, "::": ScopeNone, "127.0.0.1": ScopeLoopback, "::1": ScopeLoopback, "::ffff:127.0.0.1": ScopeLoopback,
		"169.254.1.1": ScopeLink, "fe80::1": ScopeLink, "fe80::1%eth0": ScopeLink, "10.1.2.3": ScopePrivate, "172.31.0.1": ScopePrivate,
		"192.168.0.1": ScopePrivate, "100.64.0.1": ScopePrivate, "fd00::1": ScopePrivate, "100.128.0.1": ScopeGlobal,
		"203.0.113.1": ScopeGlobal, "2001:db8::1": ScopeGlobal,
	} {
		if got := ScopeOf(ip(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	if got := ScopeOf(netip.Addr{}); got != ScopeNone {
		t.Errorf("no address: %v", got)
	}
}

func TestPairable(t *testing.T) {
	for _, c := range []struct {
		local, name, foreign string
		want                 bool
	}{
		{"192.0.2.1", "eth0", "203.0.113.1", true},
		{"192.0.2.1", "eth0", "2001:db8::1", false},
		{"2001:db8::1", "eth0", "203.0.113.1", false},
		{"10.0.0.1", "eth0", "203.0.113.1", true}, // through a NAT
		{"203.0.113.1", "eth0", "10.0.0.1", true}, // a site of our own
		{"127.0.0.1", "lo", "203.0.113.1", false},
		{"127.0.0.1", "lo", "127.0.0.2", true},
		{"203.0.113.1", "eth0", "127.0.0.1", false},
		{"fe80::1", "eth0", "fe80::2", true},
		{"fe80::1", "eth0", "fe80::2%eth0", true},
		{"fe80::1", "eth0", "fe80::2%eth1", false},
		{"fe80::1", "eth0", "2001:db8::1", false},
		{"2001:db8::1", "eth0", "fe80::2", false},
		{"::", "", "2001:db8::1", true},
		{"0.0.0.0", "", "203.0.113.1", true},
	} {
		l := &local{addr: netip.AddrPortFrom(ip(c.local), 4500), name: c.name, scope: ScopeOf(ip(c.local))}
		f := &foreign{addr: netip.AddrPortFrom(ip(c.foreign), 4500), scope: ScopeOf(ip(c.foreign))}
		if got := pairable(l, f); got != c.want {
			t.Errorf("%s with %s: %v, want %v", c.local, c.foreign, got, c.want)
		}
	}
}

func TestSelection(t *testing.T) {
	wired := Local{Addr: ip("192.0.2.11"), Interface: 5, Name: "eth0"}
	metered := func(l Local) Local { l.Metered = true; return l }
	prefer := func(l Local, n int) Local { l.Preference = n; return l }
	onWired := Pair{Local: netip.AddrPortFrom(wired.Addr, 4500), Remote: gw1, Interface: 5}
	for _, c := range []struct {
		name   string
		policy Policy
		locals []Local
		nat    map[Pair]bool // what NAT detection says
		want   Pair
	}{
		{"equal pairs stay", Policy{}, []Local{wifiLocal(), wired}, nil, onWifi(gw1)},
		{"interface", Policy{Interfaces: []string{"eth*"}}, []Local{wifiLocal(), wired}, nil, onWired},
		{"interface order", Policy{Interfaces: []string{"wlan0", "eth*"}}, []Local{wifiLocal(), wired}, nil, onWifi(gw1)},
		{"metered", Policy{}, []Local{metered(wifiLocal()), wired}, nil, onWired},
		{"metered does not count", Policy{Order: []Criterion{ByPreference}}, []Local{metered(wifiLocal()), wired}, nil, onWifi(gw1)},
		{"interface before metered", Policy{Interfaces: []string{"wlan0"}}, []Local{metered(wifiLocal()), wired}, nil, onWifi(gw1)},
		{"metered before interface", Policy{Order: []Criterion{ByMetered, ByInterface}, Interfaces: []string{"wlan0"}},
			[]Local{metered(wifiLocal()), wired}, nil, onWired},
		{"preference", Policy{}, []Local{prefer(wifiLocal(), -600), prefer(wired, -100)}, nil, onWired},
		{"IPv6 preferred", Policy{Family: PreferIPv6}, []Local{wifiLocal(), wifi6Local()}, nil, onWifi6(gw6)},
		{"IPv4 preferred", Policy{Family: PreferIPv4}, []Local{wifiLocal(), wifi6Local()}, nil, onWifi(gw1)},
		{"free of NATs", Policy{}, []Local{wifiLocal(), wired}, map[Pair]bool{onWifi(gw1): true, onWired: false}, onWired},
		{"NAT unknown", Policy{}, []Local{wifiLocal(), wired}, map[Pair]bool{onWifi(gw1): true}, onWifi(gw1)},
		{"NAT unknown on the current pair", Policy{}, []Local{wifiLocal(), wired}, map[Pair]bool{onWired: false}, onWifi(gw1)},
		{"NAT does not count", Policy{Order: []Criterion{ByInterface}}, []Local{wifiLocal(), wired},
			map[Pair]bool{onWifi(gw1): true, onWired: false}, onWifi(gw1)},
		{"the peer's order", Policy{Order: []Criterion{ByForeign}}, []Local{wifiLocal()}, nil, onWifi(gw2)},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.policy, onWifi(gw1))
			w.up(10*time.Millisecond, onWifi(gw1), onWifi(gw2), onWired, onWifi6(gw6))
			w.e.SetLocal(w.now, c.locals)
			list := foreigns(gw1, gw6)
			if c.want == onWifi(gw2) {
				list = foreigns(gw2, gw1)
			}
			w.e.SetForeign(w.now, list)
			for p, present := range c.nat {
				w.e.SetNAT(w.now, p, present)
			}
			w.run(5 * time.Second)
			w.wantCurrent(c.want)
			if len(w.switches) > 1 {
				t.Errorf("switches: %v", w.switches)
			}
		})
	}
}

func TestStandbyCoversLinksFirst(t *testing.T) {
	w := newWorld(t, Policy{MaxStandby: 2}, onWifi(gw1))
	w.e.SetForeign(w.now, foreigns(gw1, gw2, ap("203.0.113.3:4500")))
	w.e.SetLocal(w.now, []Local{wifiLocal(), lteLocal()})
	var hot []Pair
	for _, i := range w.e.Pairs() {
		if i.Standby {
			hot = append(hot, i.Pair)
		}
	}
	if len(hot) != 2 || hot[0] != onWifi(gw2) || hot[1] != onLTE(gw1) {
		t.Errorf("hot standby: %v", hot)
	}
}

func TestRoundTripEstimate(t *testing.T) {
	// RFC 6298 §2: first sample R gives SRTT = R and RTTVAR = R/2; then with
	// alpha = 1/8 and beta = 1/4, RTTVAR is updated with the old SRTT.
	var p path
	p.measure(1, 80*time.Millisecond)
	if p.srtt != 80*time.Millisecond || p.rttvar != 40*time.Millisecond {
		t.Fatalf("%v %v", p.srtt, p.rttvar)
	}
	p.measure(2, 160*time.Millisecond)
	if p.rttvar != 50*time.Millisecond || p.srtt != 90*time.Millisecond {
		t.Fatalf("%v %v", p.srtt, p.rttvar)
	}
	if got := p.timeout(); got != 290*time.Millisecond {
		t.Fatalf("timeout %v", got)
	}
	p.measure(3, 0) // ambiguous
	p.measure(3, -time.Second)
	if p.samples != 2 || p.measuredAt != 2 {
		t.Fatal("a sample without information was taken")
	}
}

func TestBucket(t *testing.T) {
	q := quota{burst: 3, interval: time.Second}
	var b bucket
	now := instant(1)
	for range 3 {
		if !b.take(now, q) {
			t.Fatal("burst refused")
		}
	}
	if b.take(now, q) || b.ready(now, q) != now.add(time.Second) {
		t.Fatalf("ready at %v", b.ready(now, q))
	}
	b.refund(1, q)
	if !b.take(now, q) || b.take(now, q) {
		t.Fatal("one token was refunded")
	}
	b.refund(100, q)
	for range 3 {
		if !b.take(now, q) {
			t.Fatal("refund lost")
		}
	}
	if b.take(now, q) {
		t.Fatal("more than the burst")
	}
	now = now.add(time.Hour)
	n := 0
	for b.take(now, q) {
		n++
	}
	if n != 3 {
		t.Fatalf("%d tokens after an hour", n)
	}
}

func TestPolicyValidate(t *testing.T) {
	if err := (Policy{}).Validate(); err != nil {
		t.Errorf("zero policy: %v", err)
	}
	if err := DefaultPolicy().Validate(); err != nil {
		t.Errorf("default policy: %v", err)
	}
	fast := Policy{SuspectAfter: 100 * time.Millisecond, Patience: 50 * time.Millisecond, RetryActive: 200 * time.Millisecond}
	if err := fast.Validate(); err != nil {
		t.Errorf("fast policy: %v", err)
	}
	if err := (Policy{Keepalive: 5 * time.Second, Patience: 3 * time.Second, HoldDown: time.Hour, RetryActive: time.Minute}).Validate(); err != nil {
		t.Errorf("defaults have to give way: %v", err)
	}
	for _, c := range []struct {
		policy Policy
		want   string
	}{
		{Policy{Order: []Criterion{99}}, "does not exist"},
		{Policy{Order: []Criterion{ByNAT, ByNAT}}, "listed twice"},
		{Policy{Interfaces: []string{"eth["}}, "interface pattern"},
		{Policy{Interfaces: make([]string, 300)}, "too many"},
		{Policy{SuspectAfter: time.Millisecond}, "suspicion time"},
		{Policy{ProbeInterval: -1}, "probe interval"},
		{Policy{Patience: 2 * time.Second, PatienceMax: time.Second}, "longest patience"},
		{Policy{Keepalive: time.Minute, KeepaliveMin: 2 * time.Minute}, "keepalive"},
		{Policy{IdleCheck: time.Millisecond}, "idle check"},
		{Policy{RTTGain: 100}, "round-trip gain"},
		{Policy{MaxPairs: -1}, "pair limit"},
		{Policy{ProbesPerSecond: 1 << 30}, "probes per second"},
		{Policy{Check: 9}, "unknown value"},
	} {
		err := c.policy.Validate()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want one about %q", c.policy, err, c.want)
		}
	}
}

func TestTexts(t *testing.T) {
	seen := map[string]bool{}
	for c := CauseNone; c <= VerificationFailing; c++ {
		if s := c.String(); s == "invalid" || seen[s] {
			t.Errorf("cause %d is %q", c, s)
		}
		seen[c.String()] = true
	}
	if s := Cause(200).String(); s != "invalid" {
		t.Error(s)
	}
	for got, want := range map[string]string{
		VerificationFailing.String(): "verification-failed", LocalLost.String(): "local-lost", TrafficUnanswered.String(): "traffic-unanswered",
		PeerMoved.String(): "peer-moved", Resumed.String(): "resumed", Authorized.String(): "authorized", ByForeign.String(): "foreign",
		Responder.String(): "responder", Observed.String(): "observed", ScopeGlobal.String(): "global", NATAbsent.String(): "no",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	b, err := json.Marshal(PairInfo{Verification: Verified, Reachability: Failing, NAT: NATPresent, Why: ICMPError})
	if err != nil || !strings.Contains(string(b), `"Verification":"verified","Reachability":"failing","Why":"icmp-error"`) {
		t.Errorf("%s %v", b, err)
	}
}

func TestTimeDoesNotRunBackwards(t *testing.T) {
	w := twoUplinks(t, Policy{})
	w.e.Tick(start.Add(-time.Hour))
	w.e.Heard(start.Add(-time.Hour), onWifi(gw1))
	if i := w.info(onWifi(gw1)); i.LastHeard.Before(start) {
		t.Errorf("heard at %v", i.LastHeard)
	}
	w.e.Unanswered(w.now, start.Add(-time.Hour))
	w.e.Unanswered(w.now, w.now.Add(time.Hour)) // absurd: in the future
	w.run(time.Minute)
	w.wantSwitches()
}

func TestPairsMatchWithoutInterface(t *testing.T) {
	w := newWorld(t, Policy{}, Pair{Local: onWifi(gw1).Local, Remote: gw1}) // from a route lookup
	w.e.SetLocal(w.now, []Local{wifiLocal(), lteLocal()})
	w.obey()
	w.wantSwitches()
	w.wantCurrent(onWifi(gw1)) // now bound to the interface
	w.e.Heard(w.now.Add(time.Second), Pair{Local: onWifi(gw1).Local, Remote: gw1})
	if i := w.info(onWifi(gw1)); i.Packets != 1 {
		t.Errorf("%+v", i)
	}
	mapped := netip.AddrPortFrom(netip.AddrFrom16(gw1.Addr().As16()), gw1.Port())
	w.e.Heard(w.now.Add(time.Second), Pair{Local: onWifi(gw1).Local, Remote: mapped})
	if i := w.info(onWifi(gw1)); i.Packets != 2 {
		t.Errorf("%+v", i)
	}
	w.e.Heard(w.now.Add(time.Second), onWifi(gw2)) // unknown
}
