package server

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// noPlane is a data path that keeps nothing.
type noPlane struct{}

func (noPlane) AddHost(esp.HostID, esp.Path) error        { return nil }
func (noPlane) MoveHost(esp.HostID, esp.Path) error       { return nil }
func (noPlane) RemoveHost(esp.HostID) error               { return nil }
func (noPlane) AddChild(esp.Child) error                  { return nil }
func (noPlane) ActivateChild(esp.ChildID) error           { return nil }
func (noPlane) RemoveChild(esp.ChildID) error             { return nil }
func (noPlane) QueryChild(esp.ChildID) (esp.Stats, error) { return esp.Stats{}, nil }
func (noPlane) QueryHost(esp.HostID) (esp.Stats, error)   { return esp.Stats{}, nil }
func (noPlane) Close() error                              { return nil }

// crowd is many clients in one engine, each at an address of its own.
type crowd struct {
	*shard.Shard
	workers *shard.Workers
	up      chan struct{}
	cancel  context.CancelFunc
	done    chan struct{}
}

func newCrowd(tb testing.TB, g *gateway) *crowd {
	c := &crowd{workers: shard.NewWorkers(1), up: make(chan struct{}, 1<<16), done: make(chan struct{})}
	ids, err := shard.NewIDs(1, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	c.Shard = shard.New(shard.Config{
		Engine: ike.NewEngine(ike.Config{NewSessionID: ids.ForShard(0), NewChildID: ids.Child, NewESPSPI: ids.ESPSPI}),
		Send: func(pair locator.Pair, data []byte) error {
			g.group.HandleIKE(pair.Reverse(), slices.Clone(data))
			return nil
		},
		DataPath: noPlane{}, Workers: c.workers,
		Events: func(_ *shard.Shard, a ike.Action) {
			if _, ok := a.(ike.Established); ok {
				c.up <- struct{}{}
			}
		},
		MaxDatagrams: 1 << 16, MaxOctets: 1 << 30,
	})
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	go func() { c.Run(ctx); close(c.done) }()
	return c
}

func (c *crowd) connect(tb testing.TB, from, n int) {
	for i := from; i < from+n; i++ {
		id, err := auth.ParseIdentity(fmt.Sprintf("user%d@example.test", i))
		if err != nil {
			tb.Fatal(err)
		}
		secret := []byte("open sesame")
		p := &ike.Policy{
			Local:  auth.Local{ID: id, PSK: secret},
			Remote: auth.Remote{ID: auth.Any(), AllowPSK: true, PSK: func(auth.Identity) ([]byte, bool) { return secret, true }},
			IKE:    suite.DefaultIKEProposals(), ESP: suite.DefaultESPProposals(), RequestIPv4: true, RequestIPv6: true,
		}
		pair := locator.Pair{
			Local:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)}), 500),
			Remote: netip.AddrPortFrom(gatewayAddress, 500),
		}
		c.Do(func(now time.Time, e shard.Engine) { e.Initiate(now, p, pair) })
		<-c.up
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkSession connects clients one after the other. It reports the time of a
// connection, both sides together, and what an established client costs the gateway in
// memory: engine and daemon, without the data path.
func BenchmarkSession(b *testing.B) {
	g := newGateway(b, pskConfig, nil)
	g.edit("10.30.0.0/29", "10.30.0.0/16")
	g.edit("fd00:30::/120", "fd00:30::/112")
	g.edit("[timers]\n", "[log]\nlevel = \"error\"\n[timers]\n")
	g.start(2)
	g.logLevel.Set(100)
	g.path = noPlane{}
	c := newCrowd(b, g)
	g.wire.Clear()
	g.answer = func(pair locator.Pair, data []byte) { c.Receive(pair.Reverse(), slices.Clone(data)) }
	c.connect(b, 0, 50) // warm
	before := heap()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		c.connect(b, 50+n, 1)
		n++
	}
	c.cancel()
	<-c.done
	c.workers.Close()
	g.answer = nil
	*c = crowd{}
	after := heap()
	b.ReportMetric(float64(int64(after)-int64(before))/float64(n), "B/session")
	g.stop()
}
