package transport

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// gsoPauseBatches is how many batches go without segmentation after a device
// refused. Devices change under a machine that moves, so it is tried again.
const gsoPauseBatches = 4096

var keepalivePackets = [][]byte{{keepalive}}

// SendIKE sends an IKE message on the socket of pair.Local, behind the non-ESP
// marker when that is the NAT traversal port (RFC 7296 §2.23). An unspecified
// local address lets the kernel choose the source.
func (t *Transport) SendIKE(pair locator.Pair, data []byte) error {
	s, err := t.socketFor(pair, false)
	if err == nil {
		sd := newSender(t, s, pair)
		if s.port == NATT {
			sd.addMarked(data)
		} else {
			sd.addTrain([][]byte{data})
		}
		err, _ = sd.flush()
		sd.release()
	}
	return explainSend("IKE", pair, err)
}

// SendESP sends ESP packets, SPI to ICV, over one pair: in UDP from the NAT
// traversal port (RFC 3948 §2.1), or as IP protocol 50. It waits while the socket
// has no room. When some packets could not be sent it goes on with the others if
// that makes sense, and returns the first error.
func (t *Transport) SendESP(pair locator.Pair, udp bool, pkts [][]byte) error {
	s, err := t.socketFor(pair, !udp)
	if err == nil && udp && s.port != NATT {
		err = ErrNoSocket // the IKE port carries no ESP
	}
	if err == nil {
		err, _ = t.send(s, pair, pkts, s.trains())
	}
	return explainSend("ESP", pair, err)
}

// SendKeepalive sends a NAT keepalive, a single octet (RFC 3948 §2.3).
func (t *Transport) SendKeepalive(pair locator.Pair) error {
	s, err := t.socketFor(pair, false)
	if err == nil && s.port != NATT {
		err = ErrNoSocket // the IKE port needs none
	}
	if err == nil {
		err, _ = t.send(s, pair, keepalivePackets, false)
	}
	return explainSend("keepalive", pair, err)
}

// explainSend says what was not sent, and why if the kernel's word is obscure.
func explainSend(what string, pair locator.Pair, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENETUNREACH):
		return fmt.Errorf("send %s on %s: %w (no route, or the local address has left this machine)", what, pair, err)
	}
	return fmt.Errorf("send %s on %s: %w", what, pair, err)
}

// socketFor finds the socket of a pair: same family, same port, bound to the
// local address, or else to all.
func (t *Transport) socketFor(pair locator.Pair, esp bool) (*socket, error) {
	remote := pair.Remote.Addr().Unmap()
	local := pair.Local.Addr().Unmap()
	specified := local.IsValid() && !local.IsUnspecified()
	switch {
	case !remote.IsValid() || remote.IsUnspecified() || (!esp && pair.Remote.Port() == 0):
		return nil, fmt.Errorf("no remote address and port: %w", unix.EDESTADDRREQ)
	case specified && local.Is4() != remote.Is4():
		return nil, fmt.Errorf("local and remote address are of different families: %w", unix.EAFNOSUPPORT)
	}
	var wildcard *socket
	for _, s := range t.sockets {
		if s.esp != esp || s.ipv6 != remote.Is6() || (!esp && s.bound.Port() != pair.Local.Port()) {
			continue
		}
		bound := s.bound.Addr()
		if !specified || bound == local.WithZone("") {
			return t.onDevice(s, pair.Interface, remote), nil
		}
		if bound.IsUnspecified() {
			wildcard = s
		}
	}
	if wildcard == nil {
		return nil, ErrNoSocket
	}
	return t.onDevice(wildcard, pair.Interface, remote), nil
}

// trains reports whether this batch may use segmentation offload.
func (s *socket) trains() bool {
	if !s.offload {
		return false
	}
	if s.gsoPause.Load() > 0 {
		s.gsoPause.Add(-1)
		return false
	}
	return true
}

// send sends a batch, as trains of equal-sized packets or one by one. It returns
// as flush does.
func (t *Transport) send(s *socket, pair locator.Pair, pkts [][]byte, trains bool) (first error, done bool) {
	sd := newSender(t, s, pair)
	defer sd.release()
	for len(pkts) > 0 {
		n := 1
		if trains {
			n = trainLength(pkts)
		}
		if !sd.room(n) {
			err, done := sd.flush()
			if first == nil {
				first = err
			}
			if !done {
				t.counters.sendErrors.Add(uint64(len(pkts)))
				return first, false
			}
		}
		if len(pkts[0]) > 0 { // an empty datagram says nothing
			sd.addTrain(pkts[:n])
		}
		pkts = pkts[n:]
	}
	err, done := sd.flush()
	if first == nil {
		first = err
	}
	return first, done
}

// trainLength returns how many packets from the start of pkts can go as one
// message: all of one size, only the last one shorter.
func trainLength(pkts [][]byte) int {
	size, total := len(pkts[0]), len(pkts[0])
	if size == 0 {
		return 1
	}
	for n := 1; n < min(len(pkts), trainPackets); n++ {
		next := len(pkts[n])
		if next == 0 || next > size || total+next > trainBytes {
			return n
		}
		if next < size {
			return n + 1
		}
		total += next
	}
	return min(len(pkts), trainPackets)
}
