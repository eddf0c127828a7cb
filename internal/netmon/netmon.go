// Package netmon watches which addresses this machine can be reached at, and tells
// when that changes: addresses, links and routes come and go. It exists because a
// tunnel that moves has to know within milliseconds.
//
// The kernel's messages are only a bell: after any of them, and after the kernel
// admits to have dropped some, the whole state is read again. What is told is
// always complete.
package netmon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/rtnl"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// settle is how long changes are collected: a link that goes takes its addresses and
// routes along, in several messages.
const settle = 3 * time.Millisecond

// settleMax is how long they are collected when changes go on and on that concern
// nothing here, more than patience of them; quiet is the silence after which the first
// one counts at once again. An uplink that comes up is several of them in a row, its
// address before its route.
const (
	settleMax = 100 * time.Millisecond
	patience  = 16
	quiet     = time.Second
)

// resubscribe is how long to wait before listening anew after errors in a row.
const resubscribe = 100 * time.Millisecond

// Config says what counts.
type Config struct {
	// Ignore says which interfaces do not count: tunnels above all.
	Ignore func(name string) bool
	// Exclude leaves out addresses: inner addresses, networks behind a gateway.
	Exclude func(netip.Addr) bool
	// NeedRoute leaves out interfaces without a default route of the address's
	// family. Laptops want that: what leads nowhere is no uplink. Gateways do not.
	NeedRoute bool
	// Outside leaves out private addresses of interfaces without a default route while
	// another interface has one of the same family. Gateways want that: such an
	// interface leads to the network behind them, and nobody reaches them there.
	Outside bool
	// Again, if not nil, delivers a token when everything is to be read and told once
	// more, changed or not: after the machine has slept, for instance.
	Again <-chan struct{}
	// Stirred, if not nil, is called when the addresses are the same, but the network
	// behind them may not be: another default gateway, a carrier lost for a moment.
	Stirred func()
	Log     *slog.Logger

	// What tests replace.
	subscribe func(done <-chan struct{}, bell chan<- struct{}, fail func(error)) error
	read      func(Config) ([]locator.Local, error)
}

// Addresses reads the addresses of this machine that count, the most preferred first:
// those of the interface with the lowest metric of its default route.
func Addresses(cfg Config) ([]locator.Local, error) {
	links, err := rtnl.Dump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	metrics, err := defaultMetrics(unix.RT_TABLE_MAIN)
	if err != nil {
		return nil, err
	}
	var outside map[metricKey]int
	if cfg.Outside {
		// Machines with several uplinks often have a routing table for each.
		if outside, err = defaultMetrics(unix.RT_TABLE_UNSPEC); err != nil {
			return nil, err
		}
	}
	var out []locator.Local
	for _, l := range links {
		a := l.Attrs()
		if !usable(a) || cfg.Ignore != nil && cfg.Ignore(a.Name) {
			continue
		}
		addrs, err := rtnl.Dump(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
		if err != nil {
			if errors.Is(err, unix.ENODEV) {
				continue // gone meanwhile
			}
			return nil, fmt.Errorf("list the addresses of %s: %w", a.Name, err)
		}
		for _, addr := range addrs {
			if e, ok := cfg.address(a, &addr, metrics); ok && !inside(e, outside) {
				out = append(out, e)
			}
		}
	}
	slices.SortStableFunc(out, func(x, y locator.Local) int { return cmp.Compare(y.Preference, x.Preference) })
	return out, nil
}

// usable says whether a link is up and carries packets.
func usable(a *netlink.LinkAttrs) bool {
	up := a.Flags&net.FlagUp != 0 && a.Flags&net.FlagLoopback == 0
	return up && a.OperState != netlink.OperDown && a.OperState != netlink.OperLowerLayerDown && a.OperState != netlink.OperNotPresent
}

// address makes an entry of one address, unless it does not count.
func (c *Config) address(link *netlink.LinkAttrs, a *netlink.Addr, metrics map[metricKey]int) (locator.Local, bool) {
	ip, ok := netip.AddrFromSlice(a.IP)
	if !ok {
		return locator.Local{}, false
	}
	ip = ip.Unmap()
	unfit := unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED
	if a.Flags&unfit != 0 || locator.ScopeOf(ip) < locator.ScopePrivate || c.Exclude != nil && c.Exclude(ip) {
		return locator.Local{}, false
	}
	metric, routed := metrics[metricKey{link.Index, ip.Is4()}]
	if !routed {
		if c.NeedRoute {
			return locator.Local{}, false
		}
		metric = 1 << 20
	}
	return locator.Local{Addr: ip, Interface: link.Index, Name: link.Name, Preference: -metric}, true
}

// inside says whether an address belongs to a network behind this machine: it is
// private, its interface has no default route, but another one has.
func inside(l locator.Local, outside map[metricKey]int) bool {
	if locator.ScopeOf(l.Addr) != locator.ScopePrivate {
		return false
	}
	if _, routed := outside[metricKey{l.Interface, l.Addr.Is4()}]; routed {
		return false
	}
	for key := range outside {
		if key.ipv4 == l.Addr.Is4() {
			return true
		}
	}
	return false
}

type metricKey struct {
	link int
	ipv4 bool
}

// defaultMetrics are the lowest metrics of the default routes in a routing table, or in
// all of them (RT_TABLE_UNSPEC).
func defaultMetrics(table int) (map[metricKey]int, error) {
	out := map[metricKey]int{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := routesIn(family, table)
		if err != nil {
			return nil, fmt.Errorf("list the routes: %w", err)
		}
		for _, r := range routes {
			if !isDefault(&r) {
				continue
			}
			for _, link := range outLinks(&r) {
				key := metricKey{link, family == netlink.FAMILY_V4}
				if m, ok := out[key]; !ok || r.Priority < m {
					out[key] = r.Priority
				}
			}
		}
	}
	return out, nil
}

func routesIn(family, table int) ([]netlink.Route, error) {
	return rtnl.Dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	})
}

