// Package clock tells when the wall clock of this machine has been set: what was judged
// by it before, such as whether a certificate is valid, may be otherwise now.
package clock

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// WhenSet delivers a token whenever the wall clock has been set, and when the machine
// has resumed, which the kernel counts as that (timerfd_resume in fs/timerfd.c). Tokens
// that nobody takes merge. The channel is closed when ctx ends, or where the kernel
// cannot tell.
//
// It waits with a timer that never expires, but is cancelled when the clock is set
// (TFD_TIMER_CANCEL_ON_SET in timerfd_create(2)), and costs nothing while nothing
// happens.
func WhenSet(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		close(out)
		return out
	}
	file := os.NewFile(uintptr(fd), "timerfd")
	context.AfterFunc(ctx, func() { file.Close() })
	go func() {
		defer close(out)
		defer file.Close()
		for {
			far := unix.ItimerSpec{Value: unix.NsecToTimespec(time.Now().AddDate(10, 0, 0).UnixNano())}
			err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &far, nil)
			if err != nil {
				return
			}
			var expirations [8]byte
			if _, err := file.Read(expirations[:]); !errors.Is(err, unix.ECANCELED) || ctx.Err() != nil {
				return
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}
