package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/profile"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// answer is how a gateway at an address meets an attempt.
type answer func(s *fakeStack, id ike.SessionID)

// fakeStack plays the engine: what a gateway does is scripted per address.
type fakeStack struct {
	world *world

	mu       sync.Mutex
	sessions map[ike.SessionID]ike.SessionInfo
	stats    esp.Stats
	events   chan ike.Action
	failed   chan struct{}
	deaf     bool        // Delete gets no answer
	stuck    bool        // the engine does not answer
	sounds   reason.Code // how soundings end
	races    map[ike.SessionID]*ike.Race
	decided  map[*ike.Race]bool
	uplinks  chan struct{}
	errors   chan transport.PathError
}

func (s *fakeStack) Initiate(_ context.Context, _ *ike.Policy, remote netip.Addr, race *ike.Race) (ike.SessionID, error) {
	w := s.world
	s.mu.Lock()
	decided := s.decided[race]
	s.mu.Unlock()
	w.mu.Lock()
	noWay := w.noWay[remote]
	w.mu.Unlock()
	switch {
	case decided:
		return 0, ike.ErrRaceDecided
	case noWay:
		return 0, &failure{code: reason.NoNetwork, detail: "no route"}
	}
	id := w.note("initiate " + remote.String())
	s.mu.Lock()
	s.sessions[id] = ike.SessionInfo{
		ID: id, State: ike.Connecting, SPIi: message.SPI(id), Started: time.Now(),
		Path: esp.Path{Pair: locator.Pair{Local: netip.AddrPortFrom(w.local, 500), Remote: netip.AddrPortFrom(remote, 500)}},
	}
	s.races[id] = race
	s.mu.Unlock()
	w.mu.Lock()
	a := w.answers[remote]
	w.mu.Unlock()
	if a != nil {
		a(s, id)
	}
	return id, nil
}

func (s *fakeStack) Sound(_ context.Context, _ *ike.Policy, pair locator.Pair) (ike.SessionID, error) {
	id := s.world.note("sound " + pair.Remote.String())
	s.mu.Lock()
	s.sessions[id] = ike.SessionInfo{ID: id, State: ike.Connecting}
	s.mu.Unlock()
	if why := s.sounds; why != "" {
		time.AfterFunc(50*time.Millisecond, func() { s.closed(id, why, 0) })
	}
	return id, nil
}

func (s *fakeStack) Session(_ context.Context, id ike.SessionID) (ike.SessionInfo, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, ok := s.sessions[id]
	return info, ok
}

// answered decides the race of a session for it, as the engine does; false if another
// one has won.
func (s *fakeStack) answered(id ike.SessionID) bool {
	s.mu.Lock()
	race := s.races[id]
	_, alive := s.sessions[id]
	alive = alive && !s.decided[race] // two answers in one instant: one is the first
	var losers []ike.SessionID
	for other, r := range s.races {
		if _, ok := s.sessions[other]; r == race && other != id && ok {
			losers = append(losers, other)
		}
	}
	if alive {
		s.decided[race] = true
	}
	s.mu.Unlock()
	if !alive {
		return false
	}
	s.change(id, func(i *ike.SessionInfo) { i.SPIr = 0xabc })
	for _, other := range losers {
		s.closed(other, reason.OtherAddressAnswered, 0)
	}
	return true
}

func (s *fakeStack) LocalFor(remote netip.Addr) (netip.Addr, error) {
	w := s.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.noWay[remote] {
		return netip.Addr{}, &failure{code: reason.NoNetwork, detail: "no route"}
	}
	return w.local, nil
}

func (s *fakeStack) Uplinks() <-chan struct{} { return s.uplinks }

func (s *fakeStack) PathErrors() <-chan transport.PathError { return s.errors }

func (s *fakeStack) Resume() { s.world.note("resume") }

func (s *fakeStack) Paths(context.Context, ike.SessionID) []pathInfo { return nil }

func (s *fakeStack) Alive(ctx context.Context) error {
	if s.stuck {
		<-ctx.Done()
	}
	return ctx.Err()
}

func (s *fakeStack) Repeat(ike.SessionID) { s.world.note("repeat") }

