package fakes

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Clinik is ClinikAPI, as far as the guide to Event Flow uses it: an encounter with what it includes, and the intakes. It
// wants a bearer token, and takes an Idempotency-Key for what is created.
type Clinik struct {
	*Provider
	token string

	mu         sync.Mutex
	encounters map[string]map[string]any
	intakes    map[string]map[string]any // by idempotency key
}

// NewClinik starts a fake that knows the given encounters, by their id.
func NewClinik(t testing.TB, now func() time.Time, token string, encounters map[string]map[string]any) *Clinik {
	t.Helper()
	f := &Clinik{token: token, encounters: encounters, intakes: map[string]map[string]any{}}
	f.Provider = start(t, now, f.answer)
	return f
}

// Intakes is how many intakes were created.
func (f *Clinik) Intakes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.intakes)
}

// included names the resources that an encounter may include, and the field that each comes in.
var included = map[string]string{"Observation": "observations", "MedicationRequest": "medicationRequests"}

func (f *Clinik) answer(r Request) answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	target, err := url.ParseRequestURI(r.Path)
	if err != nil {
		return apiError(http.StatusBadRequest, "invalid_request", "the path is malformed")
	}
	id, isEncounter := strings.CutPrefix(target.Path, "/v1/encounters/")
	switch {
	case r.bearer() != f.token:
		return apiError(http.StatusUnauthorized, "unauthorized", "the token is missing or unknown")
	case isEncounter && r.Method == http.MethodGet:
		return f.encounter(id, target.Query().Get("include"))
	case target.Path == "/v1/intakes" && r.Method == http.MethodPost:
		return f.create(r)
	}
	return apiError(http.StatusNotFound, "not_found", "no such resource")
}

// encounter answers with an encounter, and with what it includes only where that is asked for.
func (f *Clinik) encounter(id, include string) answer {
	found, ok := f.encounters[id]
	if !ok {
		return apiError(http.StatusNotFound, "not_found", "no such encounter")
	}
	wanted := strings.Split(include, ",")
	data := map[string]any{}
	for name, value := range found {
		data[name] = value
	}
	for resource, field := range included {
		if !slices.Contains(wanted, resource) {
			delete(data, field)
		}
	}
	return answer{status: http.StatusOK, document: map[string]any{"data": data}}
}

func (f *Clinik) create(r Request) answer {
	fields, ok := r.object()
	if !r.isJSON() || !ok {
		return apiError(http.StatusBadRequest, "invalid_request", "the body is no JSON object")
	}
	if _, isList := fields["responses"].([]any); text(fields, "patientId") == "" || !isList {
		return apiError(http.StatusUnprocessableEntity, "validation_failed", "patientId and responses are required")
	}
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		return apiError(http.StatusBadRequest, "invalid_request", "Idempotency-Key is missing")
	}
	if f.intakes[key] == nil {
		f.intakes[key] = fields
	}
	return answer{status: http.StatusCreated, document: map[string]any{"data": f.intakes[key]}}
}

func apiError(status int, code, message string) answer {
	return answer{status: status, document: map[string]any{"error": map[string]any{"code": code, "message": message}}}
}
