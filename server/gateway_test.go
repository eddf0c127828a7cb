package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/datapath"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/server/network"
	"github.com/wayfarer-vpn/wayfarer/server/store"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// The tests of this file run the gateway with real engines on both sides and a wire
// in memory, on virtual time. Only sockets, data path and host are replaced.

const pskConfig = `
name = "vpn.example.test"
state_dir = "STATE"
[auth]
remote_id = ["*@example.test", "*.example.test"]
[[psk]]
id = "*"
secret = "open sesame"
[network]
pool4 = "10.30.0.0/29"
pool6 = "fd00:30::/120"
networks = ["10.20.0.0/24", "fd00:20::/64"]
dns = ["10.20.0.2"]
domains = ["corp.example.test"]
[timers]
jitter = 0.0
`

// plane is a data path that is a set of hosts and Child SAs. It checks what a data
// path would: a child needs its host, and no two hosts may have one inner address.
type plane struct {
	t     testing.TB
	mu    sync.Mutex
	hosts map[esp.HostID]esp.Path
	child map[esp.ChildID]esp.Child
	stats esp.Stats
}

func newPlane(t testing.TB) *plane {
	return &plane{t: t, hosts: map[esp.HostID]esp.Path{}, child: map[esp.ChildID]esp.Child{}}
}

func (p *plane) AddHost(h esp.HostID, path esp.Path) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hosts[h] = path
	return nil
}
func (p *plane) MoveHost(h esp.HostID, path esp.Path) error { return p.AddHost(h, path) }
func (p *plane) RemoveHost(h esp.HostID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.hosts, h)
	for id, c := range p.child {
		if c.Host == h {
			delete(p.child, id)
		}
	}
	return nil
}
func (p *plane) AddChild(c esp.Child) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.hosts[c.Host]; !ok {
		return errors.New("unknown host")
	}
	for _, other := range p.child {
		if other.Host != c.Host && slices.ContainsFunc(other.Remote, func(s esp.Selector) bool { return slices.Contains(c.Remote, s) }) {
			p.t.Errorf("two hosts have the inner addresses %v", c.Remote)
		}
	}
	p.child[c.ID] = c
	return nil
}
func (p *plane) ActivateChild(esp.ChildID) error { return nil }
func (p *plane) RemoveChild(id esp.ChildID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.child, id)
	return nil
}
func (p *plane) QueryChild(esp.ChildID) (esp.Stats, error) { return p.stats, nil }
func (p *plane) QueryHost(h esp.HostID) (esp.Stats, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.hosts[h]; !ok {
		return esp.Stats{}, errors.New("unknown host")
	}
	return p.stats, nil
}
func (p *plane) Close() error { return nil }

// host notes what the gateway wants of its machine.
type host struct {
	mu      sync.Mutex
	applied []network.Desired
	fail    error
}

func (h *host) Apply(d network.Desired) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		err := h.fail
		h.fail = nil
		return err
	}
	h.applied = append(h.applied, d)
	return nil
}
func (h *host) Leave() error { return nil }

func (h *host) last() network.Desired {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.applied[len(h.applied)-1]
}

// kept is a store in memory.
type kept struct {
	mu     sync.Mutex
	leases map[netip.Addr]store.Lease
}

func (k *kept) Leases() (out []store.Lease, _ error) {
	for _, l := range k.leases {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b store.Lease) int { return a.Used.Compare(b.Used) })
	return out, nil
}
func (k *kept) SaveLeases(list []store.Lease) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range list {
		k.leases[l.Address] = l
	}
	return nil
}
func (k *kept) Close() error { return nil }

// gateway is a server on a wire.
type gateway struct {
	*Server
	t      testing.TB
	file   string
	plane  *plane
	host   *host
	kept   *kept
	log    *syncBuffer
	wire   sync.Map                   // netip.Addr of a laptop -> *laptop
	answer func(locator.Pair, []byte) // in place of the wire, if not nil
	cancel context.CancelFunc
	done   chan error
}

type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// gatewayAddress is where laptops send to.
var gatewayAddress = netip.MustParseAddr("203.0.113.10")

