// Package ike is an IKEv2 engine (RFC 7296) without I/O.
//
// An Engine owns a set of IKE SAs and belongs to one goroutine. Everything that
// can happen to it is a method with the time as argument: a datagram arrived
// (Receive), a deadline passed (Tick), the user or the daemon wants something
// (Initiate, Close, RekeyIKE, ...), a slow answer is there (Complete, Authorize),
// the data path noticed something (DataPathEvent). Everything it wants done comes
// back as Actions, to be carried out in order: datagrams to send, Child SAs to
// install, public-key work to run elsewhere, events to tell. It reads no clock,
// opens no socket, starts no goroutine, and takes its randomness from a Reader.
// The same inputs give the same outputs, bit for bit.
//
// The loop that drives an engine is short:
//
//	for {
//		for _, a := range engine.Actions() { carry out a }
//		wait for a datagram, a result, a command, or engine.Deadline()
//		hand it to the engine
//	}
//
// # How the protocol is laid out
//
// A Session is what a user calls a connection: one peer, proved once, living
// through any number of rekeyings. It holds the IKE SA in use (during a rekey also
// the one before), its Child SAs, and the tasks that take part in its exchanges.
//
// One exchange, one file: ike_sa_init.go, ike_auth_initiator.go,
// ike_auth_responder.go, create_child.go, rekey_child.go, rekey_ike.go,
// informational.go. What cuts across exchanges is a Task in a file of its own:
// nat.go, configuration.go, and outside of this package MOBIKE.
//
// Public-key operations (Diffie-Hellman, signatures, certificate chains) leave the
// engine as Work and come back through Complete, so that one slow RSA signature
// does not hold up the other SAs of an engine.
package ike
