package auth

import "errors"

// Reasons why a peer, or our own configuration, is refused. Errors of this package
// wrap one of them, with names and dates added; they never hold a secret.
var (
	// ErrBadIdentity: an identity that is malformed.
	ErrBadIdentity = errors.New("malformed identity")
	// ErrIdentityMismatch: the identity is not the expected one, or not in the certificate.
	ErrIdentityMismatch = errors.New("identity does not match")
	// ErrNoCredentials: we have nothing to prove our own identity with.
	ErrNoCredentials = errors.New("no usable credentials")
	// ErrMethodRefused: an authentication method that is unknown, unsafe or not allowed here.
	ErrMethodRefused = errors.New("authentication method refused")

	// ErrNoSharedKey: there is no shared key for the peer.
	ErrNoSharedKey = errors.New("no shared key for this peer")
	// ErrWrongSharedKey: the two sides have different shared keys.
	ErrWrongSharedKey = errors.New("shared keys differ")
	// ErrBadSignature: a signature does not verify.
	ErrBadSignature = errors.New("signature does not verify")
	// ErrWeakKey: a key or a signature algorithm below our minimum.
	ErrWeakKey = errors.New("key or algorithm is too weak")

	// ErrNoCertificate: the peer sent no certificate.
	ErrNoCertificate = errors.New("no certificate")
	// ErrBadCertificate: a certificate that cannot be read, or breaks a rule of its authorities.
	ErrBadCertificate = errors.New("certificate is not acceptable")
	// ErrTooManyCertificates: more certificates than we are willing to look at.
	ErrTooManyCertificates = errors.New("too many certificates")
	// ErrUnknownAuthority: no chain leads to a trusted authority.
	ErrUnknownAuthority = errors.New("certificate authority is not trusted")
	// ErrExpired: a certificate of the chain has expired.
	ErrExpired = errors.New("certificate has expired")
	// ErrNotYetValid: a certificate of the chain is not valid yet.
	ErrNotYetValid = errors.New("certificate is not valid yet")
	// ErrRevoked: a certificate of the chain is revoked.
	ErrRevoked = errors.New("certificate is revoked")
	// ErrRevocationUnknown: a current revocation list is required and missing.
	ErrRevocationUnknown = errors.New("no current revocation list")
	// ErrWrongUsage: the certificate is not meant for this use.
	ErrWrongUsage = errors.New("certificate is not meant for this use")

	// ErrBadPEM: a PEM file does not hold what it should.
	ErrBadPEM = errors.New("not the expected PEM")
)
