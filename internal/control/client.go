package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// DefaultTimeout is how long a request may take when its context has no deadline.
const DefaultTimeout = 60 * time.Second

// maxAnswer is the largest answer that is read, in octets.
const maxAnswer = 64 << 20

// Client talks to a daemon. It is safe for concurrent use.
type Client struct {
	path   string
	daemon string
	http   *http.Client
}

// NewClient makes a client for the socket at path. The name of the daemon, such
// as "vpn-server", appears in errors. Nothing is sent yet.
func NewClient(path, daemon string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return &Client{path: path, daemon: daemon, http: &http.Client{
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true},
	}}
}

// Get asks for path and decodes the answer into the value that out points to;
// with a nil out the answer is dropped.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.do(ctx, http.MethodGet, path, nil, out)
}

// Post sends in as JSON to path and decodes the answer into out.
func (c *Client) Post(ctx context.Context, path string, in, out any) error {
	return c.do(ctx, http.MethodPost, path, in, out)
}

// Delete asks to delete what is at path and decodes the answer into out.
func (c *Client) Delete(ctx context.Context, path string, out any) error {
	return c.do(ctx, http.MethodDelete, path, nil, out)
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
		defer cancel()
	}
	response, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read from the %s daemon: %w", c.daemon, err)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("the answer of the %s daemon is larger than %d octets", c.daemon, maxAnswer)
	}
	if out == nil {
		return nil
	}
	if err := decodeJSON(body, out); err != nil {
		return &Error{Code: reason.InternalError, Message: fmt.Sprintf("the answer of the %s daemon is not understood: %v", c.daemon, err), Hint: versionHint, Err: err}
	}
	return nil
}

// send makes a request; the response is a success, and its body is open.
func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		encoded, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, body)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	if in != nil {
		request.Header.Set("Content-Type", jsonType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		return nil, readError(response)
	}
	return response, nil
}

// unreachable explains why there is no answer.
func (c *Client) unreachable(err error) error {
	e := &Error{Code: reason.InternalError, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		e.Code = reason.NotRunning
		e.Message = fmt.Sprintf("cannot reach the %s daemon at %s: is it running? (systemctl status %s)", c.daemon, c.path, c.daemon)
		e.Hint = c.startHint()
	case errors.Is(err, fs.ErrPermission):
		e.Code = reason.PermissionDenied
		e.Message = fmt.Sprintf("no permission to use the socket of the %s daemon at %s", c.daemon, c.path)
		e.Hint = permissionHint(c.path)
	case errors.Is(err, context.DeadlineExceeded):
		e.Code = reason.Timeout
		e.Message = fmt.Sprintf("the %s daemon did not answer in time", c.daemon)
		e.Hint = fmt.Sprintf("Look into its log (journalctl -u %s).", c.daemon)
	case errors.Is(err, context.Canceled):
		e.Code = reason.Cancelled
		e.Message = "interrupted"
	case isDialError(err):
		e.Message = fmt.Sprintf("cannot reach the %s daemon at %s: %v", c.daemon, c.path, err)
	default: // connected, but then no answer came
		e.Code = reason.NotRunning
		e.Message = fmt.Sprintf("the %s daemon ended before it answered", c.daemon)
		e.Hint = fmt.Sprintf("Look into its log (journalctl -u %s).", c.daemon)
	}
	return e
}

// isDialError says whether there was no connection at all.
func isDialError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func (c *Client) startHint() string {
	return fmt.Sprintf("Start it with systemctl start %s, or in the foreground with %s run.", c.daemon, c.daemon)
}

// permissionHint names the group that may use the socket, if there is one.
func permissionHint(path string) string {
	const groupWrite = 0o020
	hint := "Run the command as root (sudo)."
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&groupWrite == 0 {
		return hint
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return hint
	}
	group, err := user.LookupGroupId(strconv.Itoa(int(owner.Gid)))
	if err != nil {
		return hint
	}
	return fmt.Sprintf("Run the command as root (sudo), or join the group %s: usermod -aG %s $USER, then log in again.", group.Name, group.Name)
}
