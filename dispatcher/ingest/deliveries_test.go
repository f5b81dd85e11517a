package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

const deliveriesPath = "/v1/namespaces/clinic-a/deliveries"

// decode reads an answer of the wanted status into a T.
func decode[T any](t *testing.T, w *httptest.ResponseRecorder, wantStatus int) (value T) {
	t.Helper()
	decoder := json.NewDecoder(w.Body)
	decoder.DisallowUnknownFields()
	text := w.Body.String()
	if err := decoder.Decode(&value); err != nil || w.Code != wantStatus {
		t.Fatalf("got %d %s: %v", w.Code, text, err)
	}
	return value
}

// withDeliveries publishes n events to clinic-a, of two deliveries each, and one to clinic-b.
func withDeliveries(t *testing.T, n int) *fixture {
	t.Helper()
	f := newFixture(t)
	for i := range n {
		if w := f.publish(fmt.Sprintf(`{"id":"e%d","type":"patient.created","data":{"secret":"Jane Doe"}}`, i)); w.Code != http.StatusAccepted {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
	}
	f.do("POST", "/v1/namespaces/clinic-b/events", `{"id":"other","type":"patient.created","data":{}}`)
	return f
}

func TestGetDelivery(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	at := time.Date(2026, 1, 15, 9, 15, 0, 123_456_789, time.FixedZone("", 3600))
	id := event.DeliveryID{Event: event.NewKey(at, "clinic-a", "evt-1"), Subscription: event.NewSubscriptionKey("u")}
	earlier := event.DeliveryID{Event: event.NewKey(at.Add(-time.Hour), "clinic-a", "evt-1"), Subscription: id.Subscription}
	f.store.deliveries[id] = &store.Record{
		ID: id, EventID: "evt-1", Type: "lab.created", Tenant: "clinic-a", Subscription: "labs", State: delivery.Pending,
		Created: at, AttemptCount: 2, Due: at.Add(2 * time.Minute), ReplayOf: earlier,
		Attempts: []delivery.Attempt{
			{Number: 1, Started: at, Duration: 1500 * time.Microsecond, StatusCode: 500, Reason: delivery.ReasonStatusCode},
			{Number: 2, Started: at.Add(time.Second), Duration: 30 * time.Second, Reason: delivery.ReasonTimeout},
		},
	}
	w := f.do("GET", deliveriesPath+"/"+id.String(), "")
	want := `{"id":"` + id.String() + `","event":{"id":"evt-1","type":"lab.created"},"subscription":"labs","state":"Pending","attemptCount":2,` +
		`"createdTime":"2026-01-15T08:15:00.123Z","nextAttemptTime":"2026-01-15T08:17:00.123Z","replayOf":"` + earlier.String() + `","attempts":[` +
		`{"number":1,"startedTime":"2026-01-15T08:15:00.123Z","durationMillis":1,"statusCode":500,"error":"StatusCode"},` +
		`{"number":2,"startedTime":"2026-01-15T08:15:01.123Z","durationMillis":30000,"error":"Timeout"}]}` + "\n"
	if diff := cmp.Diff(want, w.Body.String()); w.Code != http.StatusOK || diff != "" {
		t.Errorf("got %d (-want +got)\n%s", w.Code, diff)
	}
	if w := f.do("HEAD", deliveriesPath+"/"+id.String(), ""); w.Code != http.StatusOK {
		t.Errorf("HEAD: got %d", w.Code)
	}
	wantProblem(t, f.do("GET", strings.Replace(deliveriesPath, "clinic-a", "clinic-b", 1)+"/"+id.String(), ""), notFound, "no such delivery")
	wantProblem(t, f.do("GET", deliveriesPath+"/"+earlier.String(), ""), notFound, "no such delivery")
}

func TestListDeliveries(t *testing.T) {
	t.Parallel()
	f := withDeliveries(t, 5)
	var got []string
	token, pages := "", 0
	for ; pages == 0 || token != ""; pages++ {
		w := f.do("GET", deliveriesPath+"?limit=3&continue="+url.QueryEscape(token), "")
		page := decode[deliveryList](t, w, http.StatusOK)
		for _, item := range page.Items {
			got = append(got, item.Event.ID+"/"+item.Subscription)
			if item.Attempts != nil || item.State != "Pending" || item.NextAttemptTime == "" {
				t.Errorf("item is %+v", item)
			}
		}
		token = page.Continue
	}
	if pages != 4 || len(got) != 10 || !strings.HasPrefix(got[0], "e4/") || !strings.HasPrefix(got[9], "e0/") {
		t.Errorf("%d pages of %v", pages, got)
	}
	seen := map[string]bool{}
	for _, item := range got {
		if seen[item] || strings.HasPrefix(item, "other") {
			t.Errorf("%s is listed twice, or does not belong", item)
		}
		seen[item] = true
	}
	for query, want := range map[string]int{
		"":                                10,
		"?limit=10":                       10,
		"?subscription=patients":          5,
		"?subscription=nobody":            0,
		"?state=Pending":                  10,
		"?state=delivered":                0,
		"?until=2026-01-15T09:00:00.003Z": 4,
		"?since=2026-01-15T09:00:00.003Z": 6,
		"?since=2026-01-15T10:00:00.003%2B01:00&until=2026-01-15T09:00:00.004Z": 2,
	} {
		page := decode[deliveryList](t, f.do("GET", deliveriesPath+query, ""), http.StatusOK)
		if page.Items == nil || len(page.Items) != want || page.Continue != "" {
			t.Errorf("%s: got %d items, continue %q, want %d", query, len(page.Items), page.Continue, want)
		}
	}
}

func TestListRefused(t *testing.T) {
	t.Parallel()
	f := withDeliveries(t, 2)
	token := decode[deliveryList](t, f.do("GET", deliveriesPath+"?limit=1", ""), http.StatusOK).Continue
	for name, query := range map[string]string{
		"unknown":            "stat=Failed",
		"twice":              "limit=1&limit=2",
		"limit zero":         "limit=0",
		"limit large":        "limit=1001",
		"limit text":         "limit=ten",
		"state":              "state=Lost",
		"since":              "since=yesterday",
		"until":              "until=2026",
		"name":               "subscription=" + strings.Repeat("a", 254),
		"encoding":           "limit=%zz",
		"token":              "continue=x",
		"token, changed":     "continue=" + strings.Map(flip, token[:10]) + token[10:],
		"token, longer":      "continue=" + token + "AAAA",
		"token, other query": "state=Failed&continue=" + token,
	} {
		t.Run(name, func(t *testing.T) {
			wantProblem(t, f.do("GET", deliveriesPath+"?"+query, ""), malformed)
		})
	}
	wantProblem(t, f.do("GET", strings.Replace(deliveriesPath, "clinic-a", "clinic-b", 1)+"?continue="+token, ""), malformed)
	if w := f.do("GET", deliveriesPath+"?limit=2&continue="+token, ""); w.Code != http.StatusOK {
		t.Errorf("with another limit: got %d %s", w.Code, w.Body)
	}
	f.store.failing(errors.New("broken"))
	wantProblem(t, f.do("GET", deliveriesPath, ""), unavailable)
}

// flip changes every letter.
func flip(r rune) rune {
	if r == 'A' {
		return 'B'
	}
	return 'A'
}

func TestReplay(t *testing.T) {
	t.Parallel()
	f := withDeliveries(t, 1)
	id := f.handed()[0].ID
	path := deliveriesPath + "/" + id.String() + "/replay"
	wantProblem(t, f.do("POST", path, ""), stillPending)

	f.store.setStates(delivery.Failed)
	before := len(f.handed())
	got := decode[deliveryView](t, f.do("POST", path, "", "Content-Type: text/nonsense"), http.StatusAccepted)
	if got.ID != id.String() || got.State != "Pending" || got.ReplayOf != "" || got.Attempts == nil {
		t.Errorf("failed one: got %+v", got)
	}
	if handed := f.handed(); len(handed) != before+1 || handed[before].ID != id {
		t.Errorf("handed on %+v", handed)
	}

	f.store.setStates(delivery.Delivered)
	got = decode[deliveryView](t, f.do("POST", path, ""), http.StatusAccepted)
	if got.ID == id.String() || got.ReplayOf != id.String() {
		t.Errorf("delivered one: got %+v", got)
	}
	wantProblem(t, f.do("POST", strings.Replace(path, "clinic-a", "clinic-b", 1), ""), notFound)
	f.store.failing(store.ErrFull)
	wantProblem(t, f.do("POST", path, ""), unavailable, "space")
}

func TestReplayMany(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		state        delivery.State
		body         string
		wantReplayed int
	}{
		"no body":           {delivery.Failed, "", 20},
		"empty object":      {delivery.Failed, "{}", 20},
		"of a subscription": {delivery.Failed, `{"subscription":"patients"}`, 10},
		"in a span":         {delivery.Failed, `{"since":"2026-01-15T09:00:00.003Z","until":"2026-01-15T09:00:00.005Z"}`, 4},
		"nulls":             {delivery.Failed, `{"subscription":null,"state":null}`, 20},
		"cancelled":         {delivery.Cancelled, `{"state":"Cancelled"}`, 20},
		"delivered, unsaid": {delivery.Delivered, `{}`, 0},
		"delivered":         {delivery.Delivered, `{"state":"Delivered"}`, 20},
		"pending":           {delivery.Pending, `{}`, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := withDeliveries(t, 10)
			f.store.setStates(tc.state)
			before := len(f.handed())
			got := decode[replayAnswer](t, f.do("POST", deliveriesPath+"/replay", tc.body), http.StatusAccepted)
			if got.Replayed != tc.wantReplayed || got.Continue != "" {
				t.Errorf("got %+v, want %d", got, tc.wantReplayed)
			}
			if handed := len(f.handed()) - before; handed != tc.wantReplayed || f.store.replays != tc.wantReplayed {
				t.Errorf("handed on %d of %d", handed, f.store.replays)
			}
		})
	}
}

