package xfrm

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/wayfarer-vpn/wayfarer/esp"
)

// maxSelectors bounds the policies of one Child SA: ranges that are no prefixes take
// several.
const maxSelectors = 1024

var errSelector = errors.New("the kernel cannot express these traffic selectors")

// selectorsOf turns the traffic selectors of a Child SA into the kernel's, for packets
// from Local to Remote.
func selectorsOf(local, remote []esp.Selector) ([]selector, error) {
	if _, err := esp.NewSelectors(local, remote); err != nil {
		return nil, err
	}
	var out []selector
	seen := map[selector]bool{}
	for _, l := range local {
		for _, r := range remote {
			list, err := pairs(l, r)
			if err != nil {
				return nil, err
			}
			for _, s := range list {
				if !seen[s] {
					seen[s] = true
					out = append(out, s)
				}
			}
			if len(out) > maxSelectors {
				return nil, fmt.Errorf("%w: more than %d policies", errSelector, maxSelectors)
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: local and remote side have nothing in common", errSelector)
	}
	return out, nil
}

// pairs combines one selector of each side; none when they cannot meet in a packet.
func pairs(l, r esp.Selector) (out []selector, err error) {
	if l.Start.Is4() != r.Start.Is4() || l.Protocol != 0 && r.Protocol != 0 && l.Protocol != r.Protocol {
		return nil, nil
	}
	if l.Opaque() || r.Opaque() {
		return nil, fmt.Errorf("%w: OPAQUE ports", errSelector)
	}
	sports, dports := portMasks(l), portMasks(r)
	sources, destinations := prefixes(l), prefixes(r)
	if len(sports)*len(dports)*len(sources)*len(destinations) > maxSelectors {
		return nil, fmt.Errorf("%w: %v with %v takes too many policies", errSelector, l, r)
	}
	for _, src := range sources {
		for _, dst := range destinations {
			for _, sp := range sports {
				for _, dp := range dports {
					out = append(out, selector{src, dst, max(l.Protocol, r.Protocol), sp.value, sp.mask, dp.value, dp.mask})
				}
			}
		}
	}
	return out, nil
}

// portMask matches the ports that agree with value where mask has ones.
type portMask struct{ value, mask uint16 }

// portMasks splits a range of ports into the fewest masks.
func portMasks(s esp.Selector) (out []portMask) {
	for at, end := uint32(s.StartPort), uint32(s.EndPort); at <= end; {
		size := uint32(1) << 16
		if at != 0 {
			size = 1 << bits.TrailingZeros32(at)
		}
		for at+size-1 > end {
			size /= 2
		}
		out = append(out, portMask{uint16(at), uint16(1<<16 - size)})
		at += size
	}
	return out
}

// prefixes splits a range of addresses into the fewest prefixes.
func prefixes(s esp.Selector) (out []netip.Prefix) {
	for a := s.Start; ; {
		p := netip.PrefixFrom(a, a.BitLen())
		for p.Bits() > 0 {
			wider := netip.PrefixFrom(a, p.Bits()-1)
			if wider.Masked().Addr() != a || s.End.Less(last(wider)) {
				break
			}
			p = wider
		}
		out = append(out, p)
		if last(p) == s.End {
			return out
		}
		a = last(p).Next()
	}
}

// last is the last address of a prefix.
func last(p netip.Prefix) netip.Addr {
	return esp.PrefixSelector(p).End
}

// covers says whether every packet of t is one of s.
func (s selector) covers(t selector) bool {
	return coversPrefix(s.src, t.src) && coversPrefix(s.dst, t.dst) &&
		(s.protocol == 0 || s.protocol == t.protocol) &&
		s.sportMask&^t.sportMask == 0 && (s.sport^t.sport)&s.sportMask == 0 &&
		s.dportMask&^t.dportMask == 0 && (s.dport^t.dport)&s.dportMask == 0
}

func coversPrefix(p, q netip.Prefix) bool {
	return p.Bits() <= q.Bits() && p.Contains(q.Addr())
}

// priority of a policy: the lower the number the earlier the kernel looks at it, so
// narrow selectors come before wide ones.
func (s selector) priority() uint32 {
	const widest = 4096
	p := widest - 8*(s.src.Bits()+s.dst.Bits())
	if s.protocol != 0 {
		p -= 2
	}
	if s.sportMask != 0 || s.dportMask != 0 {
		p--
	}
	return uint32(p)
}
