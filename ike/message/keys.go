package message

import (
	"encoding/binary"
	"fmt"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

// Bounds of nonce data (RFC 7296 §3.9).
const (
	MinNonceLen = 16
	MaxNonceLen = 256
)

// Type implements Payload.
func (*KE) Type() PayloadType { return TypeKE }

// parseKE parses method, two reserved octets and data (RFC 7296 §3.4). Whether
// the data suits the method is not known here.
func parseKE(b []byte) (*KE, error) {
	if len(b) <= 4 {
		return nil, malformed(TypeKE, "no key exchange data")
	}
	return &KE{Method: suite.KEID(binary.BigEndian.Uint16(b)), Data: clone(b[4:])}, nil
}

func (k *KE) appendBody(b []byte) ([]byte, error) {
	if len(k.Data) == 0 {
		return nil, fmt.Errorf("no data for %v", k.Method)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(k.Method))
	b = append(b, 0, 0)
	return append(b, k.Data...), nil
}

// Type implements Payload.
func (*Nonce) Type() PayloadType { return TypeNonce }

func parseNonce(b []byte) (*Nonce, error) {
	if len(b) < MinNonceLen || len(b) > MaxNonceLen {
		return nil, malformed(TypeNonce, "%d octets", len(b))
	}
	return &Nonce{Data: clone(b)}, nil
}

func (n *Nonce) appendBody(b []byte) ([]byte, error) {
	if len(n.Data) < MinNonceLen || len(n.Data) > MaxNonceLen {
		return nil, fmt.Errorf("%d octets", len(n.Data))
	}
	return append(b, n.Data...), nil
}
