// Package reason is the one catalogue of coded outcomes: every refusal, drop and
// switch that a user or an operator can meet has a stable code, a sentence and a
// hint here. Logs, status output and the manual (docs/reasons.md) share it.
//
// A code, once released, keeps its meaning; scripts match on it.
package reason

//go:generate go test -run TestManualIsUpToDate -update

import (
	"errors"
	"fmt"
	"strings"
)

// Code is the stable name of an outcome, such as "auth-failed-psk".
type Code string

// Severity says how much attention an outcome wants.
type Severity int

// Severities.
const (
	SeverityInfo    Severity = iota + 1 // part of normal life
	SeverityWarning                     // works, or will by itself; look when it persists
	SeverityError                       // does not work until somebody acts
)

// String names the severity as logs do.
func (s Severity) String() string {
	switch s {
	case SeverityInfo:
		return "info"
	case SeverityWarning:
		return "warning"
	case SeverityError:
		return "error"
	}
	return "unknown"
}

// Reason describes an outcome.
type Reason struct {
	Code     Code
	Title    string // a sentence for people, without full stop
	Hint     string // what to do about it, one or two sentences
	Severity Severity
	Notify   string // the notify of RFC 7296 §3.10.1 that goes with it, if any
}

// index finds a reason by its code.
var index = func() map[Code]Reason {
	m := map[Code]Reason{}
	for _, r := range All() {
		m[r.Code] = r
	}
	return m
}()

// Lookup returns what is known about a code. For a code that is not in the
// catalogue the result is false, and a Reason that still can be shown.
func Lookup(c Code) (Reason, bool) {
	r, ok := index[c]
	if !ok {
		return Reason{Code: c, Title: strings.ReplaceAll(string(c), "-", " "), Severity: SeverityError}, false
	}
	return r, true
}

// All returns the catalogue in the order of the manual.
func All() []Reason {
	var all []Reason
	for _, g := range groups {
		all = append(all, g.reasons...)
	}
	return all
}

// byNotify finds a reason by the name of its notify: the first of the manual, since
// that one is the most general.
var byNotify = func() map[string]Reason {
	m := map[string]Reason{}
	for _, r := range All() {
		if _, ok := m[r.Notify]; !ok && r.Notify != "" {
			m[r.Notify] = r
		}
	}
	return m
}()

// ByNotify returns the reason that an error notify of the peer stands for when
// nothing more is known. The name is that of RFC 7296 §3.10.1.
func ByNotify(name string) (Reason, bool) {
	r, ok := byNotify[name]
	return r, ok
}

// NotifyTimeout stands in place of a notify's name when there was no answer at all.
const NotifyTimeout = "TIMEOUT"

// NotifyName is the name of the notify that goes with the code, NotifyTimeout if the
// code says that nothing came back, and empty if neither is so.
func (c Code) NotifyName() string {
	if c.NoAnswer() {
		return NotifyTimeout
	}
	r, _ := Lookup(c)
	return r.Notify
}

// NoAnswer says whether the code means that nothing came back.
func (c Code) NoAnswer() bool {
	switch c {
	case NoAnswer, PeerDead, Timeout:
		return true
	}
	return false
}

// Title is the sentence that belongs to the code.
func (c Code) Title() string {
	r, _ := Lookup(c)
	return r.Title
}

// Hint says what to do about the code; it may be empty.
func (c Code) Hint() string {
	r, _ := Lookup(c)
	return r.Hint
}

// Error is an error with a code. Detail adds what only this case knows (which
// certificate, which address); it must not hold secrets. Err is the cause.
type Error struct {
	Code   Code
	Detail string
	Err    error
}

// New returns an error with a detail.
func New(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Detail: fmt.Sprintf(format, args...)}
}

// Wrap gives an error a code.
func Wrap(c Code, err error) *Error { return &Error{Code: c, Err: err} }

// Error is the title of the code, followed by the detail and the cause.
func (e *Error) Error() string {
	s := e.Code.Title()
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, &Error{Code: c}) ask for the code alone.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Detail == "" && t.Err == nil
}

// Of returns the code of an error: that of the outermost Error in it, or
// InternalError if it has none, or empty for nil.
func Of(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return InternalError
}
