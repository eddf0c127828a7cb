package suite

import (
	"errors"
	"fmt"
	"io"
)

// ErrKEData is wrapped by errors about what the peer sent for a key exchange: a
// wrong length, or a value that fails the checks of RFC 6989 §2 or RFC 8031 §3.2.
var ErrKEData = errors.New("invalid key exchange data")

// KEInitiator is the initiator's side of one key exchange. It is used once.
//
// The shape suits Diffie-Hellman and key encapsulation alike: the initiator's
// request depends on nothing, the response on the request (RFC 9370 §2.2.2).
type KEInitiator interface {
	// Public returns the data of the initiator's KE payload.
	Public() []byte
	// Shared returns the shared secret, given the data of the responder's.
	Shared(response []byte) (secret []byte, err error)
	// Zero erases the private key, as far as it is within reach.
	Zero()
}

// InitiateKE makes a fresh key pair for the method. All randomness is taken from
// rand, so that equal randomness gives equal keys.
func InitiateKE(id KEID, rand io.Reader) (KEInitiator, error) {
	switch id {
	case KEModp2048, KEModp3072, KEModp4096:
		return newMODP(id, rand)
	case KEP256, KEP384, KEP521, KECurve25519:
		return newECDH(id, rand)
	}
	return nil, fmt.Errorf("key exchange method %v is not supported", id)
}

// RespondKE answers the initiator's data with the responder's, and returns the
// shared secret with it.
func RespondKE(id KEID, rand io.Reader, request []byte) (response, secret []byte, err error) {
	// A cheap look at the length first: an unauthenticated peer should not get a
	// key pair made for a datagram of the wrong shape.
	if id.Valid() && len(request) != id.DataLen() {
		return nil, nil, keLengthError(id, len(request))
	}
	own, err := InitiateKE(id, rand)
	if err != nil {
		return nil, nil, err
	}
	defer own.Zero()
	if secret, err = own.Shared(request); err != nil {
		return nil, nil, err
	}
	return own.Public(), secret, nil
}

func keLengthError(id KEID, got int) error {
	return fmt.Errorf("%w: %d octets for %v, which takes %d", ErrKEData, got, id, id.DataLen())
}
