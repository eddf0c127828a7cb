// Package tun is the userspace data path: ESP sealed and opened in this process,
// between a TUN device and the UDP sockets of the transport.
//
// Every packet runs to completion in the goroutine that received it: the one that
// reads the TUN device seals and sends, the ones that read sockets open and write
// to the TUN device, and send what the kernel answers to a single packet. Nothing is
// queued between goroutines, no lock is taken per packet, and nothing is allocated per
// packet. Super-packets stay whole from the device to the socket and back; package
// vnet cuts and joins them.
//
// What it does about packet sizes: TCP connections learn the inner MTU from the
// MSS option of their SYN segments, which is lowered in both directions. A packet
// that may not be fragmented and does not fit the path is answered with an ICMP
// "too big". An IPv4 packet that may be fragmented is sealed whole and the outer
// packet is fragmented by the sending host: cutting the inner packet would make
// fragments without ports, which a Child SA with ports in its selectors must
// refuse (RFC 4301 §7), so both ends would have to agree on it.
//
// The ECN field of outer headers is that of the packet inside, and what the network
// makes of it comes out again (RFC 6040, normal mode). Packets of different DSCP or ECN
// leave in different trains.
package tun

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/internal/transport"
	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Sender sends what the data path has sealed. Calls come from the goroutine that
// reads the TUN device and from the one for keepalives; the packets may be reused
// after a call returns.
type Sender interface {
	// SendESP sends trains of packets over one pair, in UDP or as protocol 50.
	SendESP(pair locator.Pair, udp bool, trains []transport.Train) error
	// SendKeepalive sends a NAT keepalive (RFC 3948 §2.3).
	SendKeepalive(pair locator.Pair) error
}

// Config says what a data path is made of.
type Config struct {
	// Device is the TUN device; the data path owns it from New on, also when New
	// fails. Without one a device is created with Name, which may hold a pattern
	// such as "vpn%d", and MTU, zero for DefaultMTU. It has no address and is down.
	Device Device
	Name   string
	MTU    int
	// Queues of that device, each of which is read by a goroutine of its own; zero is
	// one.
	Queues int
	// TFC pads packets to the size of the largest (RFC 4303 §2.7) where the peer takes
	// that, so that their sizes tell nothing.
	TFC bool
	// DSCP of outer packets; the zero value leaves it clear.
	DSCP esp.DSCP
	// Send may be left out when it is set with SetSender.
	Send Sender
	// Events receives what the data path notices. It must not block, and must not
	// call Close; the other methods are fine.
	Events func(esp.Event)
	// Now, Rand and Log default to the clock, crypto/rand and silence.
	Now  func() time.Time
	Rand io.Reader
	Log  *slog.Logger
}

func (c *Config) complete() error {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Events == nil {
		c.Events = func(esp.Event) {}
	}
	if c.Device != nil {
		return nil
	}
	return c.createDevice()
}

func (c *Config) createDevice() error {
	if c.MTU == 0 {
		c.MTU = esp.DefaultMTU
	}
	if c.Name == "" {
		return errors.New("a TUN device needs a name, such as \"vpn%d\"")
	}
	dev, err := openDevice(c.Name, c.MTU, max(c.Queues, 1))
	if err != nil {
		return fmt.Errorf("create TUN device %q: %w (it takes CAP_NET_ADMIN and /dev/net/tun)", c.Name, err)
	}
	c.Device = dev
	return nil
}
