package ike

import (
	"crypto/sha256"
	"time"

	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
	"github.com/wayfarer-vpn/wayfarer/locator"
	"github.com/wayfarer-vpn/wayfarer/suite"
)

// IKE_SA_INIT (RFC 7296 §1.2): proposals, key exchange, nonces, in clear. What both
// roles need.

const (
	nonceLen = 32 // half the key size of the largest PRF (RFC 7296 §2.10)
	// maxInitTries bounds how often a responder may send us round with COOKIE or
	// INVALID_KE_PAYLOAD.
	maxInitTries = 5
)

// initState is what is only needed until both sides are authenticated.
type initState struct {
	key         initialKey        // responder
	requestHash [sha256.Size]byte // responder: of the request that was answered
	share       keyShare          // initiator
	ni, nr      []byte
	// realMessage1 and 2 are the octets that AUTH covers (RFC 7296 §2.15).
	realMessage1, realMessage2 []byte
	certRequested              bool // the peer sent CERTREQ
}

func (i *initState) zero() { i.share.zero() }

// deriveFirst makes the keys of a first IKE SA.
func (sa *ikeSA) deriveFirst(secret []byte) error {
	defer clear(secret)
	prf, err := suite.NewPRF(sa.alg.PRF)
	if err != nil {
		return err
	}
	sa.keys, err = deriveKeys(sa.alg, prf, firstSeed(prf, sa.init.ni, sa.init.nr, secret), sa.init.ni, sa.init.nr, sa.spii, sa.spir)
	return err
}

// receiveInit takes messages of the IKE_SA_INIT exchange.
func (e *Engine) receiveInit(now time.Time, pair locator.Pair, h message.Header, data []byte) {
	if h.MessageID != 0 || h.SPIi == 0 || h.Response() == h.FromInitiator() {
		e.refuse(now, Refused{Pair: pair, Reason: reason.MalformedMessage, Detail: "IKE_SA_INIT with a wrong message ID, SPI or flag"})
		return
	}
	if h.Response() {
		e.receiveInitResponse(now, pair, h, data)
		return
	}
	if h.SPIr != 0 || e.responder == nil {
		return
	}
	e.receiveInitRequest(now, pair, h, data)
}

// readSignatureHashes returns the peer's hash algorithms, nil if it announced none.
func readSignatureHashes(ps []message.Payload) []suite.HashID {
	n := message.FindNotify(ps, message.SignatureHashAlgorithms)
	if n == nil {
		return nil
	}
	hashes, _ := n.SignatureHashes()
	return hashes
}

func hasCertReq(ps []message.Payload) bool {
	_, ok := message.Find[*message.CertReq](ps)
	return ok
}
