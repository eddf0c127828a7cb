// Package guard keeps packets with inner addresses from leaving in clear text where
// routing alone cannot.
//
// The routing rules of package route catch what is routed. Two things remain:
//
//   - A socket bound to an uplink interface (SO_BINDTODEVICE) skips a failed route
//     lookup: Linux then takes the destination for a neighbour on that link. Set
//     makes a netfilter chain that drops inner source addresses on every interface
//     but the tunnel. Like the rules it lives in the kernel and outlasts a crash.
//   - When a tunnel is over, programs may still hold sockets with its addresses.
//     IPv6 goes on sending from an address that is gone. EndConnections ends TCP
//     connections (SOCK_DESTROY), so that programs notice at once and connect anew.
//     UDP sockets are left alone: the kernel would give their program an error,
//     but leave them bound, and no longer tell us of them. For their addresses, and
//     whatever InUse finds, the guard must stay until they are closed.
package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/rtnl"
)

// Sizes and places in struct inet_diag_req_v2 and struct inet_diag_msg of
// linux/inet_diag.h. Both hold the same struct inet_diag_sockid.
const (
	requestLen = 56
	messageLen = 72
	idLen      = 48

	requestID = 8 // offset of the socket's identification
	messageID = 4
	idSource  = 4 // offset within the identification: source address
)

// States of TCP (linux/tcp_states.h) whose sockets send nothing by themselves. A
// listening socket with an inner address may stay for the next tunnel.
const (
	tcpTimeWait = 6
	tcpClose    = 7
	tcpListen   = 10

	statesSending = ^uint32(1<<tcpTimeWait | 1<<tcpClose | 1<<tcpListen)
)

// connection is a TCP socket of this network namespace.
type connection struct {
	family uint8
	id     [idLen]byte
}

// source is the local address of the connection.
func (c connection) source() netip.Addr {
	if c.family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(c.id[idSource : idSource+4]))
	}
	return netip.AddrFrom16([16]byte(c.id[idSource : idSource+16])).Unmap()
}

// EndConnections ends the TCP connections with one of the addresses as local
// address. The programs that hold them get the error ECONNABORTED.
func EndConnections(addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	list, err := connections(addrs)
	if err != nil {
		return err
	}
	for _, c := range list {
		derr := c.destroy()
		if derr != nil && !errors.Is(derr, unix.ENOENT) { // ENOENT: it has ended by itself
			err = errors.Join(err, fmt.Errorf("end a connection of address %s: %w", c.source(), derr))
		}
	}
	return err
}

func (c connection) destroy() error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddData(&diagRequest{c.family, ^uint32(0), c.id})
	_, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}

// connections lists the TCP sockets that may send from one of the addresses.
func connections(addrs []netip.Addr) ([]connection, error) {
	var out []connection
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		messages, err := dump(family)
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			if len(m) < messageLen {
				return nil, fmt.Errorf("list TCP sockets: the kernel sent %d octets, want %d", len(m), messageLen)
			}
			c := connection{family: m[0]}
			copy(c.id[:], m[messageID:])
			if slices.Contains(addrs, c.source()) {
				out = append(out, c)
			}
		}
	}
	return out, nil
}

func dump(family uint8) ([][]byte, error) {
	messages, err := rtnl.Dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		req.AddData(&diagRequest{family: family, states: statesSending})
		return req.Execute(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY)
	})
	if err != nil {
		return nil, fmt.Errorf("list TCP sockets: %w", err)
	}
	return messages, nil
}

// diagRequest is struct inet_diag_req_v2 for TCP.
type diagRequest struct {
	family uint8
	states uint32
	id     [idLen]byte
}

// Len is the length of the request.
func (r *diagRequest) Len() int { return requestLen }

// Serialize returns the request as the kernel reads it.
func (r *diagRequest) Serialize() []byte {
	b := make([]byte, requestLen)
	b[0], b[1] = r.family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], r.states)
	copy(b[requestID:], r.id[:])
	return b
}
