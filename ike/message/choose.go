package message

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

// ErrChoice is wrapped by errors about a responder that answered with what it was
// not offered. The exchange must be given up (RFC 7296 §3.3.6).
var ErrChoice = errors.New("the peer chose what was not offered")

// NoProposalError says that nothing in an offer is acceptable. The answer is
// NO_PROPOSAL_CHOSEN (RFC 7296 §2.7).
type NoProposalError struct {
	Offered []Proposal
	Ours    string // as in a configuration
}

// Error implements error. It shows both sides, so that one of them can be changed.
func (e *NoProposalError) Error() string {
	return fmt.Sprintf("no acceptable proposal: the peer offers %s; accepted are %s", describe(e.Offered), e.Ours)
}

// minESPSPI is the least SPI of an ESP SA; lower ones are reserved (RFC 4303 §2.1).
const minESPSPI = 256

// ChooseIKE chooses from an offer for an IKE SA: the first of our proposals that
// goes with one of the peer's, and of each type our first algorithm that the
// peer's proposal has (RFC 7296 §2.7, §3.3.6).
//
// sent may name the method of the KE payload that came with the offer. Within the
// proposal that is chosen it is taken if we accept it at all, which saves the
// round trip of INVALID_KE_PAYLOAD.
func ChooseIKE(offered []Proposal, ours []suite.IKEProposal, sent ...suite.KEID) (number uint8, alg suite.IKEAlgorithms, err error) {
	for i := range ours {
		for _, p := range numbered(offered) {
			if !acceptableIKE(&p) {
				continue
			}
			if alg, ok := matchIKE(&p, &ours[i], sent); ok {
				return p.Number, alg, nil
			}
		}
	}
	return 0, suite.IKEAlgorithms{}, &NoProposalError{Offered: offered, Ours: join(ours)}
}

// numbered returns the proposals up to the first whose number is not its place:
// numbers count from 1 (RFC 7296 §3.3.1). A number names a proposal from here on,
// so two with the same must not both be eligible.
func numbered(offered []Proposal) []Proposal {
	for i := range offered {
		if int(offered[i].Number) != i+1 {
			return offered[:i]
		}
	}
	return offered
}

// acceptableIKE looks at what does not depend on our proposals. A transform type
// that we do not understand makes the whole proposal unacceptable, since there
// has to be a choice of each type (RFC 7296 §3.3.6).
func acceptableIKE(p *Proposal) bool {
	return p.Protocol == ProtoIKE && hasOnly(p, TransformEncr, TransformPRF, TransformInteg, TransformKE)
}

func hasOnly(p *Proposal, types ...TransformType) bool {
	return !slices.ContainsFunc(p.Transforms, func(t Transform) bool { return !slices.Contains(types, t.Type) })
}

func matchIKE(p *Proposal, ours *suite.IKEProposal, sent []suite.KEID) (alg suite.IKEAlgorithms, ok bool) {
	if alg.Encr, alg.Integ, ok = matchCipher(p, ours.Encr, ours.Integ); !ok {
		return alg, false
	}
	if alg.PRF, ok = firstOffered(p, ours.PRF, prfTransform); !ok {
		return alg, false
	}
	alg.KE, ok = matchKE(p, ours.KE, sent)
	return alg, ok && alg.KE != suite.KENone
}

// matchCipher chooses cipher and integrity algorithm. They depend on each other:
// an AEAD cipher goes with no integrity algorithm or NONE, others need one
// (RFC 7296 §3.3.3, RFC 5282 §8).
func matchCipher(p *Proposal, encrs []suite.Encr, integs []suite.IntegID) (suite.Encr, suite.IntegID, bool) {
	for _, encr := range encrs {
		if !p.offers(encrTransform(encr)) {
			continue
		}
		if encr.AEAD() {
			if p.offersNone(TransformInteg) {
				return encr, suite.IntegNone, true
			}
			continue
		}
		if integ, ok := firstOffered(p, integs, integTransform); ok && integ != suite.IntegNone {
			return encr, integ, true
		}
	}
	return suite.Encr{}, 0, false
}

