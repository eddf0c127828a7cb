package locator

// Decision is something an entry wants done: Probe, Switch, Announce, Keepalive,
// Lost or Unproven.
type Decision interface{ decision() }

// Probe asks for a request to be sent over these pairs now, the outstanding one
// or a new one: in IKEv2 one INFORMATIONAL request, the same bytes on every pair
// (RFC 4555 §3.10). Report what comes back with Answered or Reached.
type Probe struct {
	Pairs []Pair
	// Fresh asks for a request of its own that has gone, and will go, to no other
	// address: only such an answer shows return routability (RFC 4555 §3.7, last
	// paragraph). All pairs of a fresh probe have one remote address. If nothing
	// comes back, complete the request over another pair and report that answer with
	// Reached.
	Fresh bool
}

// Switch says that To is the current pair from now on: send there, and tell the
// peer. From is the last pair in use, which may be gone.
type Switch struct {
	From, To Pair
	Cause    Cause
	// Verified says whether To had been verified when it was chosen.
	Verified bool
}

// Announce asks to tell the peer again that Pair is in use (UPDATE_SA_ADDRESSES): it
// answers probes there, but traffic stays unanswered, so it may be sending to where
// we were. Being alive is not being in step (RFC 4621 §5.5.2; RFC 4555 §3.8 allows
// the update on suspicion).
type Announce struct {
	Pair Pair
}

// Keepalive asks for one packet that keeps a pair's NAT binding: a request whose
// answer is reported if Proof is set, otherwise a NAT keepalive (RFC 3948 §2.3).
// Unlike a Probe it has all the time in the world.
type Keepalive struct {
	Pair  Pair
	Proof bool
}

// Lost says that no usable pair is left: there is no local address, or nothing
// answers. The entry goes on trying. It is over when the current pair is
// operational again.
type Lost struct {
	Cause Cause
}

// Unproven says that a return routability check got no answer. Traffic stays
// where it was, or moves back there with a Switch. It is no reason to close the
// association (RFC 4621 §5.5.2).
type Unproven struct {
	Pair Pair
}

func (Probe) decision()     {}
func (Switch) decision()    {}
func (Announce) decision()  {}
func (Keepalive) decision() {}
func (Lost) decision()      {}
func (Unproven) decision()  {}
