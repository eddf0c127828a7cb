// Package suite holds the algorithms that IKE and ESP negotiate, with their
// identifiers: encryption, integrity, pseudo-random functions, key exchange
// methods and signatures.
//
// It knows nothing of messages, peers or time. Randomness is always an argument.
package suite

// EncrID is the identifier of an encryption algorithm, transform type 1
// (RFC 7296 §3.3.2).
type EncrID uint16

// Encryption algorithms.
const (
	EncrAESCBC           EncrID = 12 // RFC 3602
	EncrAESGCM16         EncrID = 20 // RFC 4106, RFC 5282; 16-octet ICV
	EncrChaCha20Poly1305 EncrID = 28 // RFC 7634
)

// PRFID is the identifier of a pseudo-random function, transform type 2.
type PRFID uint16

// Pseudo-random functions (RFC 4868).
const (
	PRFHMACSHA256 PRFID = 5
	PRFHMACSHA384 PRFID = 6
	PRFHMACSHA512 PRFID = 7
)

// IntegID is the identifier of an integrity algorithm, transform type 3.
type IntegID uint16

// Integrity algorithms (RFC 4868). IntegNone stands beside an AEAD cipher.
const (
	IntegNone       IntegID = 0
	IntegHMACSHA256 IntegID = 12 // 16-octet tag, 32-octet key
	IntegHMACSHA384 IntegID = 13 // 24-octet tag, 48-octet key
	IntegHMACSHA512 IntegID = 14 // 32-octet tag, 64-octet key
)

// KEID is the identifier of a key exchange method, transform type 4.
type KEID uint16

// Key exchange methods.
const (
	KENone       KEID = 0
	KEModp2048   KEID = 14 // RFC 3526
	KEModp3072   KEID = 15
	KEModp4096   KEID = 16
	KEP256       KEID = 19 // RFC 5903
	KEP384       KEID = 20
	KEP521       KEID = 21
	KECurve25519 KEID = 31 // RFC 8031
)

// HashID is a hash algorithm of RFC 7427 §7.
type HashID uint16

// Hash algorithms for signature authentication.
const (
	HashSHA256   HashID = 2
	HashSHA384   HashID = 3
	HashSHA512   HashID = 4
	HashIdentity HashID = 5 // Ed25519, RFC 8420
)

// Encr is an encryption algorithm with its key length in bits. KeyBits is zero
// for algorithms with one key length (the Key Length attribute is then absent,
// RFC 7296 §3.3.5).
type Encr struct {
	ID      EncrID
	KeyBits int
}

// IKEProposal is one proposal for an IKE SA: a peer picks one algorithm of each
// list. Integ is empty when Encr holds AEAD ciphers; the two are never mixed
// (RFC 5282 §8, RFC 7296 §3.3.3). Lists are in order of preference.
type IKEProposal struct {
	Encr  []Encr
	Integ []IntegID
	PRF   []PRFID
	KE    []KEID
}

// ESPProposal is one proposal for a Child SA. An empty KE list means no PFS.
// ESN lists the accepted values: true for 64-bit sequence numbers.
type ESPProposal struct {
	Encr  []Encr
	Integ []IntegID
	KE    []KEID
	ESN   []bool
}

// IKEAlgorithms is the outcome of negotiating an IKE SA.
type IKEAlgorithms struct {
	Encr  Encr
	Integ IntegID
	PRF   PRFID
	KE    KEID
}

// ESPAlgorithms is the outcome of negotiating a Child SA. KE is KENone without PFS.
type ESPAlgorithms struct {
	Encr  Encr
	Integ IntegID
	KE    KEID
	ESN   bool
}
