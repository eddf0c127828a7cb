package suite

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // registers the hashes that schemes name
	_ "crypto/sha512"
	"errors"
	"fmt"
	"io"
	"slices"
)

// MinRSABits is the least size of RSA keys that signatures are made and verified
// with (RFC 8247 §3.1.1).
const MinRSABits = 2048

// ErrSignature is returned for a signature that does not verify.
var ErrSignature = errors.New("signature does not verify")

// SignatureScheme is a signature algorithm of the Digital Signature
// authentication method (RFC 7427): key type, padding and hash.
type SignatureScheme uint8

// Signature schemes. There are none with SHA-1.
const (
	RSAPSSSHA256 SignatureScheme = iota + 1 // RFC 4055, salt as long as the hash
	RSAPSSSHA384
	RSAPSSSHA512
	RSASHA256 // PKCS#1 v1.5
	RSASHA384
	RSASHA512
	ECDSASHA256 // any of P-256, P-384, P-521; RFC 5758
	ECDSASHA384
	ECDSASHA512
	Ed25519 // RFC 8420
)

// keyKind is what sort of key a scheme is for.
type keyKind uint8

const (
	keyRSAPSS keyKind = iota + 1
	keyRSA
	keyECDSA
	keyEd25519
)

type schemeInfo struct {
	name string
	key  keyKind
	hash HashID
	alg  crypto.Hash // zero for Ed25519, which hashes by itself
}

var schemes = map[SignatureScheme]schemeInfo{
	RSAPSSSHA256: {"rsa-pss-sha256", keyRSAPSS, HashSHA256, crypto.SHA256},
	RSAPSSSHA384: {"rsa-pss-sha384", keyRSAPSS, HashSHA384, crypto.SHA384},
	RSAPSSSHA512: {"rsa-pss-sha512", keyRSAPSS, HashSHA512, crypto.SHA512},
	RSASHA256:    {"rsa-sha256", keyRSA, HashSHA256, crypto.SHA256},
	RSASHA384:    {"rsa-sha384", keyRSA, HashSHA384, crypto.SHA384},
	RSASHA512:    {"rsa-sha512", keyRSA, HashSHA512, crypto.SHA512},
	ECDSASHA256:  {"ecdsa-sha256", keyECDSA, HashSHA256, crypto.SHA256},
	ECDSASHA384:  {"ecdsa-sha384", keyECDSA, HashSHA384, crypto.SHA384},
	ECDSASHA512:  {"ecdsa-sha512", keyECDSA, HashSHA512, crypto.SHA512},
	Ed25519:      {"ed25519", keyEd25519, HashIdentity, 0},
}

// String returns the name of the scheme, such as ecdsa-sha256.
func (s SignatureScheme) String() string {
	if info, ok := schemes[s]; ok {
		return info.name
	}
	return fmt.Sprintf("signature scheme %d", uint8(s))
}

// Hash is the hash that the peer must have listed in SIGNATURE_HASH_ALGORITHMS
// before the scheme may be used towards it (RFC 7427 §4, RFC 8420 §2).
func (s SignatureScheme) Hash() HashID { return schemes[s].hash }

// SupportedHashes is what to send in SIGNATURE_HASH_ALGORITHMS.
func SupportedHashes() []HashID {
	return []HashID{HashSHA256, HashSHA384, HashSHA512, HashIdentity}
}

// RSAPadding says which padding of RSA signatures SchemesFor puts first.
type RSAPadding uint8

// Orders of RSA paddings.
const (
	PSSFirst      RSAPadding = iota // the default
	PKCS1v15First                   // for peers that announce hashes but know no PSS
)

// SchemesFor returns the schemes that a key of this kind can sign with towards a
// peer that understands the given hashes, best first. It is empty for a key or
// a peer that has none. RFC 7427 has no way to ask which RSA padding a peer
// knows, so padding can be chosen.
//
// For ECDSA the hash that matches the curve comes first, then longer ones, then
// shorter ones.
func SchemesFor(pub crypto.PublicKey, peerHashes []HashID, padding ...RSAPadding) []SignatureScheme {
	var order []SignatureScheme
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		order = []SignatureScheme{RSAPSSSHA256, RSAPSSSHA384, RSAPSSSHA512, RSASHA256, RSASHA384, RSASHA512}
		if len(padding) > 0 && padding[0] == PKCS1v15First {
			order = append(order[3:], order[:3:3]...)
		}
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			order = []SignatureScheme{ECDSASHA256, ECDSASHA384, ECDSASHA512}
		case elliptic.P384():
			order = []SignatureScheme{ECDSASHA384, ECDSASHA512, ECDSASHA256}
		case elliptic.P521():
			order = []SignatureScheme{ECDSASHA512, ECDSASHA384, ECDSASHA256}
		}
	case ed25519.PublicKey:
		order = []SignatureScheme{Ed25519}
	}
	return slices.DeleteFunc(order, func(s SignatureScheme) bool {
		return !slices.Contains(peerHashes, s.Hash())
	})
}

