package transport

import (
	"os"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// From linux/udp.h and linux/in.h, linux/in6.h.
const (
	udpEncap         = 100 // UDP_ENCAP
	udpEncapESPInUDP = 2   // UDP_ENCAP_ESPINUDP
	ipXFRMPolicy     = 17  // IP_XFRM_POLICY
	ipv6XFRMPolicy   = 35  // IPV6_XFRM_POLICY
)

// Directions of a policy.
const (
	policyIn  = 0
	policyOut = 1
)

// leaveESP makes the kernel take ESP in UDP from the socket, and exempts what the
// socket itself sends and receives from IPsec policies.
func (s *socket) leaveESP(fd int) error {
	level, option, family := unix.IPPROTO_IP, ipXFRMPolicy, uint16(unix.AF_INET)
	if s.ipv6 {
		level, option, family = unix.IPPROTO_IPV6, ipv6XFRMPolicy, unix.AF_INET6
	}
	for _, direction := range []uint8{policyIn, policyOut} {
		// A policy without templates that allows everything.
		p := nl.XfrmUserpolicyInfo{Sel: nl.XfrmSelector{Family: family}, Dir: direction}
		if err := unix.SetsockoptString(fd, level, option, string(p.Serialize())); err != nil {
			return os.NewSyscallError("setsockopt IP_XFRM_POLICY", err)
		}
	}
	if s.esp || s.port != NATT {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, udpEncap, udpEncapESPInUDP); err != nil {
		return os.NewSyscallError("setsockopt UDP_ENCAP", err)
	}
	return nil
}
