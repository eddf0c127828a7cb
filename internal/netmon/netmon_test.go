package netmon

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// namespace runs the rest of the test in a network namespace of its own.
func namespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIP: needs root for a network namespace")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	ns, err := netns.New()
	if err != nil {
		t.Skipf("SKIP: no network namespace here: %v", err)
	}
	t.Cleanup(func() { ns.Close() })
}

// ip runs ip(8) in the test's namespace.
func ip(t *testing.T, args string) {
	t.Helper()
	cmd := exec.Command("ip", strings.Fields(args)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

func addrs(ls []locator.Local) (out []string) {
	for _, l := range ls {
		out = append(out, l.Addr.String())
	}
	return out
}

func TestAddresses(t *testing.T) {
	namespace(t)
	for _, c := range []string{
		"link set lo up",
		"link add w0 type veth peer name w0p", "link set w0 up", "link set w0p up",
		"link add w1 type veth peer name w1p", "link set w1 up", "link set w1p up",
		"link add off type veth peer name offp",
		"addr add 192.0.2.10/24 dev w0", "addr add 2001:db8::10/64 dev w0 nodad",
		"addr add 198.51.100.10/24 dev w1", "addr add 10.20.0.1/24 dev w1",
		"addr add 203.0.113.1/24 dev off",
		"route add default via 198.51.100.1 dev w1 metric 50",
		"route add default via 192.0.2.1 dev w0 metric 100",
	} {
		ip(t, c)
	}
	inner := netip.MustParsePrefix("10.20.0.0/16")
	cfg := Config{Exclude: inner.Contains}
	got, err := Addresses(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"198.51.100.10", "192.0.2.10", "2001:db8::10"}; !slices.Equal(addrs(got), want) {
		t.Errorf("got %v, want %v", addrs(got), want)
	}
	cfg.NeedRoute = true
	cfg.Ignore = func(name string) bool { return name == "w0" }
	got, err = Addresses(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"198.51.100.10"}; !slices.Equal(addrs(got), want) {
		t.Errorf("with routes only and without w0: %v, want %v", addrs(got), want)
	}
}

// A gateway's address in the network behind it is none that clients could try, but one
// of a second uplink is, and without any way out all count.
func TestOutside(t *testing.T) {
	namespace(t)
	for _, c := range []string{
		"link set lo up",
		"link add w0 type veth peer name w0p", "link set w0 up", "link set w0p up",
		"link add w1 type veth peer name w1p", "link set w1 up", "link set w1p up",
		"link add in type veth peer name inp", "link set in up", "link set inp up",
		"addr add 203.0.113.10/24 dev w0", "addr add 172.16.0.10/24 dev w1",
		"addr add 10.20.0.1/24 dev in", "addr add fd00:20::1/64 dev in nodad",
	} {
		ip(t, c)
	}
	expect := func(what string, want ...string) {
		t.Helper()
		got, err := Addresses(Config{Outside: true})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(want)
		if have := slices.Sorted(slices.Values(addrs(got))); !slices.Equal(have, want) {
			t.Errorf("%s: %v, want %v", what, have, want)
		}
	}
	expect("no route", "203.0.113.10", "172.16.0.10", "10.20.0.1", "fd00:20::1")
	ip(t, "route add default via 203.0.113.1 dev w0")
	expect("one uplink", "203.0.113.10", "fd00:20::1") // no way out in IPv6
	ip(t, "route add default via 172.16.0.1 dev w1 table 102")
	expect("a second uplink with a table of its own", "203.0.113.10", "172.16.0.10", "fd00:20::1")
	ip(t, "addr add 2001:db8::10/64 dev w0 nodad")
	ip(t, "route add default via 2001:db8::1 dev w0")
	expect("both families", "203.0.113.10", "172.16.0.10", "2001:db8::10")
}

// watched is a Watch in the test's namespace.
type watched struct {
	told    chan []string
	stirred chan struct{}
	again   chan struct{}
}

func watchHere(t *testing.T, cfg Config) *watched {
	w := &watched{told: make(chan []string, 1024), stirred: make(chan struct{}, 1024), again: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	own, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	cfg.NeedRoute, cfg.Again = true, w.again
	cfg.Stirred = func() { w.stirred <- struct{}{} }
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := netns.Set(own); err != nil {
			t.Error(err)
			return
		}
		Watch(ctx, cfg, func(ls []locator.Local) { w.told <- addrs(ls) })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *watched) expect(t *testing.T, what string, want ...string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case got := <-w.told:
			if slices.Equal(got, want) {
				return
			}
		case <-deadline:
			t.Fatalf("%s: never told %v", what, want)
		}
	}
}

// TestWatch changes addresses, routes and links, and waits for what has to be told.
func TestWatch(t *testing.T) {
	namespace(t)
	ip(t, "link add w0 type veth peer name w0p")
	ip(t, "link set w0 up")
	ip(t, "link set w0p up")
	w := watchHere(t, Config{})
	w.expect(t, "at first")
	ip(t, "addr add 192.0.2.10/24 dev w0")
	ip(t, "route add default via 192.0.2.1 dev w0")
	w.expect(t, "with a default route", "192.0.2.10")
	ip(t, "addr add 192.0.2.11/24 dev w0")
	w.expect(t, "with a second address", "192.0.2.10", "192.0.2.11")
	ip(t, "addr del 192.0.2.11/24 dev w0")
	w.expect(t, "with one less", "192.0.2.10")
	ip(t, "link set w0p down") // the cable
	w.expect(t, "with the cable cut")
	ip(t, "link set w0p up")
	w.expect(t, "with the cable back", "192.0.2.10")
	ip(t, "route del default")
	w.expect(t, "without a default route")
}

// TestBothFamilies: uplinks of IPv4 and IPv6 are told together and leave one by one.
func TestBothFamilies(t *testing.T) {
	namespace(t)
	for _, c := range []string{
		"link add w0 type veth peer name w0p", "link set w0 up", "link set w0p up",
		"link add w1 type veth peer name w1p", "link set w1 up", "link set w1p up",
		"addr add 192.0.2.10/24 dev w0", "addr add 2001:db8::10/64 dev w0 nodad", "addr add 198.51.100.10/24 dev w1",
		"route add default via 192.0.2.1 dev w0 metric 100", "route add default via 2001:db8::1 dev w0 metric 100",
		"route add default via 198.51.100.1 dev w1 metric 200",
	} {
		ip(t, c)
	}
	w := watchHere(t, Config{})
	w.expect(t, "at first", "192.0.2.10", "2001:db8::10", "198.51.100.10")
	ip(t, "-6 route del default dev w0")
	w.expect(t, "without the way out of IPv6", "192.0.2.10", "198.51.100.10")
	ip(t, "route add default via 198.51.100.1 dev w1 metric 50")
	w.expect(t, "the other one preferred", "198.51.100.10", "192.0.2.10")
	ip(t, "-6 route add default via 2001:db8::1 dev w0 metric 10")
	w.expect(t, "IPv6 preferred", "2001:db8::10", "198.51.100.10", "192.0.2.10")
}

// TestStirred: the same addresses, but the network behind them is another one; and
// telling again on demand.
func TestStirred(t *testing.T) {
	namespace(t)
	for _, c := range []string{
		"link add w0 type veth peer name w0p", "link set w0 up", "link set w0p up",
		"addr add 192.0.2.10/24 dev w0", "route add default via 192.0.2.1 dev w0",
	} {
		ip(t, c)
	}
	w := watchHere(t, Config{})
	w.expect(t, "at first", "192.0.2.10")
	ip(t, "route replace default via 192.0.2.2 dev w0")
	select {
	case <-w.stirred:
	case <-time.After(20 * time.Second):
		t.Fatal("another default gateway is not told")
	}
	w.again <- struct{}{}
	w.expect(t, "once more", "192.0.2.10")
}

// TestMissedMessages: the kernel drops messages; what is told in the end is right all
// the same.
func TestMissedMessages(t *testing.T) {
	namespace(t)
	ip(t, "link add w0 type veth peer name w0p")
	ip(t, "link set w0 up")
	ip(t, "link set w0p up")
	subscriptions, missed := make(chan int, 1024), make(chan error, 1024)
	n := 0
	cfg := Config{subscribe: func(done <-chan struct{}, bell chan<- struct{}, fail func(error)) error {
		n++
		subscriptions <- n
		size := 0
		if n == 1 {
			size = 1 // the kernel makes it its least: a few messages
		}
		return subscribeWith(size, done, bell, func(err error) { missed <- err; fail(err) })
	}}
	w := watchHere(t, cfg)
	w.expect(t, "at first")
	var lines strings.Builder
	for i := range 250 {
		fmt.Fprintf(&lines, "addr add 10.0.0.%d/32 dev w0\n", i+1)
	}
	for i := range 250 {
		fmt.Fprintf(&lines, "addr del 10.0.0.%d/32 dev w0\n", i+1)
	}
	// The last ones are what counts.
	lines.WriteString("addr add 192.0.2.10/24 dev w0\nroute add default via 192.0.2.1 dev w0\n")
	batch := exec.Command("ip", "-batch", "-")
	batch.Stdin = strings.NewReader(lines.String())
	if out, err := batch.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.expect(t, "after the storm", "192.0.2.10")
	select {
	case err := <-missed:
		if !strings.Contains(err.Error(), unix.ENOBUFS.Error()) { // the library does not wrap
			t.Errorf("missed because of %v", err)
		}
		for n := range subscriptions {
			if n > 1 {
				break // subscribed anew
			}
		}
	case <-time.After(time.Second):
		t.Skip("SKIP: the kernel dropped no message this time")
	}
}

// TestFailureIsACue: whatever ends a subscription, the state is read again without any
// further message.
func TestFailureIsACue(t *testing.T) {
	namespace(t)
	ip(t, "link add w0 type veth peer name w0p")
	ip(t, "link set w0 up")
	ip(t, "link set w0p up")
	fails := make(chan func(error), 16)
	w := watchHere(t, Config{subscribe: func(_ <-chan struct{}, _ chan<- struct{}, fail func(error)) error {
		fails <- fail
		return nil // deaf
	}})
	w.expect(t, "at first")
	ip(t, "addr add 192.0.2.10/24 dev w0")
	ip(t, "route add default via 192.0.2.1 dev w0")
	(<-fails)(unix.ENOBUFS)
	w.expect(t, "after dropped messages", "192.0.2.10")
}

// TestPatience: changes that concern nothing here are read less and less often, but the
// few that precede a first address at once.
func TestPatience(t *testing.T) {
	namespace(t)
	w := &watch{cfg: Config{NeedRoute: true, read: Addresses}, changed: func([]locator.Local) {}, settle: settle}
	for range 8 {
		look(t, w)
	}
	if d := w.unsettled(); d != 0 {
		t.Errorf("without an address it waits for %v", d)
	}
	for range 20 {
		look(t, w)
	}
	if d := w.unsettled(); d != settleMax {
		t.Errorf("settles for %v, want %v", d, settleMax)
	}
	w.last = []locator.Local{{}} // an address that goes
	look(t, w)
	if d := w.unsettled(); d != 0 {
		t.Errorf("settles for %v after the last address went, want 0", d)
	}
	w.last = []locator.Local{{}}
	if d := w.unsettled(); d != settle {
		t.Errorf("settles for %v with an address, want %v", d, settle)
	}
}

func look(t *testing.T, w *watch) {
	t.Helper()
	if err := w.look(); err != nil {
		t.Fatal(err)
	}
}

// TestReadAgain: what could not be read is read again, also when the kernel says
// nothing more; and what was to be told in any case is told then.
func TestReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		again, fails, told := make(chan struct{}), 3, 0
		go Watch(ctx, Config{
			Again:     again,
			subscribe: func(<-chan struct{}, chan<- struct{}, func(error)) error { return nil }, // deaf
			read: func(Config) ([]locator.Local, error) {
				if fails > 0 {
					fails--
					return nil, netlink.ErrDumpInterrupted
				}
				return []locator.Local{{Addr: netip.MustParseAddr("192.0.2.10")}}, nil
			},
		}, func([]locator.Local) { told++ })
		time.Sleep(3 * resubscribe)
		synctest.Wait()
		if told != 1 {
			t.Fatalf("told %d times after the start", told)
		}
		time.Sleep(time.Minute)
		fails = 2
		again <- struct{}{}
		time.Sleep(3 * resubscribe)
		synctest.Wait()
		if told != 2 {
			t.Errorf("told %d times after a look on demand", told)
		}
	})
}
