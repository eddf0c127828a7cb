package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func TestScaleIsRound(t *testing.T) {
	for _, tt := range []struct{ most, end, step float64 }{
		{1, 1, 0.2}, {0.7, 0.7, 0.1}, {1.5, 1.6, 0.2}, {3.7, 4, 0.5}, {5.2, 6, 1}, {16, 16, 2}, {17, 20, 5},
	} {
		s := newScale(tt.most)
		if math.Abs(s.end-tt.end) > 1e-9 || math.Abs(s.step-tt.step) > 1e-9 {
			t.Errorf("%v: ends at %v in steps of %v, want %v and %v", tt.most, s.end, s.step, tt.end, tt.step)
		}
	}
}

func chart() *Chart {
	return &Chart{
		Title: "A & B", Subtitle: "one\ntwo",
		Series: []Series{{"base", "#999999"}, {"new", "#0066cc"}},
		Panels: []Panel{{Title: "more", Groups: []Group{
			{Name: "rate", Bars: []Bar{{Value: 1, Label: "1 <x>"}, {Value: 2, Label: "2.00"}}},
			{Name: "only base", Bars: []Bar{{Value: 0.5, Label: "half"}, {None: true}}},
		}}},
	}
}

// The picture is well-formed, whatever is in the texts, and holds every bar once.
func TestSVG(t *testing.T) {
	svg := chart().SVG()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for want, n := range map[string]int{"A &amp; B": 2, "1 &lt;x&gt;": 1, `fill="#0066cc"`: 2, `fill="#999999"`: 3, "two</text>": 1} {
		if got := strings.Count(svg, want); got != n {
			t.Errorf("%q appears %d times, not %d", want, got, n)
		}
	}
}

// A bar of twice the value is twice as long.
func TestBarsAreProportional(t *testing.T) {
	s := newScale(2)
	if one, two := s.x(1)-s.x(0), s.x(2)-s.x(0); math.Abs(two-2*one) > 1e-9 || s.x(2) > width-textWidth+1e-9 {
		t.Errorf("lengths %v and %v", one, two)
	}
}
