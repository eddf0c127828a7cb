package udprate

import (
	"math"
	"testing"
)

// path carries up to capacity, and only half as much when it is offered more.
func path(capacity, sender float64, trials *int) func(float64) Trial {
	return func(rate float64) Trial {
		*trials++
		if rate == 0 || rate > sender {
			rate = sender
		}
		if rate <= capacity {
			return Trial{rate, rate}
		}
		return Trial{rate, capacity * 0.7}
	}
}

func TestSearchFindsTheCapacity(t *testing.T) {
	for _, capacity := range []float64{10e3, 80e3, 150e3} {
		trials := 0
		best, overload := Search(Limits{Loss: 0.001, Steps: 8}, path(capacity, 200e3, &trials))
		if math.Abs(best-capacity) > capacity*0.02 || best > capacity {
			t.Errorf("found %.0f for a path of %.0f", best, capacity)
		}
		if overload.Sent != 200e3 || overload.Received != capacity*0.7 {
			t.Errorf("overload %+v", overload)
		}
		if trials > 17 {
			t.Errorf("%d trials", trials)
		}
	}
}

func TestSearchStopsAtTheSender(t *testing.T) {
	trials := 0
	best, _ := Search(Limits{Loss: 0.001, Steps: 8}, path(1e6, 200e3, &trials))
	if best != 200e3 || trials != 1 {
		t.Errorf("%.0f after %d trials", best, trials)
	}
}

// One lost trial is repeated, a path that always loses is worth nothing.
func TestSearchForgivesOnce(t *testing.T) {
	n := 0
	hiccup := func(rate float64) Trial {
		n++
		if rate == 0 {
			return Trial{100, 50}
		}
		if n == 2 {
			return Trial{rate, 0}
		}
		return path(60, 100, new(int))(rate)
	}
	if best, _ := Search(Limits{Loss: 0.001, Steps: 8}, hiccup); best < 58 || best > 60 {
		t.Errorf("found %.1f for 60", best)
	}
	if best, _ := Search(Limits{Loss: 0.001, Steps: 5}, func(float64) Trial { return Trial{100, 90} }); best != 0 {
		t.Errorf("a path that always loses carries %.0f", best)
	}
}
