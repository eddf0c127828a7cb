package message

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Type implements Payload.
func (e *Encrypted) Type() PayloadType {
	if e.Total > 0 {
		return TypeSKF
	}
	return TypeSK
}

// parseEncrypted parses an SK or SKF payload of the given length at the start of
// b, which is at offset of the message. It has to be the last one (RFC 7296
// §3.14), since its next payload field means the first payload inside.
func parseEncrypted(t PayloadType, b []byte, length, offset int) (*Encrypted, error) {
	if offset == insideEncrypted {
		return nil, malformed(t, "inside another one")
	}
	if length != len(b) {
		return nil, malformed(t, "not the last payload")
	}
	e := &Encrypted{Inner: PayloadType(b[0])}
	body := b[payloadHeaderLen:]
	if t == TypeSKF {
		if len(body) < fragmentHeaderLen {
			return nil, malformed(t, "cut off in the fragment numbers")
		}
		e.Fragment = binary.BigEndian.Uint16(body)
		e.Total = binary.BigEndian.Uint16(body[2:])
		if e.Fragment == 0 || e.Fragment > e.Total {
			return nil, malformed(t, "fragment %d of %d", e.Fragment, e.Total)
		}
		if e.Fragment > 1 && e.Inner != TypeNone {
			return nil, malformed(t, "first payload named in fragment %d", e.Fragment)
		}
		body = body[fragmentHeaderLen:]
	}
	e.Sealed = clone(body)
	e.Offset = offset + len(b) - len(body)
	return e, nil
}

func (e *Encrypted) appendBody(b []byte) ([]byte, error) {
	b, err := e.appendNumbers(b)
	return append(b, e.Sealed...), err
}

// appendNumbers appends the fragment numbers of an SKF payload.
func (e *Encrypted) appendNumbers(b []byte) ([]byte, error) {
	if e.Total == 0 {
		if e.Fragment != 0 {
			return b, errors.New("fragment number without total")
		}
		return b, nil
	}
	if e.Fragment == 0 || e.Fragment > e.Total {
		return b, fmt.Errorf("fragment %d of %d", e.Fragment, e.Total)
	}
	if e.Fragment > 1 && e.Inner != TypeNone {
		return b, errors.New("only the first fragment names the first payload inside (RFC 7383 §2.5)")
	}
	b = binary.BigEndian.AppendUint16(b, e.Fragment)
	return binary.BigEndian.AppendUint16(b, e.Total), nil
}

// AppendEncryptedHeader appends the message up to where the sealed part of its
// Encrypted payload begins: header, the payloads of m, which are sent in clear,
// and the header of e (for an SKF payload with fragment numbers). Lengths are
// final, for a sealed part of sealedLen octets to follow. What was appended is
// the associated data of the Encrypted payload (RFC 5282 §5.1). e.Sealed and
// e.Offset are not looked at.
func (m *Message) AppendEncryptedHeader(b []byte, e *Encrypted, sealedLen int) ([]byte, error) {
	start := len(b)
	b = m.Header.append(b)
	first, b, err := AppendPayloads(b, m.Payloads)
	if err != nil {
		return nil, err
	}
	if err := linkLast(b[start+HeaderLen:], &first, e.Type()); err != nil {
		return nil, err
	}
	payloadAt := len(b)
	b = append(b, byte(e.Inner), 0, 0, 0)
	if b, err = e.appendNumbers(b); err != nil {
		return nil, fmt.Errorf("writing %v payload: %w", e.Type(), err)
	}
	if sealedLen < 0 || len(b)-start+sealedLen > MaxLen {
		return nil, fmt.Errorf("IKE message with %d encrypted octets, at most %d are possible in all", sealedLen, MaxLen)
	}
	binary.BigEndian.PutUint16(b[payloadAt+2:], uint16(len(b)-payloadAt+sealedLen))
	return finishHeader(b, start, first, len(b)-start+sealedLen)
}

// linkLast makes the last payload of a chain, which was appended without one to
// follow, point to a payload of type t. For an empty chain that is first itself.
func linkLast(chain []byte, first *PayloadType, t PayloadType) error {
	if *first == TypeNone {
		*first = t
		return nil
	}
	last := *first
	for {
		if last == TypeSK || last == TypeSKF {
			return errors.New("a message has one Encrypted payload only")
		}
		length := int(binary.BigEndian.Uint16(chain[2:]))
		if length == len(chain) {
			chain[0] = byte(t)
			return nil
		}
		last = PayloadType(chain[0])
		chain = chain[length:]
	}
}
