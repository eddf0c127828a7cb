package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCheckWarnsOfFilesBeyondTheService: check runs as root with all its power, the
// system service without CAP_DAC_OVERRIDE.
func TestCheckWarnsOfFilesBeyondTheService(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give files away")
	}
	dir := t.TempDir()
	r, err := Setup(SetupOptions{Name: "vpn.example.test", Addresses: []string{"203.0.113.1"}, ConfigDir: filepath.Join(dir, "etc"), StateDir: filepath.Join(dir, "state"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	warned := func() bool {
		c := Check(r.Config, time.Now())
		if !c.OK {
			t.Fatalf("%+v", c.Problems)
		}
		return strings.Contains(strings.Join(c.Warnings, "\n"), "the system service cannot read it")
	}
	if warned() {
		t.Error("warns of files of root's")
	}
	if err := os.Chown(r.Config, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if !warned() {
		t.Error("no warning of a configuration of somebody else's")
	}
}
