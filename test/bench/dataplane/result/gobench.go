package result

import (
	"bufio"
	"io"
	"slices"
	"strconv"
	"strings"
)

// GoBenchmark is one line of "go test -bench".
type GoBenchmark struct {
	Name   string // without the prefix and the number of processors
	Values map[string]float64
}

// ParseGoBenchmark reads one line; false for any other.
func ParseGoBenchmark(line string) (GoBenchmark, bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
		return GoBenchmark{}, false
	}
	name := strings.TrimPrefix(fields[0], "Benchmark")
	if at := strings.LastIndexByte(name, '-'); at > 0 {
		if _, err := strconv.Atoi(name[at+1:]); err == nil {
			name = name[:at]
		}
	}
	b := GoBenchmark{Name: name, Values: map[string]float64{}}
	for i := 2; i+1 < len(fields); i += 2 {
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return GoBenchmark{}, false
		}
		b.Values[fields[i+1]] = v
	}
	return b, len(b.Values) > 0
}

// GoBenchmarkLines returns the lines of r that are results of benchmarks.
func GoBenchmarkLines(r io.Reader) ([]string, error) {
	var out []string
	s := bufio.NewScanner(r)
	for s.Scan() {
		if _, ok := ParseGoBenchmark(s.Text()); ok {
			out = append(out, s.Text())
		}
	}
	return out, s.Err()
}

// GoBenchmarkTable shows time and allocations of the benchmarks with these names.
func (f *File) GoBenchmarkTable(names []string) string {
	rows := [][]string{{"benchmark", "ns/op", "MB/s", "B/op", "allocs/op", "more"}}
	for _, line := range f.GoBenchmarks {
		b, ok := ParseGoBenchmark(line)
		if name, _, _ := strings.Cut(b.Name, "/"); !ok || !slices.Contains(names, name) {
			continue
		}
		row := []string{"`" + b.Name + "`"}
		for _, unit := range rows[0][1:5] {
			cell := "–"
			if v, ok := b.Values[unit]; ok {
				cell = strconv.FormatFloat(v, 'f', -1, 64)
			}
			row = append(row, cell)
			delete(b.Values, unit)
		}
		rows = append(rows, append(row, others(b.Values)))
	}
	if len(rows) == 1 {
		return ""
	}
	return markdown(rows)
}

// others are units that a benchmark has made up.
func others(values map[string]float64) string {
	var out []string
	for unit, v := range values {
		out = append(out, strconv.FormatFloat(v, 'f', -1, 64)+" "+unit)
	}
	if len(out) == 0 {
		return ""
	}
	return strings.Join(slices.Sorted(slices.Values(out)), ", ")
}