// firstOffered returns the first of our algorithms that the proposal has.
func firstOffered[T any](p *Proposal, ours []T, of func(T) Transform) (T, bool) {
	for _, v := range ours {
		if p.offers(of(v)) {
			return v, true
		}
	}
	var none T
	return none, false
}

// matchKE chooses a key exchange method, with those at hand before others.
func matchKE(p *Proposal, ours, sent []suite.KEID) (suite.KEID, bool) {
	for _, id := range sent {
		if slices.Contains(ours, id) && p.offers(keTransform(id)) {
			return id, true
		}
	}
	return firstOffered(p, ours, keTransform)
}

// ChooseESP chooses from an offer for a Child SA, as ChooseIKE. ignoreKE is for
// IKE_AUTH, where there is no key exchange and its methods mean nothing on either
// side; the outcome then has none. Otherwise a proposal of ours with methods asks
// for one of them, and one without takes offers that can do without.
func ChooseESP(offered []Proposal, ours []suite.ESPProposal, ignoreKE bool, sent ...suite.KEID) (number uint8, alg suite.ESPAlgorithms, err error) {
	for i := range ours {
		for _, p := range numbered(offered) {
			if !acceptableESP(&p) {
				continue
			}
			if alg, ok := matchESP(&p, &ours[i], ignoreKE, sent); ok {
				return p.Number, alg, nil
			}
		}
	}
	return 0, suite.ESPAlgorithms{}, &NoProposalError{Offered: offered, Ours: join(ours)}
}

func acceptableESP(p *Proposal) bool {
	return p.Protocol == ProtoESP && len(p.SPI) == 4 && binary.BigEndian.Uint32(p.SPI) >= minESPSPI &&
		hasOnly(p, TransformEncr, TransformInteg, TransformKE, TransformESN)
}

func matchESP(p *Proposal, ours *suite.ESPProposal, ignoreKE bool, sent []suite.KEID) (alg suite.ESPAlgorithms, ok bool) {
	if alg.Encr, alg.Integ, ok = matchCipher(p, ours.Encr, ours.Integ); !ok {
		return alg, false
	}
	// The type is mandatory: an offer without it says nothing about sequence
	// numbers, not even that they are short (RFC 7296 §3.3.3).
	if alg.ESN, ok = firstOffered(p, ours.ESN, esnTransform); !ok {
		return alg, false
	}
	if ignoreKE {
		return alg, true
	}
	if len(ours.KE) == 0 {
		return alg, p.offersNone(TransformKE)
	}
	if alg.KE, ok = matchKE(p, ours.KE, sent); ok {
		return alg, true
	}
	return alg, slices.Contains(ours.KE, suite.KENone) && p.offersNone(TransformKE)
}

// CheckIKEChoice checks the answer to an offer for an IKE SA, which we made
// ourselves: one proposal, of which we offered every part (RFC 7296 §3.3.6).
func CheckIKEChoice(offered []Proposal, answer *SA) (suite.IKEAlgorithms, error) {
	chosen, err := checkChoice(offered, answer)
	if err != nil {
		return suite.IKEAlgorithms{}, err
	}
	alg := suite.IKEAlgorithms{
		Encr:  chosen.encr(),
		Integ: suite.IntegID(chosen.id(TransformInteg)),
		PRF:   suite.PRFID(chosen.id(TransformPRF)),
		KE:    suite.KEID(chosen.id(TransformKE)),
	}
	if alg.Encr.AEAD() == (alg.Integ != suite.IntegNone) || !alg.KE.Valid() {
		return suite.IKEAlgorithms{}, fmt.Errorf("%w: %v do not go together", ErrChoice, alg)
	}
	return alg, nil
}

// CheckESPChoice checks the answer to an offer for a Child SA, as CheckIKEChoice,
// and returns the peer's inbound SPI with it.
func CheckESPChoice(offered []Proposal, answer *SA) (alg suite.ESPAlgorithms, spi uint32, err error) {
	chosen, err := checkChoice(offered, answer)
	if err != nil {
		return suite.ESPAlgorithms{}, 0, err
	}
	alg = suite.ESPAlgorithms{
		Encr:  chosen.encr(),
		Integ: suite.IntegID(chosen.id(TransformInteg)),
		KE:    suite.KEID(chosen.id(TransformKE)),
		ESN:   chosen.id(TransformESN) == esnYes,
	}
	if alg.Encr.AEAD() == (alg.Integ != suite.IntegNone) {
		return suite.ESPAlgorithms{}, 0, fmt.Errorf("%w: %v do not go together", ErrChoice, alg)
	}
	if len(chosen.SPI) == 4 {
		spi = binary.BigEndian.Uint32(chosen.SPI)
	}
	if spi < minESPSPI {
		return suite.ESPAlgorithms{}, 0, fmt.Errorf("%w: SPI %x is reserved", ErrChoice, chosen.SPI)
	}
	return alg, spi, nil
}

