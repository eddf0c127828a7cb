package route

import (
	"net/netip"

	"github.com/wayfarer-vpn/wayfarer/internal/rtnl"
)

// Prefixes returns the fewest prefixes that cover exactly the addresses from start
// to end. Traffic selectors are ranges (RFC 7296 §3.13.1), routes are prefixes. A
// range that is none (end before start, two families) gives nothing.
func Prefixes(start, end netip.Addr) []netip.Prefix {
	if !start.IsValid() || start.BitLen() != end.BitLen() {
		return nil
	}
	var out []netip.Prefix
	for start.Compare(end) <= 0 {
		p := largestFrom(start, end)
		out = append(out, p)
		next := last(p).Next()
		if !next.IsValid() {
			break // the end of the address space
		}
		start = next
	}
	return out
}

// largestFrom returns the widest prefix that begins at start and does not go beyond
// end.
func largestFrom(start, end netip.Addr) netip.Prefix {
	bits := start.BitLen()
	for bits > 0 {
		wider := netip.PrefixFrom(start, bits-1)
		if wider.Masked().Addr() != start || last(wider).Compare(end) > 0 {
			break
		}
		bits--
	}
	return netip.PrefixFrom(start, bits)
}

// last returns the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		switch host := (i+1)*8 - p.Bits(); {
		case host >= 8:
			b[i] = 0xff
		case host > 0:
			b[i] |= 1<<host - 1
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// intersect returns what two prefixes share.
func intersect(a, b netip.Prefix) (netip.Prefix, bool) {
	if !a.Overlaps(b) {
		return netip.Prefix{}, false
	}
	if a.Bits() < b.Bits() {
		return b.Masked(), true
	}
	return a.Masked(), true
}

// single is the prefix of one address.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func ofFamily(list []netip.Addr, family int) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		if rtnl.Family(a) == family {
			out = append(out, a.WithZone(""))
		}
	}
	return out
}

func prefixesOfFamily(list []netip.Prefix, family int) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		if rtnl.Family(p.Addr()) == family {
			out = append(out, p)
		}
	}
	return out
}
