package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/atomicfile"
)

// intent is the state file: what the user wants to be up. It is there from "up"
// until "down" or an orderly end, so a start that finds it follows a crash, or a run
// that handed over. What that run has installed is recognised without it (package route).
type intent struct {
	Profile string `json:"profile"`
	// BootID tells a crash of the daemon from one of the machine: after that, nothing
	// of the tunnel is left, and whether to connect is decided by the configuration.
	BootID string `json:"boot_id"`
	// HandedOver says that the run ended in order, for a successor.
	HandedOver bool `json:"handed_over,omitempty"`
}

const bootIDFile = "/proc/sys/kernel/random/boot_id"

func bootID() string {
	b, err := os.ReadFile(bootIDFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// stateDir is the directory of what must survive a crash.
type stateDir string

func (d stateDir) intentFile() string { return filepath.Join(string(d), "intent.json") }

// lock keeps a second daemon, or a clean-up, away from the machine's settings. It
// goes with the process.
func (d stateDir) lock() (release func(), err error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(string(d), "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errRunning
		}
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	return func() { f.Close() }, nil
}

// errRunning is returned when another process holds the lock.
var errRunning = errors.New("another vpn-client daemon is running with this state directory")

func (d stateDir) save(i intent) error {
	data, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(d.intentFile(), data, 0o600)
}

func (d stateDir) forget() error {
	err := os.Remove(d.intentFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// load returns what a run that did not end in order wanted. A file that cannot be
// read is as none: the machine is cleared then, which is safe.
func (d stateDir) load() (intent, bool) {
	var i intent
	data, err := os.ReadFile(d.intentFile())
	if err != nil || json.Unmarshal(data, &i) != nil || i.Profile == "" {
		return intent{}, false
	}
	return i, true
}