// newGateway makes a gateway that is not running yet.
func newGateway(t testing.TB, config string, k *kept) *gateway {
	t.Helper()
	dir := t.TempDir()
	g := &gateway{t: t, file: filepath.Join(dir, "server.toml"), plane: newPlane(t), host: &host{}, kept: k, log: &syncBuffer{}, done: make(chan error, 1)}
	if g.kept == nil {
		g.kept = &kept{leases: map[netip.Addr]store.Lease{}}
	}
	g.write(strings.ReplaceAll(config, "STATE", filepath.Join(dir, "state")))
	return g
}

func (g *gateway) write(config string) {
	g.t.Helper()
	if err := os.WriteFile(g.file, []byte(config), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) edit(old, new string) {
	g.t.Helper()
	data, err := os.ReadFile(g.file)
	if err != nil {
		g.t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		g.t.Fatalf("%q is not in the configuration", old)
	}
	g.write(strings.ReplaceAll(string(data), old, new))
}

// start runs the gateway with a number of shards.
func (g *gateway) start(shards int) *gateway {
	g.t.Helper()
	settings, err := Load(g.file, time.Now())
	if err != nil {
		g.t.Fatal(err)
	}
	level := &slog.LevelVar{}
	level.Set(slog.LevelDebug)
	g.Server = newServer(settings, Options{Log: slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: level})), LogLevel: level, Version: "test"})
	leases, _ := g.kept.Leases()
	g.behind = store.NewBehind(g.kept, g.Server.log)
	if g.leases, err = newLeases(settings.Pools(), settings.Config.Network.Gateway, leases, g.behind, time.Now); err != nil {
		g.t.Fatal(err)
	}
	g.path = countingPath{g.plane, g.table}
	g.Server.host = g.host
	g.watch = func(context.Context, string) {} // netlink has no virtual time
	g.applied = settings.Network("wfs0", datapath.Choice{})
	var undo undoList
	if err := g.makeShards(shards, g.send, 4500, &undo); err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	ready := make(chan struct{})
	go func() {
		err := g.serve(ctx, func(*Server) { close(ready) }, &undo)
		undo.run(g.Server.log)
		g.behind.Close()
		g.done <- err
	}()
	<-ready
	return g
}

func (g *gateway) stop() {
	g.cancel()
	if err := <-g.done; err != nil {
		g.t.Error(err)
	}
}

// send delivers a message to the laptop it is for.
func (g *gateway) send(pair locator.Pair, data []byte) error {
	if g.answer != nil {
		g.answer(pair, data)
		return nil
	}
	if l, ok := g.wire.Load(pair.Remote.Addr()); ok {
		l.(*laptop).receive(pair.Reverse(), data)
	}
	return nil
}

// laptop is an initiator on the wire.
type laptop struct {
	*shard.Shard
	g       *gateway
	policy  *ike.Policy
	addr    netip.Addr
	workers *shard.Workers
	cancel  context.CancelFunc
	done    chan struct{}
	deaf    bool // nothing arrives any more

	mu     sync.Mutex
	up     []ike.Established
	closed []ike.Closed
}

// seat is an address for a laptop among several.
func seat(i int) string { return netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)}).String() }

func (g *gateway) laptop(address, identity, secret string) *laptop {
	g.t.Helper()
	id, err := auth.ParseIdentity(identity)
	if err != nil {
		g.t.Fatal(err)
	}
	policy := &ike.Policy{
		Local:       auth.Local{ID: id, PSK: []byte(secret)},
		Remote:      auth.Remote{ID: auth.Any(), AllowPSK: true, PSK: func(auth.Identity) ([]byte, bool) { return []byte(secret), true }},
		IKE:         suite.DefaultIKEProposals(),
		ESP:         suite.DefaultESPProposals(),
		RequestIPv4: true, RequestIPv6: true,
	}
	return g.laptopWith(address, policy)
}

func (g *gateway) laptopWith(address string, policy *ike.Policy) *laptop {
	g.t.Helper()
	l := &laptop{g: g, policy: policy, addr: netip.MustParseAddr(address), workers: shard.NewWorkers(1), done: make(chan struct{})}
	ids, err := shard.NewIDs(1, rand.Reader)
	if err != nil {
		g.t.Fatal(err)
	}
	l.Shard = shard.New(shard.Config{
		Engine: ike.NewEngine(ike.Config{NewSessionID: ids.ForShard(0), NewChildID: ids.Child, NewESPSPI: ids.ESPSPI}),
		Send: func(pair locator.Pair, data []byte) error {
			pair.Local = netip.AddrPortFrom(l.addr, pair.Local.Port())
			g.group.HandleIKE(pair.Reverse(), slices.Clone(data))
			return nil
		},
		DataPath: newPlane(g.t), Workers: l.workers,
		Events: func(_ *shard.Shard, a ike.Action) {
			l.mu.Lock()
			defer l.mu.Unlock()
			switch a := a.(type) {
			case ike.Established:
				l.up = append(l.up, a)
			case ike.Closed:
				l.closed = append(l.closed, a)
			}
		},
	})
	g.wire.Store(l.addr, l)
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go func() { l.Run(ctx); close(l.done) }()
	return l
}