func TestReplayManyRefused(t *testing.T) {
	t.Parallel()
	f := withDeliveries(t, 1)
	f.store.setStates(delivery.Failed)
	token := decode[deliveryList](t, f.do("GET", deliveriesPath+"?state=Failed&limit=1", ""), http.StatusOK).Continue
	for name, body := range map[string]string{
		"not JSON":     "state=Failed",
		"an array":     `[]`,
		"unknown key":  `{"namespace":"clinic-b"}`,
		"twice":        `{"state":"Failed","state":"Delivered"}`,
		"a number":     `{"since":1}`,
		"state":        `{"state":"Lost"}`,
		"pending":      `{"state":"Pending"}`,
		"time":         `{"until":"now"}`,
		"token":        `{"continue":"x"}`,
		"list's token": `{"continue":"` + token + `"}`,
		"trailing":     `{}{}`,
	} {
		t.Run(name, func(t *testing.T) {
			wantProblem(t, f.do("POST", deliveriesPath+"/replay", body), malformed)
		})
	}
	wantProblem(t, f.do("POST", deliveriesPath+"/replay", strings.Repeat(" ", maxReplayBodySize+1)), tooLarge)
	if f.store.replays != 0 {
		t.Errorf("%d were replayed", f.store.replays)
	}
	f.store.failing(errors.New("broken"))
	wantProblem(t, f.do("POST", deliveriesPath+"/replay", ""), unavailable)
}
