// Package mobike is the IKEv2 Mobility and Multihoming Protocol (RFC 4555, design
// in RFC 4621): it lets the two ends of an IKE SA change their addresses without
// negotiating anew.
//
// It is a dialect: what is known about addresses and pairs, which pair is current
// and when to look for another is the business of a locator.Entry; this package
// carries its decisions out in the exchanges of an IKE session, and tells it what
// comes back. It plugs into package ike as an Extension, with one Task a session,
// and is as free of I/O as the engine itself.
//
// One file, one part of the RFC: negotiate.go (MOBIKE_SUPPORTED and the addresses
// in IKE_AUTH, §3.3, §3.4), update.go (UPDATE_SA_ADDRESSES, §3.5), announce.go
// (changed address lists, §3.6), probe.go (path testing and return routability,
// §3.7, §3.10), natchange.go (NAT mappings, §3.8). follow.go is for peers whose Child SAs
// do not move.
//
// # How a path is tested
//
// The window of IKE is one request, but that request may be sent over any number of
// pairs: the peer answers each copy where it came from (RFC 7296 §2.11), and the
// pair on which an answer comes back works in both directions. So testing all pairs
// costs one request, whatever request is outstanding at the moment. Only the first
// copy of the answer is an IKE response, the others are observations.
//
// # Who moves when
//
// The initiator decides. When its entry says Switch it moves IKE and ESP at once,
// since it sends from an address of its own to an address of the peer that has been
// verified, or that policy trusts; then it tells the peer with UPDATE_SA_ADDRESSES.
// The responder moves IKE when it is told, and ESP once the new address has
// answered a request (policy: before, after, never). Having seen probes from that
// address earlier it has usually checked it already, and moves at once.
package mobike
