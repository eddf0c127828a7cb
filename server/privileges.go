package server

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keptCapability is the only one that the daemon needs once it runs: routes, packet
// filter rules and addresses change with every reload, and settings below
// /proc/sys/net are restored at the end. Ports below 1024, raw sockets and the TUN
// device are open by then.
const keptCapability = unix.CAP_NET_ADMIN

// capState is both halves of the capability sets of capset(2), version 3.
type capState [2]unix.CapUserData

func (c *capState) keep(bit uint) {
	mask := uint32(1) << (bit % 32)
	for i := range c {
		word := uint32(0)
		if uint(i) == bit/32 {
			word = mask
		}
		c[i].Effective &= word
		c[i].Permitted &= word
		c[i].Inheritable = 0
	}
}

// dropPrivileges gives up, in all threads and for good, what is not needed any more.
// Failing to is no reason not to serve, but one to be told.
func dropPrivileges(log *slog.Logger) {
	if err := dropCapabilities(); err != nil {
		log.Warn("capabilities could not be given up; the daemon runs with more rights than it needs", "error", err)
	}
}

func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps capState
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if err := dropBounding(); err != nil {
		return err
	}
	caps.keep(keptCapability)
	// Capabilities belong to threads; the runtime has several and makes more.
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&caps[0])), 0)
	runtime.KeepAlive(&header)
	runtime.KeepAlive(&caps)
	if errno != 0 {
		return explainThreads("capset", errno)
	}
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return explainThreads("set no_new_privs", errno)
	}
	return nil
}

// dropBounding empties the bounding set, so that no program run from here could gain
// anything. Without CAP_SETPCAP (a service manager may have taken it) there is nothing
// to do.
func dropBounding() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if c == keptCapability {
			continue
		}
		_, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0, 0, 0, 0)
		switch errno {
		case 0, unix.EINVAL: // unknown to this kernel
		case unix.EPERM:
			return nil
		default:
			return explainThreads("drop from the bounding set", errno)
		}
	}
	return nil
}

func explainThreads(what string, errno syscall.Errno) error {
	if errors.Is(errno, syscall.ENOTSUP) {
		return fmt.Errorf("%s: this binary was built with cgo, where it cannot be done for all threads: build with CGO_ENABLED=0", what)
	}
	return fmt.Errorf("%s: %w", what, errno)
}
