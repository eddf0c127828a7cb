package dns

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/wayfarer-vpn/wayfarer/internal/atomicfile"
)

// backup is what is kept while resolv.conf is ours. It is on disk before the first
// octet of resolv.conf is changed.
type backup struct {
	Path string `json:"path"`
	// Link is where the path pointed if it was a symbolic link, which our file then
	// has replaced.
	Link string `json:"link,omitempty"`
	// Missing says that there was no file.
	Missing  bool        `json:"missing,omitempty"`
	Mode     fs.FileMode `json:"mode"`
	Original []byte      `json:"original"`
	Written  []byte      `json:"written"`
}

// maxBackup bounds what is read back.
const maxBackup = 4 * maxResolvConf

// writeFile puts the tunnel's servers into resolv.conf.
func (m *Manager) writeFile(s Settings) error {
	b, err := m.takeBackup()
	if err != nil {
		return err
	}
	b.Written = resolvConf(b.Original).tunneled(s)
	if err := m.saveBackup(b); err != nil {
		return fmt.Errorf("keep a copy of it: %w", err)
	}
	if current, err := readSmall(b.Path); err == nil && bytes.Equal(current, b.Written) {
		return nil
	}
	return replace(b.Path, b.Written, b.Mode)
}

// takeBackup describes resolv.conf as it is without us.
func (m *Manager) takeBackup() (*backup, error) {
	if b, err := m.loadBackup(); err != nil {
		return nil, err
	} else if b != nil && b.ours() {
		return b, nil // the file is ours, of this run or of a crashed one
	}
	b := &backup{Path: m.cfg.ResolvConf, Mode: 0o644}
	info, err := os.Lstat(b.Path)
	if errors.Is(err, fs.ErrNotExist) {
		b.Missing = true
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().Type() == fs.ModeSymlink {
		if b.Link, err = os.Readlink(b.Path); err != nil {
			return nil, err
		}
	}
	if b.Original, err = readSmall(b.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err // not a link into nowhere: a real trouble
	}
	if info.Mode().IsRegular() {
		b.Mode = info.Mode().Perm()
	}
	return b, nil
}

// restoreFile undoes writeFile, as far as the file is still ours.
func (m *Manager) restoreFile() error {
	b, err := m.loadBackup()
	if err != nil || b == nil {
		return err
	}
	if b.ours() {
		if err := b.restore(); err != nil {
			return err
		}
	} else {
		m.cfg.Log.Info("resolver's configuration was changed by another program meanwhile and is left as it is", "file", b.Path)
	}
	if err := os.Remove(m.cfg.Backup); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ours says whether the file holds what we wrote. A beginning of it counts too: a
// file that had to be written in place may have been cut short by a crash.
func (b *backup) ours() bool {
	current, err := readSmall(b.Path)
	return err == nil && bytes.HasPrefix(b.Written, current) && !b.untouched(current)
}

// untouched recognises a crash between the copy and the change.
func (b *backup) untouched(current []byte) bool {
	return len(current) == 0 && len(b.Original) == 0
}

func (b *backup) restore() error {
	info, err := os.Lstat(b.Path)
	if err != nil {
		return err
	}
	linked := info.Mode().Type() == fs.ModeSymlink
	switch {
	case b.Missing:
		if err := os.Remove(b.Path); err == nil {
			return nil
		}
		return replace(b.Path, nil, b.Mode) // a mount point cannot be removed
	case linked: // it could not be replaced, and was written through
		return overwrite(b.Path, b.Original)
	case b.Link != "":
		return relink(b.Link, b.Path)
	}
	return replace(b.Path, b.Original, b.Mode)
}

// intact says whether resolv.conf holds exactly what was written last.
func (m *Manager) intact() (bool, error) {
	b, err := m.loadBackup()
	if err != nil || b == nil {
		return false, err
	}
	current, err := readSmall(b.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return bytes.Equal(current, b.Written), err
}

// original is the machine's own resolv.conf.
func (m *Manager) original() resolvConf {
	if b, err := m.loadBackup(); err == nil && b != nil && b.ours() {
		return b.Original
	}
	return readResolvConf(m.cfg.ResolvConf)
}

func (m *Manager) saveBackup(b *backup) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.cfg.Backup), 0o700); err != nil {
		return err
	}
	return atomicfile.WriteFile(m.cfg.Backup, data, 0o600)
}

// loadBackup returns nil if there is none. One that cannot be understood is put
// aside: it must not keep the tunnel from coming up for ever.
func (m *Manager) loadBackup() (*backup, error) {
	data, err := readSmallest(m.cfg.Backup, maxBackup)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var b backup
	if err := json.Unmarshal(data, &b); err != nil || b.Path == "" {
		m.cfg.Log.Error("copy of the resolver's configuration cannot be read and is put aside", "file", m.cfg.Backup+".broken")
		return nil, os.Rename(m.cfg.Backup, m.cfg.Backup+".broken")
	}
	return &b, nil
}

func readSmallest(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s: larger than %d octets", path, limit)
	}
	return os.ReadFile(path)
}

// replace gives a file new content: whole or not at all where that is possible. A
// file that is mounted, or in a directory we may not write to, is written in place.
func replace(path string, data []byte, mode fs.FileMode) error {
	atomicErr := atomicfile.WriteFile(path, data, mode)
	if atomicErr == nil {
		return nil
	}
	if err := overwrite(path, data); err != nil {
		return errors.Join(atomicErr, err)
	}
	return nil
}

// overwrite writes a file in place. It is emptied first: a crash then leaves a
// beginning of the new content, which can be recognised.
func overwrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, werr := f.Write(data)
	serr := f.Sync()
	return errors.Join(werr, serr, f.Close())
}

// relink puts a symbolic link where our file is, in one step.
func relink(target, path string) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".link")
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}
