package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

// cbc is AES-CBC (RFC 3602) with an HMAC over everything from SPI to Next Header,
// followed by the high half of the sequence number with ESN (RFC 4303 §2.2.1,
// §2.8).
//
// CBC modes and HMACs carry state, so goroutines take a set from a pool; a new
// set is built under the lock, which is also what lets close overwrite the keys.
type cbc struct {
	layout Layout
	esn    bool
	integ  suite.IntegID
	pool   sync.Pool

	// ivs encrypts a counter into IVs. It is keyed at random for each SA, so an IV
	// cannot be foretold, as CBC requires (NIST SP 800-38A appendix C, method 1),
	// and no randomness is drawn per packet. Nil when opening.
	ivs cipher.Block

	mu       sync.Mutex // guards what follows
	block    cipher.Block
	integKey []byte // nil once closed
}

// cbcWorker is the state one goroutine needs.
type cbcWorker struct {
	enc, dec settableMode
	mac      hash.Hash
}

// settableMode is what the standard library's CBC modes are beneath BlockMode;
// setting the IV instead of making a new mode saves an allocation per packet.
type settableMode interface {
	cipher.BlockMode
	SetIV([]byte)
}

func newCBC(sa *SA, layout Layout, rand io.Reader) (*cbc, error) {
	block, err := suite.NewCBCBlock(sa.Encr, sa.EncrKey)
	if err != nil {
		return nil, fmt.Errorf("prepare %v: %w", sa.Encr, err)
	}
	c := &cbc{layout: layout, esn: sa.ESN, integ: sa.Integ, block: block}
	if rand != nil {
		if c.ivs, err = newIVSource(rand); err != nil {
			return nil, err
		}
	}
	c.integKey = append([]byte(nil), sa.IntegKey...)
	w, err := c.newWorker()
	if err != nil {
		return nil, err
	}
	c.pool.Put(w)
	return c, nil
}

func newIVSource(rand io.Reader) (cipher.Block, error) {
	var key [32]byte
	defer clear(key[:])
	if _, err := io.ReadFull(rand, key[:]); err != nil {
		return nil, fmt.Errorf("draw a key for the IVs: %w", err)
	}
	return aes.NewCipher(key[:])
}

func (c *cbc) newWorker() (*cbcWorker, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.integKey == nil {
		return nil, ErrClosed
	}
	mac, err := suite.NewHMAC(c.integ, c.integKey)
	if err != nil {
		return nil, fmt.Errorf("prepare %v: %w", c.integ, err)
	}
	var zero [aes.BlockSize]byte
	enc, ok := cipher.NewCBCEncrypter(c.block, zero[:]).(settableMode)
	dec, ok2 := cipher.NewCBCDecrypter(c.block, zero[:]).(settableMode)
	if !ok || !ok2 {
		return nil, fmt.Errorf("the standard library's CBC mode no longer lets its IV be set")
	}
	return &cbcWorker{enc: enc, dec: dec, mac: mac}, nil
}

func (c *cbc) worker() (*cbcWorker, error) {
	if w, ok := c.pool.Get().(*cbcWorker); ok {
		return w, nil
	}
	return c.newWorker()
}

func (c *cbc) seal(s *Scratch, pkt, text []byte, seq uint64) error {
	clear(s.block[:])
	binary.BigEndian.PutUint64(s.block[8:], seq)
	c.ivs.Encrypt(pkt[headerLen:headerLen+aes.BlockSize], s.block[:])
	return c.protect(s, pkt, text, seq)
}

// protect encrypts text into a packet whose IV is in place, and authenticates it.
func (c *cbc) protect(s *Scratch, pkt, text []byte, seq uint64) error {
	w, err := c.worker()
	if err != nil {
		return err
	}
	defer c.pool.Put(w)
	body := len(pkt) - c.layout.ICVLen
	w.enc.SetIV(pkt[headerLen : headerLen+aes.BlockSize])
	w.enc.CryptBlocks(pkt[c.layout.Headroom():body], text)
	copy(pkt[body:], c.tag(w, s, pkt[:body], seq))
	return nil
}

func (c *cbc) open(s *Scratch, dst, pkt []byte, seq uint64) ([]byte, error) {
	body := len(pkt) - c.layout.ICVLen
	text := pkt[c.layout.Headroom():body]
	if len(text)%aes.BlockSize != 0 {
		return nil, ErrTruncated
	}
	w, err := c.worker()
	if err != nil {
		return nil, err
	}
	defer c.pool.Put(w)
	if subtle.ConstantTimeCompare(c.tag(w, s, pkt[:body], seq), pkt[body:]) != 1 {
		return nil, ErrAuthentication
	}
	dst = dst[:len(text)]
	w.dec.SetIV(pkt[headerLen : headerLen+aes.BlockSize])
	w.dec.CryptBlocks(dst, text)
	return dst, nil
}

// tag computes the ICV into the scratch memory.
func (c *cbc) tag(w *cbcWorker, s *Scratch, authenticated []byte, seq uint64) []byte {
	w.mac.Reset()
	w.mac.Write(authenticated)
	if c.esn {
		binary.BigEndian.PutUint32(s.block[:4], uint32(seq>>32))
		w.mac.Write(s.block[:4])
	}
	return w.mac.Sum(s.sum[:0])[:c.layout.ICVLen]
}

// close overwrites the integrity key and drops the cipher; sets in the pool go
// with the SA.
func (c *cbc) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.integKey)
	c.integKey, c.block = nil, nil
	for c.pool.Get() != nil {
	}
}
