package shard

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// MaxShards is the largest number of shards: an IKE SPI names its shard with an octet
// (ike.ShardOf).
const MaxShards = 256

// Group is a set of shards behind one door. Session identifiers made by IDs tell the
// shard that a session lives in.
type Group struct {
	// Malformed, if not nil, is told of datagrams that are no IKE messages. It is
	// called by the receiving goroutines for each of them. Set it before use.
	Malformed func(pair locator.Pair)

	shards     []*Shard
	unroutable atomic.Uint64
}

// NewGroup makes n shards; config is asked for the configuration of each. The engine
// of shard i must be made with Shard i, Shards n, and IDs.ForShard(i).
func NewGroup(n int, config func(i int) Config) *Group {
	g := &Group{shards: make([]*Shard, min(max(1, n), MaxShards))}
	for i := range g.shards {
		g.shards[i] = New(config(i))
	}
	return g
}

// Run drives all shards until ctx is done.
func (g *Group) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range g.shards {
		wg.Go(func() { s.Run(ctx) })
	}
	wg.Wait()
}

// Shards returns the shards.
func (g *Group) Shards() []*Shard { return g.shards }

// Of returns the shard that a session lives in.
func (g *Group) Of(id ike.SessionID) *Shard {
	return g.shards[uint64(id)%uint64(len(g.shards))]
}

// HandleIKE takes in an IKE message without marker, as transport.Handler does.
func (g *Group) HandleIKE(pair locator.Pair, data []byte) {
	i, ok := ike.RouteDatagram(data, pair, len(g.shards))
	if !ok {
		g.unroutable.Add(1)
		if g.Malformed != nil {
			g.Malformed(pair)
		}
		return
	}
	g.shards[i].Receive(pair, data)
}

// DataPathEvent hands an event of the data path to the shard of its host. Events
// without a host (an unknown SPI) belong to no session and are left out.
func (g *Group) DataPathEvent(ev esp.Event) {
	if ev.Host != 0 {
		g.Of(ike.SessionID(ev.Host)).DataPathEvent(ev)
	}
}

// Each runs f on every shard's goroutine, one shard after the other, and waits.
func (g *Group) Each(ctx context.Context, f func(now time.Time, e Engine)) error {
	for _, s := range g.shards {
		if err := s.Call(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// Alive is nil when every shard takes commands, for a watchdog.
func (g *Group) Alive(ctx context.Context) error {
	for i, s := range g.shards {
		if err := s.Alive(ctx); err != nil {
			return fmt.Errorf("shard %d: %w", i, err)
		}
	}
	return nil
}

// Sessions returns a snapshot of all sessions.
func (g *Group) Sessions(ctx context.Context) ([]ike.SessionInfo, error) {
	var all []ike.SessionInfo
	err := g.Each(ctx, func(_ time.Time, e Engine) { all = append(all, e.Sessions()...) })
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Counts returns the number of half-open and of established sessions.
func (g *Group) Counts(ctx context.Context) (halfOpen, established int, err error) {
	err = g.Each(ctx, func(_ time.Time, e Engine) {
		h, n := e.Counts()
		halfOpen, established = halfOpen+h, established+n
	})
	return halfOpen, established, err
}

// Stats returns the sum of the shards' counters and the number of datagrams that no
// shard could be found for.
func (g *Group) Stats() (sum Stats, unroutable uint64) {
	for _, s := range g.shards {
		st := s.Stats()
		sum.Received += st.Received
		sum.DroppedKnown += st.DroppedKnown
		sum.DroppedInits += st.DroppedInits
		sum.SendErrors += st.SendErrors
	}
	return sum, g.unroutable.Load()
}
