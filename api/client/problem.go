package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The kinds of problems: what Problem.Kind returns. docs/problems.md explains each under its name.
const (
	MalformedRequest     = "malformed-request"
	Unauthenticated      = "unauthenticated"
	Forbidden            = "forbidden"
	NotFound             = "not-found"
	NamespaceNotFound    = "namespace-not-found"
	MethodNotAllowed     = "method-not-allowed"
	MisdirectedRequest   = "misdirected-request"
	RequestTimeout       = "request-timeout"
	EventIDConflict      = "event-id-conflict"
	DeliveryPending      = "delivery-pending"
	DeliveryEnded        = "delivery-ended"
	NotPulled            = "subscription-not-pulled"
	CursorInvalid        = "cursor-invalid"
	CursorExpired        = "cursor-expired"
	TooLarge             = "too-large"
	UnsupportedMediaType = "unsupported-media-type"
	UnknownEventType     = "unknown-event-type"
	Overloaded           = "overloaded"
	QuotaExceeded        = "quota-exceeded"
	Unavailable          = "unavailable"
)

// Problem is an answer that is not a success: the problem document of RFC 9457, which never repeats an event's data. Type and
// Title are empty if the answer holds no such document, as that of a proxy or of another server.
type Problem struct {
	// Type is a URI; its fragment is the kind.
	Type string
	// Title is the same for all problems of a kind, and Detail says what to do.
	Title, Detail string
	// Status is the HTTP status, from 300 on.
	Status int
	// Index is the event of PublishAll that the problem is about, counted from 0; -1 if it is about the request.
	Index int
	// RetryAfter is the header of that name: how long to wait before the next attempt. It is 0 if the answer has none.
	RetryAfter time.Duration
}

// Error says the status and what to do.
func (p *Problem) Error() string {
	switch {
	case p.Title == "":
		return fmt.Sprintf("the server answered %d, without a problem document", p.Status)
	case p.Detail == "":
		return fmt.Sprintf("the dispatcher answered %d: %s", p.Status, p.Title)
	}
	return fmt.Sprintf("the dispatcher answered %d: %s: %s", p.Status, p.Title, p.Detail)
}

// Kind is what is the same of all problems of a kind, such as QuotaExceeded. It is empty without a problem document.
func (p *Problem) Kind() string {
	_, kind, _ := strings.Cut(p.Type, "#")
	return kind
}

// Temporary reports whether the same request may succeed later. One that is not a publish may have been done in spite of 502
// and 504.
func (p *Problem) Temporary() bool {
	switch p.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// problemOf makes a Problem of an answer.
func problemOf(response *http.Response, text []byte) *Problem {
	p := &Problem{Status: response.StatusCode, Index: -1, RetryAfter: retryAfter(response.Header.Get("Retry-After"), time.Now())}
	var document struct {
		Type, Title, Detail string
		Index               *int
	}
	if err := json.Unmarshal(text, &document); err != nil || document.Title == "" {
		return p
	}
	p.Type, p.Title, p.Detail = document.Type, document.Title, document.Detail
	if document.Index != nil {
		p.Index = *document.Index
	}
	return p
}

// maxRetryAfter bounds what Retry-After may say.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads seconds or an HTTP date (RFC 9110, section 10.2.3). It returns 0 for what is neither, or in the past.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(0, at.Sub(now)), maxRetryAfter)
}

// UnreachableError says that there was no whole answer. The dispatcher may have done what it was asked.
type UnreachableError struct {
	// Err is what failed, without the URL.
	Err error
}

// Error says what failed.
func (e *UnreachableError) Error() string {
	return "the dispatcher cannot be reached: " + e.Err.Error()
}

// Unwrap returns what failed.
func (e *UnreachableError) Unwrap() error { return e.Err }

// unreachable wraps a transport's error. If the caller's context has ended, that is the error.
func unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("wait for the dispatcher: %w", context.Cause(ctx))
	}
	return &UnreachableError{Err: withoutURL(err)}
}

// withoutURL leaves the URL out of an error: its query may hold a schedule's key, its user part a password.
func withoutURL(err error) error {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err
	}
	return err
}

// ErrInvalidName says that a namespace or the id of a delivery is none: nothing was asked.
var ErrInvalidName = errors.New("it is not of A-Z, a-z, 0-9, '-' and '_'")
