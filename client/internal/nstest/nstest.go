// Package nstest runs a test binary in a network and a mount namespace of its own,
// so that tests can change routes, addresses and /etc/resolv.conf for real without
// touching the machine. It needs root; without, such tests are skipped, loudly.
package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inside tells the second run of the binary that it is in its own namespaces.
const inside = "WAYFARER_TEST_NAMESPACE"

// Main runs the tests of a package; call it from TestMain.
func Main(m *testing.M) {
	if os.Getenv(inside) != "" {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare the namespaces of the tests:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	if os.Geteuid() != 0 || fuzzing() {
		os.Exit(m.Run())
	}
	os.Exit(again())
}

// fuzzing says whether this is a fuzzing run: its workers speak over inherited files.
func fuzzing() bool {
	for _, a := range os.Args {
		if strings.HasPrefix(a, "-test.fuzz") {
			return true
		}
	}
	return false
}

// again runs the binary in new namespaces and returns its exit code.
func again() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(1, exit.ExitCode())
	}
	fmt.Fprintln(os.Stderr, "run the tests in namespaces of their own:", err)
	return 1
}

// prepare makes mounts private and brings loopback up.
func prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// Require skips a test that needs its own namespaces where there are none.
func Require(t testing.TB) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("SKIPPED: needs root, to make network namespaces; nothing of this was tested")
	}
}

// Cable makes a virtual cable with two ends and brings both up. It waits until the
// kernel has seen the carrier: it sets up IPv6 addresses only half before.
func Cable(t testing.TB, end, other string) {
	t.Helper()
	Require(t)
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: end}, PeerName: other}
	if err := netlink.LinkAdd(cable); err != nil {
		t.Fatalf("make cable %s: %v", end, err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(cable) }) // a test may have cut it
	for _, name := range []string{end, other} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			t.Fatalf("bring %s up: %v", name, err)
		}
	}
	for _, name := range []string{end, other} {
		waitForCarrier(t, name)
	}
}

func waitForCarrier(t testing.TB, name string) {
	t.Helper()
	const tries = 2000 // of 5 ms
	for range tries {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatalf("find %s: %v", name, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("no carrier on %s", name)
}

// Address gives an interface an address and waits until the kernel takes packets to it
// for its own, which for IPv6 is a worker's business.
func Address(t testing.TB, end, prefix string) {
	t.Helper()
	link, err := netlink.LinkByName(end)
	if err != nil {
		t.Fatalf("find %s: %v", end, err)
	}
	addr, err := netlink.ParseAddr(prefix)
	if err != nil {
		t.Fatal(err)
	}
	addr.Flags = unix.IFA_F_NODAD
	if err := netlink.AddrAdd(link, addr); err != nil {
		t.Fatalf("set %s on %s: %v", prefix, end, err)
	}
	const tries = 2000 // of 5 ms
	for range tries {
		routes, err := netlink.RouteGet(addr.IP)
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("%s does not become local", prefix)
}
