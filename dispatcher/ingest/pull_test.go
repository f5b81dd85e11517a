package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/audit"
	"github.com/clinikapi/eventflow/dispatcher/budget"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
	"github.com/clinikapi/eventflow/dispatcher/payload"
	"github.com/clinikapi/eventflow/dispatcher/pull"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
)

// newPulled returns a Handler whose clinic-a has a subscription billing that is pulled, one that is suspended, and one with an
// endpoint.
func newPulled(t *testing.T, adjust ...func(*Options)) *fixture {
	t.Helper()
	opened, err := pebble.Open("store", pebble.Options{Logger: logr.Discard(), FS: vfs.NewMem(), FreeReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	watched := &watchedStore{Store: opened, looked: make(chan struct{}, 100)}
	var routes []*routing.Route
	for name, change := range map[string]func(*routing.Entry){
		"billing": func(*routing.Entry) {}, "suspended": func(e *routing.Entry) { e.Suspended = true },
		"pushed": func(e *routing.Entry) { e.Pull, e.URL = false, "https://a.example" }, "other": func(*routing.Entry) {},
	} {
		e := &routing.Entry{
			Identity: "clinic-a/" + name, Namespace: "clinic-a", Name: name, Generation: 1, Patterns: []event.Pattern{"patient.*"},
			URL: egress.Nowhere, Pull: true, Keys: [][]byte{[]byte("a-key-of-24-bytes-or-more")}, Timeout: time.Second, MaxInFlight: 1,
			Retry: routing.Retry{Initial: time.Second, Max: time.Second, MaxAge: time.Hour, Factor: 1},
		}
		change(e)
		route, err := e.Route()
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, route)
	}
	table, err := routing.NewTable(routes)
	if err != nil {
		t.Fatal(err)
	}
	maker, err := payload.New(payload.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pulls, err := pull.New(pull.Options{
		Store: watched, Maker: maker, Memory: budget.New(64 << 20), Now: opened.Now, Logger: logr.Discard(),
		Routes:   func() *routing.Table { return table },
		Finished: func(string, int64, int64) {}, Changed: func(event.SubscriptionKey) {}, GivenUp: func(event.DeliveryID) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	return newFixture(t, append([]func(*Options){func(o *Options) {
		o.Store, o.Pulls, o.Routes, o.Now = watched, pulls, func() *routing.Table { return table }, opened.Now
		o.Accept = func(fanouts []delivery.Fanout) { pulls.Stored(fanouts) }
	}}, adjust...)...)
}

// watchedStore says when a pull looked for deliveries.
type watchedStore struct {
	store.Store
	looked chan struct{}
}

func (w *watchedStore) Due(ctx context.Context, sub event.SubscriptionKey, from delivery.Position, until time.Time, limit int, into []delivery.PendingDelivery) ([]delivery.PendingDelivery, delivery.Position, bool, error) {
	found, next, more, err := w.Store.Due(ctx, sub, from, until, limit, into)
	select {
	case w.looked <- struct{}{}:
	default:
	}
	return found, next, more, err
}

const pullPath = "/v1/namespaces/clinic-a/subscriptions/billing/deliveries:pull"

// TestPull takes two events from their publish to their acknowledgement.
func TestPull(t *testing.T) {
	t.Parallel()
	f := newPulled(t)
	for _, id := range []string{"evt-1", "evt-2"} {
		if w := f.do(http.MethodPost, "/v1/namespaces/clinic-a/events", `{"id":"`+id+`","type":"patient.created","data":{"resourceType":"patient","resourceId":"pt_1"}}`, "Content-Type: application/json"); w.Code != http.StatusAccepted {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	var page struct {
		Deliveries []struct{ ID, Type, Body string }
		Cursor     string
	}
	cursor := ""
	for i, want := range []int{1, 1, 0} {
		w := f.do(http.MethodGet, pullPath+"?limit=1&after="+cursor, "")
		page.Cursor, page.Deliveries = "", nil
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != http.StatusOK || len(page.Deliveries) != want {
			t.Fatalf("page %d: %d %s, %v", i, w.Code, w.Body, err)
		}
		if h := w.Header(); h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("headers %v", h)
		}
		cursor = page.Cursor
	}
	w := f.do(http.MethodGet, "/v1/namespaces/clinic-a/deliveries?subscription=billing&state=Delivered", "")
	if n := strings.Count(w.Body.String(), `"state":"Delivered"`); n != 2 {
		t.Errorf("%d are delivered: %s", n, w.Body)
	}
	var list struct{ Items []struct{ ID string } }
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list.Items) == 0 {
		t.Fatal(err)
	}
	if w := f.do(http.MethodGet, "/v1/namespaces/clinic-a/deliveries/"+list.Items[0].ID, ""); !strings.Contains(w.Body.String(), `"pulled":true`) {
		t.Errorf("no attempt says pulled: %s", w.Body)
	}
}

// TestPullRefused: each problem says what to do.
func TestPullRefused(t *testing.T) {
	t.Parallel()
	f := newPulled(t)
	f.do(http.MethodPost, "/v1/namespaces/clinic-a/events", `{"id":"evt-1","type":"patient.created","data":{"resourceType":"patient","resourceId":"pt_1"}}`, "Content-Type: application/json")
	var page struct{ Cursor string }
	if err := json.Unmarshal(f.do(http.MethodGet, pullPath, "").Body.Bytes(), &page); err != nil || page.Cursor == "" {
		t.Fatal(err)
	}
	of := func(name string) string { return strings.Replace(pullPath, "billing", name, 1) }
	for name, tc := range map[string]struct {
		method, path string
		wantStatus   int
		wantKind     string
		wantDetail   string
	}{
		"a HEAD would lose its page":  {http.MethodHead, pullPath, 405, "method-not-allowed", "send GET"},
		"POST":                        {http.MethodPost, pullPath, 405, "method-not-allowed", "send GET"},
		"no such subscription":        {http.MethodGet, of("none"), 404, "not-found", "no such subscription"},
		"another namespace":           {http.MethodGet, strings.Replace(pullPath, "clinic-a", "clinic-b", 1), 404, "not-found", "no such subscription"},
		"no name":                     {http.MethodGet, of("_"), 404, "not-found", ""},
		"one with an endpoint":        {http.MethodGet, of("pushed"), 409, "subscription-not-pulled", "spec.delivery.mode"},
		"suspended":                   {http.MethodGet, of("suspended"), 409, "subscription-not-pulled", "spec.suspend"},
		"a foreign cursor":            {http.MethodGet, of("other") + "?after=" + page.Cursor, 400, "cursor-invalid", "another subscription"},
		"a broken cursor":             {http.MethodGet, pullPath + "?after=x" + page.Cursor, 400, "cursor-invalid", "pull again without after"},
		"a wait without a unit":       {http.MethodGet, pullPath + "?wait=30", 400, "malformed-request", "wait must be a duration"},
		"a wait that is too long":     {http.MethodGet, pullPath + "?wait=61s", 400, "malformed-request", "1m0s"},
		"a limit of none":             {http.MethodGet, pullPath + "?limit=0", 400, "malformed-request", "between 1 and 500"},
		"a limit that is too large":   {http.MethodGet, pullPath + "?limit=501", 400, "malformed-request", "between 1 and 500"},
		"handled without a page":      {http.MethodGet, pullPath + "?handled=1", 400, "malformed-request", "handled must be"},
		"handled less than nothing":   {http.MethodGet, pullPath + "?handled=-1&after=" + page.Cursor, 400, "malformed-request", "handled must be"},
		"an unknown parameter":        {http.MethodGet, pullPath + "?cursor=x", 400, "malformed-request", "there are after, handled, wait, limit"},
		"a parameter twice":           {http.MethodGet, pullPath + "?limit=1&limit=2", 400, "malformed-request", "more than once"},
		"a query that is not encoded": {http.MethodGet, pullPath + "?after=%zz", 400, "malformed-request", "percent-encoded"},
	} {
		w := f.do(tc.method, tc.path, "")
		if w.Code != tc.wantStatus || !strings.Contains(w.Body.String(), "#"+tc.wantKind+`"`) || !strings.Contains(w.Body.String(), tc.wantDetail) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if name == "suspended" && w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", name)
		}
	}
}

// TestPullDrains: calls that wait end when the stop begins, and are told to come again.
func TestPullDrains(t *testing.T) {
	t.Parallel()
	f := newPulled(t)
	answered := make(chan *httptest.ResponseRecorder)
	go func() { answered <- f.do(http.MethodGet, pullPath+"?wait=60s", "") }()
	f.Drain()
	began := time.Now()
	if w := <-answered; time.Since(began) > 30*time.Second || w.Code != http.StatusOK || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

// puller is whoever has a token, and may do what access says.
type puller struct {
	userTable
	asked []Access
}

func (p *puller) Identify(_ context.Context, _, _ string, access Access) (*authenticationv1.UserInfo, error) {
	p.asked = append(p.asked, access)
	user := &authenticationv1.UserInfo{Username: "billing"}
	if access != (Access{Verb: "update", Resource: "webhooksubscriptions/pull", Namespace: "clinic-a", Name: "billing"}) {
		return user, &ForbiddenError{User: "billing", Access: access}
	}
	return user, nil
}

// TestPullIsARightOfItsOwn: it is asked for by the name of the subscription, and recorded with it; a call that found nothing is
// recorded at the highest level alone.
func TestPullIsARightOfItsOwn(t *testing.T) {
	t.Parallel()
	for level, want := range map[audit.Level][]string{
		audit.Writes: {"pull billing billing 400", "pull billing other 403"},
		audit.All:    {"pull billing billing 200", "pull billing billing 400", "pull billing other 403", "list billing  403"},
	} {
		name := filepath.Join(t.TempDir(), "audit")
		log, err := audit.Open(audit.Options{Level: level, File: name})
		if err != nil {
			t.Fatal(err)
		}
		f := newPulled(t, func(o *Options) { o.Audit, o.Authorizer = log, &puller{} })
		for _, path := range []string{pullPath, pullPath + "?limit=x", strings.Replace(pullPath, "billing", "other", 1), "/v1/namespaces/clinic-a/deliveries"} {
			w := f.do(http.MethodGet, path, "", "Authorization: Bearer x")
			if w.Code == http.StatusForbidden && strings.Contains(path, "other") && !strings.Contains(w.Body.String(), `resourceNames [\"other\"]`) {
				t.Errorf("%s", w.Body)
			}
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range bytes.Lines(text) {
			var record struct {
				Action, User, Subscription string
				Status                     int
			}
			if err := json.Unmarshal(line, &record); err != nil {
				t.Fatal(err)
			}
			if record.User != "" {
				got = append(got, fmt.Sprint(record.Action, " ", record.User, " ", record.Subscription, " ", record.Status))
			}
		}
		if level == audit.Writes {
			got = slices.DeleteFunc(got, func(line string) bool { return strings.HasPrefix(line, "list") })
		}
		if !slices.Equal(got, want) {
			t.Errorf("level %d: %q, want %q", level, got, want)
		}
	}
}

// revoked is whoever has a token, until the right is taken back.
type revoked struct {
	userTable
	is atomic.Bool
}

func (p *revoked) Identify(_ context.Context, _, _ string, access Access) (*authenticationv1.UserInfo, error) {
	user := &authenticationv1.UserInfo{Username: "billing"}
	if p.is.Load() && access.Resource == ResourcePull {
		return user, &ForbiddenError{User: "billing", Access: access}
	}
	return user, nil
}

// TestPullRevoked: a right that is taken back while a call waits answers nothing any more.
func TestPullRevoked(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		revoked    bool
		wantStatus int
	}{"kept": {false, http.StatusOK}, "taken back": {true, http.StatusForbidden}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rights := &revoked{}
			var looked chan struct{}
			f := newPulled(t, func(o *Options) {
				o.Authorizer = rights
				watched, _ := o.Store.(*watchedStore)
				looked = watched.looked
			})
			answered := make(chan *httptest.ResponseRecorder)
			go func() { answered <- f.do(http.MethodGet, pullPath+"?wait=60s", "", "Authorization: Bearer x") }()
			<-looked
			<-looked // it has waited by now
			rights.is.Store(tc.revoked)
			if w := f.do(http.MethodPost, "/v1/namespaces/clinic-a/events", `{"id":"evt-1","type":"patient.created","data":{"resourceType":"patient","resourceId":"pt_1"}}`, "Content-Type: application/json", "Authorization: Bearer x"); w.Code != http.StatusAccepted {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			w := <-answered
			if has := strings.Contains(w.Body.String(), `"deliveries":[{`); w.Code != tc.wantStatus || has == tc.revoked {
				t.Errorf("%d %s, want %d", w.Code, w.Body, tc.wantStatus)
			}
		})
	}
}

// TestPullSlowReader: a consumer that does not read its page is dropped, and what the page held is given back.
func TestPullSlowReader(t *testing.T) {
	t.Parallel()
	f := newPulled(t)
	writer := &deadlined{ResponseRecorder: httptest.NewRecorder()}
	f.ServeHTTP(writer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1"+pullPath, nil))
	if left := time.Until(writer.deadline); writer.Code != http.StatusOK || left <= 0 || left > pullWriteTimeout {
		t.Errorf("status %d, %v to write the page", writer.Code, left)
	}
}

// deadlined notes until when an answer may be written.
type deadlined struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (d *deadlined) SetWriteDeadline(at time.Time) error {
	d.deadline = at
	return nil
}
