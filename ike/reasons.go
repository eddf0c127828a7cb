package ike

import (
	"errors"

	"github.com/wayfarer-vpn/wayfarer/ike/auth"
	"github.com/wayfarer-vpn/wayfarer/ike/message"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// reasonFor is the coded reason that goes with an error notify of the peer.
func reasonFor(n message.NotifyType) reason.Code {
	if r, ok := reason.ByNotify(n.String()); ok {
		return r.Code
	}
	return reason.ProtocolError
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
