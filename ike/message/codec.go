package message

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits of what is parsed. They are far above what any exchange needs, and make
// sure that the work for a message stays in proportion to its size.
const (
	MaxLen        = 65535 // octets of a message; nothing larger fits a datagram
	MaxPayloads   = 128   // in one message, or inside one Encrypted payload
	MaxProposals  = 64    // in an SA payload
	MaxAttributes = 1024  // in a Configuration payload
	MaxSPIs       = 1024  // in a Delete payload
	// Transforms of a proposal and traffic selectors are counted in one octet.
)

const (
	payloadHeaderLen  = 4
	fragmentHeaderLen = 4 // numbers of an SKF payload
	maxPayloadLen     = 65535
	criticalBit       = 0x80
)

// ParseHeader parses the header of the message that b is. It checks the length
// of the message, and its version: with a *VersionError the header is returned
// too, as far as it can be trusted to mean the same in another version.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, malformed(TypeNone, "%d octets are too few for a header", len(b))
	}
	h := Header{
		SPIi:        SPI(binary.BigEndian.Uint64(b)),
		SPIr:        SPI(binary.BigEndian.Uint64(b[8:])),
		NextPayload: PayloadType(b[16]),
		Major:       b[17] >> 4,
		Minor:       b[17] & 0x0f,
		Exchange:    ExchangeType(b[18]),
		Flags:       Flags(b[19]),
		MessageID:   binary.BigEndian.Uint32(b[20:]),
		Length:      binary.BigEndian.Uint32(b[24:]),
	}
	if h.Major != 2 {
		return h, &VersionError{Major: h.Major}
	}
	if uint64(h.Length) != uint64(len(b)) {
		return Header{}, malformed(TypeNone, "header says %d octets, datagram has %d", h.Length, len(b))
	}
	if len(b) > MaxLen {
		return Header{}, malformed(TypeNone, "message of %d octets, at most %d are possible", len(b), MaxLen)
	}
	return h, nil
}

// Parse parses a whole message. Errors are *SyntaxError, *CriticalPayloadError or
// *VersionError.
func Parse(b []byte) (*Message, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return nil, err
	}
	ps, err := parseChain(h.NextPayload, b[HeaderLen:], HeaderLen)
	if err != nil {
		return nil, err
	}
	return &Message{Header: h, Payloads: ps}, nil
}

// ParsePayloads parses the content of an opened Encrypted payload, whose first
// payload has the given type. Errors are *SyntaxError or *CriticalPayloadError.
func ParsePayloads(first PayloadType, b []byte) ([]Payload, error) {
	return parseChain(first, b, insideEncrypted)
}

// insideEncrypted is the offset for payloads that have none in the message, and
// among which there can be no further Encrypted payload.
const insideEncrypted = -1

// parseChain parses payloads until the chain and the octets end, together. offset
// is where b starts in the message.
func parseChain(next PayloadType, b []byte, offset int) ([]Payload, error) {
	var ps []Payload
	for next != TypeNone {
		if len(ps) == MaxPayloads {
			return nil, malformed(TypeNone, "more than %d payloads", MaxPayloads)
		}
		t, length, err := payloadHeader(next, b)
		if err != nil {
			return nil, err
		}
		if t == TypeSK || t == TypeSKF {
			e, err := parseEncrypted(t, b, length, offset)
			if err != nil {
				return nil, err
			}
			return append(ps, e), nil
		}
		p, err := parseBody(t, b[1]&criticalBit != 0, b[payloadHeaderLen:length])
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
		next = PayloadType(b[0])
		b = b[length:]
		if offset != insideEncrypted {
			offset += length
		}
	}
	if len(b) != 0 {
		return nil, malformed(TypeNone, "%d octets behind the last payload", len(b))
	}
	return ps, nil
}