// tell says that the uplinks have changed.
func (s *fakeStack) tell() {
	select {
	case s.uplinks <- struct{}{}:
	default:
	}
}

func (s *fakeStack) CreateChild(_ context.Context, id ike.SessionID, remote []esp.Selector) error {
	s.world.note("create child")
	time.AfterFunc(time.Second, func() { s.change(id, func(i *ike.SessionInfo) { i.Children = children(remote) }) })
	return nil
}

func (s *fakeStack) Close(id ike.SessionID, why reason.Code) {
	s.world.note("close " + string(why))
	if !s.deaf {
		s.closed(id, why, 0)
	}
}

func (s *fakeStack) Abort(id ike.SessionID, why reason.Code) {
	s.world.note("abort " + string(why))
	s.mu.Lock()
	delete(s.sessions, id)
	s.mu.Unlock()
}

func (s *fakeStack) Stats(ike.SessionID) (esp.Stats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats, nil
}

func (s *fakeStack) Events() <-chan ike.Action { return s.events }
func (s *fakeStack) Failed() <-chan struct{}   { return s.failed }
func (s *fakeStack) Device() (string, int)     { return "wf0", 1380 }
func (s *fakeStack) DataPath() datapath.Choice {
	return datapath.Choice{Kind: datapath.Tun, Why: "asked for by the configuration"}
}
func (s *fakeStack) Ports() []uint16 { return []uint16{500, 4500} }
func (s *fakeStack) Shutdown()       { s.world.note("shutdown") }

func (s *fakeStack) Err() error {
	select {
	case <-s.failed:
		return errors.New("the device is gone")
	default:
		return nil
	}
}

func (s *fakeStack) change(id ike.SessionID, f func(*ike.SessionInfo)) ike.SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := s.sessions[id]
	f(&info)
	s.sessions[id] = info
	return info
}

func (s *fakeStack) closed(id ike.SessionID, why reason.Code, n message.NotifyType) {
	s.mu.Lock()
	info, ok := s.sessions[id]
	delete(s.sessions, id)
	s.mu.Unlock()
	if !ok {
		return
	}
	s.events <- ike.Closed{Session: id, Info: info, Reason: why, Notify: n}
}

func children(remote []esp.Selector) []ike.ChildInfo {
	return []ike.ChildInfo{{ID: 1, SPIIn: 0xc0ffee, SPIOut: 0xbeef, Remote: remote, Active: true}}
}

func selectors(words ...string) (out []esp.Selector) {
	for _, w := range words {
		out = append(out, esp.PrefixSelector(netip.MustParsePrefix(w)))
	}
	return out
}

// accepts lets a client in after 50 ms.
func accepts(remote ...string) answer {
	return func(s *fakeStack, id ike.SessionID) {
		time.AfterFunc(50*time.Millisecond, func() {
			if !s.answered(id) {
				return
			}
			info := s.change(id, func(i *ike.SessionInfo) {
				i.State, i.SPIr, i.Established, i.LastIKEInbound = ike.Up, 0xabc, time.Now(), time.Now()
				i.Path.UDP = true
				i.Config = ike.Configuration{
					Addresses: []netip.Addr{netip.MustParseAddr("10.30.0.1"), netip.MustParseAddr("fd00:30::1")},
					DNS:       []netip.Addr{netip.MustParseAddr("10.20.0.2")},
				}
				if len(remote) > 0 {
					i.Children = children(selectors(remote...))
				}
			})
			s.events <- ike.Established{Session: id, Info: info}
		})
	}
}

// refuses turns a client away after 50 ms.
func refuses(why reason.Code, n message.NotifyType) answer {
	return func(s *fakeStack, id ike.SessionID) {
		time.AfterFunc(50*time.Millisecond, func() { s.closed(id, why, n) })
	}
}

// world is everything around a connection, and the record of what happened to it.
type world struct {
	answers map[netip.Addr]answer

	mu       sync.Mutex
	log      []string
	ids      ike.SessionID
	stacks   []*fakeStack
	networks []Network
	applyErr error
	names    map[string][]netip.Addr
	slow     map[string]time.Duration // look-ups, by network and name: "ip6 vpn.example.test"
	noWay    map[netip.Addr]bool
	local    netip.Addr
	memory   *memory
}

