package esp

import (
	"fmt"
	"io"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

// Scratch is the working memory for sealing and opening one packet at a time.
// Every goroutine of a data path has its own; the zero value is ready. It exists
// because a nonce on the stack would escape to the heap for each packet.
type Scratch struct {
	nonce [12]byte
	aad   [12]byte
	block [16]byte
	sum   [64]byte
	tail  [maxTrailer]byte
}

// transform protects packets with one key, for any number of goroutines.
//
// A packet is SPI to ICV. Sequence numbers are 64-bit; without ESN their high
// half is zero.
type transform interface {
	// seal writes IV and ICV and encrypts text into what is between them. Text is
	// either there already or in memory that does not overlap pkt.
	seal(s *Scratch, pkt, text []byte, seq uint64) error
	// open authenticates pkt and decrypts into dst, which is either the ciphertext
	// itself or memory that does not overlap it. Nothing is left in dst when it fails.
	open(s *Scratch, dst, pkt []byte, seq uint64) ([]byte, error)
	// close forgets the key.
	close()
}

// newTransform checks the keys of an SA and prepares its algorithms, an AEAD in the
// given room. Only a sealing CBC transform reads rand.
func newTransform(sa *SA, room *aead, rand io.Reader) (transform, Layout, error) {
	layout, err := LayoutOf(sa.Encr, sa.Integ)
	if err != nil {
		return nil, Layout{}, err
	}
	if want := sa.Encr.KeyMaterialLen(); len(sa.EncrKey) != want {
		return nil, Layout{}, fmt.Errorf("%v needs %d octets of keying material, not %d", sa.Encr, want, len(sa.EncrKey))
	}
	if want := sa.Integ.KeyLen(); len(sa.IntegKey) != want {
		return nil, Layout{}, fmt.Errorf("%v needs %d octets of key, not %d", sa.Integ, want, len(sa.IntegKey))
	}
	if sa.Encr.ID == suite.EncrAESCBC {
		t, err := newCBC(sa, layout, rand)
		return t, layout, err
	}
	return room, layout, room.init(sa, layout)
}