// checkKey says whether the scheme goes with the key and the key is good enough.
func (s SignatureScheme) checkKey(pub crypto.PublicKey) error {
	info, ok := schemes[s]
	if !ok {
		return fmt.Errorf("%v is not supported", s)
	}
	fits := false
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if err := checkRSASize(pub); err != nil {
			return err
		}
		fits = info.key == keyRSA || info.key == keyRSAPSS
	case *ecdsa.PublicKey:
		if _, _, err := ecdsaMethod(pub); err != nil {
			return err
		}
		fits = info.key == keyECDSA
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize {
			return fmt.Errorf("Ed25519 public key of %d octets", len(pub))
		}
		fits = info.key == keyEd25519
	}
	if !fits {
		return fmt.Errorf("a signature by %v does not go with a key of type %T", s, pub)
	}
	return nil
}

func checkRSASize(pub *rsa.PublicKey) error {
	if pub.N == nil || pub.N.BitLen() < MinRSABits {
		return fmt.Errorf("RSA key is shorter than %d bits: make a new key and certificate", MinRSABits)
	}
	return nil
}

// signerOpts returns what crypto.Signer needs to know of the scheme.
func (info schemeInfo) signerOpts() crypto.SignerOpts {
	if info.key == keyRSAPSS {
		return pssOptions(info.alg)
	}
	return info.alg
}

func pssOptions(hash crypto.Hash) *rsa.PSSOptions {
	return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
}

// digest hashes a message; Ed25519 wants the message itself.
func (info schemeInfo) digest(msg []byte) []byte {
	if info.alg == 0 {
		return msg
	}
	h := info.alg.New()
	h.Write(msg)
	return h.Sum(nil)
}

// Sign signs msg, the octets of RFC 7296 §2.15. rand is used by RSA-PSS for the
// salt; ECDSA with a key in memory is deterministic (RFC 6979), and other signers
// (a token, an agent) may use rand as they like.
func Sign(rand io.Reader, signer crypto.Signer, scheme SignatureScheme, msg []byte) ([]byte, error) {
	if err := scheme.checkKey(signer.Public()); err != nil {
		return nil, err
	}
	info := schemes[scheme]
	sig, err := signer.Sign(signingRand(rand, signer), info.digest(msg), info.signerOpts())
	if err != nil {
		return nil, fmt.Errorf("signing by %v: %w", scheme, err)
	}
	return sig, nil
}

// signingRand withholds randomness from ECDSA keys of the standard library: with
// any reader they sign with randomness of their own and ignore it, and a session
// could not be replayed; without one they sign by RFC 6979.
func signingRand(rand io.Reader, signer crypto.Signer) io.Reader {
	if _, ok := signer.(*ecdsa.PrivateKey); ok {
		return nil
	}
	return rand
}

// Verify checks a signature over msg. It returns ErrSignature when the signature
// is wrong, and another error when scheme and key do not go together or the key is
// too weak.
func Verify(pub crypto.PublicKey, scheme SignatureScheme, msg, sig []byte) error {
	if err := scheme.checkKey(pub); err != nil {
		return err
	}
	info := schemes[scheme]
	ok := false
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if info.key == keyRSAPSS {
			ok = rsa.VerifyPSS(pub, info.alg, info.digest(msg), sig, pssOptions(info.alg)) == nil
		} else {
			ok = rsa.VerifyPKCS1v15(pub, info.alg, info.digest(msg), sig) == nil
		}
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(pub, info.digest(msg), sig)
	case ed25519.PublicKey:
		ok = ed25519.Verify(pub, msg, sig)
	}
	if !ok {
		return ErrSignature
	}
	return nil
}
