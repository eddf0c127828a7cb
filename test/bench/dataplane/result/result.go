// Package result keeps what a benchmark has measured and makes tables of it.
// Runs of different times are merged, so that a long measurement can be cut into
// slices for the times when the machine is idle.
package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"
)

// File is what is kept between runs.
type File struct {
	Runs []Run `json:"runs"`
	// GoBenchmarks are the lines of "go test -bench" that the documentation shows.
	GoBenchmarks []string `json:"go_benchmarks,omitempty"`
}

// Run is one call of the benchmark.
type Run struct {
	When    time.Time `json:"when"`
	Version string    `json:"version"` // of Wayfarer
	Machine Machine   `json:"machine"`
	Samples []Sample  `json:"samples"`
}

// Machine is where a run took place.
type Machine struct {
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Kernel  string `json:"kernel"`
	Go      string `json:"go"`
	Compare string `json:"compare,omitempty"` // versions of the other programs
}

// Sample is one measurement of one peer.
type Sample struct {
	Peer   string  `json:"peer"` // with the underlay after a plus, as in "ours+nic"
	Metric string  `json:"metric"`
	Value  float64 `json:"value"`
	// Foreign is how much of a core other programs used meanwhile.
	Foreign float64 `json:"foreign,omitempty"`
}

// Load reads a file; one that does not exist is empty.
func Load(path string) (*File, error) {
	f := &File{}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f, nil
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(data, f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// Save writes a file.
func (f *File) Save(path string) error {
	data, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// Values are all values of a metric of a peer, in the order they were measured.
func (f *File) Values(peer, metric string) []float64 {
	if metric == PingAdded {
		return f.pingAdded(peer)
	}
	return f.measured(peer, metric)
}

func (f *File) measured(peer, metric string) []float64 {
	var out []float64
	for _, r := range f.Runs {
		for _, s := range r.Samples {
			if s.Peer == peer && s.Metric == metric {
				out = append(out, s.Value)
			}
		}
	}
	return out
}

// Peers are the names of all peers, sorted.
func (f *File) Peers() []string {
	seen := map[string]bool{}
	for _, r := range f.Runs {
		for _, s := range r.Samples {
			seen[s.Peer] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// Foreign is the median and the largest share of a core that other programs used
// during the samples.
func (f *File) Foreign() (median, most float64) {
	var all []float64
	for _, r := range f.Runs {
		for _, s := range r.Samples {
			all = append(all, s.Foreign)
		}
	}
	if len(all) == 0 {
		return 0, 0
	}
	return Median(all), slices.Max(all)
}

// Median of values; there must be one.
func Median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// Ratio of the medians of two peers; false when one of them was not measured.
func (f *File) Ratio(peer, base, metric string) (float64, bool) {
	p, b := f.Values(peer, metric), f.Values(base, metric)
	if len(p) == 0 || len(b) == 0 || Median(b) <= 0 {
		return 0, false
	}
	return Median(p) / Median(b), true
}