func newWorld() *world {
	return &world{answers: map[netip.Addr]answer{}, names: map[string][]netip.Addr{}, slow: map[string]time.Duration{},
		noWay: map[netip.Addr]bool{}, memory: newMemory(), local: netip.MustParseAddr("192.0.2.200")}
}

func (w *world) note(what string) ike.SessionID {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, what)
	w.ids++
	return w.ids
}

// happened returns the record so far and begins a new one.
func (w *world) happened() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := strings.Join(w.log, ", ")
	w.log = nil
	return out
}

func (w *world) set(address string, a answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[netip.MustParseAddr(address)] = a
}

func (w *world) stack() *fakeStack {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stacks[len(w.stacks)-1]
}

func (w *world) newStack(*profile.Profile) (Stack, error) {
	w.note("stack")
	s := &fakeStack{world: w, sessions: map[ike.SessionID]ike.SessionInfo{}, races: map[ike.SessionID]*ike.Race{},
		decided: map[*ike.Race]bool{}, uplinks: make(chan struct{}, 1), errors: make(chan transport.PathError, 4), events: make(chan ike.Action, 16), failed: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stacks = append(w.stacks, s)
	return s, nil
}

// The world is the machine too.

func (w *world) Apply(_ context.Context, n Network) error {
	w.note("apply")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.networks = append(w.networks, n)
	return w.applyErr
}

func (w *world) Maintain(context.Context) error { return nil }

func (w *world) Clear(_ context.Context, leaving bool) error {
	w.note(fmt.Sprintf("clear leaving=%v", leaving))
	return nil
}

func (w *world) Adopt(context.Context) error { w.note("adopt"); return nil }
func (w *world) NameServers() []netip.Addr   { return nil }

func (w *world) lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	slow := w.slow[network+" "+host]
	w.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []netip.Addr
	for _, a := range w.names[host] {
		if a.Is4() == (network == "ip4") {
			out = append(out, a)
		}
	}
	if out == nil {
		return nil, fmt.Errorf("no such host %s", host)
	}
	return out, nil
}

func (w *world) resolver() *resolver {
	return &resolver{system: w.lookup, beside: w.lookup, memory: w.memory}
}

var discard = slog.New(slog.DiscardHandler)

const gateway = "192.0.2.1"

func testProfile(t *testing.T, lines string) *profile.Profile {
	t.Helper()
	p, err := profile.Parse("test.toml", []byte("server = '"+gateway+"'\nid = 'laptop@example.test'\n"+lines+"\n[auth]\npsk = 'a secret of sixteen octets'\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *world) connect(t *testing.T, lines string, timeout time.Duration) *connection {
	t.Helper()
	p := testProfile(t, lines)
	policy, _ := Policy(p, time.Now(), "", &config.Problems{})
	return startConnection(context.Background(), connectionConfig{
		generation: 1, profile: p, policy: policy, timeout: timeout, newStack: w.newStack, machine: w,
		resolver: w.resolver(), random: func() float64 { return 0.5 },
		log: discard, changed: func() {},
	})
}

// status is what a user would see now.
func (c *connection) status() Status {
	s := Status{State: Disconnected}
	c.report(context.Background(), &s)
	return s
}

// after lets time pass and everything come to rest.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func expect(t *testing.T, s Status, state State, code reason.Code, notify string) {
	t.Helper()
	var got Problem
	if s.LastError != nil {
		got = *s.LastError
	}
	if s.State != state || got.Code != code || got.Notify != notify {
		t.Fatalf("state %q, last error %q %q %q; want %q, %q, %q", s.State, got.Code, got.Notify, got.Message, state, code, notify)
	}
}

func TestUpAndDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, accepts("0.0.0.0/0", "::/0"))
		c := w.connect(t, "", 20*time.Second)
		after(10 * time.Millisecond)
		if s := c.status(); s.State != Connecting || s.Step != "asking 192.0.2.1" || s.Connected {
			t.Errorf("while connecting: %+v", s)
		}
		after(time.Second)
		s := c.status()
		expect(t, s, Connected, "", "")
		if !s.Connected || s.SPIr != "0000000000000abc" || len(s.SPIi) != 16 || s.Children[0].SPIIn != "00c0ffee" || s.Interface != "wf0" ||
			len(s.Addresses) != 2 || len(s.DNS) != 1 || len(s.Routes) != 2 || s.Server != gateway || s.Encapsulation != "udp" {
			t.Errorf("status: %+v", s)
		}
		after(time.Hour)
		c.stop()
		// The network is given back before the device goes: its routes must not fall
		// away while the guard is still to be set.
		if got, want := w.happened(), "stack, initiate 192.0.2.1, apply, close user-disconnect, clear leaving=false, shutdown"; got != want {
			t.Errorf("happened: %s\nwant: %s", got, want)
		}
		s = c.status()
		expect(t, s, Disconnected, "", "")
		if len(s.Addresses)+len(s.Routes)+len(s.Children) != 0 || s.SPIi != "" {
			t.Errorf("status afterwards: %+v", s)
		}
	})
}

