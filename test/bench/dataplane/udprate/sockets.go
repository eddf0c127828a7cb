package udprate

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batch = 64
	// port of the receiver.
	port = 5999
	// Buffers are large, so that what the test's own sockets lose does not count.
	receiveBuffer = 64 << 20
	sendBuffer    = 8 << 20
	// pause of the sender when it is ahead of its rate.
	pause = 50 * time.Microsecond
)

// Path is a pair of sockets in two network namespaces.
type Path struct {
	size          int
	duration      time.Duration
	receive, send int
	to            netip.AddrPort
	received      atomic.Uint64
	ended         chan struct{}
}

// Open opens a receiver in one network namespace and a sender in another, which
// sends packets with size octets of payload to dst (IPv4) for so long in each trial.
func Open(receiver, sender string, dst netip.Addr, size int, duration time.Duration) (*Path, error) {
	p := &Path{size: size, duration: duration, to: netip.AddrPortFrom(dst, port), ended: make(chan struct{})}
	var err error
	if p.receive, err = socketIn(receiver); err != nil {
		return nil, err
	}
	if p.send, err = socketIn(sender); err != nil {
		unix.Close(p.receive)
		return nil, err
	}
	wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
	for _, err := range []error{
		unix.SetsockoptInt(p.receive, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
		unix.SetsockoptInt(p.send, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer),
		unix.SetsockoptTimeval(p.receive, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.Bind(p.receive, &unix.SockaddrInet4{Port: port, Addr: dst.As4()}),
	} {
		if err != nil {
			p.closeSockets()
			return nil, fmt.Errorf("prepare the sockets of the rate test: %w", err)
		}
	}
	go p.count()
	return p, nil
}

// socketIn opens a UDP socket in a named network namespace. The thread that has
// been there ends with its goroutine.
func socketIn(namespace string) (int, error) {
	type outcome struct {
		fd  int
		err error
	}
	done := make(chan outcome)
	go func() {
		runtime.LockOSThread()
		f, err := os.Open("/run/netns/" + namespace)
		if err != nil {
			done <- outcome{-1, err}
			return
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- outcome{-1, fmt.Errorf("enter namespace %s: %w", namespace, err)}
			return
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		done <- outcome{fd, err}
	}()
	o := <-done
	return o.fd, o.err
}

func (p *Path) closeSockets() {
	unix.Close(p.receive)
	unix.Close(p.send)
}

// Close ends the receiver.
func (p *Path) Close() {
	close(p.ended)
	unix.Close(p.send)
}

type message struct {
	header unix.Msghdr
	n      uint32
	_      [4]byte
}

func messages(size int, to *unix.RawSockaddrInet4) []message {
	ms := make([]message, batch)
	for i := range ms {
		b := make([]byte, size)
		iov := &unix.Iovec{Base: &b[0]}
		iov.SetLen(size)
		ms[i].header.Iov = iov
		ms[i].header.SetIovlen(1)
		if to != nil {
			ms[i].header.Name = (*byte)(unsafe.Pointer(to))
			ms[i].header.Namelen = unix.SizeofSockaddrInet4
		}
	}
	return ms
}

// count receives until Close.
func (p *Path) count() {
	runtime.LockOSThread()
	defer unix.Close(p.receive)
	ms := messages(p.size+64, nil)
	for {
		select {
		case <-p.ended:
			return
		default:
		}
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(p.receive), uintptr(unsafe.Pointer(&ms[0])), batch, unix.MSG_WAITFORONE, 0, 0)
		if errno == 0 {
			p.received.Add(uint64(n))
		}
	}
}

// Try sends at a rate, zero for as fast as possible, and waits until what is on its
// way has arrived.
func (p *Path) Try(rate float64) Trial {
	time.Sleep(50 * time.Millisecond)
	before := p.received.Load()
	sent, took := p.transmit(rate)
	for last := p.received.Load(); ; {
		time.Sleep(100 * time.Millisecond)
		now := p.received.Load()
		if now == last {
			break
		}
		last = now
	}
	return Trial{Sent: float64(sent) / took.Seconds(), Received: float64(p.received.Load()-before) / took.Seconds()}
}

func (p *Path) transmit(rate float64) (sent uint64, took time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	to := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: p.to.Addr().As4()}
	to.Port = uint16(port>>8) | uint16(port&0xff)<<8
	ms := messages(p.size, &to)
	start := time.Now()
	for {
		took = time.Since(start)
		if took >= p.duration {
			return sent, took
		}
		n := uint64(batch)
		if rate > 0 {
			due := uint64(rate * took.Seconds())
			if due <= sent {
				ts := unix.NsecToTimespec(int64(pause))
				_ = unix.Nanosleep(&ts, nil)
				continue
			}
			n = min(due-sent, batch)
		}
		k, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(p.send), uintptr(unsafe.Pointer(&ms[0])), uintptr(n), 0, 0, 0)
		if errno == 0 {
			sent += uint64(k)
		}
	}
}
