package message

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
)

const cpAttributeHeaderLen = 4

// attributeReservedBit is ignored on receipt (RFC 7296 §3.15.1).
const attributeReservedBit = 0x8000

// Type implements Payload.
func (*CP) Type() PayloadType { return TypeCP }

// parseCP parses type, reserved octets and attributes (RFC 7296 §3.15). Values are
// looked at by whoever asks for them: an attribute of the wrong length is to be
// ignored like an unknown one, and no reason to refuse the message.
func parseCP(b []byte) (*CP, error) {
	if len(b) < idHeaderLen {
		return nil, malformed(TypeCP, "cut off in its header")
	}
	cp := &CP{Kind: CPType(b[0])}
	for b = b[idHeaderLen:]; len(b) > 0; {
		if len(cp.Attributes) == MaxAttributes {
			return nil, malformed(TypeCP, "more than %d attributes", MaxAttributes)
		}
		if len(b) < cpAttributeHeaderLen {
			return nil, malformed(TypeCP, "attribute cut off in its header")
		}
		kind, length := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		b = b[cpAttributeHeaderLen:]
		if length > len(b) {
			return nil, malformed(TypeCP, "attribute of %d octets where %d are left", length, len(b))
		}
		cp.Attributes = append(cp.Attributes, Attribute{
			Type:  AttributeType(kind &^ attributeReservedBit),
			Value: clone(b[:length]),
		})
		b = b[length:]
	}
	return cp, nil
}

func (cp *CP) appendBody(b []byte) ([]byte, error) {
	if len(cp.Attributes) > MaxAttributes {
		return nil, fmt.Errorf("%d attributes, at most %d are possible", len(cp.Attributes), MaxAttributes)
	}
	b = append(b, byte(cp.Kind), 0, 0, 0)
	for _, a := range cp.Attributes {
		if a.Type&attributeReservedBit != 0 || len(a.Value) > maxPayloadLen {
			return nil, fmt.Errorf("attribute %d with %d octets", uint16(a.Type), len(a.Value))
		}
		b = binary.BigEndian.AppendUint16(b, uint16(a.Type))
		b = binary.BigEndian.AppendUint16(b, uint16(len(a.Value)))
		b = append(b, a.Value...)
	}
	return b, nil
}

// AddrAttribute makes an attribute whose value is an address. For
// INTERNAL_IP6_ADDRESS use PrefixAttribute.
func AddrAttribute(t AttributeType, addr netip.Addr) Attribute {
	return Attribute{Type: t, Value: addr.AsSlice()}
}

// PrefixAttribute makes an attribute whose value is a prefix: address and netmask
// for INTERNAL_IP4_SUBNET, address and prefix length for INTERNAL_IP6_ADDRESS and
// INTERNAL_IP6_SUBNET.
func PrefixAttribute(t AttributeType, prefix netip.Prefix) Attribute {
	value := prefix.Addr().AsSlice()
	if prefix.Addr().Is4() {
		mask := ^uint32(0) << (32 - prefix.Bits())
		return Attribute{Type: t, Value: binary.BigEndian.AppendUint32(value, mask)}
	}
	return Attribute{Type: t, Value: append(value, byte(prefix.Bits()))}
}

// Addr returns the address that the attribute holds: one of 4 octets, of 16, or
// of 17 with a prefix length that is left aside. It is false for an empty
// attribute, and for one that its type does not allow.
func (a Attribute) Addr() (netip.Addr, bool) {
	switch a.Type {
	case InternalIP4Address, InternalIP4Netmask, InternalIP4DNS, InternalIP4NBNS, InternalIP4DHCP:
		if len(a.Value) != 4 {
			return netip.Addr{}, false
		}
		return netip.AddrFromSlice(a.Value)
	case InternalIP6DNS, InternalIP6DHCP:
		if len(a.Value) != 16 {
			return netip.Addr{}, false
		}
		return netip.AddrFromSlice(a.Value)
	case InternalIP6Address:
		prefix, ok := a.Prefix()
		return prefix.Addr(), ok
	}
	return netip.Addr{}, false
}

// Prefix returns the prefix that an INTERNAL_IP4_SUBNET, INTERNAL_IP6_SUBNET or
// INTERNAL_IP6_ADDRESS holds. It is false for an empty attribute, a netmask with
// gaps, and other types. Host bits are kept.
func (a Attribute) Prefix() (netip.Prefix, bool) {
	switch a.Type {
	case InternalIP4Subnet:
		if len(a.Value) != 8 {
			return netip.Prefix{}, false
		}
		mask := binary.BigEndian.Uint32(a.Value[4:])
		ones := bits.LeadingZeros32(^mask)
		if mask != uint32(uint64(0xffffffff)<<(32-ones)) {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(a.Value[:4])), ones), true
	case InternalIP6Subnet, InternalIP6Address:
		if len(a.Value) != 17 || a.Value[16] > 128 {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(netip.AddrFrom16([16]byte(a.Value[:16])), int(a.Value[16])), true
	}
	return netip.Prefix{}, false
}
