package server

import (
	"context"
	"net/http"
	"strconv"

	"github.com/wayfarer-vpn/wayfarer/internal/control"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// Core is what the control API tells about and acts on. *Server is one.
type Core interface {
	Status(ctx context.Context) (*Status, error)
	Sessions(ctx context.Context, all bool) ([]*Session, error)
	Disconnect(ctx context.Context, id uint64) error
	Reload(ctx context.Context) (later []string, err error)
	SetLogLevel(level string) error
	Watch() (<-chan Event, func())
}

// Paths of the control API.
const (
	PathStatus   = "/v1/status"
	PathSessions = "/v1/sessions"
	PathReload   = "/v1/reload"
	PathLogLevel = "/v1/log-level"
	PathEvents   = "/v1/events"
)

// SessionList is the answer to GET /v1/sessions.
type SessionList struct {
	Sessions []*Session `json:"sessions"`
}

// Reloaded is the answer to POST /v1/reload.
type Reloaded struct {
	// NeedsRestart are the keys that take effect at the next start only.
	NeedsRestart []string `json:"needs_restart"`
}

// LogLevel is the body of POST /v1/log-level.
type LogLevel struct {
	Level string `json:"level"`
}

// Handler is the control API.
//
//	GET  /v1/status
//	GET  /v1/sessions                   ?all=true: half-open ones too
//	GET  /v1/sessions/{id}
//	POST /v1/sessions/{id}/disconnect
//	POST /v1/reload
//	POST /v1/log-level                  {"level": "debug"}
//	GET  /v1/events                     one JSON object per line, without end
func Handler(core Core) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+PathStatus, control.HandlerFunc(func(r *http.Request) (any, error) {
		return core.Status(r.Context())
	}))
	mux.Handle("GET "+PathSessions, control.HandlerFunc(func(r *http.Request) (any, error) {
		list, err := core.Sessions(r.Context(), r.URL.Query().Get("all") == "true")
		return SessionList{list}, err
	}))
	mux.Handle("GET "+PathSessions+"/{id}", control.HandlerFunc(func(r *http.Request) (any, error) {
		return oneSession(core, r)
	}))
	mux.Handle("POST "+PathSessions+"/{id}/disconnect", control.HandlerFunc(func(r *http.Request) (any, error) {
		id, err := sessionID(r)
		if err != nil {
			return nil, err
		}
		return nil, core.Disconnect(r.Context(), id)
	}))
	mux.Handle("POST "+PathReload, control.HandlerFunc(func(r *http.Request) (any, error) {
		later, err := core.Reload(r.Context())
		return Reloaded{nonNil(later)}, err
	}))
	mux.Handle("POST "+PathLogLevel, control.HandlerFunc(func(r *http.Request) (any, error) {
		var in LogLevel
		if err := control.ReadJSON(r, &in); err != nil {
			return nil, err
		}
		return nil, core.SetLogLevel(in.Level)
	}))
	mux.HandleFunc("GET "+PathEvents, func(w http.ResponseWriter, r *http.Request) {
		control.Stream(w, r, func(ctx context.Context, send func(any) error) error { return events(ctx, core, send) })
	})
	return mux
}

func oneSession(core Core, r *http.Request) (any, error) {
	id, err := sessionID(r)
	if err != nil {
		return nil, err
	}
	list, err := core.Sessions(r.Context(), true)
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		if s.ID == id {
			return s, nil
		}
	}
	return nil, reason.New(reason.NotFound, "session %d", id)
}

func sessionID(r *http.Request) (uint64, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		return 0, reason.New(reason.InvalidRequest, "%.40q is not the number of a session", r.PathValue("id"))
	}
	return id, nil
}

func events(ctx context.Context, core Core, send func(any) error) error {
	ch, end := core.Watch()
	defer end()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-ch:
			if err := send(e); err != nil {
				return err
			}
		}
	}
}