// TestDownUnanswered: the end is bounded, whatever the gateway does.
func TestDownUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, accepts("0.0.0.0/0"))
		c := w.connect(t, "", 0)
		after(time.Second)
		w.stack().deaf = true
		began := time.Now()
		c.stop()
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("took %s", took)
		}
		if got := w.happened(); !strings.HasSuffix(got, "close user-disconnect, abort user-disconnect, clear leaving=false, shutdown") {
			t.Errorf("happened: %s", got)
		}
	})
}

func TestDownWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c := w.connect(t, "", 0)
		after(time.Second)
		began := time.Now()
		c.stop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %s", took)
		}
		expect(t, c.status(), Disconnected, "", "")
	})
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		code   reason.Code
		notify message.NotifyType
		want   string
	}{
		{reason.AuthFailed, message.AuthenticationFailed, "AUTHENTICATION_FAILED"},
		{reason.CertUntrusted, 0, "AUTHENTICATION_FAILED"}, // it was us who refused
		{reason.NoProposalChosen, message.NoProposalChosen, "NO_PROPOSAL_CHOSEN"},
		{reason.NoAnswer, 0, "TIMEOUT"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.set(gateway, refuses(tt.code, tt.notify))
			c := w.connect(t, "reconnect = false", 20*time.Second)
			after(time.Second)
			s := c.status()
			expect(t, s, Disconnected, tt.code, tt.want)
			if s.LastError.Message == "" || s.LastError.Hint == "" {
				t.Errorf("no help: %+v", s.LastError)
			}
			if got := w.happened(); !strings.HasSuffix(got, "clear leaving=false, shutdown") || strings.Contains(got, "apply") {
				t.Errorf("happened: %s", got)
			}
			<-c.done
		})
	}
}

// TestRefusedKeepsTrying: with reconnect, what will not heal by itself is tried
// rarely.
func TestRefusedKeepsTrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, refuses(reason.AuthFailed, message.AuthenticationFailed))
		c := w.connect(t, "", 20*time.Second)
		after(30 * time.Second)
		s := c.status()
		expect(t, s, Connecting, reason.AuthFailed, "AUTHENTICATION_FAILED")
		if !s.LastError.Permanent || s.RetryAt == nil || s.Problem == nil {
			t.Errorf("status: %+v", s)
		}
		after(time.Hour)
		if n := strings.Count(w.happened(), "initiate"); n < 5 || n > 12 {
			t.Errorf("%d attempts in an hour", n)
		}
		w.set(gateway, accepts("0.0.0.0/0"))
		after(11 * time.Minute)
		if s := c.status(); !s.Connected || s.Problem != nil || s.LastError == nil {
			t.Errorf("after the gateway was set right: %+v", s)
		}
		c.stop()
	})
}

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		began := time.Now()
		c := w.connect(t, "reconnect = false", 20*time.Second)
		<-c.done
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("gave up after %s", took)
		}
		s := c.status()
		expect(t, s, Disconnected, reason.NoAnswer, "TIMEOUT")
		if !strings.Contains(s.LastError.Hint, "UDP") || !strings.Contains(s.LastError.Message, gateway) {
			t.Errorf("no help: %+v", s.LastError)
		}
	})
}

func TestNameUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := testProfile(t, "reconnect = false")
		p.Server = profile.List{"nowhere.example.test"}
		c := startConnection(context.Background(), connectionConfig{
			profile: p, policy: &ike.Policy{}, newStack: w.newStack, machine: w, resolver: w.resolver(),
			random: func() float64 { return 0.5 }, log: discard, changed: func() {},
		})
		<-c.done
		if s := c.status(); s.LastError == nil || s.LastError.Code != reason.DNSFailed || !strings.Contains(s.LastError.Message, "nowhere.example.test") {
			t.Errorf("status: %+v", s.LastError)
		}
	})
}

// TestReconnect: the session dies; the machine stays closed, not cleared, until it is
// back.
func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, accepts("0.0.0.0/0"))
		c := w.connect(t, "", 0)
		after(time.Minute)
		first := c.status().SPIi
		w.set(gateway, refuses(reason.NoAnswer, 0))
		s := w.stack()
		s.closed(c.st.session, reason.PeerDead, 0)
		synctest.Wait()
		st := c.status()
		expect(t, st, Reconnecting, reason.PeerDead, "TIMEOUT")
		if st.Connected || st.SPIi != "" || len(st.Children) != 0 {
			t.Errorf("a dead session is shown: %+v", st)
		}
		w.happened()
		after(10 * time.Minute)
		got := w.happened()
		if strings.Contains(got, "clear") || strings.Contains(got, "stack") {
			t.Errorf("happened: %s", got)
		}
		// 1, 2, 4 … 60 s: some fifteen attempts in ten minutes.
		if n := strings.Count(got, "initiate"); n < 12 || n > 18 {
			t.Errorf("%d attempts in ten minutes", n)
		}
		w.set(gateway, accepts("0.0.0.0/0"))
		after(time.Minute + 15*time.Second)
		if st := c.status(); !st.Connected || st.SPIi == first {
			t.Errorf("not back: %+v", st)
		}
		// That was a success: the next attempt after the next failure comes soon.
		after(time.Minute)
		s.closed(c.st.session, reason.PeerDeleted, 0)
		after(2 * time.Second)
		if st := c.status(); !st.Connected {
			t.Errorf("not back after two seconds: %+v", st)
		}
		c.stop()
	})
}

// TestFlapping: sessions that die at once do not make a storm.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, func(s *fakeStack, id ike.SessionID) {
			accepts("0.0.0.0/0")(s, id)
			time.AfterFunc(time.Second, func() { s.closed(id, reason.ReplacedByNewSession, 0) })
		})
		c := w.connect(t, "", 0)
		after(10 * time.Minute)
		if n := strings.Count(w.happened(), "initiate"); n > 20 {
			t.Errorf("%d attempts in ten minutes", n)
		}
		c.stop()
	})
}

func TestDeathWithoutReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, accepts("0.0.0.0/0"))
		c := w.connect(t, "reconnect = false", 0)
		after(time.Minute)
		w.stack().closed(c.st.session, reason.PeerDead, 0)
		<-c.done
		expect(t, c.status(), Disconnected, reason.PeerDead, "TIMEOUT")
		if got := w.happened(); !strings.HasSuffix(got, "apply, clear leaving=false, shutdown") {
			t.Errorf("happened: %s", got)
		}
	})
}

