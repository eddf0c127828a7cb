package ike

import (
	"encoding/binary"

	"github.com/wayfarer-vpn/wayfarer/esp"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// saKeys are the seven secrets of an IKE SA (RFC 7296 §2.14): d derives, pi and pr
// authenticate. ei with ai and er with ar sit inside the protectors.
type saKeys struct {
	prf       suite.PRF
	d, pi, pr []byte
	initiator *suite.Protector // protects what the original initiator sends
	responder *suite.Protector
}

// deriveKeys makes the keys of an IKE SA from SKEYSEED (RFC 7296 §2.14).
func deriveKeys(alg suite.IKEAlgorithms, prf suite.PRF, skeyseed, ni, nr []byte, spii, spir message.SPI) (*saKeys, error) {
	defer clear(skeyseed)
	seed := make([]byte, 0, len(ni)+len(nr)+16)
	seed = append(append(seed, ni...), nr...)
	seed = binary.BigEndian.AppendUint64(seed, uint64(spii))
	seed = binary.BigEndian.AppendUint64(seed, uint64(spir))

	nd, na, ne := prf.KeyLen(), alg.Integ.KeyLen(), alg.Encr.KeyMaterialLen()
	mat := prf.Plus(skeyseed, seed, nd+2*na+2*ne+2*nd)
	defer clear(mat)
	next := func(n int) []byte {
		k := mat[:n:n]
		mat = mat[n:]
		return k
	}
	all := mat
	defer func() { clear(all) }()
	d := append([]byte(nil), next(nd)...)
	ai, ar := next(na), next(na)
	ei, er := next(ne), next(ne)
	pi, pr := append([]byte(nil), next(nd)...), append([]byte(nil), next(nd)...)

	pInit, err := suite.NewProtector(alg.Encr, alg.Integ, ei, ai)
	if err != nil {
		return nil, err
	}
	pResp, err := suite.NewProtector(alg.Encr, alg.Integ, er, ar)
	if err != nil {
		return nil, err
	}
	return &saKeys{prf: prf, d: d, pi: pi, pr: pr, initiator: pInit, responder: pResp}, nil
}

// zero overwrites the secrets.
func (k *saKeys) zero() {
	if k == nil {
		return
	}
	clear(k.d)
	clear(k.pi)
	clear(k.pr)
	k.initiator.Zero()
	k.responder.Zero()
}

// firstSeed is SKEYSEED of a new IKE SA: prf(Ni | Nr, g^ir) (RFC 7296 §2.14).
func firstSeed(prf suite.PRF, ni, nr, secret []byte) []byte {
	key := append(append([]byte(nil), ni...), nr...)
	return prf.Sum(key, secret)
}

// childKeys makes the keys of a Child SA (RFC 7296 §2.17): KEYMAT =
// prf+(SK_d, [g^ir |] Ni | Nr), the initiator-to-responder SA first.
func (sa *ikeSA) childKeys(alg suite.ESPAlgorithms, secret, ni, nr []byte) (toResponder, toInitiator esp.SA) {
	seed := append(append(append([]byte(nil), secret...), ni...), nr...)
	defer clear(seed)
	ne, na := alg.Encr.KeyMaterialLen(), alg.Integ.KeyLen()
	mat := sa.keys.prf.Plus(sa.keys.d, seed, 2*(ne+na))
	defer clear(mat)
	one := func(m []byte) esp.SA {
		return esp.SA{
			Encr: alg.Encr, Integ: alg.Integ, ESN: alg.ESN,
			EncrKey:  append([]byte(nil), m[:ne]...),
			IntegKey: append([]byte(nil), m[ne:ne+na]...),
		}
	}
	return one(mat[:ne+na]), one(mat[ne+na:])
}
