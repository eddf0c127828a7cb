package xfrm

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// algorithm is one algorithm in the kernel's words: the attribute that carries it, its
// name, its key, and the length of what it adds to a packet, in bits.
type algorithm struct {
	attr int
	name string
	key  []byte
	icv  int
}

// algorithmsOf names the algorithms of an SA.
func algorithmsOf(sa *esp.SA) ([]algorithm, error) {
	switch {
	case sa.Encr.AEAD() && sa.Integ != suite.IntegNone:
		return nil, fmt.Errorf("%v brings its own integrity and cannot stand with %v", sa.Encr, sa.Integ)
	case sa.Encr.ID == suite.EncrAESGCM16:
		return []algorithm{{nl.XFRMA_ALG_AEAD, "rfc4106(gcm(aes))", sa.EncrKey, 8 * sa.Encr.ICVLen()}}, nil
	case sa.Encr.ID == suite.EncrChaCha20Poly1305:
		return []algorithm{{nl.XFRMA_ALG_AEAD, "rfc7539esp(chacha20,poly1305)", sa.EncrKey, 8 * sa.Encr.ICVLen()}}, nil
	case sa.Encr.ID != suite.EncrAESCBC:
		return nil, fmt.Errorf("encryption %v is not implemented for esp", sa.Encr)
	}
	name, ok := map[suite.IntegID]string{
		suite.IntegHMACSHA256: "hmac(sha256)", suite.IntegHMACSHA384: "hmac(sha384)", suite.IntegHMACSHA512: "hmac(sha512)",
	}[sa.Integ]
	if !ok {
		return nil, fmt.Errorf("%v needs an integrity algorithm, not %v", sa.Encr, sa.Integ)
	}
	return []algorithm{
		{nl.XFRMA_ALG_CRYPT, "cbc(aes)", sa.EncrKey, 0},
		{nl.XFRMA_ALG_AUTH_TRUNC, name, sa.IntegKey, 8 * sa.Integ.TagLen()},
	}, nil
}

// attribute is the algorithm as the kernel reads it. It holds the key.
func (a algorithm) attribute() *nl.RtAttr {
	var name [64]byte
	copy(name[:], a.name)
	bits := uint32(8 * len(a.key))
	var b []byte
	switch a.attr {
	case nl.XFRMA_ALG_AEAD:
		b = (&nl.XfrmAlgoAEAD{AlgName: name, AlgKeyLen: bits, AlgICVLen: uint32(a.icv), AlgKey: a.key}).Serialize()
	case nl.XFRMA_ALG_AUTH_TRUNC:
		b = (&nl.XfrmAlgoAuth{AlgName: name, AlgKeyLen: bits, AlgTruncLen: uint32(a.icv), AlgKey: a.key}).Serialize()
	default:
		b = (&nl.XfrmAlgo{AlgName: name, AlgKeyLen: bits, AlgKey: a.key}).Serialize()
	}
	return nl.NewRtAttr(a.attr, b)
}
