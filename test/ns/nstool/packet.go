package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	ikePort  = 500
	nattPort = 4500
)

// injector sends whole IP packets, whatever their source says.
type injector struct{ fd4, fd6 int }

func newInjector() (*injector, error) {
	fd4, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd4, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 16<<20); err != nil {
		return nil, err
	}
	fd6, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	return &injector{fd4, fd6}, err
}

// send sends one packet. What the kernel refuses as too large is left out.
func (i *injector) send(p []byte) error {
	_, dst, ok := addresses(p)
	if !ok {
		return fmt.Errorf("not an IP packet")
	}
	var err error
	if dst.Is4() {
		err = unix.Sendto(i.fd4, p, 0, &unix.SockaddrInet4{Addr: dst.As4()})
	} else {
		err = unix.Sendto(i.fd6, p, 0, &unix.SockaddrInet6{Addr: dst.As16()})
	}
	if err == unix.EMSGSIZE {
		return nil
	}
	return err
}

// udp makes an IP packet with a UDP datagram in it.
func udp(src, dst netip.AddrPort, payload []byte) []byte {
	d := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(d, src.Port())
	binary.BigEndian.PutUint16(d[2:], dst.Port())
	binary.BigEndian.PutUint16(d[4:], uint16(8+len(payload)))
	return ip(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, append(d, payload...))
}

// ip puts an IP header before a packet of an upper protocol and completes its checksum
// if it is UDP.
func ip(src, dst netip.Addr, protocol byte, upper []byte) []byte {
	if protocol == unix.IPPROTO_UDP && len(upper) >= 8 {
		binary.BigEndian.PutUint16(upper[6:], 0)
		binary.BigEndian.PutUint16(upper[6:], udpChecksum(src, dst, upper))
	}
	if src.Is4() {
		h := make([]byte, 20, 20+len(upper))
		h[0], h[8], h[9] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(upper)))
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		return append(h, upper...) // the kernel fills in identification and checksum
	}
	h := make([]byte, 40, 40+len(upper))
	h[0], h[6], h[7] = 0x60, protocol, 64
	binary.BigEndian.PutUint16(h[4:], uint16(len(upper)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, upper...)
}

// udpChecksum is the one's complement sum over pseudo header and datagram (RFC 768).
func udpChecksum(src, dst netip.Addr, d []byte) uint16 {
	sum := uint32(unix.IPPROTO_UDP) + uint32(len(d))
	for _, part := range [][]byte{src.AsSlice(), dst.AsSlice(), d} {
		for i := 0; i < len(part); i += 2 {
			word := uint32(part[i]) << 8
			if i+1 < len(part) {
				word |= uint32(part[i+1])
			}
			sum += word
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	if c := ^uint16(sum); c != 0 {
		return c
	}
	return 0xffff
}
