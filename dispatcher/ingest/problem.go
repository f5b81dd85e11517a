package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// problemBase and a kind's name are the "type" of a problem document, and lead to its explanation.
const problemBase = "https://github.com/clinikapi/eventflow/blob/main/docs/problems.md#"

// kind is a class of problems: what is the same about each of them.
type kind struct {
	name   string
	title  string
	status int
}

// The kinds of problems. docs/problems.md explains each under its name.
var (
	malformed         = &kind{"malformed-request", "The request is malformed", http.StatusBadRequest}
	unauthenticated   = &kind{"unauthenticated", "The request carries no valid token", http.StatusUnauthorized}
	forbidden         = &kind{"forbidden", "The token does not allow this", http.StatusForbidden}
	notFound          = &kind{"not-found", "There is no such resource", http.StatusNotFound}
	namespaceNotFound = &kind{"namespace-not-found", "There is no such namespace", http.StatusNotFound}
	methodNotAllowed  = &kind{"method-not-allowed", "The resource does not know this method", http.StatusMethodNotAllowed}
	misdirected       = &kind{"misdirected-request", "The request names a host that is not this dispatcher's", http.StatusMisdirectedRequest}
	requestTimeout    = &kind{"request-timeout", "The request arrived too slowly", http.StatusRequestTimeout}
	idConflict        = &kind{"event-id-conflict", "The event id is taken by another event", http.StatusConflict}
	stillPending      = &kind{"delivery-pending", "The delivery is still on its way", http.StatusConflict}
	notPending        = &kind{"delivery-ended", "The delivery has ended, or was not planned", http.StatusConflict}
	notPulled         = &kind{"subscription-not-pulled", "The subscription cannot be pulled now", http.StatusConflict}
	cursorInvalid     = &kind{"cursor-invalid", "The cursor is not one of this subscription", http.StatusBadRequest}
	cursorExpired     = &kind{"cursor-expired", "The cursor has expired", http.StatusGone}
	tooLarge          = &kind{"too-large", "The request is too large", http.StatusRequestEntityTooLarge}
	unsupportedMedia  = &kind{"unsupported-media-type", "The content type is not supported", http.StatusUnsupportedMediaType}
	unknownType       = &kind{"unknown-event-type", "The event type is not known", http.StatusUnprocessableEntity}
	overloaded        = &kind{"overloaded", "Too much is being published at once", http.StatusTooManyRequests}
	quotaExceeded     = &kind{"quota-exceeded", "A quota of the namespace is used up", http.StatusTooManyRequests}
	unavailable       = &kind{"unavailable", "The dispatcher cannot do this now", http.StatusServiceUnavailable}
)

// kinds lists them, for the documentation's test.
var kinds = []*kind{
	malformed, unauthenticated, forbidden, notFound, namespaceNotFound, methodNotAllowed, misdirected, requestTimeout,
	idConflict, stillPending, notPending, notPulled, cursorInvalid, cursorExpired, tooLarge, unsupportedMedia, unknownType, overloaded, quotaExceeded, unavailable,
}

// problem is an answer that is not a success. Its detail says what to do, and holds nothing of an event's data.
type problem struct {
	kind   *kind
	detail string
	// index of the event in a batch that the problem is about, -1 if it is about the request.
	index int
	// retryAfter is when to try again; 0 if trying again does not help.
	retryAfter time.Duration
	// header is added to the answer.
	header map[string]string
}

func newProblem(k *kind, format string, args ...any) *problem {
	return &problem{kind: k, detail: fmt.Sprintf(format, args...), index: -1}
}

// Error is the detail.
func (p *problem) Error() string { return p.detail }

// retry says when to try again.
func (p *problem) retry(after time.Duration) *problem {
	p.retryAfter = after
	return p
}

// with adds a header to the answer.
func (p *problem) with(key, value string) *problem {
	if p.header == nil {
		p.header = make(map[string]string)
	}
	p.header[key] = value
	return p
}

// at says which event of a batch the problem is about.
func (p *problem) at(index int) *problem {
	p.index = index
	p.detail = fmt.Sprintf("event at index %d: %s", index, p.detail)
	return p
}

// asProblem returns err as the problem that it is, or as one that says no more than that something failed.
func asProblem(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	return newProblem(unavailable, "the request could not be completed; send it again").retry(time.Second)
}

// write answers with the problem document.
func (p *problem) write(w http.ResponseWriter) {
	document := struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Index  *int   `json:"index,omitempty"`
	}{Type: problemBase + p.kind.name, Title: p.kind.title, Status: p.kind.status, Detail: p.detail}
	if p.index >= 0 {
		document.Index = &p.index
	}
	body, err := json.Marshal(document)
	if err != nil { // not for a struct of strings and numbers
		w.WriteHeader(p.kind.status)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/problem+json")
	header.Set("Cache-Control", "no-store")
	if p.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int((p.retryAfter+time.Second-1)/time.Second)))
	}
	for key, value := range p.header {
		header.Set(key, value)
	}
	w.WriteHeader(p.kind.status)
	_, _ = w.Write(append(body, '\n')) // the client is gone if it fails
}

// quoted returns text from a request as an error may show it: bounded, and with nothing unprintable. It is for names
// (keys, types, parameters), never for values.
func quoted(text string) string {
	const most = 64
	if len(text) > most {
		return strconv.QuoteToASCII(text[:most]) + "…"
	}
	return strconv.QuoteToASCII(text)
}
