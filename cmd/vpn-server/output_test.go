package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wayfarer-vpn/wayfarer/internal/cli"
)

// TestProfileExportOutput: a file is made for its owner alone; devices, pipes and other
// names of standard output are written to and stay what they are.
func TestProfileExportOutput(t *testing.T) {
	dir, option := gatewayDir(t)
	if _, stderr, code := vpnServer(t, "user", "add", "alice", option); code != 0 {
		t.Fatal(stderr)
	}
	export := func(path string) (stdout, stderr string, code int) {
		t.Helper()
		return vpnServer(t, "profile", "export", "alice", option, "--output", path)
	}
	const key = "PRIVATE KEY"

	file := filepath.Join(dir, "alice.toml")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	export(file)
	if data, err := os.ReadFile(file); err != nil || !strings.Contains(string(data), key) {
		t.Errorf("%s: %.60q %v", file, data, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v %v", file, info.Mode(), err)
	}

	if stdout, stderr, code := export("-"); code != 0 || !strings.Contains(stdout, key) {
		t.Errorf("standard output: %d %s", code, stderr)
	}
	if _, err := os.Stat("-"); err == nil {
		t.Error("there is a file called -")
	}

	null := filepath.Join(dir, "null")
	if err := os.Symlink(os.DevNull, null); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := export(null); code != 0 {
		t.Errorf("a device: %d %s", code, stderr)
	}
	if target, err := os.Readlink(null); err != nil || target != os.DevNull {
		t.Errorf("the link to a device is %q, %v", target, err)
	}

	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	read := make(chan []byte)
	go func() {
		f, err := os.Open(pipe)
		if err != nil {
			t.Error(err)
			close(read)
			return
		}
		data, _ := io.ReadAll(f)
		read <- data
	}()
	if _, stderr, code := export(pipe); code != 0 {
		t.Fatalf("a pipe: %d %s", code, stderr)
	}
	if data := <-read; !bytes.Contains(data, []byte(key)) {
		t.Errorf("through a pipe came %.60q", data)
	}

	planted, theirs := filepath.Join(dir, "planted"), filepath.Join(dir, "theirs")
	if err := os.WriteFile(theirs, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(theirs, planted); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{planted: "is a link", dir: "is a directory"} {
		if _, stderr, code := export(path); code != cli.ExitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d %s", path, code, stderr)
		}
	}
	if data, err := os.ReadFile(theirs); err != nil || len(data) != 0 {
		t.Errorf("a planted link was followed: %v", err)
	}
}
