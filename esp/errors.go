package esp

import "errors"

// Reasons why a packet is not opened. They are values rather than new errors for
// each packet, so that hostile traffic costs no allocation; the data path counts
// them and adds who and whence.
var (
	// ErrTruncated: shorter than header, IV, one block and ICV of its SA.
	ErrTruncated = errors.New("esp packet is too short for its SA")
	// ErrReplayed: seen before or left of the anti-replay window (RFC 4303 §3.4.3).
	ErrReplayed = errors.New("esp sequence number is outside the replay window or was seen before")
	// ErrAuthentication: the ICV does not match.
	ErrAuthentication = errors.New("esp integrity check failed")
	// ErrPadding: authentic, but the padding is not what RFC 4303 §2.4 asks for.
	ErrPadding = errors.New("esp padding is malformed")
	// ErrDummy: authentic and to be dropped silently (RFC 4303 §2.6).
	ErrDummy = errors.New("esp dummy packet")
	// ErrLifetime: the hard lifetime of the SA is used up.
	ErrLifetime = errors.New("esp sa has reached its hard lifetime; a rekey is needed")
	// ErrClosed: the SA has been removed and its keys are gone.
	ErrClosed = errors.New("esp sa has been removed")
	// ErrBufferTooSmall: the caller's buffer lacks headroom or room for the trailer.
	ErrBufferTooSmall = errors.New("buffer has too little room around the packet for esp")
	// ErrInnerPacket: the payload is not a well-formed IPv4 or IPv6 packet.
	ErrInnerPacket = errors.New("inner packet is malformed")
)
