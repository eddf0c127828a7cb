package spelling

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	names := []string{"pool", "pool6", "lease_time", "status", "server", "user", "name"}
	for name, want := range map[string]string{
		"pol": "pool", "polo": "pool", "pool66": "pool6", "LeaseTime": "lease_time", "statsu": "status", "nmae": "name", "sever": "server",
		"usr": "user", "zebra": "", "": "", "x": "", strings.Repeat("pool", 20): "",
	} {
		got, ok := Nearest(name, names)
		if ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v; want %q", name, got, ok, want)
		}
	}
	if _, ok := Nearest("x", nil); ok {
		t.Error("something is near to nothing")
	}
}

// The order of the candidates does not matter.
func TestNearestIsStable(t *testing.T) {
	for _, names := range [][]string{{"abc1", "abc2"}, {"abc2", "abc1"}} {
		if got, _ := Nearest("abcx", names); got != "abc1" {
			t.Errorf("%v: %s", names, got)
		}
	}
}

func FuzzNearest(f *testing.F) {
	f.Add("statsu", "status")
	f.Add("", "\xff")
	f.Fuzz(func(t *testing.T, a, b string) {
		a, b = a[:min(len(a), 100)], b[:min(len(b), 100)]
		if distance(a, b) != distance(b, a) {
			t.Error("the distance depends on the direction")
		}
		if (distance(a, b) == 0) != (a == b) {
			t.Error("only equal strings have no distance")
		}
		if got, ok := Nearest(a, []string{b}); ok && got != b {
			t.Errorf("invented %q", got)
		}
	})
}