func isDefault(r *netlink.Route) bool {
	if r.Type != unix.RTN_UNICAST {
		return false
	}
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

func outLinks(r *netlink.Route) []int {
	if len(r.MultiPath) == 0 {
		return []int{r.LinkIndex}
	}
	var out []int
	for _, hop := range r.MultiPath {
		out = append(out, hop.LinkIndex)
	}
	return out
}

// Watch calls changed with the complete list whenever it differs from the one before,
// and first with the present one, until ctx ends. Calls come from one goroutine, one
// after the other.
func Watch(ctx context.Context, cfg Config, changed func([]locator.Local)) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.subscribe == nil {
		cfg.subscribe = subscribe
	}
	if cfg.read == nil {
		cfg.read = Addresses
	}
	w := &watch{cfg: cfg, changed: changed, settle: settle}
	var failed time.Time
	for ctx.Err() == nil {
		err := w.listen(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		inARow := time.Since(failed) < quiet
		level := slog.LevelDebug // ENOBUFS is the usual one: too much happened at once
		if errors.Is(err, errUnread) && !inARow {
			level = slog.LevelWarn
		}
		cfg.Log.Log(ctx, level, "changes of the network were missed, looking again", "error", err)
		if inARow {
			wait(ctx, resubscribe)
		}
		failed = time.Now()
	}
}

// errUnread says that the kernel did not list what there is.
var errUnread = errors.New("the addresses of this machine cannot be read")

// watch is what was told last, and how patient to be.
type watch struct {
	cfg     Config
	changed func([]locator.Local)
	known   bool
	owed    bool // everything is to be told, changed or not
	last    []locator.Local
	ways    string
	idle    int // how many looks in a row have shown nothing
	settle  time.Duration
}

// unsettled is how long to collect changes now. Without any address there is nothing
// that could go, and somebody waits for the first one that comes.
func (w *watch) unsettled() time.Duration {
	if len(w.last) == 0 && w.idle < patience {
		return 0
	}
	return w.settle
}

// relax forgets how much has happened for nothing.
func (w *watch) relax() { w.idle, w.settle = 0, settle }

// look reads the state and tells what is to be told.
func (w *watch) look() error {
	now, err := w.cfg.read(w.cfg)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnread, err)
	}
	ways := ""
	if w.cfg.Stirred != nil {
		ways = waysOut(now)
	}
	again, stirred := w.owed || !w.known || !slices.Equal(now, w.last), ways != w.ways
	w.last, w.ways, w.known, w.owed = now, ways, true, false
	switch {
	case again:
		w.changed(now)
	case stirred:
		w.cfg.Stirred()
	default:
		// Nothing of ours: a machine whose routes change all the time is not to be read
		// all the time.
		w.idle++
		if w.idle > patience {
			w.settle = min(2*w.settle, settleMax)
		}
		return nil
	}
	w.relax()
	return nil
}

// listen looks once it hears the kernel, and after each burst of messages.
func (w *watch) listen(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 8)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	bell := make(chan struct{}, 1)
	if err := w.cfg.subscribe(ctx.Done(), bell, fail); err != nil {
		return err
	}
	if err := w.look(); err != nil {
		return err
	}
	heard := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-w.cfg.Again:
			w.owed = true
			if err := w.look(); err != nil {
				return err
			}
		case <-bell:
			if time.Since(heard) > quiet {
				w.relax()
			}
			wait(ctx, w.unsettled())
			heard = time.Now()
			select {
			case <-bell:
			default:
			}
			if err := w.look(); err != nil {
				return err
			}
		}
	}
}

// subscribe rings the bell for every message about addresses, links and routes.
func subscribe(done <-chan struct{}, bell chan<- struct{}, fail func(error)) error {
	return subscribeWith(0, done, bell, fail)
}

// subscribeWith sets the size of the queue for messages about addresses; zero leaves it
// at the system's.
func subscribeWith(buffer int, done <-chan struct{}, bell chan<- struct{}, fail func(error)) error {
	addrs := make(chan netlink.AddrUpdate)
	links := make(chan netlink.LinkUpdate)
	routes := make(chan netlink.RouteUpdate)
	err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{ErrorCallback: fail, ReceiveBufferSize: buffer})
	if err == nil {
		err = netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: fail})
	}
	if err == nil {
		err = netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{ErrorCallback: fail})
	}
	if err != nil {
		return fmt.Errorf("listen to changes of the network: %w", err)
	}
	go ring(addrs, bell)
	go ring(links, bell)
	go ring(routes, bell)
	return nil
}

func ring[T any](updates <-chan T, bell chan<- struct{}) {
	for range updates {
		select {
		case bell <- struct{}{}:
		default:
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
