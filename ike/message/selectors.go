package message

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Octets of traffic selectors (RFC 7296 §3.13.1).
const (
	tsHeaderLen       = 4 // of the payload: count, reserved
	selectorHeaderLen = 8 // type, protocol, length, ports
	selectorMinLen    = 4 // what all types have: type, protocol, length
	selectorIPv4Len   = selectorHeaderLen + 2*4
	selectorIPv6Len   = selectorHeaderLen + 2*16
)

// MaxSelectors is how many traffic selectors a payload has room for (RFC 7296 §3.13).
const MaxSelectors = 255

// Ports that stand for OPAQUE (RFC 7296 §3.13.1).
const (
	opaqueStartPort = 65535
	opaqueEndPort   = 0
)

// Type implements Payload.
func (ts *TS) Type() PayloadType {
	if ts.Responder {
		return TypeTSr
	}
	return TypeTSi
}

func parseTS(t PayloadType, b []byte) (*TS, error) {
	if len(b) < tsHeaderLen {
		return nil, malformed(t, "cut off in its header")
	}
	count := int(b[0])
	b = b[tsHeaderLen:]
	if count == 0 {
		return nil, malformed(t, "no traffic selector")
	}
	ts := &TS{Responder: t == TypeTSr}
	for i := range count {
		if len(b) < selectorMinLen {
			return nil, malformed(t, "selector %d of %d cut off", i+1, count)
		}
		length := int(binary.BigEndian.Uint16(b[2:]))
		if length < selectorMinLen || length > len(b) {
			return nil, malformed(t, "selector of length %d where %d octets are left", length, len(b))
		}
		s, known, err := parseSelector(b[:length])
		if err != nil {
			return nil, malformed(t, "%v", err)
		}
		if known {
			ts.Selectors = append(ts.Selectors, s)
		}
		b = b[length:]
	}
	if len(b) != 0 {
		return nil, malformed(t, "%d octets behind the last selector", len(b))
	}
	return ts, nil
}

// parseSelector parses a selector that fills b. known is false for other types
// than the two that RFC 7296 defines.
func parseSelector(b []byte) (s TrafficSelector, known bool, err error) {
	want := 0
	switch TSType(b[0]) {
	case TSIPv4AddrRange:
		want = selectorIPv4Len
	case TSIPv6AddrRange:
		want = selectorIPv6Len
	default:
		return s, false, nil
	}
	if len(b) != want {
		return s, true, fmt.Errorf("selector of type %d with %d octets", b[0], len(b))
	}
	s.Protocol = b[1]
	s.StartPort = binary.BigEndian.Uint16(b[4:])
	s.EndPort = binary.BigEndian.Uint16(b[6:])
	addrs := b[selectorHeaderLen:]
	s.Start, _ = netip.AddrFromSlice(addrs[:len(addrs)/2])
	s.End, _ = netip.AddrFromSlice(addrs[len(addrs)/2:])
	return s, true, s.check()
}

// check makes sure that the selector can match something.
func (s *TrafficSelector) check() error {
	switch {
	case !s.Start.IsValid() || s.Start.BitLen() != s.End.BitLen():
		return fmt.Errorf("addresses %v and %v are not of one family", s.Start, s.End)
	case s.Start.Zone() != "" || s.End.Zone() != "":
		return fmt.Errorf("addresses %v and %v have a zone", s.Start, s.End)
	case s.End.Less(s.Start):
		return fmt.Errorf("address range %v to %v is empty", s.Start, s.End)
	case s.StartPort > s.EndPort && !s.Opaque():
		return fmt.Errorf("port range %d to %d is empty", s.StartPort, s.EndPort)
	}
	return nil
}

// Opaque says whether the selector is for packets whose ports cannot be seen
// (RFC 7296 §3.13.1).
func (s *TrafficSelector) Opaque() bool {
	return s.StartPort == opaqueStartPort && s.EndPort == opaqueEndPort
}

// String shows addresses, and protocol and ports where they are limited.
func (s TrafficSelector) String() string {
	text := s.Start.String()
	if s.Start != s.End {
		text += "-" + s.End.String()
	}
	if s.Protocol != 0 {
		text += fmt.Sprintf(" protocol %d", s.Protocol)
	}
	switch {
	case s.Opaque():
		text += " opaque ports"
	case s.StartPort != 0 || s.EndPort != 65535:
		text += fmt.Sprintf(" ports %d-%d", s.StartPort, s.EndPort)
	}
	return text
}

func (ts *TS) appendBody(b []byte) ([]byte, error) {
	if len(ts.Selectors) == 0 {
		return nil, errors.New("no traffic selector")
	}
	if len(ts.Selectors) > MaxSelectors {
		return nil, fmt.Errorf("%d traffic selectors, at most %d are possible", len(ts.Selectors), MaxSelectors)
	}
	b = append(b, byte(len(ts.Selectors)), 0, 0, 0)
	for i := range ts.Selectors {
		s := &ts.Selectors[i]
		if err := s.check(); err != nil {
			return nil, err
		}
		b = s.append(b)
	}
	return b, nil
}

func (s *TrafficSelector) append(b []byte) []byte {
	kind, length := TSIPv6AddrRange, uint16(selectorIPv6Len)
	if s.Start.Is4() {
		kind, length = TSIPv4AddrRange, selectorIPv4Len
	}
	b = append(b, byte(kind), s.Protocol)
	b = binary.BigEndian.AppendUint16(b, length)
	b = binary.BigEndian.AppendUint16(b, s.StartPort)
	b = binary.BigEndian.AppendUint16(b, s.EndPort)
	b = append(b, s.Start.AsSlice()...)
	return append(b, s.End.AsSlice()...)
}
