package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// daemon runs a server for a test. Its stop method ends it and waits.
type daemon struct {
	path   string
	client *Client
	cancel context.CancelFunc
	done   chan error
}

func start(t *testing.T, handler http.Handler) *daemon {
	t.Helper()
	d := &daemon{path: filepath.Join(t.TempDir(), "run", "d.sock"), done: make(chan error, 1)}
	l, err := Listen(d.path, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	d.client = NewClient(d.path, "vpn-test")
	go func() { d.done <- Serve(ctx, l, handler) }()
	t.Cleanup(cancel)
	return d
}

func (d *daemon) stop(t *testing.T) {
	t.Helper()
	d.cancel()
	if err := <-d.done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

type greeting struct {
	Name string `json:"name"`
	From uint32 `json:"from,omitempty"`
}

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // the provoked panics would fill the screen
	os.Exit(m.Run())
}

func testMux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("POST /v1/hello", HandlerFunc(func(r *http.Request) (any, error) {
		var g greeting
		if err := ReadJSON(r, &g); err != nil {
			return nil, err
		}
		peer, ok := PeerFrom(r.Context())
		if !ok || int(peer.PID) != os.Getpid() {
			return nil, fmt.Errorf("peer is %v", peer)
		}
		g.From = peer.UID
		return g, nil
	}))
	mux.Handle("GET /v1/nothing", HandlerFunc(func(*http.Request) (any, error) { return nil, nil }))
	mux.Handle("DELETE /v1/session/7", HandlerFunc(func(*http.Request) (any, error) {
		return nil, fmt.Errorf("end session 7: %w", reason.New(reason.NotFound, "session 7"))
	}))
	mux.Handle("GET /v1/panic", HandlerFunc(func(*http.Request) (any, error) { panic("a defect") }))
	mux.Handle("GET /v1/unencodable", HandlerFunc(func(*http.Request) (any, error) { return func() {}, nil }))
	return mux
}

func TestRequests(t *testing.T) {
	d := start(t, testMux())
	defer d.stop(t)
	ctx := context.Background()
	var g greeting
	if err := d.client.Post(ctx, "/v1/hello", greeting{Name: "alice"}, &g); err != nil {
		t.Fatal(err)
	}
	if g.Name != "alice" || int(g.From) != os.Getuid() {
		t.Errorf("answer %+v", g)
	}
	if err := d.client.Get(ctx, "/v1/nothing", nil); err != nil {
		t.Error(err)
	}
	if err := d.client.Post(ctx, "/v1/hello", nil, &g); err != nil {
		t.Errorf("an empty body: %v", err)
	}
}

func TestErrors(t *testing.T) {
	d := start(t, testMux())
	defer d.stop(t)
	ctx := context.Background()
	for _, tt := range []struct {
		name   string
		err    error
		code   reason.Code
		status int
		text   string
	}{
		{"coded error", d.client.Delete(ctx, "/v1/session/7", nil), reason.NotFound, 404, "end session 7: There is no such thing: session 7"},
		{"panic", d.client.Get(ctx, "/v1/panic", nil), reason.InternalError, 500, "log has the details"},
		{"unencodable answer", d.client.Get(ctx, "/v1/unencodable", nil), reason.InternalError, 500, "could not be encoded"},
		{"unknown path", d.client.Get(ctx, "/v1/nowhere", nil), reason.NotFound, 404, "does not know this request"},
		{"wrong method", d.client.Get(ctx, "/v1/hello", nil), reason.NotFound, 405, "does not know this request"},
		{"unknown field", d.client.Post(ctx, "/v1/hello", map[string]int{"nmae": 1}, nil), reason.InvalidRequest, 400, `unknown field "nmae"`},
		{"wrong type", d.client.Post(ctx, "/v1/hello", []int{1}, nil), reason.InvalidRequest, 400, "not understood"},
		{"oversized body", d.client.Post(ctx, "/v1/hello", greeting{Name: strings.Repeat("x", MaxBody)}, nil), reason.InvalidRequest, 413, "larger than 1048576 octets"},
	} {
		var e *Error
		if !errors.As(tt.err, &e) {
			t.Errorf("%s: %v is no *Error", tt.name, tt.err)
			continue
		}
		if e.Code != tt.code || e.Status != tt.status || !strings.Contains(e.Message, tt.text) {
			t.Errorf("%s: %d %s %q", tt.name, e.Status, e.Code, e.Message)
		}
		if !HasCode(fmt.Errorf("wrapped: %w", tt.err), tt.code) {
			t.Errorf("%s: HasCode is false", tt.name)
		}
	}
}

