package cli

import (
	"math"
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 900 * time.Millisecond: "0s", 59 * time.Second: "59s", 65 * time.Second: "1m05s",
		time.Hour: "1h00m", 30 * time.Hour: "30h00m", 49*time.Hour + time.Minute: "2d01h",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestOctets(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0B", 1023: "1023B", 1024: "1.0KiB", 1536: "1.5KiB", 1 << 20: "1.0MiB", 5 << 40: "5.0TiB", math.MaxUint64: "16.0EiB",
	} {
		if got := Octets(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
