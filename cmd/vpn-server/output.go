package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/wayfarer-vpn/wayfarer/internal/atomicfile"
	"github.com/wayfarer-vpn/wayfarer/internal/cli"
)

// writeSecret writes to a file that only its owner can read. Without a path, with "-", or
// with another name for standard output that is where it goes. Devices and pipes are
// written to, not replaced. Links that others may have planted are not followed.
func writeSecret(stdout io.Writer, path string, data []byte) error {
	if path == "" || path == "-" {
		_, err := stdout.Write(data)
		return err
	}
	entry, err := os.Lstat(path)
	if err != nil || entry.Mode().IsRegular() {
		return atomicfile.WriteFile(path, data, 0o600)
	}
	target, err := os.Stat(path)
	if err != nil {
		return err
	}
	if own, err := os.Stdout.Stat(); err == nil && os.SameFile(own, target) {
		_, err := stdout.Write(data)
		return err
	}
	if err := mayTake(path, target); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// mayTake says what speaks against giving a secret to something that is no regular file
// by itself.
func mayTake(path string, target fs.FileInfo) error {
	if target.IsDir() {
		return cli.Usagef("%s is a directory; name a file in it", path)
	}
	if target.Mode().IsRegular() {
		return cli.Usagef("%s is a link; name the file itself", path)
	}
	if owner, ok := target.Sys().(*syscall.Stat_t); ok && owner.Uid != 0 && int(owner.Uid) != os.Geteuid() {
		return &cli.Error{Code: cli.ExitPermission, Err: fmt.Errorf("%s belongs to another user, who could read the secret there", path)}
	}
	return nil
}
