package netmon

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

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

// TestWatch changes addresses, routes and links, and waits for what has to be told.
func TestWatch(t *testing.T) {
	namespace(t)
	ip(t, "link add w0 type veth peer name w0p")
	ip(t, "link set w0 up")
	ip(t, "link set w0p up")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	told := make(chan []string, 64)
	own, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(own); err != nil {
			t.Error(err)
			return
		}
		Watch(ctx, Config{NeedRoute: true}, func(ls []locator.Local) { told <- addrs(ls) })
	}()
	expect := func(what string, want ...string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			select {
			case got := <-told:
				if slices.Equal(got, want) {
					return
				}
			case <-deadline:
				t.Fatalf("%s: never told %v", what, want)
			}
		}
	}
	expect("at first")
	ip(t, "addr add 192.0.2.10/24 dev w0")
	ip(t, "route add default via 192.0.2.1 dev w0")
	expect("with a default route", "192.0.2.10")
	ip(t, "addr add 192.0.2.11/24 dev w0")
	expect("with a second address", "192.0.2.10", "192.0.2.11")
	ip(t, "addr del 192.0.2.11/24 dev w0")
	expect("with one less", "192.0.2.10")
	ip(t, "link set w0p down") // the cable
	expect("with the cable cut")
	ip(t, "link set w0p up")
	expect("with the cable back", "192.0.2.10")
	ip(t, "route del default")
	expect("without a default route")
}
