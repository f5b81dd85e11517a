package receiver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/clinikapi/eventflow/api/signature"
)

// ErrStop answers 410 if a Handler returns or wraps it: the dispatcher stops all deliveries of the subscription until
// its spec changes. Nothing else answers 410.
var ErrStop = errors.New("stop the deliveries of this subscription")

// The reasons for which a request is refused before its signature is looked at.
var (
	errMethod   = errors.New("only POST is answered")
	errMedia    = errors.New("the body must be JSON in UTF-8, not compressed")
	errTooLarge = errors.New("the body is too large")
	errTooSlow  = errors.New("the body did not arrive in time")
	errBroken   = errors.New("the body could not be read")
	errBusy     = errors.New("too many requests at once")
	errGoneOff  = errors.New("the handler answered 410, which would stop the subscription: return ErrStop if that is meant")
	errPanicked = errors.New("the handler panicked")
)

// errStatus is how a Middleware's handler failed.
type errStatus int

func (s errStatus) Error() string { return fmt.Sprintf("the handler answered %d", int(s)) }

// retryError is a failure that names its time.
type retryError struct {
	after time.Duration
	err   error
}

func (e *retryError) Error() string { return e.err.Error() }
func (e *retryError) Unwrap() error { return e.err }

// RetryAfter returns an error that answers 503 with a Retry-After of d, rounded up to seconds. Mind that this holds back
// the whole subscription (docs/wire.md); an error alone has this delivery retried. err may be nil.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		err = errors.New("the handler asks for a retry later")
	}
	return &retryError{after: d, err: err}
}

// statuses are the answers to errors that have one of their own. Text that is sent is that of these errors alone, never a
// handler's.
var statuses = []struct {
	err    error
	status int
}{
	{signature.ErrMissing, 401},
	{signature.ErrMalformed, 401},
	{signature.ErrExpired, 401},
	{signature.ErrMismatch, 401},
	{ErrNotEvent, 400},
	{errBroken, 400},
	{errMethod, 405},
	{errTooSlow, 408},
	{errInProgress, 409},
	{errTooLarge, 413},
	{errMedia, 415},
	{errBusy, 503},
}

// handlerError marks what a handler returned, whatever errors it wraps: a handler that calls another service may well
// return that one's signature.ErrMismatch or context error, and has failed all the same.
type handlerError struct{ err error }

func (e *handlerError) Error() string { return e.err.Error() }
func (e *handlerError) Unwrap() error { return e.err }

// answer writes the status and a JSON object for people, and returns the status.
func answer(w http.ResponseWriter, err error, duplicate bool) int {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	status, text := statusOf(err)
	if retry, ok := errors.AsType[*retryError](err); ok && status == 503 {
		h.Set("Retry-After", strconv.FormatInt(max(1, int64((retry.after+time.Second-1)/time.Second)), 10))
	}
	switch status {
	case 405:
		h.Set("Allow", http.MethodPost)
	case 415:
		h.Set("Accept-Encoding", "identity")
	}
	body := `{"received":true}`
	switch {
	case err != nil:
		body = `{"error":"` + text + `"}`
	case duplicate:
		body = `{"received":true,"duplicate":true}`
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body + "\n"))
	return status
}

// statusOf returns the status of an error, and what may be said of it.
func statusOf(err error) (int, string) {
	if err == nil {
		return 200, ""
	}
	if _, ok := errors.AsType[*handlerError](err); ok {
		if errors.Is(err, ErrStop) {
			return 410, ErrStop.Error()
		}
		if _, ok := errors.AsType[*retryError](err); ok {
			return 503, "the handler asks for a retry later"
		}
		return 500, "the handler failed"
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return s.status, s.err.Error()
		}
	}
	return 500, "the handler failed"
}

// eventKey is the key of an Event in a context.
type eventKey struct{}

// FromContext returns the event of a request that passed Middleware.
func FromContext(ctx context.Context) (Event, bool) {
	e, ok := ctx.Value(eventKey{}).(Event)
	return e, ok
}
