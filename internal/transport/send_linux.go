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

var keepalivePackets = []Train{{Data: []byte{keepalive}, Size: 1}}

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
			sd.addTrain(Train{Data: data, Size: len(data)})
		}
		err, _ = sd.flush()
		sd.release()
	}
	return explainSend("IKE", pair, err)
}

// SendESP sends trains of ESP packets over one pair: in UDP from the NAT traversal
// port (RFC 3948 §2.1), or as IP protocol 50. It waits while the socket has no room.
// When some packets could not be sent it goes on with the others if that makes
// sense, and returns the first error.
func (t *Transport) SendESP(pair locator.Pair, udp bool, trains []Train) error {
	s, err := t.socketFor(pair, !udp)
	if err == nil && udp && s.port != NATT {
		err = ErrNoSocket // the IKE port carries no ESP
	}
	if err == nil {
		err, _ = t.send(s, pair, trains, s.trains())
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
		if bound.IsUnspecified() && wildcard == nil {
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

// send sends trains, whole as far as the kernel takes them, or packet by packet. It
// returns as flush does.
func (t *Transport) send(s *socket, pair locator.Pair, trains []Train, whole bool) (first error, done bool) {
	sd := newSender(t, s, pair)
	defer sd.release()
	for i := range trains {
		for rest := trains[i]; len(rest.Data) > 0; {
			var next Train
			next, rest = rest.split(whole)
			if !sd.room() {
				err, done := sd.flush()
				if first == nil {
					first = err
				}
				if !done {
					t.counters.sendErrors.Add(uint64(next.Packets() + packets(rest, trains[i+1:])))
					return first, false
				}
			}
			sd.addTrain(next)
		}
	}
	err, done := sd.flush()
	if first == nil {
		first = err
	}
	return first, done
}

func packets(first Train, others []Train) int {
	n := first.Packets()
	for _, t := range others {
		n += t.Packets()
	}
	return n
}

// split takes off what can go as one message: as many packets as the kernel cuts one
// into, or a single one.
func (t Train) split(whole bool) (first, rest Train) {
	n := 1
	if whole {
		n = max(1, min(trainPackets, trainBytes/t.Size))
	}
	at := min(n*t.Size, len(t.Data))
	return Train{t.Data[:at], t.Size, t.TOS}, Train{t.Data[at:], t.Size, t.TOS}
}
