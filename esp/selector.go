package esp

import (
	"fmt"
	"net/netip"
	"slices"
)

// Any tells whether the selector covers every packet of its addresses.
func (s Selector) Any() bool { return s.Protocol == 0 && s.AnyPort() }

// AnyPort tells whether the selector is for every port, OPAQUE included.
func (s Selector) AnyPort() bool { return s.StartPort == 0 && s.EndPort == 65535 }

// Opaque tells whether the selector is for packets whose ports cannot be seen
// (RFC 7296 §3.13.1, RFC 4301 §4.4.1.1).
func (s Selector) Opaque() bool { return s.StartPort == 65535 && s.EndPort == 0 }

// String writes a selector as people read it: as a network where it is one, with
// protocol and ports where they are limited.
func (s Selector) String() string {
	text := s.Start.String()
	if p := s.prefixes(); len(p) == 1 {
		text = p[0].String()
	} else if s.End != s.Start {
		text += "-" + s.End.String()
	}
	if s.Protocol != 0 {
		text += fmt.Sprintf(" protocol %d", s.Protocol)
	}
	switch {
	case s.AnyPort():
		return text
	case s.Opaque():
		return text + " port opaque"
	case s.StartPort == s.EndPort:
		return text + fmt.Sprintf(" port %d", s.StartPort)
	}
	return text + fmt.Sprintf(" ports %d-%d", s.StartPort, s.EndPort)
}

// SelectorTexts writes a list of selectors, never nil.
func SelectorTexts(list []Selector) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, s.String())
	}
	return out
}

// PrefixSelector returns the selector for every packet of a prefix.
func PrefixSelector(p netip.Prefix) Selector {
	p = p.Masked()
	return Selector{Start: p.Addr(), End: lastOf(p), EndPort: 65535}
}

func (s Selector) validate() error {
	switch {
	case !s.Start.IsValid() || !s.End.IsValid() || s.Start.Is4() != s.End.Is4() || s.Start.Is4In6() || s.End.Is4In6():
		return fmt.Errorf("traffic selector %v-%v: two addresses of one family are needed", s.Start, s.End)
	case s.Start.Zone() != "" || s.End.Zone() != "":
		return fmt.Errorf("traffic selector %v-%v: an address with a zone is not allowed", s.Start, s.End)
	case s.End.Less(s.Start):
		return fmt.Errorf("traffic selector %v-%v ends before it starts", s.Start, s.End)
	case s.StartPort > s.EndPort && !s.Opaque():
		return fmt.Errorf("traffic selector ports %d-%d end before they start", s.StartPort, s.EndPort)
	}
	return nil
}

// prefixes splits the address range into the fewest prefixes, at most 2 for each
// bit of an address.
func (s Selector) prefixes() []netip.Prefix {
	var out []netip.Prefix
	if s.validate() != nil {
		return nil
	}
	for a := s.Start; ; {
		p := largestPrefix(a, s.End)
		out = append(out, p)
		last := lastOf(p)
		if last == s.End {
			return out
		}
		a = last.Next()
	}
}

// largestPrefix is the largest prefix that starts at a and ends at or before end.
func largestPrefix(a, end netip.Addr) netip.Prefix {
	best := netip.PrefixFrom(a, a.BitLen())
	for bits := a.BitLen() - 1; bits >= 0; bits-- {
		p := netip.PrefixFrom(a, bits)
		if p.Masked().Addr() != a || end.Less(lastOf(p)) {
			break
		}
		best = p
	}
	return best
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Selectors are the traffic selectors of a Child SA, made ready for packets: a
// packet passes when one selector of each side matches it.
type Selectors struct {
	local, remote []matcher
}

// NewSelectors checks and compiles selectors.
func NewSelectors(local, remote []Selector) (*Selectors, error) {
	l, err := compile(local)
	if err != nil {
		return nil, fmt.Errorf("local side: %w", err)
	}
	r, err := compile(remote)
	if err != nil {
		return nil, fmt.Errorf("remote side: %w", err)
	}
	return &Selectors{local: l, remote: r}, nil
}

// Outbound reports whether a packet goes from Local to Remote.
func (s *Selectors) Outbound(p *Inner) bool {
	return anyMatch(s.local, p, p.src, p.SrcPort) && anyMatch(s.remote, p, p.dst, p.DstPort)
}

// Inbound reports whether a packet comes from Remote to Local.
func (s *Selectors) Inbound(p *Inner) bool {
	return anyMatch(s.remote, p, p.src, p.SrcPort) && anyMatch(s.local, p, p.dst, p.DstPort)
}

// passAll reports whether every packet to a prefix goes from Local to Remote,
// whatever its source, protocol and ports.
func (s *Selectors) passAll(to netip.Prefix) bool {
	family := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if to.Addr().Is6() {
		family = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return anyCovers(s.local, family) && anyCovers(s.remote, to)
}

func anyCovers(ms []matcher, p netip.Prefix) bool {
	lo, hi, v6 := wide(p.Masked().Addr()), wide(lastOf(p.Masked())), p.Addr().Is6()
	return slices.ContainsFunc(ms, func(m matcher) bool {
		return m.v6 == v6 && m.protocol == 0 && m.anyPort && !lo.less(m.lo) && !m.hi.less(hi)
	})
}

func compile(selectors []Selector) ([]matcher, error) {
	if len(selectors) == 0 {
		return nil, fmt.Errorf("no traffic selector: nothing could pass")
	}
	out := make([]matcher, 0, len(selectors))
	for _, s := range selectors {
		if err := s.validate(); err != nil {
			return nil, err
		}
		out = append(out, matcher{
			lo: wide(s.Start), hi: wide(s.End), v6: s.Start.Is6(), protocol: s.Protocol,
			startPort: s.StartPort, endPort: s.EndPort, anyPort: s.AnyPort(), opaque: s.Opaque(),
		})
	}
	return out, nil
}

func anyMatch(ms []matcher, p *Inner, a wideAddr, port uint16) bool {
	for i := range ms {
		if ms[i].match(p, a, port) {
			return true
		}
	}
	return false
}

// matcher is one compiled selector.
type matcher struct {
	lo, hi             wideAddr
	startPort, endPort uint16
	protocol           uint8
	v6                 bool
	anyPort, opaque    bool
}

// match applies RFC 4301 §4.4.1.1: ANY covers OPAQUE, a range needs a value, and
// OPAQUE needs its absence. For ICMP the port is type and code on both sides.
func (m *matcher) match(p *Inner, a wideAddr, port uint16) bool {
	if m.v6 != p.V6 || a.less(m.lo) || m.hi.less(a) {
		return false
	}
	if m.protocol != 0 && (!p.ProtoKnown || m.protocol != p.Protocol) {
		return false
	}
	switch {
	case m.anyPort:
		return true
	case m.opaque:
		return !p.PortsKnown
	}
	return p.PortsKnown && m.startPort <= port && port <= m.endPort
}
