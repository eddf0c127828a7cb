package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/control"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// fakeCore is a Core with known answers.
type fakeCore struct {
	events *hub
	ended  []uint64
	level  string
	fail   error
}

func (f *fakeCore) Status(context.Context) (*Status, error) {
	return &Status{State: "running", Name: "vpn.example.test", LastError: &LastError{Code: reason.AuthFailedPSK, Notify: "AUTHENTICATION_FAILED",
		Remote: netip.MustParseAddrPort("192.0.2.1:500")}}, f.fail
}
func (f *fakeCore) Sessions(_ context.Context, all bool) ([]*Session, error) {
	list := []*Session{{ID: 7, Identity: "alice@example.test", State: stateEstablished}}
	if all {
		list = append(list, &Session{ID: 8, State: stateConnecting})
	}
	return list, f.fail
}
func (f *fakeCore) Disconnect(_ context.Context, id uint64) error {
	f.ended = append(f.ended, id)
	return f.fail
}
func (f *fakeCore) Reload(context.Context) ([]string, error) { return nil, f.fail }
func (f *fakeCore) SetLogLevel(level string) error           { f.level = level; return f.fail }
func (f *fakeCore) Watch() (<-chan Event, func())            { return f.events.watch() }

func TestControlAPI(t *testing.T) {
	tests := []struct {
		method, path, body string
		fail               error
		status             int
		want               string
	}{
		{"GET", "/v1/status", "", nil, 200, `"last_error":{"time":"0001-01-01T00:00:00Z","code":"auth-failed-psk","notify":"AUTHENTICATION_FAILED"`},
		{"GET", "/v1/sessions", "", nil, 200, `"id":7,"identity":"alice@example.test","state":"established"`},
		{"GET", "/v1/sessions?all=true", "", nil, 200, `"id":8`},
		{"GET", "/v1/sessions/7", "", nil, 200, `{"id":7`},
		{"GET", "/v1/sessions/9", "", nil, 404, `"code":"not-found"`},
		{"GET", "/v1/sessions/x", "", nil, 400, `"code":"invalid-request"`},
		{"POST", "/v1/sessions/7/disconnect", "", nil, 200, `{}`},
		{"POST", "/v1/sessions/-1/disconnect", "", nil, 400, `"code":"invalid-request"`},
		{"POST", "/v1/sessions/7/disconnect", "", reason.New(reason.NotFound, "session 7"), 404, `"code":"not-found"`},
		{"POST", "/v1/reload", "", nil, 200, `{"needs_restart":[]}`},
		{"POST", "/v1/reload", "", reason.Wrap(reason.ConfigInvalid, errors.New("server.toml:3: bad")), 422, `server.toml:3: bad`},
		{"POST", "/v1/log-level", `{"level":"debug"}`, nil, 200, `{}`},
		{"POST", "/v1/log-level", `{"lvl":"debug"}`, nil, 400, `"code":"invalid-request"`},
		{"GET", "/v1/reload", "", nil, 405, ""},
		{"DELETE", "/v1/sessions/7", "", nil, 405, ""},
		{"GET", "/", "", nil, 404, ""},
	}
	for _, tt := range tests {
		core := &fakeCore{fail: tt.fail}
		w := httptest.NewRecorder()
		Handler(core).ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s %s: %d %s, want %d %s", tt.method, tt.path, w.Code, w.Body, tt.status, tt.want)
		}
	}
	core := &fakeCore{}
	Handler(core).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/sessions/18446744073709551615/disconnect", nil))
	Handler(core).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/log-level", strings.NewReader(`{"level":"debug"}`)))
	if len(core.ended) != 1 || core.ended[0] != 1<<64-1 || core.level != "debug" {
		t.Errorf("core was told %v, %s", core.ended, core.level)
	}
}

// The same through a real socket, with events as they happen.
func TestControlSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := control.Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	core := &fakeCore{events: newHub()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Serve(ctx, l, Handler(core)) }()
	c := control.NewClient(path, "vpn-server")
	var list SessionList
	if err := c.Get(t.Context(), PathSessions, &list); err != nil || len(list.Sessions) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if err := Running(t.Context(), path); reason.Of(err) != reason.Conflict {
		t.Errorf("running: %v", err)
	}
	enough := errors.New("enough")
	go func() {
		for ctx.Err() == nil {
			core.events.publish(Event{Time: time.Unix(0, 0), Kind: "session-up", ID: 7})
			time.Sleep(time.Millisecond)
		}
	}()
	n := 0
	err = c.Stream(t.Context(), PathEvents, func(line json.RawMessage) error {
		var e Event
		if err := json.Unmarshal(line, &e); err != nil || e.ID != 7 {
			t.Errorf("%s: %v", line, err)
		}
		if n++; n == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := Running(t.Context(), path); err != nil {
		t.Errorf("not running: %v", err)
	}
}

func TestSlowWatchersMissEventsAndHoldNobodyUp(t *testing.T) {
	h := newHub()
	ch, end := h.watch()
	for i := range 10 * watcherBuffer {
		h.publish(Event{ID: uint64(i)})
	}
	if len(ch) != watcherBuffer {
		t.Errorf("%d events wait", len(ch))
	}
	end()
	h.publish(Event{})
	if len(ch) != watcherBuffer {
		t.Error("an event came after the end")
	}
	if len(h.watchers) != 0 {
		t.Errorf("%d watchers are left", len(h.watchers))
	}
}

func TestEventText(t *testing.T) {
	at := time.Date(2026, 1, 1, 10, 20, 30, 0, time.UTC)
	for want, e := range map[string]Event{
		"10:20:30 session-up 7 alice@example.test 192.0.2.1:4500": {Time: at, Kind: "session-up", Session: &Session{ID: 7, Identity: "alice@example.test", Remote: "192.0.2.1:4500"}},
		"10:20:30 request-refused 192.0.2.1:500: " + reason.NoProposalChosen.Title() + " (detail)": {Time: at, Kind: "request-refused",
			Remote: netip.MustParseAddrPort("192.0.2.1:500"), Reason: reason.NoProposalChosen, Detail: "detail"},
	} {
		if got := e.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
