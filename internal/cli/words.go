package cli

import (
	"fmt"
	"time"
)

// Span writes a length of time for people, in two units at most: 59s, 1m05s, 30h00m,
// 2d01h. Less than nothing is nothing.
func Span(d time.Duration) string {
	d = max(0, d)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	const day = 24 * time.Hour
	return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
}

// Octets writes an amount of data for people, as one word: 17B, 1.5KiB.
func Octets(n uint64) string {
	const step, units = 1024, "KMGTPE"
	if n < step {
		return fmt.Sprintf("%dB", n)
	}
	value, unit := float64(n)/step, 0
	for value >= step && unit < len(units)-1 {
		value, unit = value/step, unit+1
	}
	return fmt.Sprintf("%.1f%ciB", value, units[unit])
}
