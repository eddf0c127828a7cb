package message

import (
	"errors"
	"fmt"
)

// SyntaxError says that a message breaks the rules of RFC 7296 §3. The answer to
// a request, if there is one, is INVALID_SYNTAX.
type SyntaxError struct {
	Payload PayloadType // TypeNone for the header and for the chain of payloads
	Reason  string
}

// Error implements error.
func (e *SyntaxError) Error() string {
	if e.Payload == TypeNone {
		return "malformed IKE message: " + e.Reason
	}
	return fmt.Sprintf("malformed %v payload: %s", e.Payload, e.Reason)
}

// CriticalPayloadError says that a message has a payload of unknown type with the
// critical bit set. The answer to a request is UNSUPPORTED_CRITICAL_PAYLOAD
// (RFC 7296 §2.5).
type CriticalPayloadError struct {
	Type PayloadType
}

// Error implements error.
func (e *CriticalPayloadError) Error() string {
	return fmt.Sprintf("message has a critical payload of unknown type %d", uint8(e.Type))
}

// VersionError says that a message is of another major version than 2. For a
// higher one the answer to a request is INVALID_MAJOR_VERSION, lower ones are
// dropped (RFC 7296 §2.5).
type VersionError struct {
	Major uint8
}

// Error implements error.
func (e *VersionError) Error() string {
	return fmt.Sprintf("message of IKE version %d, only version 2 is supported", e.Major)
}

// ErrorNotify returns the notify that answers a request which could not be parsed
// with this error, and false when there is none.
func ErrorNotify(err error) (*Notify, bool) {
	if _, ok := errors.AsType[*SyntaxError](err); ok {
		return &Notify{Kind: InvalidSyntax}, true
	}
	if e, ok := errors.AsType[*CriticalPayloadError](err); ok {
		return &Notify{Kind: UnsupportedCriticalPayload, Data: []byte{byte(e.Type)}}, true
	}
	if e, ok := errors.AsType[*VersionError](err); ok && e.Major > 2 {
		return &Notify{Kind: InvalidMajorVersion}, true
	}
	return nil, false
}

// malformed makes a SyntaxError.
func malformed(t PayloadType, format string, args ...any) error {
	return &SyntaxError{Payload: t, Reason: fmt.Sprintf(format, args...)}
}
