package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/signature"
)

const (
	// maxBody is the largest event that a dispatcher can be told to accept, and its envelope.
	maxBody = 8<<20 + 4096
	// maxRemembered bounds what is kept for deduplication: the oldest deliveries are forgotten first.
	maxRemembered = 10_000
)

// attempt is what the receiver tells of one attempt of a delivery.
type attempt struct {
	Time       time.Time  `json:"time"`
	Path       string     `json:"path"`
	Type       event.Type `json:"type"`
	EventID    string     `json:"eventID"`
	ResourceID string     `json:"resourceID"`
	DeliveryID string     `json:"deliveryID"`
	Attempt    int        `json:"attempt"`
	// Verified is set if both signatures are right; Problem says what is wrong otherwise.
	Verified bool   `json:"verified"`
	Problem  string `json:"problem,omitempty"`
	// Duplicate is set if the delivery was answered with 200 before.
	Duplicate bool `json:"duplicate,omitempty"`
	Status    int  `json:"status"`
}

// String is a line for people.
func (a attempt) String() string {
	verdict := "signatures ok"
	switch {
	case !a.Verified:
		verdict = "REFUSED: " + a.Problem
	case a.Status != http.StatusOK:
		verdict += ", told to fail"
	case a.Duplicate:
		verdict += ", duplicate"
	}
	return fmt.Sprintf("%s  %d  %-20s %-21s %-12s attempt %d  %s", a.Time.Format("15:04:05.000"), a.Status, a.Path, a.Type, a.ResourceID, a.Attempt, verdict)
}

// json is a line for programs.
func (a attempt) json() string {
	text, err := json.Marshal(a)
	if err != nil { // not for a struct of strings and numbers
		return "{}"
	}
	return string(text)
}

// receiver is an endpoint of webhooks.
type receiver struct {
	keys        signature.Keys
	failFirst   int
	failPercent int
	report      func(attempt)

	mu    sync.Mutex // also keeps lines apart
	seen  map[string]struct{}
	order []string // of seen, oldest first
}

// handler answers deliveries at any path but /healthz.
func (r *receiver) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("POST /", r.receive)
	return mux
}

func (r *receiver) receive(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, maxBody))
	if err != nil {
		http.Error(w, "the body could not be read", http.StatusBadRequest)
		return
	}
	a := r.read(request, body)
	r.decide(&a)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.Status)
	_, _ = fmt.Fprintf(w, "{\"received\":%t}\n", a.Status == http.StatusOK)
}

// read verifies the signatures before it believes anything of what was sent.
func (r *receiver) read(request *http.Request, body []byte) attempt {
	a := attempt{Time: time.Now(), Path: request.URL.Path}
	if err := r.keys.VerifyStandard(request.Header, body, a.Time, signature.Tolerance); err != nil {
		a.Problem = "webhook-signature: " + err.Error()
		return a
	}
	if err := r.keys.VerifyBody(request.Header, body); err != nil {
		a.Problem = "X-Clinik-Signature: " + err.Error()
		return a
	}
	var envelope struct {
		event.Envelope
		Data struct {
			ResourceID string `json:"resourceId"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		a.Problem = "the body is not an event"
		return a
	}
	a.Verified = true
	a.Type, a.EventID, a.ResourceID = envelope.Type, envelope.ID, envelope.Data.ResourceID
	a.DeliveryID = request.Header.Get(signature.HeaderID)
	a.Attempt, _ = strconv.Atoi(strings.TrimSpace(request.Header.Get("X-Clinik-Attempt")))
	return a
}

// decide sets the answer, and prints what it was.
func (r *receiver) decide(a *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !a.Verified:
		a.Status = http.StatusUnauthorized
	case a.Attempt <= r.failFirst, rand.IntN(100) < r.failPercent:
		a.Status = http.StatusServiceUnavailable
	default:
		a.Status = http.StatusOK
		a.Duplicate = !r.remember(a.DeliveryID)
	}
	r.report(*a)
}

// remember reports whether the delivery is new.
func (r *receiver) remember(id string) bool {
	if r.seen == nil {
		r.seen = make(map[string]struct{})
	}
	if _, known := r.seen[id]; known {
		return false
	}
	r.seen[id] = struct{}{}
	r.order = append(r.order, id)
	if len(r.order) > maxRemembered {
		delete(r.seen, r.order[0])
		r.order = r.order[1:]
	}
	return true
}
