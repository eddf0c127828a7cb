package server

import (
	"context"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Files are looked at each hour, and when the clock has been set; a signal reloads.
func TestOccasionsToLookAgain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	hour, clockSet, reload := make(chan time.Time), make(chan struct{}), make(chan os.Signal)
	did, ended := make(chan string), make(chan struct{})
	go func() {
		defer close(ended)
		occasions{hour, clockSet, reload}.serve(ctx, func() { did <- "refresh" }, func() { did <- "reload" })
	}()
	for _, step := range []struct {
		occasion func()
		want     string
	}{
		{func() { hour <- time.Time{} }, "refresh"},
		{func() { clockSet <- struct{}{} }, "refresh"},
		{func() { reload <- unix.SIGHUP }, "reload"},
		{func() { close(clockSet); hour <- time.Time{} }, "refresh"},
	} {
		step.occasion()
		if got := <-did; got != step.want {
			t.Errorf("%s, want %s", got, step.want)
		}
	}
	cancel()
	<-ended
}