func TestTheSocketAndItsPermissions(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "d.sock")
	for _, tt := range []struct {
		group string
		mode  os.FileMode
	}{{"", 0o600}, {fmt.Sprint(os.Getgid()), 0o660}} {
		l, err := Listen(path, tt.group)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != tt.mode|os.ModeSocket {
			t.Errorf("group %q: mode %v, want %v", tt.group, info.Mode(), tt.mode)
		}
		if gid := int(info.Sys().(*syscall.Stat_t).Gid); gid != os.Getgid() {
			t.Errorf("group %q: gid %d", tt.group, gid)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after Close: %v", err)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 || entries[0].Name() != "d.sock.lock" {
		t.Errorf("left behind: %v", entries)
	}
	if _, err := Listen(path, "no-such-group-here"); err == nil || !strings.Contains(err.Error(), "groupadd") {
		t.Errorf("a group that does not exist: %v", err)
	}
	if _, err := Listen(filepath.Join(dir, strings.Repeat("x", 120)), ""); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a long path: %v", err)
	}
}

// A daemon that was killed leaves its socket; the next one replaces it.
func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the new socket does not answer: %v", err)
	}
	c.Close()
}

func TestSocketInUseIsKept(t *testing.T) {
	t.Run("by another program", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "d.sock")
		other, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if _, err := Listen(path, ""); !errors.Is(err, ErrInUse) {
			t.Fatalf("got %v", err)
		}
		if c, err := net.Dial("unix", path); err != nil {
			t.Errorf("the other program's socket is gone: %v", err)
		} else {
			c.Close()
		}
	})
	t.Run("by ourselves", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "d.sock")
		l, err := Listen(path, "")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := Listen(path, ""); !errors.Is(err, ErrInUse) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("by a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "d.sock")
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(path, ""); err == nil || !strings.Contains(err.Error(), "something else") {
			t.Fatalf("got %v", err)
		}
		if got, _ := os.ReadFile(path); string(got) != "precious" {
			t.Error("the file is gone")
		}
	})
	t.Run("by one of many at the same time", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "d.sock")
		var wg sync.WaitGroup
		won := make(chan net.Listener, 20)
		for range cap(won) {
			wg.Go(func() {
				l, err := Listen(path, "")
				switch {
				case err == nil:
					won <- l
				case !errors.Is(err, ErrInUse):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d listeners on one path", len(won))
		}
		(<-won).Close()
	})
}

