package ratelimit

import (
	"net/netip"
	"testing"
	"time"
)

var start = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// allowed counts how many of n events at one instant a limiter lets through.
func allowed(n int, allow func() bool) int {
	count := 0
	for range n {
		if allow() {
			count++
		}
	}
	return count
}

func TestBucket(t *testing.T) {
	b := NewBucket(2, 5)
	steps := []struct {
		after time.Duration
		want  int
	}{
		{0, 5},                       // the burst
		{0, 0},                       // and no more
		{400 * time.Millisecond, 0},  // 0.8 tokens
		{600 * time.Millisecond, 1},  // 1.2
		{1100 * time.Millisecond, 1}, // 1.2 again: the fraction was kept
		{time.Hour, 5},               // never more than the burst
		{time.Hour - time.Second, 0},
	}
	for i, s := range steps {
		if got := allowed(10, func() bool { return b.Allow(start.Add(s.after)) }); got != s.want {
			t.Errorf("step %d: %d allowed, want %d", i, got, s.want)
		}
	}
	if got, want := b.Suppressed(), uint64(10*len(steps)-12); got != want {
		t.Errorf("%d suppressed, want %d", got, want)
	}
	if got := b.Suppressed(); got != 0 {
		t.Errorf("%d suppressed since the last call", got)
	}
}

func TestTable(t *testing.T) {
	table := NewTable[netip.Prefix](4096, 1, 3)
	one, two := Source(netip.MustParseAddr("192.0.2.1")), Source(netip.MustParseAddr("192.0.2.2"))
	if got := allowed(10, func() bool { return table.Allow(one, start) }); got != 3 {
		t.Errorf("%d allowed, want 3", got)
	}
	// The seed is random: two keys share a bucket once in 4096 tables. Four other
	// tables would have to agree on it for this test to be wrong.
	for range 5 {
		fresh := NewTable[netip.Prefix](4096, 1, 1)
		if fresh.Allow(one, start) && fresh.Allow(two, start) {
			return
		}
	}
	t.Error("one source uses up the allowance of another")
}

// TestTableFlood sends from very many keys: what passes is bounded by the size.
func TestTableFlood(t *testing.T) {
	table := NewTable[int](64, 1, 2)
	passed := 0
	for key := range 100000 {
		if table.Allow(key, start) {
			passed++
		}
	}
	if passed != 64*2 {
		t.Errorf("%d passed, want every bucket used up: %d", passed, 64*2)
	}
}

func TestSource(t *testing.T) {
	tests := []struct{ in, want string }{
		{"192.0.2.7", "192.0.2.7/32"},
		{"::ffff:192.0.2.7", "192.0.2.7/32"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"fe80::1%eth0", "fe80::/64"},
	}
	for _, tt := range tests {
		if got := Source(netip.MustParseAddr(tt.in)).String(); got != tt.want {
			t.Errorf("Source(%s) = %s, want %s", tt.in, got, tt.want)
		}
	}
	if got := Source(netip.Addr{}); got.IsValid() {
		t.Errorf("Source of nothing is %s", got)
	}
}

func BenchmarkTable(b *testing.B) {
	table := NewTable[netip.Prefix](4096, 1, 3)
	key := Source(netip.MustParseAddr("192.0.2.1"))
	b.ReportAllocs()
	for b.Loop() {
		table.Allow(key, start)
	}
}
