package message

import (
	"encoding/binary"
	"slices"

	"github.com/wayfarer-vpn/wayfarer/suite"
)

// Values of the ESN transform (RFC 7296 §3.3.2).
const (
	esnNo  = 0
	esnYes = 1
)

func encrTransform(e suite.Encr) Transform {
	return Transform{Type: TransformEncr, ID: uint16(e.ID), KeyBits: uint16(e.KeyBits)}
}

func integTransform(id suite.IntegID) Transform {
	return Transform{Type: TransformInteg, ID: uint16(id)}
}

func prfTransform(id suite.PRFID) Transform {
	return Transform{Type: TransformPRF, ID: uint16(id)}
}

func keTransform(id suite.KEID) Transform {
	return Transform{Type: TransformKE, ID: uint16(id)}
}

func esnTransform(esn bool) Transform {
	if esn {
		return Transform{Type: TransformESN, ID: esnYes}
	}
	return Transform{Type: TransformESN, ID: esnNo}
}

// appendTransforms appends one transform for each algorithm of a list.
func appendTransforms[T any](ts []Transform, list []T, of func(T) Transform) []Transform {
	for _, v := range list {
		ts = append(ts, of(v))
	}
	return ts
}

// IKEProposalTransforms returns the transforms of a proposal for an IKE SA.
func IKEProposalTransforms(p suite.IKEProposal) []Transform {
	var ts []Transform
	ts = appendTransforms(ts, p.Encr, encrTransform)
	ts = appendTransforms(ts, p.PRF, prfTransform)
	ts = appendTransforms(ts, p.Integ, integTransform)
	return appendTransforms(ts, p.KE, keTransform)
}

// ESPProposalTransforms returns the transforms of a proposal for a Child SA. Key
// exchange methods are left out in IKE_AUTH, which has no KE payload (RFC 7296
// §1.2).
func ESPProposalTransforms(p suite.ESPProposal, withKE bool) []Transform {
	var ts []Transform
	ts = appendTransforms(ts, p.Encr, encrTransform)
	ts = appendTransforms(ts, p.Integ, integTransform)
	if withKE {
		ts = appendTransforms(ts, p.KE, keTransform)
	}
	return appendTransforms(ts, p.ESN, esnTransform)
}

// OfferIKE makes the SA payload of an initiator that offers an IKE SA. spi is
// empty in IKE_SA_INIT and the new SPI of 8 octets in a rekey.
func OfferIKE(ours []suite.IKEProposal, spi []byte) *SA {
	sa := new(SA)
	for _, p := range ours {
		sa.offer(ProtoIKE, spi, IKEProposalTransforms(p))
	}
	return sa
}

// OfferESP makes the SA payload of an initiator that offers a Child SA with its
// inbound SPI. withKE is false in IKE_AUTH; proposals that are the same without
// key exchange are then sent once.
func OfferESP(ours []suite.ESPProposal, spi uint32, withKE bool) *SA {
	sa := new(SA)
	for _, p := range ours {
		sa.offer(ProtoESP, binary.BigEndian.AppendUint32(nil, spi), ESPProposalTransforms(p, withKE))
	}
	return sa
}

// offer adds a proposal with the next number, unless there is an equal one.
func (sa *SA) offer(protocol ProtocolID, spi []byte, ts []Transform) {
	if slices.ContainsFunc(sa.Proposals, func(p Proposal) bool { return slices.Equal(p.Transforms, ts) }) {
		return
	}
	sa.Proposals = append(sa.Proposals, Proposal{
		Number:     uint8(len(sa.Proposals) + 1),
		Protocol:   protocol,
		SPI:        slices.Clone(spi),
		Transforms: ts,
	})
}

// AnswerIKE makes the SA payload of a responder that chose alg from the offered
// proposal with that number. spi is as in OfferIKE, but the responder's.
func AnswerIKE(offered []Proposal, number uint8, alg suite.IKEAlgorithms, spi []byte) *SA {
	ts := []Transform{encrTransform(alg.Encr), prfTransform(alg.PRF)}
	ts = appendIfOffered(ts, offered, number, integTransform(alg.Integ))
	ts = append(ts, keTransform(alg.KE))
	return &SA{Proposals: []Proposal{{Number: number, Protocol: ProtoIKE, SPI: slices.Clone(spi), Transforms: ts}}}
}

// AnswerESP makes the SA payload of a responder that chose alg from the offered
// proposal with that number, with the responder's inbound SPI.
func AnswerESP(offered []Proposal, number uint8, alg suite.ESPAlgorithms, spi uint32) *SA {
	ts := []Transform{encrTransform(alg.Encr)}
	ts = appendIfOffered(ts, offered, number, integTransform(alg.Integ))
	ts = appendIfOffered(ts, offered, number, keTransform(alg.KE))
	ts = append(ts, esnTransform(alg.ESN))
	return &SA{Proposals: []Proposal{{
		Number:     number,
		Protocol:   ProtoESP,
		SPI:        binary.BigEndian.AppendUint32(nil, spi),
		Transforms: ts,
	}}}
}

// appendIfOffered appends a transform; one that stands for NONE only where it was
// offered, since the answer has one transform of each type of the offer (RFC 7296
// §2.7).
func appendIfOffered(ts []Transform, offered []Proposal, number uint8, t Transform) []Transform {
	if t.ID != 0 {
		return append(ts, t)
	}
	if p, ok := proposalByNumber(offered, number); ok && p.offers(t) {
		return append(ts, t)
	}
	return ts
}

func proposalByNumber(ps []Proposal, number uint8) (*Proposal, bool) {
	for i := range ps {
		if ps[i].Number == number {
			return &ps[i], true
		}
	}
	return nil, false
}

// offers says whether the proposal has exactly that transform.
func (p *Proposal) offers(t Transform) bool { return slices.Contains(p.Transforms, t) }

// hasType says whether the proposal has a transform of the type, known or not.
func (p *Proposal) hasType(t TransformType) bool {
	return slices.ContainsFunc(p.Transforms, func(o Transform) bool { return o.Type == t })
}

// offersNone says whether the proposal can do without algorithm of an optional
// type: it does not have the type, or has NONE (RFC 7296 §3.3.3).
func (p *Proposal) offersNone(t TransformType) bool {
	return !p.hasType(t) || p.offers(Transform{Type: t})
}
