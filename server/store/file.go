package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

var leasesBucket = []byte("leases")

// lockTimeout is how long Open waits for another process to let go of the file.
const lockTimeout = 2 * time.Second

// ErrInUse: another process has the file open.
var ErrInUse = errors.New("in use by another process")

// File is a Store in one file. Each change is one transaction: after a crash or a
// loss of power the file holds the state before or after it.
type File struct {
	db   *bbolt.DB
	path string
}

// OpenFile opens the store at path, or makes one. A file that is damaged is put aside
// under the name that the second result tells, and a new one is begun: losing leases
// costs clients their old address, refusing to start costs everybody the gateway.
func OpenFile(path string, now time.Time) (f *File, setAside string, err error) {
	f, err = open(path)
	if err == nil || !damaged(err) {
		return f, "", err
	}
	cause := err
	setAside = fmt.Sprintf("%s.damaged-%s", path, now.UTC().Format("20060102T150405Z"))
	if err := os.Rename(path, setAside); err != nil {
		return nil, "", fmt.Errorf("open %s: %w; putting it aside failed too: %w", path, cause, err)
	}
	if f, err = open(path); err != nil {
		return nil, setAside, err
	}
	return f, setAside, nil
}

// damagedError marks an error that is due to the content of the file.
type damagedError struct{ error }

func (e damagedError) Unwrap() error { return e.error }

func damaged(err error) bool {
	var d damagedError
	return errors.As(err, &d)
}

func open(path string) (f *File, err error) {
	// The database trusts its file: a damaged one can make it panic.
	defer func() {
		if r := recover(); r != nil {
			f, err = nil, damagedError{fmt.Errorf("open %s: %v", path, r)}
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("open %s: %w: is another vpn-server running with this state directory?", path, ErrInUse)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, damagedError{fmt.Errorf("open %s: %w", path, err)}
	case err != nil:
		var pathError *fs.PathError
		if errors.As(err, &pathError) {
			return nil, fmt.Errorf("open the store: %w", err)
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f = &File{db, path}
	defer func() {
		if f == nil {
			db.Close()
		}
	}()
	if err := f.check(); err != nil {
		f = nil
		return nil, err
	}
	return f, nil
}

// check reads everything once, so that damage shows now and not later.
func (f *File) check() error {
	err := f.db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return damagedError{fmt.Errorf("check %s: %w", f.path, err)}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := f.Leases(); err != nil {
		return damagedError{err}
	}
	return nil
}

// Close closes the file.
func (f *File) Close() error { return f.db.Close() }

// leaseRecord is the value of a lease; the key is the address, 4 or 16 octets.
type leaseRecord struct {
	Owner []byte    `json:"owner"` // octets: identities need not be text
	Used  time.Time `json:"used"`
}

// Leases returns all leases, those used longest ago first.
func (f *File) Leases() ([]Lease, error) {
	var out []Lease
	err := f.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(leasesBucket)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			a, ok := netip.AddrFromSlice(k)
			if !ok {
				return fmt.Errorf("a key of %d octets is no address", len(k))
			}
			var r leaseRecord
			if err := json.Unmarshal(v, &r); err != nil {
				return fmt.Errorf("lease of %s: %w", a, err)
			}
			out = append(out, Lease{a, string(r.Owner), r.Used})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	slices.SortFunc(out, func(a, b Lease) int {
		return cmp.Or(a.Used.Compare(b.Used), a.Address.Compare(b.Address))
	})
	return out, nil
}

// SaveLeases keeps leases in one transaction.
func (f *File) SaveLeases(leases []Lease) error {
	err := f.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(leasesBucket)
		if err != nil {
			return err
		}
		for _, l := range leases {
			v, err := json.Marshal(leaseRecord{[]byte(l.Owner), l.Used.UTC().Round(0)})
			if err != nil {
				return err
			}
			if err := b.Put(l.Address.AsSlice(), v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	return nil
}
