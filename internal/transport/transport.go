// Package transport owns the UDP sockets (and the raw ESP sockets where they are
// asked for) of a daemon: it separates IKE from ESP on port 4500 by the non-ESP
// marker (RFC 3948 §2.2), receives and sends in batches, with UDP segmentation
// and receive offload where the kernel has them, tells the local address and
// interface of every packet, and sends from the chosen ones.
package transport

import (
	"net/netip"

	"github.com/wayfarer-vpn/wayfarer/locator"
)

// Config says where to listen.
type Config struct {
	// Addresses to bind; empty means every address of both families.
	Addresses []netip.Addr
	// IKEPort carries IKE without marker (500), NATTPort IKE with marker and ESP
	// in UDP (4500). Zero means an ephemeral port; if the ports are taken and
	// Ephemeral is set, an ephemeral one is used instead.
	IKEPort, NATTPort uint16
	Ephemeral         bool
	// Readers is how many sockets share the NAT traversal port of an address, each read
	// by a goroutine of its own; zero is one. With several, FollowRoutes must be set.
	Readers int
	// Mark is set on every packet sent (SO_MARK), so that policy routing can keep
	// it out of the tunnel. Zero sets none.
	Mark uint32
	// KernelESP leaves ESP in UDP to the kernel: what comes to the NAT traversal port
	// without the non-ESP marker goes to its IPsec, and not to HandleESP. Policies of
	// the kernel do not apply to what the sockets send and receive themselves.
	KernelESP bool
	// RawESP also opens sockets for IP protocol 50.
	RawESP bool
	// FollowRoutes leaves Pair.Interface zero in what is received, so that answers
	// follow the routing table instead of leaving by the interface of the request.
	// That is what a gateway wants, where the way out may differ from the way in; a
	// client that tests its links one by one leaves it off. Link-local remotes keep
	// their interface in either case: they mean nothing without it.
	FollowRoutes bool
	// PathErrors, if not nil, gets what ICMP says about packets sent before, at a
	// limited rate: hints, since it can be forged. It is called from the goroutines that
	// receive and send, and must not wait.
	PathErrors func(PathError)
}

// Port names one of the two UDP ports of a transport.
type Port int

// The two ports of IKEv2 (RFC 7296 §2, §2.23).
const (
	IKE  Port = iota // 500: IKE without marker
	NATT             // 4500: IKE behind the non-ESP marker, and ESP
)

// String returns the name used in logs.
func (p Port) String() string {
	if p == NATT {
		return "NAT-T"
	}
	return "IKE"
}

// Train is a sequence of ESP packets, SPI to ICV, one behind the other in memory: all
// of Size octets, only the last may be shorter. It crosses the kernel as one. TOS is
// the octet of the IP header that holds DSCP and ECN.
type Train struct {
	Data []byte
	Size int
	TOS  uint8
}

// Packets is how many packets a train has.
func (t Train) Packets() int {
	if t.Size <= 0 {
		return 0
	}
	return (len(t.Data) + t.Size - 1) / t.Size
}

// ESPTrain is a received train. Its data is writable, belongs to the transport, and is
// valid until HandleESP returns.
type ESPTrain struct {
	Pair locator.Pair // as the receiver sees it
	UDP  bool         // false: IP protocol 50, ports are zero
	Train
}

// Handler receives what arrives. Both methods are called from the receiving
// goroutines, one per socket.
type Handler interface {
	// HandleIKE gets an IKE message without marker; data belongs to the callee.
	HandleIKE(pair locator.Pair, data []byte)
	// HandleESP gets a batch, in order; NAT keepalives are already taken out.
	HandleESP(batch []ESPTrain)
}