// payloadHeader checks the generic header at the start of b (RFC 7296 §3.2).
func payloadHeader(t PayloadType, b []byte) (PayloadType, int, error) {
	if len(b) < payloadHeaderLen {
		return t, 0, malformed(t, "cut off in the generic header")
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	if length < payloadHeaderLen || length > len(b) {
		return t, 0, malformed(t, "length %d where %d octets are left", length, len(b))
	}
	return t, length, nil
}

// parseBody parses one payload behind its generic header. The critical bit counts
// for unknown types only (RFC 7296 §3.2).
func parseBody(t PayloadType, critical bool, body []byte) (Payload, error) {
	switch t {
	case TypeSA:
		return parseSA(body)
	case TypeKE:
		return parseKE(body)
	case TypeIDi, TypeIDr:
		return parseID(t, body)
	case TypeCert:
		return parseCert(body)
	case TypeCertReq:
		return parseCertReq(body)
	case TypeAuth:
		return parseAuth(body)
	case TypeNonce:
		return parseNonce(body)
	case TypeNotify:
		return parseNotify(body)
	case TypeDelete:
		return parseDelete(body)
	case TypeVendor:
		return &VendorID{Data: clone(body)}, nil
	case TypeTSi, TypeTSr:
		return parseTS(t, body)
	case TypeCP:
		return parseCP(body)
	case TypeEAP:
		return parseEAP(body)
	}
	if critical {
		return nil, &CriticalPayloadError{Type: t}
	}
	return &Unknown{Kind: t, Data: clone(body)}, nil
}

// clone copies octets out of the message; an empty field becomes nil.
func clone(b []byte) []byte {
	return append([]byte(nil), b...)
}

// Append appends the message to b. NextPayload and Length are computed, whatever
// the header says; a Major of zero stands for 2.
func (m *Message) Append(b []byte) ([]byte, error) {
	start := len(b)
	b = m.Header.append(b)
	first, b, err := AppendPayloads(b, m.Payloads)
	if err != nil {
		return nil, err
	}
	return finishHeader(b, start, first, len(b)-start)
}

// append appends the header, without next payload and length.
func (h *Header) append(b []byte) []byte {
	major := h.Major
	if major == 0 {
		major = 2
	}
	b = binary.BigEndian.AppendUint64(b, uint64(h.SPIi))
	b = binary.BigEndian.AppendUint64(b, uint64(h.SPIr))
	b = append(b, 0, major<<4|h.Minor&0x0f, byte(h.Exchange), byte(h.Flags))
	b = binary.BigEndian.AppendUint32(b, h.MessageID)
	return append(b, 0, 0, 0, 0)
}

// finishHeader fills in what is known at the end.
func finishHeader(b []byte, start int, first PayloadType, length int) ([]byte, error) {
	if length > MaxLen {
		return nil, fmt.Errorf("IKE message of %d octets, at most %d are possible", length, MaxLen)
	}
	b[start+16] = byte(first)
	binary.BigEndian.PutUint32(b[start+24:], uint32(length))
	return b, nil
}

// AppendPayloads appends payloads with their generic headers and returns the type
// of the first, which goes into the header before them. The content of an
// Encrypted payload is made with it.
func AppendPayloads(b []byte, ps []Payload) (first PayloadType, out []byte, err error) {
	if len(ps) > MaxPayloads {
		return 0, nil, fmt.Errorf("%d payloads in one IKE message, at most %d are possible", len(ps), MaxPayloads)
	}
	for i, p := range ps {
		next := TypeNone
		e, encrypted := p.(*Encrypted)
		switch {
		case i+1 < len(ps) && encrypted:
			return 0, nil, errors.New("an Encrypted payload has to be the last one")
		case i+1 < len(ps):
			next = ps[i+1].Type()
		case encrypted:
			next = e.Inner
		}
		if b, err = appendPayload(b, p, next); err != nil {
			return 0, nil, err
		}
	}
	if len(ps) > 0 {
		first = ps[0].Type()
	}
	return first, b, nil
}

func appendPayload(b []byte, p Payload, next PayloadType) ([]byte, error) {
	start := len(b)
	var critical byte
	if u, ok := p.(*Unknown); ok && u.Critical {
		critical = criticalBit
	}
	b = append(b, byte(next), critical, 0, 0)
	b, err := p.appendBody(b)
	if err != nil {
		return nil, fmt.Errorf("writing %v payload: %w", p.Type(), err)
	}
	length := len(b) - start
	if length > maxPayloadLen {
		return nil, fmt.Errorf("writing %v payload: %d octets, at most %d are possible", p.Type(), length, maxPayloadLen)
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(length))
	return b, nil
}
