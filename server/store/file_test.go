package store

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func mustOpen(t *testing.T, path string) *File {
	t.Helper()
	f, aside, err := OpenFile(path, epoch)
	if err != nil || aside != "" {
		t.Fatalf("open: %v, put aside %q", err, aside)
	}
	return f
}

func lease(a, owner string, after time.Duration) Lease {
	return Lease{netip.MustParseAddr(a), owner, epoch.Add(after)}
}

func TestFileKeepsLeases(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	f := mustOpen(t, path)
	binary := "1:\x00\xff\xfe" // identities need not be text
	for _, batch := range [][]Lease{
		{lease("10.0.0.3", "bob", 3*time.Hour), lease("fd00::2", binary, time.Hour), lease("10.0.0.2", "alice", 2*time.Hour)},
		{lease("10.0.0.3", "carol", 0)},
		nil,
	} {
		if err := f.SaveLeases(batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = mustOpen(t, path)
	defer f.Close()
	got, err := f.Leases()
	if err != nil {
		t.Fatal(err)
	}
	want := []Lease{lease("10.0.0.3", "carol", 0), lease("fd00::2", binary, time.Hour), lease("10.0.0.2", "alice", 2*time.Hour)}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestFileInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	f := mustOpen(t, path)
	defer f.Close()
	if _, _, err := OpenFile(path, epoch); !errors.Is(err, ErrInUse) {
		t.Errorf("a second opening: %v", err)
	}
}

func TestDamagedFileIsPutAside(t *testing.T) {
	whole := func() []byte {
		path := filepath.Join(t.TempDir(), "leases.db")
		f := mustOpen(t, path)
		for i := range 300 {
			if err := f.SaveLeases([]Lease{lease(fmt.Sprintf("10.0.%d.%d", i/200, i%200), strings.Repeat("x", 60), 0)}); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}()
	for name, damage := range map[string]func([]byte) []byte{
		"text":      func([]byte) []byte { return []byte("this is no database\n") },
		"cut":       func(b []byte) []byte { return b[:len(b)/2] },
		"both meta": func(b []byte) []byte { clear(b[:8192]); return b },
		"pages":     func(b []byte) []byte { copy(b[8192:], make([]byte, len(b)-8192)); return b },
		"garbage in the pages": func(b []byte) []byte {
			for i := 8192; i < len(b); i++ {
				b[i] ^= byte(i * 7)
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "leases.db")
			if err := os.WriteFile(path, damage([]byte(string(whole))), 0o600); err != nil {
				t.Fatal(err)
			}
			f, aside, err := OpenFile(path, epoch)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if aside != path+".damaged-20260301T120000Z" {
				t.Errorf("put aside as %q", aside)
			}
			if _, err := os.Stat(aside); err != nil {
				t.Error(err)
			}
			if err := f.SaveLeases([]Lease{lease("10.0.0.2", "alice", 0)}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpenTellsWhatIsWrongWithTheDirectory(t *testing.T) {
	_, _, err := OpenFile(filepath.Join(t.TempDir(), "missing", "leases.db"), epoch)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}

// TestCrashWriter is not a test: it is what TestKilledWhileWriting kills.
func TestCrashWriter(t *testing.T) {
	path := os.Getenv("WAYFARER_CRASH_STORE")
	if path == "" {
		t.Skip("runs as a child of TestKilledWhileWriting only")
	}
	f := mustOpen(t, path)
	for i := 0; ; i++ {
		batch := []Lease{lease("10.0.0.1", fmt.Sprint(i), 0), lease("10.0.0.2", fmt.Sprint(i), 0)}
		if err := f.SaveLeases(batch); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("saved %d\n", i)
	}
}

// A writer is killed at any moment: what it has reported as saved is there, the two
// leases of one batch agree, and the file is whole.
func TestKilledWhileWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.db")
	for round := range 5 {
		child := exec.Command(os.Args[0], "-test.run=^TestCrashWriter$")
		child.Env = append(os.Environ(), "WAYFARER_CRASH_STORE="+path)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		saved := -1
		for lines.Scan() {
			if _, err := fmt.Sscanf(lines.Text(), "saved %d", &saved); err == nil && saved >= 20+13*round {
				break
			}
		}
		child.Process.Kill()
		for lines.Scan() { // what was in the pipe still
			fmt.Sscanf(lines.Text(), "saved %d", &saved)
		}
		child.Wait()
		if saved < 20 {
			t.Fatalf("the writer saved %d batches", saved)
		}
		f := mustOpen(t, path)
		got, err := f.Leases()
		if err != nil || len(got) != 2 || got[0].Owner != got[1].Owner {
			t.Fatalf("after a kill: %v, %v", got, err)
		}
		if n := 0; got[0].Owner != fmt.Sprint(saved) && got[0].Owner != fmt.Sprint(saved+1) {
			fmt.Sscan(got[0].Owner, &n)
			t.Errorf("batch %d was reported as saved, %d is there", saved, n)
		}
		f.Close()
	}
}

// A full disk: an error, the old content, and life goes on when there is room again.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mount a small tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	f := mustOpen(t, filepath.Join(dir, "leases.db"))
	defer f.Close()
	if err := f.SaveLeases([]Lease{lease("10.0.0.2", "alice", 0)}); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	filler, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	filler.Close()
	var batch []Lease
	for i := range 2000 {
		batch = append(batch, lease(fmt.Sprintf("10.1.%d.%d", i/250, i%250), strings.Repeat("o", 100), time.Hour))
	}
	if err := f.SaveLeases(batch); err == nil {
		t.Fatal("2000 leases fitted on a full disk")
	}
	if got, err := f.Leases(); err != nil || len(got) != 1 || got[0].Owner != "alice" {
		t.Fatalf("after the failure: %d leases, %v", len(got), err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := f.SaveLeases([]Lease{lease("10.0.0.3", "bob", time.Hour)}); err != nil {
		t.Errorf("there is room again: %v", err)
	}
}
