package service

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike"
	"github.com/wayfarer-vpn/wayfarer/internal/shard"
)

func TestLogConfig(t *testing.T) {
	for _, tt := range []struct{ level, format, want string }{
		{"info", "text", ""}, {"DEBUG", "json", ""},
		{"loud", "text", `level: "loud" is none of debug, info, warn and error`},
		{"INFO+2", "text", `level: "INFO+2" is none of debug, info, warn and error`},
		{"", "xml", `format: "xml" is neither text nor json; level: "" is none of debug, info, warn and error`},
	} {
		var got []string
		LogConfig{tt.level, tt.format}.Check(func(key string, err error) { got = append(got, key+": "+err.Error()) })
		if strings.Join(got, "; ") != tt.want {
			t.Errorf("%q %q: %q", tt.level, tt.format, got)
		}
	}
}

func TestHandler(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "8:12345")
	var out bytes.Buffer
	for format, want := range map[string]string{"text": "time=2", "json": `{"time":"2`} {
		out.Reset()
		log := slog.New(NewHandler(&out, format, nil))
		log.Debug("not this")
		log.Info("one")
		if got := out.String(); !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %q", format, got)
		}
	}
	// What goes to the journal has its time there.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	stderr := os.Stderr
	os.Stderr = w
	slog.New(NewHandler(os.Stderr, "text", nil)).Info("two", "time", "noon")
	os.Stderr = stderr
	w.Close()
	line := make([]byte, 256)
	n, err := r.Read(line)
	if got := string(line[:n]); err != nil || got != "level=INFO msg=two\n" && got != "level=INFO msg=two time=noon\n" {
		t.Errorf("%q %v", got, err)
	}
}

// stuckEngine answers while the test lets it.
type stuckEngine struct{ shard.Engine }

func (stuckEngine) Deadline() (time.Time, bool) { return time.Time{}, false }
func (stuckEngine) Actions() []ike.Action       { return nil }

// TestStuckShard: a shard that does not take commands any more ends the pings, and one
// of several is enough.
func TestStuckShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		log := slog.New(slog.DiscardHandler)
		group := shard.NewGroup(3, func(int) shard.Config { return shard.Config{Engine: stuckEngine{}, Log: log} })
		go group.Run(ctx)
		var pings atomic.Int32
		go Manager{log}.watch(ctx, 30*time.Second, group.Alive, func() { pings.Add(1) })
		for range 4 {
			time.Sleep(30 * time.Second)
			synctest.Wait()
			if pings.Swap(0) == 0 {
				t.Fatal("no ping although all shards answer")
			}
		}
		stuck := make(chan struct{})
		group.Shards()[1].Do(func(time.Time, shard.Engine) { <-stuck })
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := pings.Load(); n != 0 {
			t.Errorf("%d pings in spite of a stuck shard", n)
		}
		close(stuck)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if pings.Load() == 0 {
			t.Error("no ping after the shard has gone on")
		}
	})
}

// TestWatchdog speaks with a socket as systemd's.
func TestWatchdog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	hears := func(want ...string) {
		t.Helper()
		line := make([]byte, 256)
		n, err := conn.Read(line)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(string(line[:n]), w) {
				t.Errorf("told %q, want %q", line[:n], want)
			}
		}
	}
	m := Manager{slog.New(slog.DiscardHandler)}
	m.Ready("serving")
	hears("READY=1", "STATUS=serving")
	m.Reloading(func() { hears("RELOADING=1", "MONOTONIC_USEC=") })
	hears("READY=1")
	ctx, cancel := context.WithCancel(t.Context())
	asked, ended := make(chan error, 64), make(chan struct{})
	for range 3 {
		asked <- errors.New("stuck")
	}
	go func() {
		defer close(ended)
		m.Watchdog(ctx, func(context.Context) error {
			select {
			case err := <-asked:
				return err
			default:
				return nil
			}
		})
	}()
	hears("WATCHDOG=1")
	if len(asked) != 0 {
		t.Error("told that it lives while it does not")
	}
	cancel()
	<-ended
}

// TestUnits: the units ask for the watchdog, and let systemd start a daemon anew that
// has panicked or got stuck, which Go ends with status 2 or, as here, by a signal.
func TestUnits(t *testing.T) {
	units, err := filepath.Glob("../../packaging/*/*.service")
	if err != nil || len(units) != 2 {
		t.Fatalf("units %v, %v", units, err)
	}
	for _, path := range units {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Type=notify", "WatchdogSec=30", "Restart=on-failure", "Environment=GOTRACEBACK=crash"} {
			if !strings.Contains(string(text), "\n"+want+"\n") {
				t.Errorf("%s has no %s", path, want)
			}
		}
	}
}
