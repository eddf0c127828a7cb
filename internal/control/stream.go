package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/wayfarer-vpn/wayfarer/internal/reason"
)

// A stream is an answer without end: JSON values, one per line, for watching a
// status. An error in the middle travels in the trailer of the answer, so the
// lines hold nothing but values.

const (
	streamType   = "application/x-ndjson"
	errorTrailer = "Wayfarer-Error"
	// maxLine bounds one value of a stream.
	maxLine = 4 << 20
)

// Stream answers a request with the values that produce sends, until it returns,
// the client goes, or the daemon ends; then ctx ends. A send fails once nobody
// listens any more.
func Stream(w http.ResponseWriter, r *http.Request, produce func(ctx context.Context, send func(v any) error) error) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stop, _ := r.Context().Value(stopKey{}).(<-chan struct{})
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	w.Header().Set("Content-Type", streamType)
	flusher := http.NewResponseController(w)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	err := produce(ctx, func(v any) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := encoder.Encode(v); err != nil {
			return err
		}
		return flusher.Flush()
	})
	if stopped(stop) {
		err = reason.New(reason.Shutdown, "the stream ends here")
	}
	if err == nil || r.Context().Err() != nil {
		return
	}
	if line, merr := json.Marshal(AsError(err)); merr == nil {
		w.Header().Set(http.TrailerPrefix+errorTrailer, string(line))
	}
}

func stopped(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// Stream asks the daemon for a stream and hands every value to handle, until the
// stream or ctx ends or handle returns an error. The end of ctx is no error.
func (c *Client) Stream(ctx context.Context, path string, handle func(json.RawMessage) error) error {
	response, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return quietly(ctx, err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		if err := handle(append(json.RawMessage(nil), lines.Bytes()...)); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return quietly(ctx, &Error{Code: reason.NotRunning, Message: fmt.Sprintf("the %s daemon ended", c.daemon), Hint: c.startHint(), Err: err})
		}
		return quietly(ctx, fmt.Errorf("read from the %s daemon: %w", c.daemon, err))
	}
	if line := response.Trailer.Get(errorTrailer); line != "" {
		e := &Error{}
		if err := decodeJSON([]byte(line), e); err != nil {
			return fmt.Errorf("read from the %s daemon: %w", c.daemon, err)
		}
		return e
	}
	return nil
}

// quietly drops the error of a stream that the caller ended.
func quietly(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	return err
}
