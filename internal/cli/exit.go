package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	urfave "github.com/urfave/cli/v2"

	"github.com/wayfarer-vpn/wayfarer/internal/config"
	"github.com/wayfarer-vpn/wayfarer/internal/control"
	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// Exit codes. Scripts rely on them.
const (
	ExitOK           = 0
	ExitFailure      = 1   // something went wrong that has no code of its own
	ExitUsage        = 2   // wrong options or arguments, or an invalid configuration
	ExitNotRunning   = 3   // the daemon is not running
	ExitNotConnected = 4   // there is no connection, or the other side refused it
	ExitTimeout      = 5   // the other side, or the daemon, did not answer in time
	ExitPermission   = 6   // the permission is missing
	ExitNotFound     = 7   // there is no such user, session, profile
	ExitConfig       = 78  // a daemon did not start: its configuration is invalid
	ExitInterrupted  = 130 // ended by a signal, as shells count
)

// exitCodes describes the exit codes for the man page.
var exitCodes = []struct {
	code    int
	meaning string
}{
	{ExitOK, "Success."},
	{ExitFailure, "Something went wrong that has no code of its own."},
	{ExitUsage, "Wrong options or arguments, or an invalid configuration."},
	{ExitNotRunning, "The daemon is not running."},
	{ExitNotConnected, "There is no connection, or the other side refused it."},
	{ExitTimeout, "The other side, or the daemon, did not answer in time."},
	{ExitPermission, "The permission is missing."},
	{ExitNotFound, "There is no such user, session or profile."},
	{ExitConfig, "The daemon did not start: its configuration is invalid."},
	{ExitInterrupted, "Ended by a signal."},
}

// Error is an error of a command with its exit code. A zero Code takes that of Err.
type Error struct {
	Code    int
	Message string
	Hint    string
	Err     error
}

// Error is the message, with the cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Message
	}
	if e.Message == "" {
		return e.Err.Error()
	}
	return e.Message + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// WithHint adds what to do.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Exitf makes an error with an exit code.
func Exitf(code int, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Usagef makes an error about the way the command was called.
func Usagef(format string, args ...any) *Error { return Exitf(ExitUsage, format, args...) }

// Unstartable gives the error of a daemon the code that keeps the service manager from
// trying again (RestartPreventExitStatus=) where that cannot help: for a configuration
// that is invalid. It is not ExitUsage: Go ends a program that panics with 2, and that one
// is to be started again. The number is EX_CONFIG of sysexits.h.
func Unstartable(err error) error {
	if ExitCode(err) != ExitUsage {
		return err
	}
	return &Error{Code: ExitConfig, Err: err, Hint: hintOf(err)}
}

// ExitCode is the exit code for an error.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	var own *Error
	if errors.As(err, &own) && own.Code != 0 {
		return own.Code
	}
	var coder urfave.ExitCoder
	if errors.As(err, &coder) {
		return coder.ExitCode()
	}
	if _, ok := config.AsProblems(err); ok {
		return ExitUsage
	}
	if code := codeOf(err); code != "" {
		return exitOf(code)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return ExitTimeout
	case errors.Is(err, fs.ErrPermission):
		return ExitPermission
	}
	return ExitFailure
}

// codeOf finds the reason in an error, from here or from the daemon.
func codeOf(err error) reason.Code {
	var remote *control.Error
	if errors.As(err, &remote) {
		return remote.Code
	}
	var coded *reason.Error
	if errors.As(err, &coded) {
		return coded.Code
	}
	return ""
}

// exitOf maps a reason to an exit code.
func exitOf(code reason.Code) int {
	switch code {
	case reason.NotRunning:
		return ExitNotRunning
	case reason.NoAnswer, reason.Timeout:
		return ExitTimeout
	case reason.PermissionDenied:
		return ExitPermission
	case reason.NotFound, reason.UserUnknown:
		return ExitNotFound
	case reason.ConfigInvalid, reason.InvalidRequest:
		return ExitUsage
	case reason.Cancelled:
		return ExitInterrupted
	case reason.PeerDead, reason.PeerDeleted, reason.AdminDisconnect, reason.UserDisconnect, reason.NoNetwork, reason.DNSFailed,
		reason.PathFailed, reason.NoChildSA, reason.HalfOpenLimit, reason.SessionLimit,
		reason.ReplacedByNewSession:
		return ExitNotConnected
	}
	if r, ok := reason.Lookup(code); ok && r.Notify != "" {
		return ExitNotConnected // the other side said no
	}
	return ExitFailure
}

// PrintError prints an error, and what to do about it, for people.
func PrintError(w io.Writer, err error) {
	if problems, ok := config.AsProblems(err); ok && len(problems) > 1 {
		for _, p := range problems {
			fmt.Fprintf(w, "error: %s\n", Clean(p.Error()))
		}
		return
	}
	if message := err.Error(); message != "" {
		fmt.Fprintf(w, "error: %s\n", cleanLines(message))
	}
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", cleanLines(hint))
	}
}

// hintOf finds the hint of an error.
func hintOf(err error) string {
	var own *Error
	if errors.As(err, &own) && own.Hint != "" {
		return own.Hint
	}
	var remote *control.Error
	if errors.As(err, &remote) {
		if remote.Hint != "" {
			return remote.Hint
		}
		return remote.Code.Hint()
	}
	if code := codeOf(err); code != "" {
		return code.Hint()
	}
	if errors.Is(err, fs.ErrPermission) {
		return "Run the command as root (sudo)."
	}
	return ""
}
