package suite

// Octets that AEAD ciphers take from the keying material as salt and carry on
// the wire as explicit IV (RFC 4106 §3 and §4, RFC 7634 §2).
const (
	aeadSaltLen = 4
	aeadIVLen   = 8
	aeadICVLen  = 16
)

// aesBlockLen is the block size of AES, and so the IV length of AES-CBC
// (RFC 3602 §3).
const aesBlockLen = 16

// Valid says whether this package implements the algorithm with that key length.
func (e Encr) Valid() bool {
	switch e.ID {
	case EncrAESCBC, EncrAESGCM16:
		return e.KeyBits == 128 || e.KeyBits == 256
	case EncrChaCha20Poly1305:
		return e.KeyBits == 0
	}
	return false
}

// AEAD says whether the cipher authenticates by itself, so that no integrity
// algorithm goes with it.
func (e Encr) AEAD() bool {
	return e.ID == EncrAESGCM16 || e.ID == EncrChaCha20Poly1305
}

// KeyLen is the length of the cipher key in octets, without salt. It is zero for
// an algorithm that is not Valid.
func (e Encr) KeyLen() int {
	if !e.Valid() {
		return 0
	}
	if e.ID == EncrChaCha20Poly1305 {
		return 32
	}
	return e.KeyBits / 8
}

// SaltLen is the length of the salt that follows the key in the keying material.
func (e Encr) SaltLen() int {
	if e.AEAD() {
		return aeadSaltLen
	}
	return 0
}

// KeyMaterialLen is the number of octets of keying material that one SA takes
// for the cipher: key and salt (RFC 7296 §2.17, RFC 4106 §8.1).
func (e Encr) KeyMaterialLen() int {
	return e.KeyLen() + e.SaltLen()
}

// IVLen is the length of the IV on the wire.
func (e Encr) IVLen() int {
	if e.AEAD() {
		return aeadIVLen
	}
	return aesBlockLen
}

// ICVLen is the length of the integrity check value of an AEAD cipher, and zero
// for others: there the integrity algorithm decides, see IntegID.TagLen.
func (e Encr) ICVLen() int {
	if e.AEAD() {
		return aeadICVLen
	}
	return 0
}

// BlockLen is what the cipher needs the length of its input to be a multiple of.
func (e Encr) BlockLen() int {
	if e.AEAD() {
		return 1
	}
	return aesBlockLen
}

// Valid says whether this package implements the algorithm. IntegNone is valid.
func (id IntegID) Valid() bool {
	return id == IntegNone || id.KeyLen() != 0
}

// KeyLen is the length of the key in octets (RFC 4868 §2.6).
func (id IntegID) KeyLen() int {
	switch id {
	case IntegHMACSHA256:
		return 32
	case IntegHMACSHA384:
		return 48
	case IntegHMACSHA512:
		return 64
	}
	return 0
}

// TagLen is the length of the truncated tag on the wire (RFC 4868 §2.6).
func (id IntegID) TagLen() int {
	return id.KeyLen() / 2
}

// Valid says whether this package implements the function.
func (id PRFID) Valid() bool {
	return id.KeyLen() != 0
}

// KeyLen is the preferred key length, which is the output length (RFC 4868 §2.6,
// RFC 7296 §2.13).
func (id PRFID) KeyLen() int {
	switch id {
	case PRFHMACSHA256:
		return 32
	case PRFHMACSHA384:
		return 48
	case PRFHMACSHA512:
		return 64
	}
	return 0
}

// Valid says whether this package implements the method. KENone is not a method.
func (id KEID) Valid() bool {
	return id.DataLen() != 0
}

// DataLen is the length of the initiator's key exchange data in octets: the
// modulus for MODP (RFC 7296 §3.4), both coordinates for ECP (RFC 5903 §7). It is
// zero for methods that this package does not implement.
func (id KEID) DataLen() int {
	switch id {
	case KEModp2048:
		return 256
	case KEModp3072:
		return 384
	case KEModp4096:
		return 512
	case KEP256:
		return 64
	case KEP384:
		return 96
	case KEP521:
		return 132
	case KECurve25519:
		return 32
	}
	return 0
}
