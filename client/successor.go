package client

import (
	"errors"
	"io/fs"
	"os"
)

// SuccessorFile tells a daemon that ends that another one takes its place right away:
// the package's scripts make it for the restart of an upgrade, and whoever finds it
// removes it. It is in a directory of root's that does not outlive the machine.
const SuccessorFile = "/run/wayfarer/client.successor"

// succeeded says whether a connection that ends is to leave the machine closed and the
// intent there, because the daemon ends and has a successor. Everything of one daemon
// gets the same answer.
func (d *Daemon) succeeded() bool { return d.life.Err() != nil && d.successor() }

// handOver notes for the successor what is up. If it cannot be noted, what was noted at
// the beginning of the connection serves.
func (d *Daemon) handOver(c *connection) {
	if err := stateDir(d.cfg.StateDir).save(intent{Profile: c.profile.Name, BootID: bootID(), HandedOver: true}); err != nil {
		d.log.Warn("what is up not noted for the next run", "profile", c.profile.Name, "error", err)
	}
}

// announced says whether the file was there, and takes it away.
func (d *Daemon) announced() bool {
	if d.successorFile == "" {
		return false
	}
	err := os.Remove(d.successorFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("file that announces a successor not removed", "error", err)
	}
	return err == nil
}
