package network

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeProc makes a tree like /proc/sys.
func fakeProc(t *testing.T, values map[string]string) *sysctls {
	t.Helper()
	root := t.TempDir()
	for name, v := range values {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(v+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &sysctls{root: root, notes: filepath.Join(t.TempDir(), "network.json"), log: slog.New(slog.DiscardHandler)}
}

var bothPools = Desired{Device: "wfs0", Pools: []netip.Prefix{netip.MustParsePrefix("10.30.0.0/24"), netip.MustParsePrefix("fd00:30::/112")}}

func laptopSettings() map[string]string {
	return map[string]string{
		"kernel/random/boot_id":            "boot-1",
		"net/ipv4/ip_forward":              "0",
		"net/ipv6/conf/all/forwarding":     "0",
		"net/ipv6/conf/all/accept_ra":      "1",
		"net/ipv6/conf/default/accept_ra":  "1",
		"net/ipv6/conf/eth0/accept_ra":     "1",
		"net/ipv6/conf/static0/accept_ra":  "0",
		"net/ipv6/conf/wfs0/accept_ra":     "1",
		"net/ipv6/conf/wfs0/addr_gen_mode": "0",
	}
}

func check(t *testing.T, s *sysctls, want map[string]string) {
	t.Helper()
	for name, v := range want {
		if got := s.get(name); strings.TrimSpace(got) != v {
			t.Errorf("%s is %s, want %s", name, got, v)
		}
	}
}

func TestForwardingIsTurnedOnAndRestored(t *testing.T) {
	before := laptopSettings()
	s := fakeProc(t, before)
	for range 2 { // any number of times
		if err := s.forward(bothPools); err != nil {
			t.Fatal(err)
		}
	}
	check(t, s, map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1",
		"net/ipv6/conf/eth0/accept_ra": "2", "net/ipv6/conf/default/accept_ra": "2",
		"net/ipv6/conf/static0/accept_ra": "0", "net/ipv6/conf/wfs0/accept_ra": "1", "net/ipv6/conf/all/accept_ra": "1",
	})
	// The daemon crashes here; the next run finds its notes.
	again := &sysctls{root: s.root, notes: s.notes, log: s.log}
	if err := again.forward(bothPools); err != nil {
		t.Fatal(err)
	}
	if err := again.restore(); err != nil {
		t.Fatal(err)
	}
	check(t, s, before)
	if _, err := os.Stat(s.notes); !os.IsNotExist(err) {
		t.Errorf("the notes are still there: %v", err)
	}
}

func TestAFamilyWithoutPoolIsLeftAlone(t *testing.T) {
	s := fakeProc(t, laptopSettings())
	if err := s.forward(Desired{Pools: bothPools.Pools[:1]}); err != nil {
		t.Fatal(err)
	}
	check(t, s, map[string]string{"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "0", "net/ipv6/conf/eth0/accept_ra": "1"})
}

func TestARouterStaysARouter(t *testing.T) {
	router := laptopSettings()
	router["net/ipv4/ip_forward"], router["net/ipv6/conf/all/forwarding"] = "1", "1"
	s := fakeProc(t, router)
	if err := s.forward(bothPools); err != nil {
		t.Fatal(err)
	}
	if err := s.restore(); err != nil {
		t.Fatal(err)
	}
	check(t, s, router)
}

func TestRestoreRespectsWhatOthersHaveSetSince(t *testing.T) {
	s := fakeProc(t, laptopSettings())
	if err := s.forward(bothPools); err != nil {
		t.Fatal(err)
	}
	if err := s.set("net/ipv6/conf/eth0/accept_ra", "0"); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(filepath.Join(s.root, "net/ipv6/conf/default")) // gone meanwhile
	if err := s.restore(); err != nil {
		t.Fatal(err)
	}
	check(t, s, map[string]string{"net/ipv4/ip_forward": "0", "net/ipv6/conf/eth0/accept_ra": "0"})
}

func TestNotesThatAreNotOursAreIgnored(t *testing.T) {
	for name, notes := range map[string]string{
		"another boot": `{"boot":"boot-0","changed":{"net/ipv4/ip_forward":{"was":"0","is":"1"}}}`,
		"elsewhere":    `{"boot":"boot-1","changed":{"net/../../escape":{"was":"0","is":"1"}}}`,
		"not net":      `{"boot":"boot-1","changed":{"kernel/random/boot_id":{"was":"x","is":"boot-1"}}}`,
		"broken":       `{"boot":"boot-1","cha`,
	} {
		values := laptopSettings()
		values["net/ipv4/ip_forward"] = "1"
		s := fakeProc(t, values)
		if err := os.WriteFile(s.notes, []byte(notes), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.restore(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		check(t, s, values)
	}
}

func TestForwardingThatCannotBeTurnedOn(t *testing.T) {
	s := fakeProc(t, laptopSettings())
	os.Remove(filepath.Join(s.root, "net/ipv4/ip_forward"))
	err := s.forward(bothPools)
	if err == nil || !strings.Contains(err.Error(), "net.ipv4.ip_forward=1") {
		t.Errorf("error: %v", err)
	}
}
