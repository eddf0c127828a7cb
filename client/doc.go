// Package client is the laptop's daemon: it keeps one tunnel to a gateway up, and
// makes the machine use it.
//
// The layers, from the outside in:
//
//	Daemon      one profile at a time: up, down, status; the state file; the API
//	connection  the life of one "up": resolve, try the gateway's addresses, apply
//	            the network, hold the session, come back after failures
//	Stack       sockets, TUN device, data path and IKE engine of one connection
//	Machine     addresses, routes, guard and name servers of this machine
//
// A connection knows Stack and Machine as interfaces, and its clock through package
// time alone, so that its behaviour over hours is tested in milliseconds.
//
// The state is truthful: "connected" means that the gateway has proved itself and
// answers; as soon as return traffic is missing it is "degraded", with a reason.
//
// What is installed on the machine fails closed. It outlives a crash in the kernel;
// the next start, or Cleanup, removes it (see packages route, guard and dns).
package client
