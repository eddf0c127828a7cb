package pki

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How long a command waits for another one that changes the same authority: the
// longest part of a change is to make an RSA key, which is not done under the lock.
const (
	lockPatience = 10 * time.Second
	lockPause    = 20 * time.Millisecond
)

// locked runs change while no other process or goroutine changes the authority.
// The kernel gives the lock back when a process dies.
func (a *Authority) locked(change func() error) error {
	f, err := os.OpenFile(a.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return explain(err)
	}
	defer f.Close()
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(lockPause) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return change()
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: another process has held %s for %v: wait for it, or end it", ErrBusy, f.Name(), lockPatience)
		}
	}
}
