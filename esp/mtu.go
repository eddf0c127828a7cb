package esp

import (
	"github.com/wayfarer-vpn/wayfarer/suite"
)

const (
	udpHeaderLen = 8
	// MinIPv6MTU is the packet size every IPv6 link carries (RFC 8200 §5). A tunnel
	// never tells an IPv6 sender less; if need be the outer packet is fragmented.
	MinIPv6MTU = 1280
	// DefaultPathMTU is taken for a path whose MTU nobody has told.
	DefaultPathMTU = 1500
)

// InnerMTU returns the largest inner packet that fits, sealed, into outer packets
// of pathMTU octets: the outer IP header, UDP if there is one (RFC 3948), and what
// ESP adds are taken off. It returns zero when nothing fits.
func InnerMTU(pathMTU int, outerV6, udp bool, encr suite.Encr, integ suite.IntegID) (int, error) {
	layout, err := LayoutOf(encr, integ)
	if err != nil {
		return 0, err
	}
	return layout.InnerMTU(pathMTU, outerV6, udp), nil
}

// InnerMTU is the same for a known layout.
func (l Layout) InnerMTU(pathMTU int, outerV6, udp bool) int {
	space := pathMTU - ipv4HeaderLen
	if outerV6 {
		space = pathMTU - ipv6HeaderLen
	}
	if udp {
		space -= udpHeaderLen
	}
	return l.MaxPayload(space)
}
