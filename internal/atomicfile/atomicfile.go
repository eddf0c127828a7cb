// Package atomicfile replaces files so that a reader, and a machine that loses
// power in the middle, sees either the whole old content or the whole new one.
// State, keys and configuration are written through it.
package atomicfile

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// permissions are the bits of a mode that WriteFile sets; special bits have no
// place on state files.
const permissions = fs.ModePerm

// WriteFile replaces the file at path with data, with exactly the permissions in
// mode: the umask does not apply. It writes a temporary file in the same
// directory, makes it durable, renames it over path and makes the directory
// durable. After an error the old file is untouched, and the temporary one gone.
//
// A symbolic link at path is replaced, not followed: a link planted in a
// directory cannot send the data elsewhere.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	f, err := createTemp(dir, filepath.Base(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := fill(f, data, mode); err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("write %s: the new file is in place but may not survive a power loss: %w", path, err)
	}
	return nil
}

// createTemp makes a file that only its owner can read: the final mode is set
// once the content is complete, and secrets must not be readable before that.
func createTemp(dir, base string) (*os.File, error) {
	const attempts = 100
	var last error
	for range attempts {
		var suffix [8]byte
		if _, err := rand.Read(suffix[:]); err != nil {
			return nil, fmt.Errorf("name a temporary file: %w", err)
		}
		name := filepath.Join(dir, "."+base+".tmp-"+hex.EncodeToString(suffix[:]))
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			return f, nil
		}
		if !os.IsExist(err) {
			return nil, err
		}
		last = err
	}
	return nil, last
}

// fill writes data to f, sets the mode, makes both durable and closes f.
func fill(f *os.File, data []byte, mode fs.FileMode) error {
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(mode & permissions); err != nil {
		f.Close()
		return err
	}
	// Errors of delayed allocation, a full disk among them, appear here at the latest.
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
