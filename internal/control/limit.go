package control

import (
	"net"
	"sync"
)

// limitedListener bounds the number of open connections; more wait in the kernel. Some
// are for root alone, whom others must not lock out: theirs beyond the rest are closed.
type limitedListener struct {
	net.Listener
	taken  chan struct{} // by anybody
	others chan struct{} // not by root
	closed chan struct{}
	once   sync.Once
}

// limitConnections returns a listener with at most n open connections, some of them kept
// for root.
func limitConnections(l net.Listener, n, forRoot int) *limitedListener {
	return &limitedListener{Listener: l, taken: make(chan struct{}, n), others: make(chan struct{}, n-forRoot), closed: make(chan struct{})}
}

// Accept waits for room, then for a connection that may take it.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.taken <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			<-l.taken
			return nil, err
		}
		if isRoot(c) {
			return &limitedConn{Conn: c, release: func() { <-l.taken }}, nil
		}
		select {
		case l.others <- struct{}{}:
			return &limitedConn{Conn: c, release: func() { <-l.others; <-l.taken }}, nil
		default:
			c.Close()
		}
	}
}

// isRoot says whether root is behind a connection.
func isRoot(c net.Conn) bool {
	known, ok := c.(*conn)
	return ok && known.peer.UID == 0
}

// Close stops listening.
func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// limitedConn makes room for another connection when it is closed.
type limitedConn struct {
	net.Conn
	release func()
	once    sync.Once
}

// Close closes the connection.
func (c *limitedConn) Close() error {
	c.once.Do(c.release)
	return c.Conn.Close()
}
