package sleep

import (
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
