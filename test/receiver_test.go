package test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// received is one request as an endpoint saw it.
type received struct {
	at     time.Time
	method string
	path   string
	header http.Header
	body   string
}

func (r received) id() string { return r.header.Get("X-Clinik-Delivery-Id") }

// receiver is an endpoint.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  []received
	code func(received) int
}

func newReceiver(t *testing.T, code func(received) int) *receiver {
	t.Helper()
	r := &receiver{code: code}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func always(code int) func(received) int { return func(received) int { return code } }

func (r *receiver) serve(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	got := received{at: time.Now(), method: q.Method, path: q.URL.RequestURI(), header: q.Header.Clone(), body: string(body)}
	r.mu.Lock()
	r.got = append(r.got, got)
	code := r.code
	r.mu.Unlock()
	w.WriteHeader(code(got))
}

func (r *receiver) answer(code func(received) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.code = code
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// hexSignature is the X-Clinik-Signature of body, computed without the product's code.
func hexSignature(key []byte, body string) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(body))
	return hex.EncodeToString(h.Sum(nil))
}

// standardSignature is one signature of Standard Webhooks, computed without the product's code.
func standardSignature(key []byte, r received) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(strings.Join([]string{r.header.Get("webhook-id"), r.header.Get("webhook-timestamp"), r.body}, ".")))
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}
