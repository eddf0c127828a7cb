package locator

// Role says how much an entry decides by itself.
type Role uint8

// Roles. The zero Role is the initiator's.
const (
	// Initiator chooses the pair (RFC 4621 §5.1.5).
	Initiator Role = iota
	// Responder verifies what the peer asks for and follows.
	Responder
)

// String returns the role's name.
func (r Role) String() string { return name(int(r), "initiator", "responder") }

// Verification says whether the peer has shown that it receives at the foreign
// address of a pair (RFC 4555 §3.7).
type Verification uint8

// States of verification.
const (
	Unverified          Verification = iota // nothing is known
	VerificationPending                     // a check is under way
	Verified                                // an answer with our nonce came back
	VerificationFailed                      // no answer for now (RFC 4621 §5.5.2)
)

// String returns the word that status output uses.
func (v Verification) String() string {
	return name(int(v), "unverified", "pending", "verified", "failed")
}

// Reachability says whether packets get through on a pair.
type Reachability uint8

// States of reachability.
const (
	ReachUnknown Reachability = iota // never tried
	Operational                      // an answer or a packet came, and nothing speaks against it since
	Failing                          // suspected: a check is under way
	Failed                           // probes went unanswered
)

// String returns the word that status output uses.
func (r Reachability) String() string {
	return name(int(r), "unknown", "operational", "failing", "failed")
}

// NAT says whether address translation was seen on a pair. It is a property of
// the path, not of a host (RFC 4621 §5.2.1).
type NAT uint8

// What is known about translation.
const (
	NATUnknown NAT = iota
	NATAbsent
	NATPresent
)

// String returns the word that status output uses.
func (n NAT) String() string { return name(int(n), "unknown", "no", "yes") }

// Cause says why something happened: why a pair is what it is, why traffic moved.
// Its text is stable and fit for logs, metrics and scripts.
type Cause uint8

// Causes.
const (
	CauseNone           Cause = iota
	Connected                 // the association was made over this pair
	LocalAdded                // a local address appeared
	LocalLost                 // the local address or its interface is gone
	NoLocal                   // no local address is left
	ForeignAdded              // the peer has a further address
	ForeignWithdrawn          // the peer withdrew the address
	Expired                   // the lifetime of the address is over
	TrafficUnanswered         // we were sending and nothing valid came back
	LivenessTimeout           // a liveness check of the dialect went unanswered (RFC 7296 §2.4)
	PeerRetransmits           // the peer repeats a request: our answers do not arrive
	ICMPError                 // the network reported an error, maybe a forged one
	Resumed                   // the machine slept
	NetworkChanged            // routes or gateways changed
	ProbeAnswered             // a probe came back
	ProbeTimeout              // probes stayed unanswered
	PacketHeard               // a valid packet of the peer arrived
	PeerMoved                 // the peer asked for it (UPDATE_SA_ADDRESSES)
	NATChanged                // a NAT changed its mapping
	BetterPath                // policy prefers this pair
	ShorterRTT                // the round trip is clearly and steadily shorter
	UserRequest               // somebody asked for it
	Authorized                // configuration or certificate vouches for the address
	VerificationFailing       // the return routability check failed
	PeerRejected              // the peer does not accept the pair
)

// String returns the stable code of the cause.
func (c Cause) String() string {
	return name(int(c), "none", "connected", "local-added", "local-lost", "no-local-address", "foreign-added",
		"foreign-withdrawn", "expired", "traffic-unanswered", "liveness-timeout", "peer-retransmits", "icmp-error",
		"resumed", "network-changed", "probe-answered", "probe-timeout", "packet-heard", "peer-moved", "nat-changed",
		"better-path", "shorter-rtt", "user-request", "authorized", "verification-failed",
		"rejected-by-peer")
}

// MarshalText makes the states readable in JSON.
func (v Verification) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// MarshalText makes the states readable in JSON.
func (r Reachability) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// MarshalText makes the states readable in JSON.
func (n NAT) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// MarshalText makes causes readable in JSON.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

func name(i int, names ...string) string {
	if i < 0 || i >= len(names) {
		return "invalid"
	}
	return names[i]
}
