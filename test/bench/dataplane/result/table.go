package result

import (
	"fmt"
	"slices"
	"strings"
)

// Column is a peer under the name that readers know.
type Column struct{ Peer, Title string }

// Table compares peers: one row for each metric that at least one of them has, the
// median with the range in brackets, and the ratio of subject to base.
func (f *File) Table(columns []Column, subject, base string) string {
	columns = slices.DeleteFunc(slices.Clone(columns), func(c Column) bool { return !slices.Contains(f.Peers(), c.Peer) })
	if len(columns) == 0 {
		return ""
	}
	head := []string{"median (range)"}
	for _, c := range columns {
		head = append(head, c.Title)
	}
	if subject != "" {
		head = append(head, title(columns, subject)+" : "+title(columns, base))
	}
	rows := [][]string{head}
	for _, m := range Metrics {
		if row, any := f.row(m, columns); any {
			if subject != "" {
				row = append(row, f.ratioCell(m, subject, base))
			}
			rows = append(rows, row)
		}
	}
	return markdown(rows)
}

func title(columns []Column, peer string) string {
	for _, c := range columns {
		if c.Peer == peer {
			return c.Title
		}
	}
	return peer
}

func (f *File) row(m Metric, columns []Column) (cells []string, any bool) {
	cells = []string{m.Title + ", " + m.Unit}
	for _, c := range columns {
		v := f.Values(c.Peer, m.Key)
		if len(v) == 0 {
			cells = append(cells, "–")
			continue
		}
		any = true
		cells = append(cells, m.Cell(v))
	}
	return cells, any
}

// Cell shows values: the median, and the range when there are several.
func (m Metric) Cell(v []float64) string {
	text := fmt.Sprintf("%.*f", m.Digits, Median(v))
	if len(v) > 1 {
		text += fmt.Sprintf(" (%.*f–%.*f)", m.Digits, slices.Min(v), m.Digits, slices.Max(v))
	}
	return text
}

func (f *File) ratioCell(m Metric, subject, base string) string {
	r, ok := f.Ratio(subject, base, m.Key)
	if !ok {
		return "–"
	}
	return fmt.Sprintf("**%.2f**", r)
}

// markdown writes a table whose first row is the head.
func markdown(rows [][]string) string {
	var b strings.Builder
	for i, r := range rows {
		b.WriteString("| " + strings.Join(r, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|---|" + strings.Repeat("---:|", len(r)-1) + "\n")
		}
	}
	return b.String()
}

// Conditions says in a few lines where and when the runs took place.
func (f *File) Conditions() string {
	var b strings.Builder
	seen := map[string]bool{}
	for _, r := range f.Runs {
		m := r.Machine
		text := fmt.Sprintf("- %s: Wayfarer %s; %s, %d cores; Linux %s; %s", r.When.UTC().Format("2006-01-02"), r.Version, m.CPU, m.Cores, m.Kernel, m.Go)
		if m.Compare != "" {
			text += "; " + m.Compare
		}
		if !seen[text] {
			b.WriteString(text + "\n")
		}
		seen[text] = true
	}
	median, most := f.Foreign()
	fmt.Fprintf(&b, "- other programs used %.2f of a core during a measurement (median), %.2f at most\n", max(median, 0), max(most, 0))
	return b.String()
}
