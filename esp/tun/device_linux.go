package tun

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

// nativeDevice is a device of the kernel's. The library makes it, and watches it;
// frames go past the library, which would cut and join packets by copying them.
type nativeDevice struct {
	tun.Device
	fd       int
	wake     int // an event descriptor that Close writes to
	joinsUDP bool

	mu     sync.RWMutex // held for reading during calls, so that Close waits for them
	closed bool
}

// openDevice makes a TUN device with a name, which may hold a pattern such as
// "vpn%d". It is down and has no address.
func openDevice(name string, mtu int) (*nativeDevice, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open /dev/net/tun", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("interface name %q: %w", name, err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("ioctl TUNSETIFF", err)
	}
	// The file is made while the descriptor still blocks: the runtime then keeps it out
	// of its poller, which would be woken for every packet.
	file := os.NewFile(uintptr(fd), "/dev/net/tun")
	lib, err := tun.CreateTUNFromFile(file, mtu)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	d := &nativeDevice{Device: lib, fd: fd, wake: -1}
	if err := d.prepare(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *nativeDevice) prepare() (err error) {
	if d.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	if err := unix.SetNonblock(d.fd, true); err != nil {
		return os.NewSyscallError("set the TUN device to return at once", err)
	}
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	d.joinsUDP = unix.IoctlSetInt(d.fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil
	if d.joinsUDP {
		return nil
	}
	return os.NewSyscallError("ioctl TUNSETOFFLOAD", unix.IoctlSetInt(d.fd, unix.TUNSETOFFLOAD, tcp))
}

func (d *nativeDevice) JoinsUDP() bool { return d.joinsUDP }

// Read waits in the system call rather than in the runtime's poller: a packet then
// wakes this thread and no other.
func (d *nativeDevice) Read(frame []byte, wait bool) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for !d.closed {
		n, err := unix.Read(d.fd, frame)
		switch err {
		case nil:
			return n, nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			if !wait {
				return 0, nil
			}
			if d.await() {
				return 0, os.ErrClosed
			}
		default:
			return 0, os.NewSyscallError("read", err)
		}
	}
	return 0, os.ErrClosed
}

// await waits for a frame, or for Close.
func (d *nativeDevice) await() (closing bool) {
	fds := [2]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}, {Fd: int32(d.wake), Events: unix.POLLIN}}
	_, _ = unix.Poll(fds[:], -1)
	return fds[1].Revents != 0
}

// maxPieces bounds the pieces of a frame: a header, and what package vnet joins.
const maxPieces = 72

func (d *nativeDevice) Write(pieces [][]byte) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return os.ErrClosed
	}
	var iovecs [maxPieces]unix.Iovec
	if len(pieces) > len(iovecs) {
		return fmt.Errorf("a frame of %d pieces: %w", len(pieces), unix.EMSGSIZE)
	}
	for i, p := range pieces {
		iovecs[i].Base = unsafe.SliceData(p)
		iovecs[i].SetLen(len(p))
	}
	for {
		_, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(d.fd), uintptr(unsafe.Pointer(&iovecs[0])), uintptr(len(pieces)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return os.NewSyscallError("write", errno)
		}
	}
}

// Close removes the device.
func (d *nativeDevice) Close() error {
	if d.wake >= 0 {
		_, _ = unix.Write(d.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	if d.wake >= 0 {
		unix.Close(d.wake)
	}
	return d.Device.Close()
}
