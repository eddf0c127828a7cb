package reason

// The codes, in the groups of the manual. The wording is in catalogue.

// Normal ends.
const (
	AdminDisconnect      Code = "admin-disconnect"
	UserDisconnect       Code = "user-disconnect"
	PeerDeleted          Code = "peer-deleted"
	Shutdown             Code = "shutdown"
	ReplacedByNewSession Code = "replaced-by-new-session"
)

// Reaching the other side.
const (
	NoAnswer              Code = "no-answer"
	PeerDead              Code = "peer-dead"
	NoNetwork             Code = "no-network"
	DNSFailed             Code = "dns-failed"
	OtherAddressAnswered  Code = "other-address-answered"
	PeerAnswered          Code = "peer-answered"
	PathFailed            Code = "path-failed"
	UnexpectedNAT         Code = "unexpected-nat-detected"
	UnacceptableAddresses Code = "unacceptable-addresses"
)

// Authentication.
const (
	AuthFailed            Code = "auth-failed"
	AuthFailedPSK         Code = "auth-failed-psk"
	AuthFailedCertificate Code = "auth-failed-certificate"
	AuthMethodRefused     Code = "auth-method-refused"
	CertMissing           Code = "cert-missing"
	CertExpired           Code = "cert-expired"
	CertNotYetValid       Code = "cert-not-yet-valid"
	CertUntrusted         Code = "cert-untrusted"
	CertRevoked           Code = "cert-revoked"
	CertInvalid           Code = "cert-invalid"
	CRLUnavailable        Code = "crl-unavailable"
	IDMismatch            Code = "id-mismatch"
	UserUnknown           Code = "user-unknown"
)

// Agreeing.
const (
	NoProposalChosen   Code = "no-proposal-chosen"
	InvalidKE          Code = "invalid-ke-payload"
	TSUnacceptable     Code = "ts-unacceptable"
	NoChildSA          Code = "no-child-sa"
	SinglePairRequired Code = "single-pair-required"
	NoAdditionalSAs    Code = "no-additional-sas"
	ConfigRequired     Code = "failed-cp-required"
	NoAddressAssigned  Code = "no-address-assigned"
	PoolExhausted      Code = "pool-exhausted"
	ChildNotFound      Code = "child-sa-not-found"
	TemporaryFailure   Code = "temporary-failure"
)

// Protection of the gateway.
const (
	CookieRequired Code = "cookie-required"
	HalfOpenLimit  Code = "half-open-limit"
	SessionLimit   Code = "session-limit"
	RateLimited    Code = "rate-limited"
)

// Messages that make no sense.
const (
	MalformedMessage           Code = "malformed-message"
	UnknownSPI                 Code = "unknown-spi"
	UnsupportedVersion         Code = "unsupported-version"
	UnsupportedCriticalPayload Code = "unsupported-critical-payload"
	InvalidMessageID           Code = "invalid-message-id"
	IntegrityFailed            Code = "integrity-failed"
	UnprotectedMessage         Code = "unprotected-message"
	ReplayedMessage            Code = "replayed-message"
	ProtocolError              Code = "protocol-error"
	InvalidSPI                 Code = "invalid-spi"
	InvalidSelectors           Code = "invalid-selectors"
)

// Lifetimes and the data path.
const (
	LifetimeExpired       Code = "lifetime-expired"
	DataPathFailed        Code = "data-path-failed"
	KernelPathUnavailable Code = "kernel-path-unavailable"
	RouteFailed           Code = "route-failed"
)

// This machine.
const (
	ConfigInvalid    Code = "config-invalid"
	PermissionDenied Code = "permission-denied"
	NotRunning       Code = "not-running"
	NotFound         Code = "not-found"
	AlreadyExists    Code = "already-exists"
	InvalidRequest   Code = "invalid-request"
	Conflict         Code = "conflict"
	Timeout          Code = "timeout"
	Cancelled        Code = "cancelled"
	InternalError    Code = "internal-error"
)
