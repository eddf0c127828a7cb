package client

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/control"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// The control API, HTTP and JSON on the Unix socket:
//
//	GET  /v1/status         Status
//	GET  /v1/status/stream  Status after each change, and each second in between
//	GET  /v1/paths          list of Path
//	POST /v1/up             UpRequest → Status, at once
//	POST /v1/down           DownRequest → Status, when the machine is restored
//	GET  /v1/logs           LogLine, one after the other; ?follow=true does not end

// Paths of the API.
const (
	PathStatus       = "/v1/status"
	PathStatusStream = "/v1/status/stream"
	PathPaths        = "/v1/paths"
	PathUp           = "/v1/up"
	PathDown         = "/v1/down"
	PathLogs         = "/v1/logs"
)

// UpRequest asks for a profile to be brought up. An empty Profile is the only one.
type UpRequest struct {
	Profile string `json:"profile"`
	// Timeout bounds the first attempt, in milliseconds; zero leaves it to the engine.
	TimeoutMS int64 `json:"timeout_ms"`
}

// DownRequest asks for the end. An empty Profile is whatever is up.
type DownRequest struct {
	Profile string `json:"profile"`
}

// LogLine is a line of the daemon's log.
type LogLine struct {
	Line string `json:"line"`
}

// streamInterval is how often counters are told without any other change.
const streamInterval = time.Second

// hub tells streams that something has changed.
type hub struct {
	mu   sync.Mutex
	bell chan struct{}
}

// changed wakes everybody who waits.
func (h *hub) changed() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bell != nil {
		close(h.bell)
		h.bell = nil
	}
}

// next is closed at the next change.
func (h *hub) next() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bell == nil {
		h.bell = make(chan struct{})
	}
	return h.bell
}

// Handler is the control API.
func (d *Daemon) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+PathStatus, control.HandlerFunc(func(r *http.Request) (any, error) { return d.Status(r.Context()), nil }))
	mux.HandleFunc("GET "+PathStatusStream, d.streamStatus)
	mux.Handle("GET "+PathPaths, control.HandlerFunc(func(r *http.Request) (any, error) { return d.Paths(r.Context()), nil }))
	mux.Handle("POST "+PathUp, control.HandlerFunc(d.handleUp))
	mux.Handle("POST "+PathDown, control.HandlerFunc(d.handleDown))
	mux.HandleFunc("GET "+PathLogs, d.streamLogs)
	return mux
}

// maxUpTimeout bounds what may be asked for.
const maxUpTimeout = time.Hour

func (d *Daemon) handleUp(r *http.Request) (any, error) {
	var in UpRequest
	if err := control.ReadJSON(r, &in); err != nil {
		return nil, err
	}
	timeout := time.Duration(in.TimeoutMS) * time.Millisecond
	if in.TimeoutMS < 0 || in.TimeoutMS > maxUpTimeout.Milliseconds() {
		return nil, reason.New(reason.InvalidRequest, "timeout_ms is not between 0 and %d", maxUpTimeout.Milliseconds())
	}
	return d.Up(r.Context(), in.Profile, timeout)
}

func (d *Daemon) handleDown(r *http.Request) (any, error) {
	var in DownRequest
	if err := control.ReadJSON(r, &in); err != nil {
		return nil, err
	}
	return d.Down(r.Context(), in.Profile)
}

func (d *Daemon) streamStatus(w http.ResponseWriter, r *http.Request) {
	control.Stream(w, r, func(ctx context.Context, send func(any) error) error {
		ticker := time.NewTicker(streamInterval)
		defer ticker.Stop()
		for {
			next := d.hub.next() // before the status, so that no change is missed
			if err := send(d.Status(ctx)); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-next:
			case <-ticker.C:
			}
		}
	})
}

func (d *Daemon) streamLogs(w http.ResponseWriter, r *http.Request) {
	follow := r.URL.Query().Get("follow") == "true"
	control.Stream(w, r, func(ctx context.Context, send func(any) error) error {
		var seen uint64
		for {
			lines, total, more := d.journal.Since(seen)
			seen = total
			for _, line := range lines {
				if err := send(LogLine{line}); err != nil {
					return err
				}
			}
			if !follow {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-more:
			}
		}
	})
}

// apiServer is the control socket while it is open.
type apiServer struct {
	listener net.Listener
	handler  http.Handler
}

func (d *Daemon) listen() (*apiServer, error) {
	l, err := control.Listen(d.cfg.Socket, d.cfg.SocketGroup)
	if err != nil {
		return nil, fmt.Errorf("open the control socket: %w", err)
	}
	return &apiServer{l, d.Handler()}, nil
}

func (s *apiServer) serve(ctx context.Context) error {
	return control.Serve(ctx, s.listener, s.handler)
}
