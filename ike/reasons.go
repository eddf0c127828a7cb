package ike

import (
	"crypto/sha3"
	"errors"
	"io"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// reasonFor is the coded reason that goes with an error notify of the peer.
func reasonFor(n message.NotifyType) reason.Code {
	switch n {
	case message.AuthenticationFailed:
		return reason.AuthFailed
	case message.NoProposalChosen:
		return reason.NoProposalChosen
	case message.InvalidKEPayload:
		return reason.InvalidKE
	case message.TSUnacceptable:
		return reason.TSUnacceptable
	case message.SinglePairRequired:
		return reason.SinglePairRequired
	case message.NoAdditionalSAs:
		return reason.NoAdditionalSAs
	case message.InternalAddressFailure:
		return reason.NoAddressAssigned
	case message.FailedCPRequired:
		return reason.ConfigRequired
	case message.InvalidSelectors:
		return reason.InvalidSelectors
	case message.TemporaryFailure:
		return reason.TemporaryFailure
	case message.ChildSANotFound:
		return reason.ChildNotFound
	case message.UnsupportedCriticalPayload:
		return reason.UnsupportedCriticalPayload
	case message.InvalidMajorVersion:
		return reason.UnsupportedVersion
	case message.InvalidMessageID:
		return reason.InvalidMessageID
	case message.InvalidIKESPI, message.InvalidSPI:
		return reason.InvalidSPI
	case message.UnacceptableAddresses:
		return reason.UnacceptableAddresses
	case message.UnexpectedNATDetected:
		return reason.UnexpectedNAT
	default:
		return reason.ProtocolError
	}
}

// authReasons are the coded reasons of what ike/auth refuses.
var authReasons = []struct {
	err  error
	code reason.Code
}{
	{auth.ErrIdentityMismatch, reason.IDMismatch},
	{auth.ErrBadIdentity, reason.IDMismatch},
	{auth.ErrExpired, reason.CertExpired},
	{auth.ErrNotYetValid, reason.CertNotYetValid},
	{auth.ErrUnknownAuthority, reason.CertUntrusted},
	{auth.ErrRevoked, reason.CertRevoked},
	{auth.ErrRevocationUnknown, reason.CRLUnavailable},
	{auth.ErrNoCertificate, reason.CertMissing},
	{auth.ErrWrongUsage, reason.CertInvalid},
	{auth.ErrBadCertificate, reason.CertInvalid},
	{auth.ErrTooManyCertificates, reason.CertInvalid},
	{auth.ErrWeakKey, reason.CertInvalid},
	{auth.ErrNoSharedKey, reason.UserUnknown},
	{auth.ErrWrongSharedKey, reason.AuthFailedPSK},
	{auth.ErrBadSignature, reason.AuthFailedCertificate},
	{auth.ErrMethodRefused, reason.AuthMethodRefused},
}

// reasonForAuth is the coded reason why a peer's proof was not accepted.
func reasonForAuth(err error, method message.AuthMethod) reason.Code {
	for _, r := range authReasons {
		if errors.Is(err, r.err) {
			return r.code
		}
	}
	if method == message.AuthSharedKey {
		return reason.AuthFailedPSK
	}
	return reason.AuthFailed
}

// seededReader is a stream of random octets made from a seed, for Work that runs
// away from the engine's own source: SHAKE256 is a cryptographic generator, and the
// same seed gives the same stream when a session is replayed.
func seededReader(seed []byte) io.Reader {
	h := sha3.NewSHAKE256()
	_, _ = h.Write(seed)
	clear(seed)
	return h
}