// optionalTypes may be left out of an answer where NONE was offered: it means the
// same (RFC 7296 §3.3.3).
var optionalTypes = []TransformType{TransformInteg, TransformKE}

// checkChoice returns the answer's only proposal after comparing it to the offer
// with the same number.
func checkChoice(offered []Proposal, answer *SA) (*Proposal, error) {
	if n := len(answer.Proposals); n != 1 {
		return nil, fmt.Errorf("%w: %d proposals instead of one", ErrChoice, n)
	}
	chosen := &answer.Proposals[0]
	offer, ok := proposalByNumber(offered, chosen.Number)
	if !ok || offer.Protocol != chosen.Protocol || len(offer.SPI) != len(chosen.SPI) {
		return nil, fmt.Errorf("%w: proposal %d for %v with an SPI of %d octets",
			ErrChoice, chosen.Number, chosen.Protocol, len(chosen.SPI))
	}
	for i, t := range chosen.Transforms {
		if !offer.offers(t) {
			return nil, fmt.Errorf("%w: %s", ErrChoice, t)
		}
		for _, other := range chosen.Transforms[:i] {
			if other.Type == t.Type {
				return nil, fmt.Errorf("%w: two transforms of type %v", ErrChoice, t.Type)
			}
		}
	}
	for _, t := range offer.Transforms {
		if chosen.hasType(t.Type) || slices.Contains(optionalTypes, t.Type) && offer.offersNone(t.Type) {
			continue
		}
		return nil, fmt.Errorf("%w: no transform of type %v", ErrChoice, t.Type)
	}
	return chosen, nil
}

// id returns the transform of a type, zero when there is none.
func (p *Proposal) id(t TransformType) uint16 {
	for _, o := range p.Transforms {
		if o.Type == t {
			return o.ID
		}
	}
	return 0
}

func (p *Proposal) encr() suite.Encr {
	for _, o := range p.Transforms {
		if o.Type == TransformEncr {
			return suite.Encr{ID: suite.EncrID(o.ID), KeyBits: int(o.KeyBits)}
		}
	}
	return suite.Encr{}
}

// String shows a transform as a word of a proposal, or by numbers if it is none.
func (t Transform) String() string {
	switch t.Type {
	case TransformEncr:
		return suite.Encr{ID: suite.EncrID(t.ID), KeyBits: int(t.KeyBits)}.String()
	case TransformPRF:
		return suite.PRFID(t.ID).String()
	case TransformInteg:
		return suite.IntegID(t.ID).String()
	case TransformKE:
		return suite.KEID(t.ID).String()
	case TransformESN:
		if t.ID == esnNo {
			return "noesn"
		}
		return "esn"
	}
	return fmt.Sprintf("%v_%d", t.Type, t.ID)
}

// maxDescribed bounds how much of a peer's offer goes into an error message.
const maxDescribed = 48

// describe shows an offer as proposals are written in a configuration.
func describe(ps []Proposal) string {
	var b strings.Builder
	shown := 0
	for i, p := range ps {
		if i > 0 {
			b.WriteString(",")
		}
		for j, t := range p.Transforms {
			if shown++; shown > maxDescribed {
				b.WriteString("...")
				return b.String()
			}
			if j > 0 {
				b.WriteString("-")
			}
			b.WriteString(t.String())
		}
	}
	if b.Len() == 0 {
		return "nothing"
	}
	return b.String()
}

func join[T fmt.Stringer](ps []T) string {
	words := make([]string, len(ps))
	for i, p := range ps {
		words[i] = p.String()
	}
	return strings.Join(words, ",")
}
