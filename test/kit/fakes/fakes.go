// Package fakes stands in for the APIs that the automations of config/samples call. Each fake checks a request as its
// provider documents it: method, path, credentials, encoding and required fields. What is wrong with a request, the fake
// answers as the provider does, with the provider's own status, code and document.
//
// A fake keeps every request with its answer, so that a test sees both what a provider took and what it refused.
package fakes

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// maxBody bounds what a fake reads of a request.
const maxBody = 1 << 20

// Request is one request as a provider got it, with the status and the body of its answer.
type Request struct {
	At           time.Time // by the fake's clock
	Method, Path string    // Path with the query
	Header       http.Header
	Body         string
	Status       int
	Answer       string
}

// answer is a status and a document that becomes JSON.
type answer struct {
	status   int
	document any
	header   map[string]string
}

// Provider is a fake: a server on a loopback address.
type Provider struct {
	*httptest.Server
	now   func() time.Time
	serve func(Request) answer

	mu     sync.Mutex
	got    []Request
	broken int // the status of all answers, while it is not 0
}

// start serves what serve answers, until the test ends. now is the clock of Request.At; nil for time.Now.
func start(t testing.TB, now func() time.Time, serve func(Request) answer) *Provider {
	t.Helper()
	if now == nil {
		now = time.Now
	}
	p := &Provider{now: now, serve: serve}
	p.Server = httptest.NewServer(http.HandlerFunc(p.handle))
	t.Cleanup(p.Close)
	return p
}

func (p *Provider) handle(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	got := Request{At: p.now(), Method: r.Method, Path: r.URL.RequestURI(), Header: r.Header.Clone(), Body: string(body)}
	result := p.serve(got)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != 0 {
		result = answer{status: p.broken, document: map[string]any{}}
	}
	text, err := json.Marshal(result.document)
	if err != nil {
		panic(err)
	}
	got.Status, got.Answer = result.status, string(text)
	p.got = append(p.got, got)
	w.Header().Set("Content-Type", "application/json")
	for name, value := range result.header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(result.status)
	_, _ = w.Write(text)
}

// All returns the requests so far, in the order in which they were answered.
func (p *Provider) All() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

// Break makes the provider answer every request with a status and an empty document; 0 mends it.
func (p *Provider) Break(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = status
}

// isJSON reports whether a request says that its body is JSON.
func (r Request) isJSON() bool { return r.mediaType() == "application/json" }

func (r Request) mediaType() string {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return kind
}

// object is the body as a JSON object.
func (r Request) object() (map[string]any, bool) {
	var fields map[string]any
	err := json.Unmarshal([]byte(r.Body), &fields)
	return fields, err == nil && fields != nil
}

// bearer is the token of the Authorization header (RFC 6750); "" without one.
func (r Request) bearer() string {
	scheme, token, found := strings.Cut(r.Header.Get("Authorization"), " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return token
}

// text is a field of an object that is a text which is not empty.
func text(fields map[string]any, name string) string {
	value, _ := fields[name].(string)
	return value
}

// Object returns the body of a request as a JSON object; nil if it is none.
func Object(r Request) map[string]any {
	fields, _ := r.object()
	return fields
}
