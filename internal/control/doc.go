// Package control is the channel between a daemon and its command line: HTTP with
// JSON over a Unix socket. It holds what both daemons share: the socket with its
// permissions and the credentials of who connects, the server with its limits,
// one shape of error, and the client whose errors say what to do.
//
// Who may use the socket is decided by its permissions: root, and the members of
// one group if the configuration names one. A handler that wants more asks
// PeerFrom for the user behind the request.
//
// Every error is answered with a body of the same shape:
//
//	{"code": "not-found", "message": "session 7 does not exist", "hint": "…"}
//
// where the code is one of internal/reason.
package control
