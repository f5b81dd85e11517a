package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// The identity of a subscription in a cluster, and a pair: api/signature's known answer.
const (
	pairUID     = "6e2d6a06-5a3b-4f0e-9a11-000000000001"
	pairPrivate = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	pairPublic  = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
	sharedKey   = "a signing key of 24 bytes or more"
)

// closed is an Authorizer that knows nobody, and notes whether it was asked.
type closed struct{ asked *atomic.Bool }

func (c closed) Authorize(context.Context, string, string, Access) error {
	c.asked.Store(true)
	return ErrUnauthenticated
}

func signingTable(t *testing.T, identity string, keys ...string) *routing.Table {
	t.Helper()
	entry := &routing.Entry{
		Identity: identity, Namespace: "clinic-a", Name: "billing", Patterns: []event.Pattern{event.All}, URL: "https://hooks.example.com/in",
		Timeout: time.Second, MaxInFlight: 1, Retry: routing.Retry{Initial: time.Second, Max: time.Second, MaxAge: time.Hour, Factor: 1},
	}
	for _, key := range keys {
		entry.Keys = append(entry.Keys, []byte(key))
	}
	if len(keys) == 0 {
		entry.Waiting, entry.URL = "SecretNotFound", ""
	}
	route, err := entry.Route()
	if err != nil {
		t.Fatal(err)
	}
	table, err := routing.NewTable([]*routing.Route{route})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestPublicKeys: who knows a subscription's uid gets the public halves of its pairs, and nothing else, without a token. All else is
// answered alike, so that nobody learns which subscriptions there are.
func TestPublicKeys(t *testing.T) {
	t.Parallel()
	table, asked := signingTable(t, pairUID, sharedKey, pairPrivate), &atomic.Bool{}
	f := newFixture(t, func(o *Options) {
		o.Routes, o.Authorizer = func() *routing.Table { return table }, closed{asked}
		o.Tenant = func(context.Context, string, string) (string, bool, error) {
			return "", false, errors.New("the API server is asked")
		}
	})
	path := publicKeysPrefix + pairUID
	answer := f.do(http.MethodGet, path, "")
	var got struct{ Keys []publicKey }
	if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil || answer.Code != http.StatusOK {
		t.Fatalf("%d %v: %s", answer.Code, err, answer.Body)
	}
	if len(got.Keys) != 1 || got.Keys[0] != (publicKey{routing.PublicKeyID(pairPublic), "v1a", pairPublic}) {
		t.Errorf("the keys are %+v", got.Keys)
	}
	if _, err := signature.ParseVerificationKey([]byte(got.Keys[0].PublicKey)); err != nil {
		t.Errorf("no receiver takes it: %v", err)
	}
	for _, secret := range []string{sharedKey, pairPrivate[5:20], "clinic-a", "billing", "hooks.example.com"} {
		if strings.Contains(answer.Body.String(), secret) {
			t.Errorf("the answer has %q", secret)
		}
	}
	if asked.Load() {
		t.Error("the Authorizer was asked")
	}
	if got := answer.Header().Get("Cache-Control"); got != "public, max-age=60" {
		t.Errorf("it may be kept: %q", got)
	}
	tag := answer.Header().Get("Etag")
	for name, header := range map[string]string{"the tag": tag, "a weak one": "W/" + tag, "one of several": `"x", ` + tag} {
		if w := f.do(http.MethodGet, path, "", "If-None-Match: "+header); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if w := f.do(http.MethodHead, path, ""); w.Code != http.StatusOK || w.Body.Len() > 0 || w.Header().Get("Etag") != tag {
		t.Errorf("HEAD: %d", w.Code)
	}
	wantProblem(t, f.do(http.MethodPost, path, "{}"), methodNotAllowed)

	table = signingTable(t, pairUID, pairPrivate)
	if w := f.do(http.MethodGet, path, "", "If-None-Match: "+tag); w.Code != http.StatusNotModified {
		t.Errorf("with the shared key gone the public key is the same, and the answer is %d", w.Code)
	}
	none := f.do(http.MethodGet, publicKeysPrefix+"6e2d6a06-5a3b-4f0e-9a11-000000000002", "")
	wantProblem(t, none, notFound)
	for name, other := range map[string]*routing.Table{"no pair": signingTable(t, pairUID, sharedKey), "deliveries wait": signingTable(t, pairUID)} {
		table = other
		if w := f.do(http.MethodGet, path, ""); w.Code != none.Code || w.Body.String() != none.Body.String() {
			t.Errorf("%s: %d %s, and of none %d %s", name, w.Code, w.Body, none.Code, none.Body)
		}
	}
	wantProblem(t, f.do(http.MethodGet, publicKeysPrefix, ""), notFound)
	table = signingTable(t, "clinic-a/billing", pairPrivate) // as a folder has it: names can be tried
	wantProblem(t, f.do(http.MethodGet, publicKeysPrefix+"clinic-a/billing", ""), notFound)
	table = nil
	wantProblem(t, f.do(http.MethodGet, path, ""), unavailable)
}
