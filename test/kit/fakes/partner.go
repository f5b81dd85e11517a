package fakes

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Billing is a billing system: POST /claims with an API key, an Idempotency-Key and a claim of which all fields are
// required. It answers 422 for a claim that is wrong, and the first answer to a key that it knows.
type Billing struct {
	*Provider
	key string

	mu     sync.Mutex
	claims map[string]bool
}

// NewBilling starts a fake that knows one API key.
func NewBilling(t testing.TB, now func() time.Time, key string) *Billing {
	t.Helper()
	f := &Billing{key: key, claims: map[string]bool{}}
	f.Provider = start(t, now, f.answer)
	return f
}

// Claims is how many claims there are.
func (f *Billing) Claims() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.claims)
}

func (f *Billing) answer(r Request) answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	fields, ok := r.object()
	switch {
	case r.Path != "/claims" || r.Method != http.MethodPost:
		return apiError(http.StatusNotFound, "not_found", "no such resource")
	case r.Header.Get("X-Api-Key") != f.key:
		return apiError(http.StatusUnauthorized, "unauthorized", "the API key is missing or unknown")
	case r.Header.Get("Idempotency-Key") == "":
		return apiError(http.StatusBadRequest, "invalid_request", "Idempotency-Key is missing")
	case !r.isJSON() || !ok:
		return apiError(http.StatusBadRequest, "invalid_request", "the body is no JSON object")
	}
	codes, _ := fields["codes"].([]any)
	_, diagnosed := fields["diagnoses"].([]any)
	if text(fields, "patientId") == "" || text(fields, "encounterId") == "" || text(fields, "date") == "" || len(codes) == 0 || !diagnosed {
		return apiError(http.StatusUnprocessableEntity, "claim_invalid", "patientId, encounterId, date, codes and diagnoses are required")
	}
	f.claims[r.Header.Get("Idempotency-Key")] = true
	return answer{status: http.StatusCreated, document: map[string]any{"id": fmt.Sprintf("clm_%d", len(f.claims))}}
}

// Pharmacy is a pharmacy's API: POST /v1/prescriptions with an access token of its own server, which POST /oauth2/token
// gives to a client for its credentials (RFC 6749, section 4.4).
type Pharmacy struct {
	*Provider
	client, secret string

	mu     sync.Mutex
	issued int
	valid  string // access token
	orders map[string]bool
}

// pharmacyScope is what a prescription needs of a token.
const pharmacyScope = "prescriptions.write"

// NewPharmacy starts a fake that knows one client.
func NewPharmacy(t testing.TB, now func() time.Time, client, secret string) *Pharmacy {
	t.Helper()
	f := &Pharmacy{client: client, secret: secret, orders: map[string]bool{}}
	f.Provider = start(t, now, f.answer)
	return f
}

// Orders is how many prescriptions came.
func (f *Pharmacy) Orders() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.orders)
}

// Revoke makes the access token that was issued last one that the API does not know any more.
func (f *Pharmacy) Revoke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.valid = ""
}

func (f *Pharmacy) answer(r Request) answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.Method != http.MethodPost:
		return apiError(http.StatusMethodNotAllowed, "method_not_allowed", "use POST")
	case r.Path == "/oauth2/token":
		return f.token(r)
	case r.Path == "/v1/prescriptions":
		return f.order(r)
	}
	return apiError(http.StatusNotFound, "not_found", "no such resource")
}

// token answers as RFC 6749, sections 4.4 and 5, says.
func (f *Pharmacy) token(r Request) answer {
	form, err := url.ParseQuery(r.Body)
	if err != nil || r.mediaType() != "application/x-www-form-urlencoded" || form.Get("grant_type") != "client_credentials" {
		return answer{status: http.StatusBadRequest, document: map[string]any{"error": "unsupported_grant_type"}}
	}
	client, secret := form.Get("client_id"), form.Get("client_secret")
	if encoded, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Basic "); ok {
		decoded, _ := base64.StdEncoding.DecodeString(encoded)
		client, secret, _ = strings.Cut(string(decoded), ":")
		client, _ = url.QueryUnescape(client)
		secret, _ = url.QueryUnescape(secret)
	}
	switch {
	case client != f.client || secret != f.secret:
		return answer{status: http.StatusUnauthorized, document: map[string]any{"error": "invalid_client"}}
	case form.Get("scope") != pharmacyScope:
		return answer{status: http.StatusBadRequest, document: map[string]any{"error": "invalid_scope"}}
	}
	f.issued++
	f.valid = fmt.Sprintf("access-%d", f.issued)
	return answer{status: http.StatusOK, document: map[string]any{"access_token": f.valid, "token_type": "Bearer", "expires_in": 3600, "scope": pharmacyScope}}
}

func (f *Pharmacy) order(r Request) answer {
	fields, ok := r.object()
	switch {
	case f.valid == "" || r.bearer() != f.valid:
		a := apiError(http.StatusUnauthorized, "invalid_token", "the access token is unknown or has expired")
		a.header = map[string]string{"WWW-Authenticate": `Bearer error="invalid_token"`}
		return a
	case !r.isJSON() || !ok:
		return apiError(http.StatusBadRequest, "invalid_request", "the body is no JSON object")
	case text(fields, "patientId") == "" || text(fields, "medication") == "" || text(fields, "dosage") == "" || text(fields, "prescriberId") == "":
		return apiError(http.StatusUnprocessableEntity, "prescription_invalid", "patientId, medication, dosage and prescriberId are required")
	case r.Header.Get("Idempotency-Key") == "":
		return apiError(http.StatusBadRequest, "invalid_request", "Idempotency-Key is missing")
	}
	f.orders[r.Header.Get("Idempotency-Key")] = true
	return answer{status: http.StatusAccepted, document: map[string]any{"id": "rx_" + text(fields, "patientId"), "status": "received"}}
}
