package message

import (
	"encoding/binary"
	"fmt"
)

// Type implements Payload.
func (*Delete) Type() PayloadType { return TypeDelete }

// spiLenInDelete is the length of SPIs in a Delete payload (RFC 7296 §3.11).
func spiLenInDelete(protocol ProtocolID) (int, bool) {
	switch protocol {
	case ProtoIKE:
		return 0, true
	case ProtoAH, ProtoESP:
		return 4, true
	}
	return 0, false
}

func parseDelete(b []byte) (*Delete, error) {
	if len(b) < 4 {
		return nil, malformed(TypeDelete, "cut off in its header")
	}
	d := &Delete{Protocol: ProtocolID(b[0])}
	spiLen, count := int(b[1]), int(binary.BigEndian.Uint16(b[2:]))
	b = b[4:]
	want, ok := spiLenInDelete(d.Protocol)
	switch {
	case !ok:
		return nil, malformed(TypeDelete, "unknown protocol %d", uint8(d.Protocol))
	case spiLen != want:
		return nil, malformed(TypeDelete, "SPIs of %d octets for %v", spiLen, d.Protocol)
	case d.Protocol == ProtoIKE && count != 0:
		return nil, malformed(TypeDelete, "%d SPIs for the IKE SA", count)
	case count > MaxSPIs:
		return nil, malformed(TypeDelete, "%d SPIs, at most %d are taken", count, MaxSPIs)
	case len(b) != spiLen*count:
		return nil, malformed(TypeDelete, "%d octets for %d SPIs", len(b), count)
	}
	for ; len(b) > 0; b = b[spiLen:] {
		d.SPIs = append(d.SPIs, binary.BigEndian.Uint32(b))
	}
	return d, nil
}

func (d *Delete) appendBody(b []byte) ([]byte, error) {
	spiLen, ok := spiLenInDelete(d.Protocol)
	if !ok {
		return nil, fmt.Errorf("unknown protocol %d", uint8(d.Protocol))
	}
	if len(d.SPIs) > MaxSPIs || spiLen == 0 && len(d.SPIs) > 0 {
		return nil, fmt.Errorf("%d SPIs for %v", len(d.SPIs), d.Protocol)
	}
	b = append(b, byte(d.Protocol), byte(spiLen))
	b = binary.BigEndian.AppendUint16(b, uint16(len(d.SPIs)))
	for _, spi := range d.SPIs {
		b = binary.BigEndian.AppendUint32(b, spi)
	}
	return b, nil
}

// Type implements Payload.
func (*VendorID) Type() PayloadType { return TypeVendor }

func (v *VendorID) appendBody(b []byte) ([]byte, error) {
	return append(b, v.Data...), nil
}

// Type implements Payload.
func (u *Unknown) Type() PayloadType { return u.Kind }

func (u *Unknown) appendBody(b []byte) ([]byte, error) {
	if u.Kind.known() {
		return nil, fmt.Errorf("type %d is not unknown", uint8(u.Kind))
	}
	return append(b, u.Data...), nil
}
