package control

import (
	"net"
	"sync"
)

// limitedListener bounds the number of open connections; more wait in the kernel.
type limitedListener struct {
	net.Listener
	taken  chan struct{}
	closed chan struct{}
	once   sync.Once
}

// limitConnections returns a listener with at most n open connections.
func limitConnections(l net.Listener, n int) *limitedListener {
	return &limitedListener{Listener: l, taken: make(chan struct{}, n), closed: make(chan struct{})}
}

// Accept waits for room, then for a connection.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.taken <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.taken
		return nil, err
	}
	return &limitedConn{Conn: c, release: func() { <-l.taken }}, nil
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
