package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

const jsonType = "application/json"

// HandlerFunc is a handler that returns its answer, or an error, which WriteError
// then sends. A nil answer is sent as an empty object.
type HandlerFunc func(r *http.Request) (any, error)

// ServeHTTP calls the function and sends what it returns.
func (f HandlerFunc) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := f(r)
	if err != nil {
		WriteError(w, err)
		return
	}
	WriteJSON(w, answer)
}

// WriteJSON sends an answer.
func WriteJSON(w http.ResponseWriter, v any) {
	if v == nil {
		v = struct{}{}
	}
	writeJSON(w, http.StatusOK, v)
}

// WriteError sends an error in the shape that all errors have. What is the
// daemon's own fault is logged too.
func WriteError(w http.ResponseWriter, err error) {
	e := AsError(err)
	if e.Code == reason.InternalError {
		slog.Error("control request failed", "error", err)
	}
	writeJSON(w, e.Status, e)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		slog.Error("encode the answer to a control request", "error", err)
		status = http.StatusInternalServerError
		body = []byte(`{"code":"internal-error","message":"the answer could not be encoded"}`)
	}
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// ReadJSON decodes the body of a request into the value that v points to. A field
// that v does not know is an error: a misspelt option must not be dropped in
// silence. An empty body leaves v as it is.
func ReadJSON(r *http.Request, v any) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return &Error{Code: reason.InvalidRequest, Message: "read the request: " + err.Error(), Err: err}
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(v)
	if err == nil {
		if _, more := decoder.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows the JSON value")
		}
	}
	if err != nil {
		return &Error{Code: reason.InvalidRequest, Message: fmt.Sprintf("the request is not understood: %v", err), Hint: versionHint, Err: err}
	}
	return nil
}

// decodeJSON decodes an answer. Unknown fields are fine: the daemon may be newer.
func decodeJSON(body []byte, v any) error { return json.Unmarshal(body, v) }
