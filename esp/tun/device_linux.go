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
	queues   []Queue
	wake     int // an event descriptor that Close writes to
	joinsUDP bool

	mu     sync.RWMutex // held for reading during calls, so that Close waits for them
	closed bool
}

// queue is a descriptor of the device. The first belongs to the library.
type queue struct {
	d  *nativeDevice
	fd int
}

// openDevice makes a TUN device of so many queues with a name, which may hold a
// pattern such as "vpn%d". It is down and has no address.
func openDevice(name string, mtu, queues int) (*nativeDevice, error) {
	fd, err := openQueue(name, queues > 1)
	if err != nil {
		return nil, err
	}
	// The file is made while the descriptor still blocks: the runtime then keeps it out
	// of its poller, which would be woken for every packet.
	file := os.NewFile(uintptr(fd), "/dev/net/tun")
	lib, err := tun.CreateTUNFromFile(file, mtu)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	d := &nativeDevice{Device: lib, wake: -1}
	d.queues = append(d.queues, &queue{d, fd})
	if err := d.prepare(queues); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// openQueue makes a device with one queue, or adds a queue to a device.
func openQueue(name string, several bool) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("open /dev/net/tun", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("interface name %q: %w", name, err)
	}
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if several {
		flags |= unix.IFF_MULTI_QUEUE
	}
	request.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("ioctl TUNSETIFF", err)
	}
	return fd, nil
}

func (d *nativeDevice) prepare(queues int) (err error) {
	if d.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	name, err := d.Name()
	if err != nil {
		return err
	}
	for len(d.queues) < queues {
		fd, err := openQueue(name, true)
		if err != nil {
			return fmt.Errorf("add queue %d: %w", len(d.queues), err)
		}
		d.queues = append(d.queues, &queue{d, fd})
	}
	for _, q := range d.queues {
		if err := unix.SetNonblock(q.(*queue).fd, true); err != nil {
			return os.NewSyscallError("set the TUN device to return at once", err)
		}
	}
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	first := d.queues[0].(*queue).fd
	d.joinsUDP = unix.IoctlSetInt(first, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil
	if d.joinsUDP {
		return nil
	}
	return os.NewSyscallError("ioctl TUNSETOFFLOAD", unix.IoctlSetInt(first, unix.TUNSETOFFLOAD, tcp))
}

func (d *nativeDevice) Queues() []Queue { return d.queues }

func (d *nativeDevice) JoinsUDP() bool { return d.joinsUDP }

func (q *queue) Read(frame []byte) (int, error) {
	q.d.mu.RLock()
	defer q.d.mu.RUnlock()
	for !q.d.closed {
		n, err := unix.Read(q.fd, frame)
		switch err {
		case nil:
			return n, nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
		default:
			return 0, os.NewSyscallError("read", err)
		}
	}
	return 0, os.ErrClosed
}

// Wait waits in the system call rather than in the runtime's poller: a packet then
// wakes this thread and no other.
func (q *queue) Wait() {
	q.d.mu.RLock()
	defer q.d.mu.RUnlock()
	if q.d.closed {
		return
	}
	fds := [2]unix.PollFd{{Fd: int32(q.fd), Events: unix.POLLIN}, {Fd: int32(q.d.wake), Events: unix.POLLIN}}
	_, _ = unix.Poll(fds[:], -1)
}

// maxPieces bounds the pieces of a frame: a header, and what package vnet joins.
const maxPieces = 72

func (q *queue) Write(pieces [][]byte) error {
	q.d.mu.RLock()
	defer q.d.mu.RUnlock()
	if q.d.closed {
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
		_, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(q.fd), uintptr(unsafe.Pointer(&iovecs[0])), uintptr(len(pieces)))
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
	for _, q := range d.queues[1:] {
		unix.Close(q.(*queue).fd)
	}
	return d.Device.Close()
}
