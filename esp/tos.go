package esp

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// The ECN field (RFC 3168 §5): the two low bits of the octet that IPv4 calls TOS and
// IPv6 traffic class. The six high ones are the DSCP (RFC 2474 §3).
const (
	ECNMask = 3
	NotECT  = 0
	ECT1    = 1
	ECT0    = 2
	CE      = 3

	dscpShift = 2
	maxDSCP   = 1<<6 - 1
)

// DSCP says what DSCP the outer packets of a tunnel get (RFC 2983 §3.1, RFC 4301
// §5.1.2): none, which tells nobody outside what kinds of traffic there are, the one
// of the packet inside (CopyDSCP), or always the same, from 1 to 63. Zero is none.
type DSCP uint8

// CopyDSCP stands for the DSCP of the packet inside.
const CopyDSCP DSCP = 0xff

// Outer is the TOS octet of the outer packet around one with the octet inner. The ECN
// field is copied (RFC 6040 §4.1, normal mode).
func (d DSCP) Outer(inner uint8) uint8 {
	if d == CopyDSCP {
		return inner
	}
	return uint8(d)<<dscpShift | inner&ECNMask
}

// String is "clear", "copy" or a number.
func (d DSCP) String() string {
	switch d {
	case CopyDSCP:
		return "copy"
	case 0:
		return "clear"
	}
	return strconv.Itoa(int(d))
}

// MarshalText writes what UnmarshalText reads.
func (d DSCP) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads "clear", "copy" or a number from 0 to 63.
func (d *DSCP) UnmarshalText(text []byte) error {
	switch s := string(text); s {
	case "clear":
		*d = 0
	case "copy":
		*d = CopyDSCP
	default:
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil || n > maxDSCP {
			return fmt.Errorf("%.40q is neither \"clear\", \"copy\" nor a DSCP from 0 to %d", s, maxDSCP)
		}
		*d = DSCP(n)
	}
	return nil
}

// DecapsulateECN is what becomes of the ECN field of a packet that came in an outer one
// with another (RFC 6040 §4.2, figure 4). It is false when the packet has to be dropped:
// there was congestion, and its sender would not understand if it were told.
func DecapsulateECN(inner, outer uint8) (uint8, bool) {
	inner, outer = inner&ECNMask, outer&ECNMask
	switch {
	case outer == CE:
		return CE, inner != NotECT
	case outer == ECT1 && inner == ECT0:
		return ECT1, true
	}
	return inner, true
}

// SetECN writes the ECN field of an IP packet whose headers have been checked, and
// keeps the checksum of an IPv4 header as right as it was.
func SetECN(pkt []byte, ecn uint8) {
	if pkt[0]>>4 == 6 {
		pkt[1] = pkt[1]&^(ECNMask<<4) | ecn<<4
		return
	}
	old := binary.BigEndian.Uint16(pkt)
	pkt[1] = pkt[1]&^ECNMask | ecn
	// RFC 1624 eqn. 3.
	v := uint32(^binary.BigEndian.Uint16(pkt[10:])) + uint32(^old) + uint32(binary.BigEndian.Uint16(pkt))
	v = v&0xffff + v>>16
	v = v&0xffff + v>>16
	binary.BigEndian.PutUint16(pkt[10:], ^uint16(v))
}
