package control

import (
	"bytes"
	"net/http"
	"strings"
	"time"

	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// uniformWriter turns errors in plain text, as net/http writes them for unknown
// paths and methods, into the JSON that clients expect. It also gives every write
// a deadline, since a client that does not read must not hold the handler.
type uniformWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
	plain   *bytes.Buffer
}

// WriteHeader holds back errors that are not JSON.
func (u *uniformWriter) WriteHeader(status int) {
	if u.status != 0 {
		return
	}
	u.status = status
	if status >= 400 && !strings.HasPrefix(u.Header().Get("Content-Type"), jsonType) {
		u.plain = &bytes.Buffer{}
		return
	}
	u.ResponseWriter.WriteHeader(status)
}

// Write writes the body.
func (u *uniformWriter) Write(b []byte) (int, error) {
	u.WriteHeader(http.StatusOK)
	if u.plain != nil {
		u.plain.Write(b[:min(len(b), maxErrorBody-u.plain.Len())])
		return len(b), nil
	}
	if err := u.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return u.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (u *uniformWriter) Unwrap() http.ResponseWriter { return u.ResponseWriter }

// finish sends the error that was held back.
func (u *uniformWriter) finish() {
	if u.plain == nil {
		return
	}
	e := &Error{Status: u.status, Code: reason.InvalidRequest, Message: strings.TrimSpace(u.plain.String())}
	switch {
	case u.status == http.StatusNotFound, u.status == http.StatusMethodNotAllowed:
		e.Code = reason.NotFound
		e.Message = "the daemon does not know this request"
		e.Hint = versionHint
	case u.status >= http.StatusInternalServerError:
		e.Code = reason.InternalError
	}
	u.Header().Del("Content-Length")
	u.plain, u.status = nil, 0
	WriteError(u, e)
}
