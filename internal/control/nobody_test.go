package control

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// asNobody connects to a socket with the rights of the user nobody, in a thread
// that ends afterwards: it never comes back from there to run other goroutines.
func asNobody(t *testing.T, path string) error {
	t.Helper()
	const nobody = 65534
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread dies with the goroutine
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			result <- err
			return
		}
		defer unix.Close(fd)
		// File system checks go by the fsuid, which belongs to the thread alone.
		// Raw calls, because the wrappers change all threads.
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
			result <- errno
			return
		}
		unix.RawSyscall(unix.SYS_SETRESGID, nobody, nobody, nobody)
		unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody)
		result <- unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}()
	return <-result
}