func (l *laptop) receive(pair locator.Pair, data []byte) {
	l.mu.Lock()
	deaf := l.deaf
	l.mu.Unlock()
	if !deaf {
		l.Receive(pair, slices.Clone(data))
	}
}

// connect negotiates and returns the inner addresses.
func (l *laptop) connect() []netip.Addr {
	l.g.t.Helper()
	if !l.try() {
		l.g.t.Fatalf("%s was not connected: %+v\n%s", l.policy.Local.ID, l.why(), l.g.log)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up[len(l.up)-1].Info.Config.Addresses
}

// try says whether connecting succeeds within ten seconds.
func (l *laptop) try() bool {
	before := l.count()
	pair := locator.Pair{Local: netip.AddrPortFrom(l.addr, 500), Remote: netip.AddrPortFrom(gatewayAddress, 500)}
	if err := l.Call(context.Background(), func(now time.Time, e shard.Engine) { e.Initiate(now, l.policy, pair) }); err != nil {
		l.g.t.Fatal(err)
	}
	for range 100 {
		synctest.Wait()
		if now := l.count(); now[0] > before[0] {
			return true
		} else if now[1] > before[1] {
			return false
		}
		time.Sleep(100 * time.Millisecond)
	}
	return false
}

func (l *laptop) count() [2]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return [2]int{len(l.up), len(l.closed)}
}

func (l *laptop) why() ike.Closed {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.closed) == 0 {
		return ike.Closed{}
	}
	return l.closed[len(l.closed)-1]
}

// crash ends the laptop without a word.
func (l *laptop) crash() {
	l.g.wire.Delete(l.addr)
	l.cancel()
	<-l.done
	l.workers.Close()
}

func (g *gateway) sessions() []*Session {
	g.t.Helper()
	list, err := g.Sessions(context.Background(), false)
	if err != nil {
		g.t.Fatal(err)
	}
	return list
}

func (g *gateway) addresses() string {
	var out []string
	for _, s := range g.sessions() {
		out = append(out, fmt.Sprint(s.Identity, s.Addresses))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func text(list []netip.Addr) string { return fmt.Sprint(list) }

// catcher is a laptop whose messages go to a channel.
func (g *gateway) catcher(caught chan []byte) *laptop {
	policy := &ike.Policy{
		Local: auth.Local{ID: auth.AddrIdentity(gatewayAddress), PSK: []byte("x")}, Remote: auth.Remote{ID: auth.Any(), AllowPSK: true},
		IKE: suite.DefaultIKEProposals(), ESP: suite.DefaultESPProposals(),
	}
	l := &laptop{g: g, policy: policy, addr: netip.MustParseAddr("192.0.2.1"), workers: shard.NewWorkers(1), done: make(chan struct{})}
	ids, err := shard.NewIDs(1, rand.Reader)
	if err != nil {
		g.t.Fatal(err)
	}
	l.Shard = shard.New(shard.Config{
		Engine: ike.NewEngine(ike.Config{NewSessionID: ids.ForShard(0), NewChildID: ids.Child, NewESPSPI: ids.ESPSPI}),
		Send: func(_ locator.Pair, data []byte) error {
			select {
			case caught <- slices.Clone(data):
			default:
			}
			return nil
		},
		DataPath: newPlane(g.t), Workers: l.workers, Events: func(*shard.Shard, ike.Action) {},
	})
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go func() { l.Run(ctx); close(l.done) }()
	return l
}

func (l *laptop) initiate(pair locator.Pair) func(time.Time, shard.Engine) {
	return func(now time.Time, e shard.Engine) { e.Initiate(now, l.policy, pair) }
}

// zeroInfo is what a half-open session looks like.
var zeroInfo = ike.SessionInfo{ID: 1, State: ike.Connecting, Role: ike.Responder}
