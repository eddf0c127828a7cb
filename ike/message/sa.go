package message

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Octets of the substructures, and their markers (RFC 7296 §3.3.1, §3.3.2).
const (
	proposalHeaderLen  = 8
	transformHeaderLen = 8
	attributeLen       = 4 // header, and with AF the whole attribute

	lastSubstructure = 0
	moreProposals    = 2
	moreTransforms   = 3
)

// Key Length attribute, in the two-octet format that AF marks (RFC 7296 §3.3.5).
const (
	attributeAF  = 0x8000
	keyLengthTV  = attributeAF | 14
	maxTransform = 255
)

// Type implements Payload.
func (*SA) Type() PayloadType { return TypeSA }

func parseSA(b []byte) (*SA, error) {
	sa := new(SA)
	for more := true; more; {
		if len(sa.Proposals) == MaxProposals {
			return nil, malformed(TypeSA, "more than %d proposals", MaxProposals)
		}
		var length int
		var err error
		if length, more, err = substructure(b, proposalHeaderLen, moreProposals, "proposal"); err != nil {
			return nil, err
		}
		p, err := parseProposal(b[:length])
		if err != nil {
			return nil, err
		}
		sa.Proposals = append(sa.Proposals, p)
		b = b[length:]
	}
	if len(b) != 0 {
		return nil, malformed(TypeSA, "%d octets behind the last proposal", len(b))
	}
	return sa, nil
}

// substructure checks the first four octets, which proposals and transforms have
// in common: marker, reserved, length.
func substructure(b []byte, headerLen int, moreMarker byte, name string) (length int, more bool, err error) {
	if len(b) < headerLen {
		return 0, false, malformed(TypeSA, "%s cut off in its header", name)
	}
	length = int(binary.BigEndian.Uint16(b[2:]))
	if length < headerLen || length > len(b) {
		return 0, false, malformed(TypeSA, "%s of length %d where %d octets are left", name, length, len(b))
	}
	if b[0] != lastSubstructure && b[0] != moreMarker {
		return 0, false, malformed(TypeSA, "%s with unknown marker %d", name, b[0])
	}
	return length, b[0] == moreMarker, nil
}

// parseProposal parses a proposal that fills b.
func parseProposal(b []byte) (Proposal, error) {
	p := Proposal{Number: b[4], Protocol: ProtocolID(b[5])}
	spiLen, count := int(b[6]), int(b[7])
	b = b[proposalHeaderLen:]
	if !validSPILen(p.Protocol, spiLen) || spiLen > len(b) {
		return p, malformed(TypeSA, "proposal for %v with an SPI of %d octets", p.Protocol, spiLen)
	}
	p.SPI = clone(b[:spiLen])
	b = b[spiLen:]
	if count*transformHeaderLen > len(b) {
		return p, malformed(TypeSA, "%d transforms in %d octets", count, len(b))
	}
	p.Transforms = make([]Transform, 0, count)
	for i := range count {
		length, more, err := substructure(b, transformHeaderLen, moreTransforms, "transform")
		if err != nil {
			return p, err
		}
		if more != (i+1 < count) {
			return p, malformed(TypeSA, "transform %d of %d has the wrong marker", i+1, count)
		}
		t, err := parseTransform(b[:length])
		if err != nil {
			return p, err
		}
		p.Transforms = append(p.Transforms, t)
		b = b[length:]
	}
	if len(b) != 0 {
		return p, malformed(TypeSA, "%d octets behind the last transform", len(b))
	}
	return p, nil
}

// validSPILen says whether SPIs of a protocol can have that length (RFC 7296
// §3.3.1). Nothing is known of other protocols; they are never chosen.
func validSPILen(protocol ProtocolID, n int) bool {
	switch protocol {
	case ProtoIKE:
		return n == 0 || n == 8
	case ProtoAH, ProtoESP:
		return n == 4
	}
	return true
}

// parseTransform parses a transform that fills b.
func parseTransform(b []byte) (Transform, error) {
	t := Transform{Type: TransformType(b[4]), ID: binary.BigEndian.Uint16(b[6:])}
	for b = b[transformHeaderLen:]; len(b) > 0; {
		if len(b) < attributeLen {
			return t, malformed(TypeSA, "attribute cut off")
		}
		kind, value := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		b = b[attributeLen:]
		if kind&attributeAF == 0 { // value is the length of what follows
			if int(value) > len(b) {
				return t, malformed(TypeSA, "attribute of %d octets where %d are left", value, len(b))
			}
			b = b[value:]
		}
		// A key length that is zero, or there twice, is nothing to choose either.
		if kind != keyLengthTV || value == 0 || t.KeyBits != 0 {
			t.Unsupported = true
			continue
		}
		t.KeyBits = value
	}
	return t, nil
}

func (sa *SA) appendBody(b []byte) ([]byte, error) {
	if len(sa.Proposals) == 0 {
		return nil, errors.New("no proposal")
	}
	if len(sa.Proposals) > MaxProposals {
		return nil, fmt.Errorf("%d proposals, at most %d are possible", len(sa.Proposals), MaxProposals)
	}
	var err error
	for i := range sa.Proposals {
		marker := byte(moreProposals)
		if i+1 == len(sa.Proposals) {
			marker = lastSubstructure
		}
		if b, err = sa.Proposals[i].append(b, marker); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (p *Proposal) append(b []byte, marker byte) ([]byte, error) {
	if !validSPILen(p.Protocol, len(p.SPI)) || len(p.SPI) > 255 {
		return nil, fmt.Errorf("proposal for %v with an SPI of %d octets", p.Protocol, len(p.SPI))
	}
	if len(p.Transforms) > maxTransform {
		return nil, fmt.Errorf("proposal with %d transforms, at most %d are possible", len(p.Transforms), maxTransform)
	}
	start := len(b)
	b = append(b, marker, 0, 0, 0, p.Number, byte(p.Protocol), byte(len(p.SPI)), byte(len(p.Transforms)))
	b = append(b, p.SPI...)
	for i, t := range p.Transforms {
		marker := byte(moreTransforms)
		if i+1 == len(p.Transforms) {
			marker = lastSubstructure
		}
		if t.Unsupported {
			return nil, errors.New("transform with attributes that are not known")
		}
		b = t.append(b, marker)
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b, nil
}

func (t Transform) append(b []byte, marker byte) []byte {
	length := byte(transformHeaderLen)
	if t.KeyBits != 0 {
		length += attributeLen
	}
	b = append(b, marker, 0, 0, length, byte(t.Type), 0)
	b = binary.BigEndian.AppendUint16(b, t.ID)
	if t.KeyBits != 0 {
		b = binary.BigEndian.AppendUint16(b, keyLengthTV)
		b = binary.BigEndian.AppendUint16(b, t.KeyBits)
	}
	return b
}
