package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse is returned by Listen when another process answers on the socket.
var ErrInUse = errors.New("another process is listening there")

// maxSocketPath is what fits into sockaddr_un with its final zero (unix(7)).
const maxSocketPath = 107

// probeTimeout is how long Listen waits for an answer on a socket it finds.
const probeTimeout = time.Second

// Listen makes a Unix socket at path, readable and writable by its owner and, if
// group is not empty, by that group. A socket that nobody listens on is replaced;
// anything else at path is an error. Missing directories are made. Closing the
// listener removes the socket.
//
// The socket appears at path with its final permissions: there is no moment in
// which somebody else could connect.
func Listen(path, group string) (net.Listener, error) {
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	lock, err := lockSocket(path)
	if err != nil {
		return nil, err
	}
	l, err := listenLocked(path, dir, gid)
	if err != nil {
		lock.Close()
		return nil, err
	}
	l.lock = lock
	return l, nil
}

// listenLocked makes the socket while the lock keeps other daemons away.
func listenLocked(path, dir string, gid int) (*listener, error) {
	if err := removable(path); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(dir, ".s")
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer os.RemoveAll(private)
	temporary := filepath.Join(private, "s")
	if longest := max(len(path), len(temporary)); longest > maxSocketPath {
		return nil, fmt.Errorf("listen on %s: the path is too long for a Unix socket by %d characters", path, longest-maxSocketPath)
	}
	ul, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ul.SetUnlinkOnClose(false) // it knows the temporary name only
	if err := publish(temporary, path, gid); err != nil {
		ul.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &listener{UnixListener: ul, path: path}, nil
}

// publish sets the permissions of a socket and moves it to its place.
func publish(temporary, path string, gid int) error {
	mode := fs.FileMode(0o600)
	if gid >= 0 {
		mode = 0o660
		if err := os.Chown(temporary, -1, gid); err != nil {
			return err
		}
	}
	if err := os.Chmod(temporary, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// groupID resolves a group by name or number; -1 stands for none.
func groupID(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if gid, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(gid), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("control group %q does not exist: create it with groupadd --system %s, or name another one: %w", group, group, err)
	}
	return strconv.Atoi(g.Gid)
}

// lockSocket keeps two daemons that start at the same time from replacing each
// other's socket. The lock goes with the process, however it ends.
func lockSocket(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return f, nil
}

// removable says whether what is at path may be replaced: nothing, or a socket on
// which nobody answers.
func removable(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: there is something else than a socket: move it away", path)
	}
	conn, err := net.DialTimeout("unix", path, probeTimeout)
	if err == nil {
		conn.Close()
		return fmt.Errorf("listen on %s: %w", path, ErrInUse)
	}
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("listen on %s: the socket there may be in use: %w", path, err)
}

// listener is a Unix listener whose connections know their peer.
type listener struct {
	*net.UnixListener
	path string
	lock *os.File
	once sync.Once
}

// Accept waits for a connection and finds out who is behind it. A connection
// whose peer cannot be found out is closed.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		peer, err := peerOf(c)
		if err != nil {
			c.Close()
			continue
		}
		return &conn{UnixConn: c, peer: peer}, nil
	}
}

// Close stops listening and removes the socket.
func (l *listener) Close() error {
	err := l.UnixListener.Close()
	l.once.Do(func() {
		// The lock is still held, so the socket at path is ours. The lock file
		// stays: removing it could take a lock away that somebody waits for.
		if rerr := os.Remove(l.path); err == nil && rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = rerr
		}
		l.lock.Close()
	})
	return err
}