// TestDegraded: connected is only what provably answers.
func TestDegraded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, accepts("0.0.0.0/0"))
		c := w.connect(t, "", 0)
		after(time.Minute)
		s := w.stack()
		s.change(c.st.session, func(i *ike.SessionInfo) { i.Unanswered = 3 })
		st := c.status() // at once, not at the next look
		if st.State != Degraded || st.Connected || st.Problem == nil || st.Problem.Code != reason.NoAnswer {
			t.Errorf("unanswered: %+v", st)
		}
		after(upkeep)
		s.change(c.st.session, func(i *ike.SessionInfo) { i.Unanswered, i.LastIKEInbound = 0, time.Now() })
		after(upkeep)
		if st := c.status(); st.State != Connected || st.Problem != nil {
			t.Errorf("after the answer: %+v", st)
		}
		// Packets go out, nothing comes back.
		after(time.Minute)
		s.mu.Lock()
		s.stats = esp.Stats{OutPackets: 9, LastOut: time.Now(), LastIn: time.Now().Add(-20 * time.Second)}
		s.mu.Unlock()
		s.change(c.st.session, func(i *ike.SessionInfo) { i.LastIKEInbound = time.Now().Add(-20 * time.Second) })
		if st := c.status(); st.State != Degraded {
			t.Errorf("one-way traffic: %+v", st)
		}
		c.stop()
	})
}

func TestStackFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, accepts("0.0.0.0/0"))
		c := w.connect(t, "", 0)
		after(time.Minute)
		close(w.stack().failed)
		after(5 * time.Second)
		if st := c.status(); !st.Connected {
			t.Errorf("not back: %+v", st)
		}
		if got := w.happened(); got != "stack, initiate 192.0.2.1, apply, shutdown, stack, initiate 192.0.2.1, apply" {
			t.Errorf("happened: %s", got)
		}
		c.stop()
	})
}

func TestStackRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := testProfile(t, "reconnect = false")
		c := startConnection(context.Background(), connectionConfig{
			profile: p, policy: &ike.Policy{}, machine: w, resolver: w.resolver(),
			newStack: func(*profile.Profile) (Stack, error) { return nil, reason.New(reason.Conflict, "wf0 exists") },
			random:   func() float64 { return 0.5 }, log: discard, changed: func() {},
		})
		<-c.done
		if s := c.status(); s.LastError == nil || s.LastError.Code != reason.Conflict || !strings.Contains(s.LastError.Message, "wf0 exists") {
			t.Errorf("status: %+v", s.LastError)
		}
	})
}

// TestChildless: the Child SA is asked for by itself (RFC 6023).
func TestChildless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, accepts())
		c := w.connect(t, "", 0)
		after(3 * time.Second)
		if st := c.status(); !st.Connected || len(st.Children) != 1 {
			t.Errorf("status: %+v", st)
		}
		if got := w.happened(); got != "stack, initiate 192.0.2.1, create child, apply" {
			t.Errorf("happened: %s", got)
		}
		c.stop()
	})
}

func TestNoAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, func(s *fakeStack, id ike.SessionID) {
			info := s.change(id, func(i *ike.SessionInfo) { i.Children = children(nil) })
			s.events <- ike.Established{Session: id, Info: info}
		})
		c := w.connect(t, "reconnect = false", 0)
		<-c.done
		if s := c.status(); s.LastError.Code != reason.NoAddressAssigned {
			t.Errorf("status: %+v", s.LastError)
		}
		if got := w.happened(); !strings.Contains(got, "close no-address-assigned") {
			t.Errorf("happened: %s", got)
		}
	})
}

// TestApplyFails: a tunnel that the machine cannot use is not kept.
func TestApplyFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.applyErr = errors.New("no permission")
		w.set(gateway, accepts("0.0.0.0/0"))
		c := w.connect(t, "reconnect = false", 0)
		<-c.done
		if s := c.status(); s.LastError.Code != reason.RouteFailed || !strings.Contains(s.LastError.Message, "no permission") {
			t.Errorf("status: %+v", s.LastError)
		}
		if got := w.happened(); !strings.HasSuffix(got, "apply, close route-failed, clear leaving=false, shutdown") {
			t.Errorf("happened: %s", got)
		}
	})
}

