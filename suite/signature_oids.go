package suite

import (
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	casn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Object identifiers of RFC 7427 appendix A and RFC 8420 appendix A.
var (
	oidRSASSAPSS = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidRSASHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	oidRSASHA384 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}
	oidRSASHA512 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}
	oidRSASHA1   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}

	oidECDSASHA1   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}
	oidECDSASHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidECDSASHA384 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	oidECDSASHA512 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}

	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}
	oidEd448   = asn1.ObjectIdentifier{1, 3, 101, 113}

	oidSHA256 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA384 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	oidSHA512 = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
)

// plainOIDs are the schemes that the object identifier alone names.
var plainOIDs = []struct {
	scheme SignatureScheme
	oid    asn1.ObjectIdentifier
	null   bool // parameters are present, as NULL (RFC 4055 §5); otherwise absent
}{
	{RSASHA256, oidRSASHA256, true},
	{RSASHA384, oidRSASHA384, true},
	{RSASHA512, oidRSASHA512, true},
	{ECDSASHA256, oidECDSASHA256, false},
	{ECDSASHA384, oidECDSASHA384, false},
	{ECDSASHA512, oidECDSASHA512, false},
	{Ed25519, oidEd25519, false},
}

// pssHashes are the hashes of RSASSA-PSS parameters. The salt is as long as the
// hash.
var pssHashes = []struct {
	scheme  SignatureScheme
	oid     asn1.ObjectIdentifier
	saltLen int64
}{
	{RSAPSSSHA256, oidSHA256, 32},
	{RSAPSSSHA384, oidSHA384, 48},
	{RSAPSSSHA512, oidSHA512, 64},
}

// AlgorithmIdentifier returns the scheme as a DER AlgorithmIdentifier, which goes
// before the signature in the AUTH payload (RFC 7427 §3). It is nil for an unknown
// scheme.
//
// RSASSA-PSS parameters leave out the trailer field, which has its default value:
// that is DER, and what deployed implementations send. The example of RFC 7427
// §A.4.3 spells it out; ParseAlgorithmIdentifier takes both.
func (s SignatureScheme) AlgorithmIdentifier() []byte {
	var b cryptobyte.Builder
	for _, plain := range plainOIDs {
		if plain.scheme == s {
			addAlgorithm(&b, plain.oid, plain.null)
			return b.BytesOrPanic()
		}
	}
	for _, pss := range pssHashes {
		if pss.scheme == s {
			addPSS(&b, pss.oid, pss.saltLen)
			return b.BytesOrPanic()
		}
	}
	return nil
}

// addAlgorithm adds an AlgorithmIdentifier whose parameters are NULL or absent.
func addAlgorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, null bool) {
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if null {
			b.AddASN1NULL()
		}
	})
}

// Tags of the fields of RSASSA-PSS-params (RFC 4055 §3.1).
var (
	tagPSSHash    = casn1.Tag(0).Constructed().ContextSpecific()
	tagPSSMask    = casn1.Tag(1).Constructed().ContextSpecific()
	tagPSSSalt    = casn1.Tag(2).Constructed().ContextSpecific()
	tagPSSTrailer = casn1.Tag(3).Constructed().ContextSpecific()
)

func addPSS(b *cryptobyte.Builder, hash asn1.ObjectIdentifier, saltLen int64) {
	b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidRSASSAPSS)
		b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(tagPSSHash, func(b *cryptobyte.Builder) { addAlgorithm(b, hash, true) })
			b.AddASN1(tagPSSMask, func(b *cryptobyte.Builder) {
				b.AddASN1(casn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidMGF1)
					addAlgorithm(b, hash, true)
				})
			})
			b.AddASN1(tagPSSSalt, func(b *cryptobyte.Builder) { b.AddASN1Int64(saltLen) })
		})
	})
}

var errAlgorithmIdentifier = errors.New("malformed AlgorithmIdentifier")

