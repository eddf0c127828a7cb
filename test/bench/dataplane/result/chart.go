package result

import (
	"fmt"
	"slices"

	"github.com/wayfarer-vpn/wayfarer/test/bench/dataplane/plot"
)

// Chart draws peers as ratios to one of them: one panel for what should be long and
// one for what should be short. Peers that were not measured are left out.
func (f *File) Chart(title, subtitle string, columns []Column, colours []string, base string) *plot.Chart {
	c := &plot.Chart{Title: title, Subtitle: subtitle}
	measured := f.Peers()
	columns = slices.Clone(columns)
	for i, col := range slices.Clone(columns) {
		if !slices.Contains(measured, col.Peer) {
			columns = slices.DeleteFunc(columns, func(c Column) bool { return c == col })
			continue
		}
		c.Series = append(c.Series, plot.Series{Name: col.Title, Colour: colours[i]})
	}
	for _, more := range []bool{true, false} {
		p := plot.Panel{Title: map[bool]string{true: "Longer is better", false: "Shorter is better"}[more]}
		for _, m := range Metrics {
			if m.More != more {
				continue
			}
			if g, any := f.group(m, columns, base); any {
				p.Groups = append(p.Groups, g)
			}
		}
		if len(p.Groups) > 0 {
			c.Panels = append(c.Panels, p)
		}
	}
	return c
}

func (f *File) group(m Metric, columns []Column, base string) (g plot.Group, any bool) {
	g.Name = m.Title
	for _, col := range columns {
		r, ok := f.Ratio(col.Peer, base, m.Key)
		if !ok {
			g.Bars = append(g.Bars, plot.Bar{None: true})
			continue
		}
		any = any || col.Peer != base
		label := fmt.Sprintf("%.*f %s", m.Digits, Median(f.Values(col.Peer, m.Key)), m.Unit)
		if col.Peer != base {
			label += fmt.Sprintf(" (%.2f×)", r)
		}
		g.Bars = append(g.Bars, plot.Bar{Value: r, Label: label})
	}
	return g, any
}
