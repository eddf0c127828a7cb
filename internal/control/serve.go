package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// Limits of the server. Whoever may open the socket is trusted to some degree,
// but a mistake of theirs must not take the daemon down.
const (
	MaxBody        = 1 << 20 // octets of a request's body
	maxHeader      = 16 << 10
	maxConnections = 64
	forRoot        = 8 // of these
	headerTimeout  = 5 * time.Second
	bodyTimeout    = 30 * time.Second
	writeTimeout   = 30 * time.Second // for each piece of an answer
	idleTimeout    = 60 * time.Second
	stopTimeout    = 2 * time.Second // for requests in progress when the daemon ends
)

// Serve answers requests on l with handler until ctx ends; then requests in
// progress have two seconds, and streams end at once. It closes l. The error is
// nil when ctx was the reason to stop.
//
// The handler gets the whole body of a request in memory, and may take as long as
// it likes to answer.
func Serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           guard(handler, ctx.Done()),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(limitConnections(l, maxConnections, forRoot)) }()
	select {
	case err := <-failed:
		server.Close()
		return fmt.Errorf("serve the control socket: %w", err)
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := server.Shutdown(deadline); err != nil {
		server.Close()
	}
	<-failed
	return nil
}

// stopKey is the key of the channel that is closed when the daemon ends.
type stopKey struct{}

// guard puts the limits around every request and gives all errors one shape.
func guard(next http.Handler, stop <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		uniform := &uniformWriter{ResponseWriter: w, control: http.NewResponseController(w)}
		defer uniform.finish()
		defer recoverRequest(uniform, r)
		if err := bufferBody(uniform, r); err != nil {
			WriteError(uniform, err)
			return
		}
		next.ServeHTTP(uniform, r.WithContext(context.WithValue(r.Context(), stopKey{}, stop)))
	})
}

// bufferBody reads the body of a request, for which a deadline and a limit hold.
func bufferBody(u *uniformWriter, r *http.Request) error {
	if err := u.control.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(u.ResponseWriter, r.Body, MaxBody))
	if err != nil {
		e := &Error{Status: http.StatusBadRequest, Code: reason.InvalidRequest, Message: "read the request: " + err.Error(), Err: err}
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			e.Status = http.StatusRequestEntityTooLarge
			e.Message = fmt.Sprintf("the request is larger than %d octets", MaxBody)
		}
		return e
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	// From now on only the end of the connection is read, however long it takes.
	return u.control.SetReadDeadline(time.Time{})
}

// recoverRequest answers for a handler that panicked; the daemon lives on.
func recoverRequest(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	slog.Error("control request failed", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	WriteError(w, reason.New(reason.InternalError, "the daemon's log has the details"))
}
