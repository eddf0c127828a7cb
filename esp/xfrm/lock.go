package xfrm

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// ErrInUse: a data path of this owner lives in the network namespace already.
var ErrInUse = errors.New("another process has its tunnel in this network namespace")

// lock makes sure that what is found in the kernel was left by nobody who lives. It is
// a socket in the abstract namespace, which belongs to the network namespace as states
// do, and which ends with the process.
func (o Owner) lock() (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("@wayfarer-xfrm-%d", o)})
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("lock the kernel's data path: %w", err)
	}
	return l, nil
}