func TestClientErrorsSayWhatToDo(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "d.sock")
	c := NewClient(path, "vpn-test")
	err := c.Get(context.Background(), "/", nil)
	if !HasCode(err, reason.NotRunning) || !strings.Contains(err.Error(), path+": is it running? (systemctl status vpn-test)") {
		t.Errorf("no socket: %v", err)
	}
	if serr := c.Stream(context.Background(), "/", func(json.RawMessage) error { return nil }); !HasCode(serr, reason.NotRunning) {
		t.Errorf("no socket, stream: %v", serr)
	}
	silent, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := c.Get(ctx, "/", nil); !HasCode(err, reason.Timeout) || !strings.Contains(err.Error(), "did not answer in time") {
		t.Errorf("silence: %v", err)
	}
	go func() {
		for {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	if err := c.Get(context.Background(), "/", nil); !HasCode(err, reason.NotRunning) {
		t.Errorf("a daemon that hangs up: %v", err)
	}
}

// A user without permission is told how to get it. Root may do everything, so the
// test connects as nobody, from a thread of its own.
func TestPermissionDenied(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	dir, err := os.MkdirTemp("/tmp", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "d.sock")
	l, err := Listen(path, "daemon")
	if err != nil {
		t.Skipf("no group daemon here: %v", err)
	}
	defer l.Close()
	err = asNobody(t, path)
	if !errors.Is(err, os.ErrPermission) {
		t.Fatalf("connecting as nobody: %v", err)
	}
	got := NewClient(path, "vpn-test").unreachable(err)
	var e *Error
	if !errors.As(got, &e) || e.Code != reason.PermissionDenied || !strings.Contains(e.Hint, "usermod -aG daemon") {
		t.Errorf("%+v", got)
	}
}

func TestStream(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, r *http.Request) {
		Stream(w, r, func(ctx context.Context, send func(any) error) error {
			for i := range 3 {
				if err := send(i); err != nil {
					return err
				}
			}
			return nil
		})
	})
	mux.HandleFunc("GET /fail", func(w http.ResponseWriter, r *http.Request) {
		Stream(w, r, func(ctx context.Context, send func(any) error) error {
			send("<one>")
			return reason.New(reason.PeerDead, "after one")
		})
	})
	left := make(chan error, 2)
	mux.HandleFunc("GET /forever", func(w http.ResponseWriter, r *http.Request) {
		Stream(w, r, func(ctx context.Context, send func(any) error) error {
			send("first")
			<-ctx.Done()
			left <- ctx.Err()
			return ctx.Err()
		})
	})
	d := start(t, mux)
	var got []string
	collect := func(v json.RawMessage) error { got = append(got, string(v)); return nil }

	if err := d.client.Stream(context.Background(), "/count", collect); err != nil || strings.Join(got, " ") != "0 1 2" {
		t.Errorf("count: %q, %v", got, err)
	}
	got = nil
	if err := d.client.Stream(context.Background(), "/fail", collect); !HasCode(err, reason.PeerDead) || strings.Join(got, " ") != `"<one>"` {
		t.Errorf("fail: %q, %v", got, err)
	}
	stop := errors.New("enough")
	if err := d.client.Stream(context.Background(), "/count", func(json.RawMessage) error { return stop }); err != stop {
		t.Errorf("the handler's error: %v", err)
	}
	if err := d.client.Stream(context.Background(), "/nowhere", collect); !HasCode(err, reason.NotFound) {
		t.Errorf("unknown path: %v", err)
	}
	// The client goes: the daemon notices, and that is no error for the client.
	ctx, cancel := context.WithCancel(context.Background())
	if err := d.client.Stream(ctx, "/forever", func(json.RawMessage) error { cancel(); return nil }); err != nil {
		t.Errorf("the client left: %v", err)
	}
	<-left
	// The daemon goes: the client is told.
	if err := d.client.Stream(context.Background(), "/forever", func(json.RawMessage) error { d.cancel(); return nil }); !HasCode(err, reason.Shutdown) {
		t.Errorf("the daemon left: %v", err)
	}
	<-left
	d.stop(t)
	if _, err := os.Lstat(d.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// More connections than the limit wait for others to end; none is lost.
func TestConnectionsAreLimited(t *testing.T) {
	l := limitConnections(&pipeListener{conns: make(chan net.Conn, 3)}, 2, 0)
	pipes := l.Listener.(*pipeListener)
	for range 3 {
		_, server := net.Pipe()
		pipes.conns <- server
	}
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	if len(l.taken) != 2 {
		t.Fatalf("%d places taken", len(l.taken))
	}
	first.Close()
	first.Close() // releases one place, not two
	if len(l.taken) != 1 {
		t.Errorf("%d places taken after a close", len(l.taken))
	}
	if _, err := l.Accept(); err != nil {
		t.Error(err)
	}
	accepted := make(chan error)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	l.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}

// TestRootIsNotLockedOut: whoever else may use the socket cannot take all connections.
func TestRootIsNotLockedOut(t *testing.T) {
	const limit, forRoot = 5, 2
	pipes := &pipeListener{conns: make(chan net.Conn, 16)}
	l := limitConnections(pipes, limit, forRoot)
	arrive := func(uid uint32) (far net.Conn) {
		t.Helper()
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		var ends [2]net.Conn
		for i, fd := range fds {
			f := os.NewFile(uintptr(fd), "socket")
			if ends[i], err = net.FileConn(f); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		t.Cleanup(func() { ends[1].Close() })
		pipes.conns <- &conn{UnixConn: ends[0].(*net.UnixConn), peer: Peer{UID: uid}}
		return ends[1]
	}
	accept := func() net.Conn {
		t.Helper()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	uidOf := func(c net.Conn) uint32 { return c.(*limitedConn).Conn.(*conn).peer.UID }

	var held []net.Conn
	for range limit - forRoot {
		arrive(1000)
		held = append(held, accept())
	}
	refused := arrive(1000)
	arrive(0)
	if uid := uidOf(accept()); uid != 0 {
		t.Errorf("uid %d has the place of root", uid)
	}
	if _, err := refused.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one too many was not closed: %v", err)
	}
	held[0].Close()
	arrive(1000)
	if uid := uidOf(accept()); uid != 1000 {
		t.Errorf("uid %d came in place of one that left", uid)
	}
}

type pipeListener struct{ conns chan net.Conn }

func (p *pipeListener) Accept() (net.Conn, error) { return <-p.conns, nil }
func (p *pipeListener) Close() error              { return nil }
func (p *pipeListener) Addr() net.Addr            { return &net.UnixAddr{} }

// FuzzReadJSON feeds bodies to the request decoder.
func FuzzReadJSON(f *testing.F) {
	for _, seed := range []string{`{"name":"a"}`, "", " ", "{}{}", `{"name":1}`, `{"nmae":""}`, "[[[[", `"\ud800"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := http.NewRequest(http.MethodPost, "/", io.NopCloser(strings.NewReader(string(body))))
		if err != nil {
			t.Fatal(err)
		}
		var g greeting
		if err := ReadJSON(r, &g); err != nil && !HasCode(err, reason.InvalidRequest) {
			t.Errorf("%v has the wrong code", err)
		}
	})
}
