package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tap reads the IP packets of a device, both directions.
type tap struct{ fd int }

func openTap(device string) (*tap, error) {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	const buffer = 64 << 20
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer); err != nil {
		return nil, err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}); err != nil {
		return nil, err
	}
	const all = unix.ETH_P_ALL
	return &tap{fd}, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: i.Index})
}

// each calls f with every packet until ctx ends. It fails if the kernel had to drop
// some: a watch with gaps proves nothing.
func (t *tap) each(ctx context.Context, f func(packet []byte)) error {
	buf := make([]byte, 1<<17)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(t.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		f(buf[:n])
	}
	stats, err := unix.GetsockoptTpacketStats(t.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil && stats.Drops > 0 {
		return fmt.Errorf("%d packets were not seen", stats.Drops)
	}
	return err
}

// addresses of an IP packet.
func addresses(p []byte) (src, dst netip.Addr, ok bool) {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), true
	case len(p) >= 40 && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), true
	}
	return src, dst, false
}

// upper returns the protocol of an IP packet and what follows its header. IPv6
// extension headers are not followed: our own tunnels send none.
func upper(p []byte) (protocol byte, rest []byte) {
	if p[0]>>4 == 6 {
		return p[6], p[40:]
	}
	if n := int(p[0]&15) * 4; n <= len(p) {
		return p[9], p[n:]
	}
	return p[9], nil
}

// watch looks at everything that passes a device.
func watch(ctx context.Context, args []string) error {
	if err := atLeast(1, args); err != nil {
		return err
	}
	var clear, to []netip.Prefix
	for _, a := range args[1:] {
		kind, text, _ := strings.Cut(a, "=")
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			return err
		case kind == "clear":
			clear = append(clear, p)
		case kind == "to":
			to = append(to, p)
		default:
			return fmt.Errorf("%q is neither clear= nor to=", a)
		}
	}
	t, err := openTap(args[0])
	if err != nil {
		return err
	}
	fmt.Println("ready")
	frames, leaked, sent := 0, 0, 0
	err = t.each(ctx, func(p []byte) {
		src, dst, ok := addresses(p)
		if !ok {
			return // ARP and the like
		}
		frames++
		if within(clear, src) || within(clear, dst) || bytes.Contains(p, []byte(marker)) {
			leaked++
			if leaked <= 10 {
				protocol, _ := upper(p)
				fmt.Printf("in clear at %s: %s > %s protocol %d, %d octets\n", time.Now().Format("15:04:05.000"), src, dst, protocol, len(p))
			}
		}
		if within(to, dst) {
			sent++
		}
	})
	fmt.Printf("frames=%d clear=%d to=%d\n", frames, leaked, sent)
	return err
}

func within(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// isTunnel says whether a packet belongs to a tunnel: IKE, or ESP with or without UDP.
func isTunnel(p []byte) bool {
	protocol, rest := upper(p)
	if protocol == unix.IPPROTO_ESP {
		return true
	}
	if protocol != unix.IPPROTO_UDP || len(rest) < 8 {
		return false
	}
	for _, port := range []uint16{binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])} {
		if port == ikePort || port == nattPort {
			return true
		}
	}
	return false
}