// ParseAlgorithmIdentifier returns the scheme that a DER AlgorithmIdentifier
// names. Parameters may be absent where NULL is preferred and the other way round
// (RFC 7427 §3, RFC 4055 §2.1).
func ParseAlgorithmIdentifier(der []byte) (SignatureScheme, error) {
	input := cryptobyte.String(der)
	var alg cryptobyte.String
	if !input.ReadASN1(&alg, casn1.SEQUENCE) || !input.Empty() {
		return 0, errAlgorithmIdentifier
	}
	var oid asn1.ObjectIdentifier
	if !alg.ReadASN1ObjectIdentifier(&oid) {
		return 0, errAlgorithmIdentifier
	}
	if oid.Equal(oidRSASSAPSS) {
		return parsePSS(alg)
	}
	for _, plain := range plainOIDs {
		if !oid.Equal(plain.oid) {
			continue
		}
		if plain.scheme == Ed25519 && !alg.Empty() {
			return 0, errAlgorithmIdentifier // RFC 8420 §A.1: absent
		}
		if !readNullOrNothing(&alg) {
			return 0, errAlgorithmIdentifier
		}
		return plain.scheme, nil
	}
	switch {
	case oid.Equal(oidRSASHA1), oid.Equal(oidECDSASHA1):
		return 0, ErrSHA1
	case oid.Equal(oidEd448):
		return 0, errors.New("signature algorithm Ed448 is not supported, use Ed25519")
	}
	return 0, fmt.Errorf("signature algorithm %v is not supported", oid)
}

// ErrSHA1 tells what to do about a peer that still signs with SHA-1.
var ErrSHA1 = errors.New("the peer signs with SHA-1, which is refused: configure it for RFC 7427 signatures with SHA-2")

// readNullOrNothing reads the parameters of an algorithm that has none.
func readNullOrNothing(alg *cryptobyte.String) bool {
	if alg.Empty() {
		return true
	}
	var null cryptobyte.String
	return alg.ReadASN1(&null, casn1.NULL) && null.Empty() && alg.Empty()
}

// parsePSS reads what follows the object identifier of RSASSA-PSS. The defaults
// of its fields all mean SHA-1, so that hash and mask have to be present.
func parsePSS(alg cryptobyte.String) (SignatureScheme, error) {
	var params, hashField, maskField, saltField, trailerField cryptobyte.String
	var hasHash, hasMask, hasSalt, hasTrailer bool
	if !alg.ReadASN1(&params, casn1.SEQUENCE) || !alg.Empty() ||
		!params.ReadOptionalASN1(&hashField, &hasHash, tagPSSHash) ||
		!params.ReadOptionalASN1(&maskField, &hasMask, tagPSSMask) ||
		!params.ReadOptionalASN1(&saltField, &hasSalt, tagPSSSalt) ||
		!params.ReadOptionalASN1(&trailerField, &hasTrailer, tagPSSTrailer) ||
		!params.Empty() {
		return 0, errAlgorithmIdentifier
	}
	if !hasHash || !hasMask {
		return 0, ErrSHA1
	}
	hash, ok := readHash(&hashField)
	if !ok {
		return 0, errAlgorithmIdentifier
	}
	maskHash, ok := readMask(&maskField)
	if !ok {
		return 0, errAlgorithmIdentifier
	}
	saltLen, trailer := int64(20), int64(1)
	if hasSalt && (!saltField.ReadASN1Integer(&saltLen) || !saltField.Empty()) {
		return 0, errAlgorithmIdentifier
	}
	if hasTrailer && (!trailerField.ReadASN1Integer(&trailer) || !trailerField.Empty()) {
		return 0, errAlgorithmIdentifier
	}
	for _, pss := range pssHashes {
		if hash.Equal(pss.oid) && maskHash.Equal(pss.oid) && saltLen == pss.saltLen && trailer == 1 {
			return pss.scheme, nil
		}
	}
	return 0, fmt.Errorf("RSASSA-PSS with hash %v, mask hash %v and a salt of %d octets is not supported: "+
		"both hashes have to be the same of SHA-256, SHA-384 and SHA-512, and the salt as long", hash, maskHash, saltLen)
}

// readHash reads the AlgorithmIdentifier of a hash that fills a field.
func readHash(field *cryptobyte.String) (asn1.ObjectIdentifier, bool) {
	var alg cryptobyte.String
	var oid asn1.ObjectIdentifier
	ok := field.ReadASN1(&alg, casn1.SEQUENCE) && field.Empty() &&
		alg.ReadASN1ObjectIdentifier(&oid) && readNullOrNothing(&alg)
	return oid, ok
}

// readMask reads the AlgorithmIdentifier of MGF1 that fills a field, and returns
// the hash that it is over.
func readMask(field *cryptobyte.String) (asn1.ObjectIdentifier, bool) {
	var alg cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !field.ReadASN1(&alg, casn1.SEQUENCE) || !field.Empty() ||
		!alg.ReadASN1ObjectIdentifier(&oid) || !oid.Equal(oidMGF1) {
		return nil, false
	}
	return readHash(&alg)
}
