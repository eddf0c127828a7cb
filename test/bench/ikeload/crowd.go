package main

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// crowd is one engine with many sessions as initiator, on one pair of sockets.
type crowd struct {
	transport *transport.Transport
	shard     *shard.Shard
	workers   *shard.Workers
	stop      context.CancelFunc
	ended     chan outcome

	took   []time.Duration
	failed int
	open   []ike.SessionID
}

// outcome is how the attempt of one client has ended.
type outcome struct {
	id   ike.SessionID
	took time.Duration
	why  reason.Code // empty: connected
}

// inlet hands IKE to the shard, which does not exist yet when the sockets open. Nobody
// sends ESP to clients without traffic.
type inlet struct{ shard atomic.Pointer[shard.Shard] }

func (i *inlet) HandleIKE(pair locator.Pair, data []byte) {
	if s := i.shard.Load(); s != nil {
		s.Receive(pair, data)
	}
}
func (i *inlet) HandleESP([]transport.ESPTrain) {}

func newCrowd(log *slog.Logger) (*crowd, error) {
	c := &crowd{ended: make(chan outcome, 1<<16), workers: shard.NewWorkers(runtime.GOMAXPROCS(0))}
	ids, err := shard.NewIDs(1, rand.Reader)
	if err != nil {
		return nil, err
	}
	in := &inlet{}
	tr, err := transport.Listen(transport.Config{Ephemeral: true}, in, log)
	if err != nil {
		return nil, err
	}
	c.transport = tr
	engine := ike.NewEngine(ike.Config{
		Log: log, NewSessionID: ids.ForShard(0), NewChildID: ids.Child, NewESPSPI: ids.ESPSPI, Shards: 1,
		NATTPort: tr.LocalPort(transport.NATT),
	})
	c.shard = shard.New(shard.Config{
		Engine: engine, Send: tr.SendIKE, DataPath: nowhere{}, Events: c.event, Workers: c.workers, Log: log,
		MaxDatagrams: 1 << 16, MaxOctets: 1 << 28,
	})
	in.shard.Store(c.shard)
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	go c.shard.Run(ctx)
	return c, nil
}

// event notes how attempts end.
func (c *crowd) event(_ *shard.Shard, a ike.Action) {
	switch a := a.(type) {
	case ike.Established:
		c.ended <- outcome{id: a.Session, took: a.Info.Established.Sub(a.Info.Started)}
	case ike.Closed:
		if a.Info.Established.IsZero() {
			c.ended <- outcome{id: a.Session, why: a.Reason}
		}
	}
}

// connect brings all clients up, at most a window of them on their way at a time.
func (c *crowd) connect(ctx context.Context, o options, policies func(int) *ike.Policy, remote netip.Addr) {
	local, _, err := c.transport.LocalAddressFor(remote)
	if err != nil {
		return
	}
	pair := locator.Pair{
		Local:  netip.AddrPortFrom(local, c.transport.LocalPort(transport.IKE)),
		Remote: netip.AddrPortFrom(remote, 500),
	}
	next, pending := 0, 0
	for ctx.Err() == nil && (next < o.clients || pending > 0) {
		for next < o.clients && pending < o.window {
			p := policies(next)
			c.shard.Do(func(now time.Time, e shard.Engine) {
				if _, err := e.Initiate(now, p, pair); err != nil {
					c.ended <- outcome{why: reason.InternalError}
				}
			})
			next, pending = next+1, pending+1
		}
		select {
		case out := <-c.ended:
			pending--
			if out.why != "" {
				c.failed++
				continue
			}
			c.took, c.open = append(c.took, out.took), append(c.open, out.id)
		case <-ctx.Done():
		}
	}
}

// leave ends all sessions in good order, within a moment.
func (c *crowd) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, id := range c.open {
		c.shard.Do(func(now time.Time, e shard.Engine) { e.Close(now, id, reason.UserDisconnect) })
	}
	for up := 1; up > 0 && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		err := c.shard.Call(ctx, func(_ time.Time, e shard.Engine) { up = len(e.Sessions()) })
		if err != nil {
			return
		}
	}
}

func (c *crowd) close() {
	c.stop()
	c.workers.Close()
	_ = c.transport.Close()
}

// nowhere is a data path that carries nothing.
type nowhere struct{}

func (nowhere) AddHost(esp.HostID, esp.Path) error              { return nil }
func (nowhere) MoveHost(esp.HostID, esp.Path) error             { return nil }
func (nowhere) RemoveHost(esp.HostID) error                     { return nil }
func (nowhere) AddChild(c esp.Child) error                      { c.In.Zero(); c.Out.Zero(); return nil }
func (nowhere) ActivateChild(esp.ChildID) error                 { return nil }
func (nowhere) RemoveChild(esp.ChildID) error                   { return nil }
func (nowhere) QueryChild(esp.ChildID) (s esp.Stats, err error) { return s, nil }
func (nowhere) QueryHost(esp.HostID) (s esp.Stats, err error)   { return s, nil }
func (nowhere) Close() error                                    { return nil }
