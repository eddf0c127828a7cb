// Package locator is the heart of Wayfarer: a security association is bound to a
// host, and a host entry says where that host can be reached at the moment.
//
// Its smallest part is the Pair, the record that IKE, the data path and the
// sockets share. An Entry holds, for one peer, the locators of both sides, the
// pairs between them with what is known about each, and the current pair. It is
// pure: events and the time go in, decisions come out. It opens no socket, reads
// no clock, and does not know which protocol tells the peer about a change;
// MOBIKE (RFC 4555), HIP and Mobile IPv6 are dialects that drive it.
//
// # Host entries
//
// The Host Cache of "Homeless Mobile IPv6" (sections 1 and 2.1) lets connections
// point at a host instead of at an address: an entry lists addresses that name
// the same host, each with a lifetime, and sending picks one of them. An Entry is
// that, for one association: local locators, which live as long as the operating
// system has them, and foreign locators, which were configured, told by the peer,
// or seen in a header, and which last for ever, until a time, or as long as they
// are used (section 2.1.3).
//
// # Two questions about a pair
//
// Verification asks whether the peer may have its traffic sent there: a return
// routability check (RFC 4621 §5.5, RFC 4555 §3.7) shows that whoever holds the
// keys also receives at that address. Reachability asks whether packets get
// through just now. A pair can be verified and dead, or alive and unverified;
// mixing the two is how implementations end up either bombing third parties or
// refusing their own backup path. So every pair has both, and proof is remembered
// for the foreign address: an address that answered over one of our interfaces
// needs no further proof over another.
//
// Failing a check is temporary (RFC 4621 §5.5.2): the address may have stopped
// working between the update and the check. The pair is left aside and tried
// again later; the association lives.
//
// # Who decides
//
// The initiator chooses the pair, since it is the one that moves and the one
// behind NATs; the responder verifies and follows (RFC 4621 §5.1.4 and §5.1.5).
// The Role of an entry selects the behaviour. The one exception is the RFC's: a
// responder whose own source address is gone may use another one of its addresses
// towards the same peer address (RFC 4555 §3.5).
//
// # Failure detection
//
// Only packets on the current pair prove that the current pair works (RFC 4555
// §3.12, RFC 4621 §5.5.2): a peer that sends from elsewhere is alive but not in
// step with us. The data path says when traffic has gone unanswered for
// Policy.SuspectAfter. That is a suspicion, not a verdict: people send one-way
// streams and servers think. So the entry raises an alarm: it probes the current
// pair and the alternatives at once, all with one small request. If the current
// pair answers, the suspicion is suppressed for a growing while. If an
// alternative answers while the current pair stays silent for the time that its
// round trip allows (Policy.Patience), traffic moves there. ICMP errors can be
// forged, so they only start the same check (RFC 4621 §7).
//
// Data arriving on the current pair during an alarm extends the patience once but
// does not end the check: a path that is broken only on the way out still
// delivers packets.
//
// # Hot and cold standby
//
// With hot standby (draft-melen-hip-nat-mm §3.2.1, "hot backup") the best other
// pairs are kept verified, and the NAT bindings on them alive, at no more than one
// packet per Policy.Keepalive and pair; when the current local address vanishes,
// traffic moves in the same instant. With cold standby they are probed when they
// are needed. A better pair is verified before it is used (make before break).
//
// # Care for the network, and for third parties
//
// Every packet that an entry asks for comes out of a token bucket. An outage is
// probed with exponential back-off, down to a slow rate when nobody is waiting,
// and at Policy.RetryActive while traffic is, because a working path has to be
// found within half a second of its return. Packets to addresses that have never
// answered come out of a second, much smaller bucket, shared by all of them: a
// peer that names a victim's address as its own gets it Policy.UnprovenBurst
// packets and Policy.UnprovenPerMinute a minute after that, however many
// addresses it names and however often. Limits on the number of locators and
// pairs bound the memory a peer can cause.
package locator
