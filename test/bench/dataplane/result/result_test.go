package result

import (
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func sample(peer, metric string, values ...float64) (out []Sample) {
	for _, v := range values {
		out = append(out, Sample{Peer: peer, Metric: metric, Value: v, Foreign: 0.01})
	}
	return out
}

func run(samples ...[]Sample) Run {
	r := Run{When: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), Version: "abc", Machine: Machine{CPU: "cpu", Cores: 2, Kernel: "6.1", Go: "go1"}}
	for _, s := range samples {
		r.Samples = append(r.Samples, s...)
	}
	return r
}

var columns = []Column{{"veth", "no tunnel"}, {"wg", "wireguard-go"}, {"ours", "Wayfarer"}}

func TestMedian(t *testing.T) {
	if m := Median([]float64{3, 1, 2}); m != 2 {
		t.Error(m)
	}
	v := []float64{4, 1, 3, 2}
	if m := Median(v); m != 2.5 {
		t.Error(m)
	}
	if v[0] != 4 {
		t.Error("the values were sorted in place")
	}
}

// Runs are merged, also through a file.
func TestMerge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	f, err := Load(path)
	if err != nil || len(f.Runs) != 0 {
		t.Fatal(f, err)
	}
	f.Runs = append(f.Runs, run(sample("wg", "tcp1", 1, 3)), run(sample("wg", "tcp1", 2), sample("ours", "tcp1", 5)))
	if err := f.Save(path); err != nil {
		t.Fatal(err)
	}
	if f, err = Load(path); err != nil {
		t.Fatal(err)
	}
	if v := f.Values("wg", "tcp1"); len(v) != 3 || v[2] != 2 {
		t.Error(v)
	}
	if r, ok := f.Ratio("ours", "wg", "tcp1"); !ok || r != 2.5 {
		t.Error(r, ok)
	}
	if _, ok := f.Ratio("ours", "wg", "ping"); ok {
		t.Error("a ratio of nothing")
	}
}

func TestTable(t *testing.T) {
	f := &File{Runs: []Run{run(sample("veth", "ping", 10), sample("wg", "ping", 110, 210, 130), sample("ours", "ping", 70), sample("wg", "tcp1", 1), sample("ours", "tcp1", 3))}}
	table := f.Table(append(columns, Column{"absent", "absent"}), "ours", "wg")
	for _, want := range []string{
		"| median (range) | no tunnel | wireguard-go | Wayfarer | Wayfarer : wireguard-go |\n|---|---:|---:|---:|---:|\n",
		"| TCP, one stream, Gbit/s | – | 1.00 | 3.00 | **3.00** |\n",
		"| ping, median, µs | 10 | 130 (110–210) | 70 | **0.54** |\n",
		"| ping, added to no tunnel, µs | – | 120 (100–200) | 60 | **0.50** |\n",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	if strings.Contains(table, "absent") || strings.Contains(table, "UDP") {
		t.Errorf("what was not measured has a place in\n%s", table)
	}
}

// A ping over the other underlay is compared with plain veth when that is all there is.
func TestPingAdded(t *testing.T) {
	f := &File{Runs: []Run{run(sample("veth", "ping", 10), sample("ours+nic", "ping", 40), sample("wg+nic", "ping", 70))}}
	if v := f.Values("ours+nic", PingAdded); len(v) != 1 || v[0] != 30 {
		t.Error(v)
	}
	if r, _ := f.Ratio("ours+nic", "wg+nic", PingAdded); math.Abs(r-0.5) > 1e-9 {
		t.Error(r)
	}
	if v := f.Values("veth", PingAdded); v != nil {
		t.Error(v)
	}
}

func TestReplace(t *testing.T) {
	doc := "before\n<!-- bench:a -->\nold\n<!-- /bench:a -->\nafter\n"
	got, err := Replace(doc, "a", "new\nlines\n")
	if err != nil || got != "before\n<!-- bench:a -->\nnew\nlines\n<!-- /bench:a -->\nafter\n" {
		t.Errorf("%q, %v", got, err)
	}
	if again, _ := Replace(got, "a", "new\nlines\n"); again != got {
		t.Errorf("not the same again: %q", again)
	}
	if _, err := Replace(doc, "b", ""); err == nil {
		t.Error("a block that is not there was replaced")
	}
}

func TestGoBenchmarks(t *testing.T) {
	lines, err := GoBenchmarkLines(strings.NewReader("goos: linux\nBenchmarkSeal/aes128gcm16/1400-2 \t 10 \t 341.5 ns/op\t4100.2 MB/s\t 0 B/op\t 0 allocs/op\nBenchmarkX 1 2.5 B/child\nBenchmarkOther-2 1 3 ns/op\nPASS\nBenchmarkBroken-2 x\n"))
	if err != nil || len(lines) != 3 {
		t.Fatal(lines, err)
	}
	table := (&File{GoBenchmarks: lines}).GoBenchmarkTable([]string{"Seal", "X"})
	if strings.Contains(table, "Other") {
		t.Errorf("what was not asked for is in\n%s", table)
	}
	for _, want := range []string{"| `Seal/aes128gcm16/1400` | 341.5 | 4100.2 | 0 | 0 |  |", "| `X` | – | – | – | – | 2.5 B/child |"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
}

func TestChart(t *testing.T) {
	f := &File{Runs: []Run{run(sample("wg", "tcp1", 2), sample("ours", "tcp1", 5), sample("wg", "cpu1", 4), sample("ours", "cpu1", 1), sample("veth", "tcp1", 20))}}
	c := f.Chart("t", "s", columns[1:], []string{"#111111", "#222222"}, "wg")
	if len(c.Panels) != 2 || len(c.Panels[0].Groups) != 1 || len(c.Panels[1].Groups) != 1 {
		t.Fatalf("%+v", c.Panels)
	}
	b := c.Panels[0].Groups[0].Bars
	if b[0].Value != 1 || b[1].Value != 2.5 || b[1].Label != "5.00 Gbit/s (2.50×)" {
		t.Errorf("%+v", b)
	}
	if b := c.Panels[1].Groups[0].Bars[1]; b.Value != 0.25 {
		t.Errorf("%+v", b)
	}
}
