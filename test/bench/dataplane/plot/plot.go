// Package plot draws groups of horizontal bars as SVG.
package plot

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Chart is one or more panels under a title.
type Chart struct {
	Title, Subtitle string
	Series          []Series
	Panels          []Panel
}

// Series is a colour with a name, the same in all panels.
type Series struct{ Name, Colour string }

// Panel is a set of groups on one scale. A line marks the value 1.
type Panel struct {
	Title  string
	Groups []Group
}

// Group is one row of bars, in the order of the series. A bar without a value is
// left out.
type Group struct {
	Name string
	Bars []Bar
}

// Bar has a length and a text at its end.
type Bar struct {
	Value float64
	Label string
	None  bool
}

// Measures of the picture, in pixels.
const (
	width     = 860
	nameWidth = 250
	textWidth = 150 // for the labels behind the bars
	barHeight = 15
	barGap    = 2
	groupGap  = 11
	margin    = 24
)

const style = `text{font-family:system-ui,"DejaVu Sans",Arial,sans-serif;fill:#1f2933}
.title{font-size:19px;font-weight:600}.sub{font-size:12px;fill:#52606d}.panel{font-size:14px;font-weight:600}
.name{font-size:12.5px;text-anchor:end}.label{font-size:11px;paint-order:stroke;stroke:#ffffff;stroke-width:3px}.legend{font-size:12.5px}.tick{font-size:10.5px;text-anchor:middle;fill:#7b8794}`

// SVG draws the chart.
func (c *Chart) SVG() string {
	d := &drawing{}
	d.text("title", margin, margin+12, c.Title)
	y := margin + 32
	for _, line := range strings.Split(c.Subtitle, "\n") {
		d.text("sub", margin, float64(y), line)
		y += 16
	}
	d.legend(float64(y+4), c.Series)
	y += 28
	for _, p := range c.Panels {
		y = d.panel(y, &p, c.Series)
	}
	height := y + margin/2
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">
<style>%s</style>
<rect width="%d" height="%d" fill="#ffffff"/>
%s</svg>
`, width, height, width, height, html.EscapeString(c.Title), style, width, height, d.b.String())
}

type drawing struct{ b strings.Builder }

func (d *drawing) text(class string, x, y float64, text string) {
	fmt.Fprintf(&d.b, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", class, x, y, html.EscapeString(text))
}

func (d *drawing) rect(x, y, w, h float64, colour string) {
	fmt.Fprintf(&d.b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"1.5\" fill=\"%s\"/>\n", x, y, w, h, html.EscapeString(colour))
}

func (d *drawing) line(x, y1, y2 float64, attributes string) {
	fmt.Fprintf(&d.b, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" %s/>\n", x, x, y1, y2, attributes)
}

func (d *drawing) legend(y float64, series []Series) {
	x := float64(margin)
	for _, s := range series {
		d.rect(x, y-10, 12, 12, s.Colour)
		d.text("legend", x+17, y, s.Name)
		x += 17 + 7.2*float64(len([]rune(s.Name))) + 24
	}
}

// panel draws one panel below y and returns where it ends.
func (d *drawing) panel(y int, p *Panel, series []Series) int {
	y += 22
	d.text("panel", margin, float64(y), p.Title)
	y += 12
	top := y
	height := 0
	for _, g := range p.Groups {
		height += g.height() + groupGap
	}
	scale := newScale(p.most())
	for v := 0.0; v <= scale.end+1e-9; v += scale.step {
		d.line(scale.x(v), float64(top), float64(top+height), `stroke="#e4e7eb" stroke-width="1"`)
		d.text("tick", scale.x(v), float64(top+height+13), fmt.Sprintf("%g×", math.Round(v*100)/100))
	}
	d.line(scale.x(1), float64(top), float64(top+height), `stroke="#3e4c59" stroke-width="1.2" stroke-dasharray="4 3"`)
	for _, g := range p.Groups {
		y += groupGap / 2
		d.text("name", nameWidth-8, float64(y)+float64(g.height())/2+4, g.Name)
		for i, b := range g.Bars {
			if b.None {
				continue
			}
			w := max(scale.x(b.Value)-nameWidth, 1)
			d.rect(nameWidth, float64(y), w, barHeight, series[i].Colour)
			d.text("label", nameWidth+w+5, float64(y)+barHeight-3.5, b.Label)
			y += barHeight + barGap
		}
		y += groupGap - groupGap/2
	}
	return top + height + 22
}

func (g *Group) height() int {
	n := 0
	for _, b := range g.Bars {
		if !b.None {
			n += barHeight + barGap
		}
	}
	return n
}

func (p *Panel) most() float64 {
	most := 1.0
	for _, g := range p.Groups {
		for _, b := range g.Bars {
			if !b.None {
				most = max(most, b.Value)
			}
		}
	}
	return most
}

// scale maps values from 0 to end to the width of the bars.
type scale struct{ end, step float64 }

// newScale ends at a round number and has three to eight steps.
func newScale(most float64) scale {
	step := 0.1
	for i := 0; most/step > 8; i++ {
		step *= []float64{2, 2.5, 2}[i%3] // 0.2, 0.5, 1, 2, ...
	}
	return scale{end: math.Ceil(most/step-1e-9) * step, step: step}
}

func (s scale) x(v float64) float64 {
	return nameWidth + v/s.end*(width-nameWidth-textWidth)
}
