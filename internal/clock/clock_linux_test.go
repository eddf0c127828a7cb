package clock

import (
	"context"
	"testing"
)

// The kernel's timer can be made, and goes away with its context.
func TestWhenSetEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := WhenSet(ctx)
	select {
	case _, ok := <-out:
		if !ok {
			t.Fatal("the kernel cannot tell")
		}
	default:
	}
	cancel()
	for range out { // until it is closed
	}
}
