package sleep

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Now reads the clocks of this machine.
func Now() Clocks {
	return Clocks{Monotonic: read(unix.CLOCK_MONOTONIC), Boot: read(unix.CLOCK_BOOTTIME), Wall: time.Now().Round(0)}
}

func read(clock int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0 // both clocks exist since Linux 2.6.39
	}
	return time.Duration(ts.Nano())
}

// clockSet waits with a timer that never expires, but is cancelled when the clock is
// set; the kernel counts a resume as that (timerfd_resume in fs/timerfd.c). It costs
// nothing while nothing happens. Where it is not to be had, the channel is closed.
func clockSet(ctx context.Context) <-chan struct{} {
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