// TestRekeyNarrows: routes follow the selectors of a renewed Child SA, and only then.
func TestRekeyNarrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, accepts("10.0.0.0/8"))
		c := w.connect(t, "", 0)
		after(time.Minute)
		s, id := w.stack(), c.st.session
		s.events <- ike.Rekeyed{Session: id}
		after(time.Second)
		s.change(id, func(i *ike.SessionInfo) { i.Children = children(selectors("10.20.0.0/16")) })
		s.events <- ike.Rekeyed{Session: id}
		after(time.Second)
		if got := w.happened(); got != "stack, initiate 192.0.2.1, apply, apply" {
			t.Errorf("happened: %s", got)
		}
		if st := c.status(); len(st.Routes) != 1 || st.Routes[0].String() != "10.20.0.0/16" || len(st.Blocked) != 1 {
			t.Errorf("routes %v, blocked %v", st.Routes, st.Blocked)
		}
		s.change(id, func(i *ike.SessionInfo) { i.Children = nil })
		s.events <- ike.ChildDown{Session: id, Child: 1, Reason: reason.PeerDeleted}
		after(500 * time.Millisecond)
		expect(t, c.status(), Reconnecting, reason.PeerDeleted, "")
		c.stop()
	})
}

func TestNetworkFor(t *testing.T) {
	info := ike.SessionInfo{
		Config: ike.Configuration{
			Addresses: []netip.Addr{netip.MustParseAddr("10.30.0.1")}, DNS: []netip.Addr{netip.MustParseAddr("10.20.0.2")},
			Domains: []string{"corp.example"},
		},
		Children: children(selectors("10.20.0.0/24", "10.21.0.0/24")),
	}
	for _, tt := range []struct{ lines, networks, routes, blocked, dns string }{
		{"", "[0.0.0.0/0 ::/0]", "[10.20.0.0/24 10.21.0.0/24]", "[::/0]", "[10.20.0.2]"},
		{"tunnel.routes = 'server'", "[10.20.0.0/24 10.21.0.0/24]", "[10.20.0.0/24 10.21.0.0/24]", "[]", "[10.20.0.2]"},
		{"tunnel.routes = ['10.20.0.0/16', 'fd00::/8']\ntunnel.dns = false", "[10.20.0.0/16 fd00::/8]", "[10.20.0.0/24]", "[fd00::/8]", "[]"},
		{"tunnel.routes = ['10.20.0.2', '172.16.0.0/12']", "[10.20.0.2/32 172.16.0.0/12]", "[10.20.0.2/32]", "[172.16.0.0/12]", "[10.20.0.2]"},
	} {
		n := networkFor(testProfile(t, tt.lines), info, "wf0", nil)
		got := fmt.Sprint(n.Networks, n.routes(), n.blocked(), n.DNS)
		if want := strings.Join([]string{tt.networks, tt.routes, tt.blocked, tt.dns}, " "); got != want {
			t.Errorf("%q:\n got %s\nwant %s", tt.lines, got, want)
		}
	}
}

func TestBackoff(t *testing.T) {
	for _, tt := range []struct {
		permanent bool
		want      string
	}{
		{false, "[1s 2s 4s 8s 16s 32s 1m0s 1m0s]"},
		{true, "[1m0s 2m0s 4m0s 8m0s 10m0s 10m0s 10m0s 10m0s]"},
	} {
		b := backoff{random: func() float64 { return 0.5 }}
		var got []time.Duration
		for range 8 {
			got = append(got, b.next(tt.permanent))
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("permanent %v: %v", tt.permanent, got)
		}
		b.reset()
		for _, r := range []float64{0, 0.999} {
			b := backoff{random: func() float64 { return r }}
			if d := b.next(false); d < 800*time.Millisecond || d > 1200*time.Millisecond {
				t.Errorf("jitter beyond its bounds: %s", d)
			}
		}
	}
}

// TestEveryCodeIsJudged: a notify of the gateway that refuses us is permanent, so that
// a misconfigured client is not a nuisance.
func TestEveryCodeIsJudged(t *testing.T) {
	for _, r := range reason.All() {
		if slices.Contains([]string{"AUTHENTICATION_FAILED", "NO_PROPOSAL_CHOSEN", "TS_UNACCEPTABLE"}, r.Notify) && !permanent(r.Code) && r.Code != reason.CertNotYetValid && r.Code != reason.CRLUnavailable {
			t.Errorf("%s (%s) is tried again at once", r.Code, r.Notify)
		}
	}
}
