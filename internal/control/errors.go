package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// Error is what a daemon answers when it cannot do what it was asked to, and what
// the client makes of a daemon that it cannot reach (Status is then zero).
type Error struct {
	Status  int         `json:"-"`
	Code    reason.Code `json:"code"`
	Message string      `json:"message"`
	Hint    string      `json:"hint,omitempty"`
	Err     error       `json:"-"` // the cause, on the side where it is known
}

// Error is the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// HasCode says whether err is an Error of this package with the code c.
func HasCode(err error, c reason.Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == c
}

// statuses maps codes to HTTP statuses; what is not in it is a 500.
var statuses = map[reason.Code]int{
	reason.NotFound:         http.StatusNotFound,
	reason.UserUnknown:      http.StatusNotFound,
	reason.InvalidRequest:   http.StatusBadRequest,
	reason.ConfigInvalid:    http.StatusUnprocessableEntity,
	reason.AlreadyExists:    http.StatusConflict,
	reason.Conflict:         http.StatusConflict,
	reason.PoolExhausted:    http.StatusConflict,
	reason.PermissionDenied: http.StatusForbidden,
	reason.Timeout:          http.StatusGatewayTimeout,
	reason.NoAnswer:         http.StatusGatewayTimeout,
	reason.Shutdown:         http.StatusServiceUnavailable,
	reason.RateLimited:      http.StatusTooManyRequests,
}

// AsError gives any error the shape that is sent. Errors with a code of
// internal/reason keep it; some of the standard library get the one that fits.
func AsError(err error) *Error {
	var sent *Error
	if errors.As(err, &sent) {
		out := *sent
		if out.Status == 0 {
			out.Status = statusOf(out.Code)
		}
		return &out
	}
	code := codeOf(err)
	return &Error{Status: statusOf(code), Code: code, Message: err.Error(), Hint: code.Hint(), Err: err}
}

func codeOf(err error) reason.Code {
	var coded *reason.Error
	switch {
	case errors.As(err, &coded):
		return coded.Code
	case errors.Is(err, context.DeadlineExceeded):
		return reason.Timeout
	case errors.Is(err, context.Canceled):
		return reason.Cancelled
	case errors.Is(err, fs.ErrPermission):
		return reason.PermissionDenied
	}
	return reason.InternalError
}

func statusOf(c reason.Code) int {
	if s, ok := statuses[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// maxErrorBody is how much of an error's body the client reads.
const maxErrorBody = 64 << 10

// readError makes an Error of a response that is not a success.
func readError(r *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxErrorBody))
	if err != nil {
		return fmt.Errorf("read the daemon's answer (%s): %w", r.Status, err)
	}
	e := &Error{}
	if decodeJSON(body, e) != nil || e.Message == "" {
		return &Error{Status: r.StatusCode, Code: reason.InternalError,
			Message: fmt.Sprintf("the daemon answered %s", r.Status),
			Hint:    versionHint}
	}
	e.Status = r.StatusCode
	return e
}

// versionHint goes with answers that only another version can have given.
const versionHint = "Are the command and the daemon of the same version? Restart the daemon after an upgrade."
