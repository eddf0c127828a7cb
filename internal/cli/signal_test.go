package cli

import (
	"syscall"
	"testing"
	"time"
)

// Programs that pass a signal on to a process and to its group deliver it twice. The
// second one must not cut short what the first one has begun; it would end this test too.
func TestSecondSignalIsTheSameWish(t *testing.T) {
	ctx, stop := interruptible()
	defer stop()
	for range 2 {
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		time.Sleep(20 * time.Millisecond) // what the signal changes is changed
	}
}
