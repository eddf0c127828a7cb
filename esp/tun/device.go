package tun

import "golang.zx2c4.com/wireguard/tun"

// Device is a TUN device with a virtio-net header in front of every frame, so that
// a frame may be a super-packet (package vnet). Its methods may be called from
// several goroutines.
type Device interface {
	Name() (string, error)
	MTU() (int, error)
	// Events tells when the MTU has changed.
	Events() <-chan tun.Event
	// Read reads one frame. With wait it waits for one, without it returns zero when
	// there is none. After Close it returns os.ErrClosed.
	Read(frame []byte, wait bool) (int, error)
	// Write writes one frame, given in pieces.
	Write(pieces [][]byte) error
	// JoinsUDP reports whether super-packets of UDP may be written.
	JoinsUDP() bool
	Close() error
}
