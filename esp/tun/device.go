package tun

import "golang.zx2c4.com/wireguard/tun"

// Device is a TUN device with a virtio-net header in front of every frame, so that
// a frame may be a super-packet (package vnet). Its methods, and those of its queues,
// may be called from several goroutines.
type Device interface {
	Name() (string, error)
	MTU() (int, error)
	// Events tells when the MTU has changed.
	Events() <-chan tun.Event
	// Queues are at least one. The kernel spreads flows over them and keeps the order
	// within a flow, so each may be read by a processor of its own.
	Queues() []Queue
	// JoinsUDP reports whether super-packets of UDP may be written.
	JoinsUDP() bool
	Close() error
}

// Queue is one of the queues of a device.
type Queue interface {
	// Read reads one frame, zero octets when there is none. After Close of the device it
	// returns os.ErrClosed.
	Read(frame []byte) (int, error)
	// Wait returns when there may be a frame, or an error, to read.
	Wait()
	// Write writes one frame, given in pieces. What the kernel answers to a flow comes
	// back on the queue that the flow was written to last.
	Write(pieces [][]byte) error
}
