package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	name := func(n string) string { return filepath.Join(dir, n) }
	for n, size := range map[string]int{"full": 10, "over": 11} {
		if err := os.WriteFile(name(n), []byte(strings.Repeat("x", size)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(name("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(name("pipe"), name("link")); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadFile(name("full"), 10); err != nil || len(data) != 10 {
		t.Errorf("%q, %v", data, err)
	}
	for n, want := range map[string]string{
		"over": "larger than 10 octets", "pipe": "not a regular file", "link": "not a regular file", ".": "not a regular file", "none": "no such file",
	} {
		done := make(chan error, 1)
		go func() { _, err := ReadFile(name(n), 10); done <- err }()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", n, err, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: waits", n)
		}
	}
}

func TestQuote(t *testing.T) {
	for _, s := range []string{"", "plain", `a "quoted" word`, `back\slash`, "two\nlines", "tab\t", "\x01\x1f\x7f\u0085", "ünïcode 漢字", `"""`, `'''`} {
		var got struct {
			S string `toml:"s"`
		}
		text := "s = " + Quote(s) + "\n"
		if _, err := Parse("x.toml", []byte(text), &got); err != nil || got.S != s {
			t.Errorf("%q is written %s and read %q, %v", s, text, got.S, err)
		}
	}
}

// TestBeyondConfinedRoot: root without CAP_DAC_OVERRIDE is the owner, or in the group, or
// like everybody.
func TestBeyondConfinedRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give files away")
	}
	for _, tt := range []struct {
		uid, gid int
		mode     os.FileMode
		readable bool
	}{
		{0, 0, 0o600, true}, {0, 0, 0o200, false},
		{12345, 12345, 0o600, false}, {12345, 12345, 0o640, false}, {12345, 12345, 0o644, true},
		{12345, 0, 0o640, true}, {12345, 0, 0o600, false},
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chown(path, tt.uid, tt.gid), os.Chmod(path, tt.mode)); err != nil {
			t.Fatal(err)
		}
		if warning := BeyondConfinedRoot(path); (warning == "") != tt.readable {
			t.Errorf("%+v: %q", tt, warning)
		}
	}
	if warning := BeyondConfinedRoot("/nowhere"); warning != "" {
		t.Error(warning)
	}
}
