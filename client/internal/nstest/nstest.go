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
