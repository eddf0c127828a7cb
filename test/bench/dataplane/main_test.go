package main

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/test/bench/dataplane/result"
)

func TestParseStat(t *testing.T) {
	got, err := parseStat("12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 125 0 0 20")
	if err != nil || got != (times{2.5, 1.25}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "12 (a) S 1", "12 (a) S 1 2 3 4 5 6 7 8 9 10 x 1"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
	if user, err := parseMachine("cpu  100 50 7 8\ncpu0 1 2 3"); err != nil || user != 1.5 {
		t.Error(user, err)
	}
	if _, err := parseMachine("intr 1 2 3"); err == nil {
		t.Error("nonsense was understood")
	}
}

func TestParseIperf(t *testing.T) {
	bits, bytes, err := parseIperf([]byte(`{"end":{"sum_received":{"bytes":1000,"bits_per_second":8e9}}}`))
	if err != nil || bits != 8e9 || bytes != 1000 {
		t.Error(bits, bytes, err)
	}
	for _, bad := range []string{`{"error":"unable to connect"}`, `{}`, `x`} {
		if _, _, err := parseIperf([]byte(bad)); err == nil {
			t.Errorf("%s was understood", bad)
		}
	}
}

func TestParsePing(t *testing.T) {
	us := parsePing("64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.118 ms\n64 bytes: icmp_seq=2 time=2 ms\nrtt min/avg/max/mdev = 1/2/3/4 ms")
	if len(us) != 2 || us[0] != 118 || us[1] != 2000 {
		t.Error(us)
	}
}

func TestOptions(t *testing.T) {
	o, err := parse([]string{"-peers", "wg,ours+nic", "-only", "udp"})
	if err != nil || len(o.peers) != 2 || o.only[0] != "udp" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range [][]string{{"-only", "tcpp"}, {"-rounds", "0"}, {"more"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
	for name, ok := range map[string]bool{"ours-chacha+nic": true, "wg": true, "openvpn": false, "ours+wifi": false} {
		if err := available(name); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if variant("ours-chacha+nic") != "ours-chacha" || kind("ours-chacha+nic") != "ours" {
		t.Error("names are taken apart wrongly")
	}
}

// A disturbed measurement is repeated, and the least disturbed one counts.
func TestQuietRepeats(t *testing.T) {
	calls := 0
	w := &watcher{share: -1, attempts: 3, say: func(string, ...any) {}} // everything disturbs
	v, _, err := quiet(context.Background(), w, nil, func() (int, error) { calls++; return calls, nil })
	if err != nil || calls != 3 || v < 1 || v > 3 {
		t.Error(v, calls, err)
	}
	broken := errors.New("broken")
	if _, _, err := quiet(context.Background(), w, nil, func() (int, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// The tables and the picture of the documentation are those of its results.
func TestDocumentationIsUpToDate(t *testing.T) {
	const docs = "../../../docs/"
	f, err := result.Load(docs + "performance.json")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(docs + "performance.md")
	if err != nil {
		t.Fatal(err)
	}
	if want, err := render(f, string(page)); err != nil || want != string(page) {
		t.Errorf("performance.md is not what performance.json says (%v): go run ./test/bench/dataplane -report -results docs/performance.json -docs docs", err)
	}
	if picture, err := os.ReadFile(docs + "performance.svg"); err != nil || string(picture) != svg(f) {
		t.Errorf("performance.svg is not what performance.json says (%v)", err)
	}
}
