package client

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestSuccessor: a daemon that ends for an upgrade leaves the machine closed and says
// what to bring back, also for a profile that does not reconnect by itself; any other
// end opens the machine.
func TestSuccessor(t *testing.T) {
	for _, tt := range []struct {
		name      string
		reconnect string
		announce  bool
		up        bool
		ended     string // what happens to the machine at the end
		began     string // and when the next run begins
	}{
		{"an upgrade", "true", true, true, "close user-disconnect, shutdown", "adopt"},
		{"an upgrade, without reconnect", "false", true, true, "close user-disconnect, shutdown", "adopt"},
		{"an upgrade without a tunnel", "true", true, false, "clear leaving=true", "clear leaving=true"},
		{"an end", "true", false, true, "close user-disconnect, clear leaving=false, shutdown, clear leaving=true", "clear leaving=true"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.set(gateway, accepts("0.0.0.0/0"))
			d := testDaemon(t, w)
			rewrite(t, filepath.Join(d.cfg.ProfileDir, "alice.toml"), "reconnect = "+tt.reconnect+"\n"+pskProfile)
			d.successorFile = filepath.Join(t.TempDir(), "successor")
			life, end := context.WithCancel(context.Background())
			d.life = life
			if tt.up {
				if _, err := d.Up(t.Context(), "alice", 0); err != nil {
					t.Fatal(err)
				}
				after(time.Second)
			}
			w.happened()
			if tt.announce {
				rewrite(t, d.successorFile, "")
			}
			end()
			if err := d.leave(); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			if got := w.happened(); got != tt.ended {
				t.Errorf("%s: at the end: %s, want %s", tt.name, got, tt.ended)
			}
			if tt.up && d.announced() {
				t.Errorf("%s: the announcement is still there", tt.name)
			}

			next := anotherRun(d.cfg, w)
			resume := next.recover(t.Context())
			if got := w.happened(); got != tt.began {
				t.Errorf("%s: at the next begin: %s, want %s", tt.name, got, tt.began)
			}
			next.begin(t.Context(), resume)
			after(time.Second)
			if up := next.Status(t.Context()).Connected; up != (tt.began == "adopt") {
				t.Errorf("%s: connected %v", tt.name, up)
			}
			if err := next.leave(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDownIsNotHandedOver: who disconnects while an upgrade is announced is disconnected.
func TestDownIsNotHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set(gateway, accepts("0.0.0.0/0"))
		d := testDaemon(t, w)
		d.successorFile = filepath.Join(t.TempDir(), "successor")
		rewrite(t, d.successorFile, "")
		if _, err := d.Up(t.Context(), "alice", 0); err != nil {
			t.Fatal(err)
		}
		after(time.Second)
		w.happened()
		if _, err := d.Down(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if got := w.happened(); got != "close user-disconnect, clear leaving=false, shutdown" {
			t.Errorf("happened: %s", got)
		}
		if _, ok := stateDir(d.cfg.StateDir).load(); ok {
			t.Error("the next run would bring the tunnel back")
		}
	})
}

func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
