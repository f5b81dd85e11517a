package web

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/deliveries"
	"github.com/clinikapi/eventflow/console/kube"
)

// start is when the appointment begins.
var start = time.Now().Add(72 * time.Hour).UTC().Truncate(time.Second)

var booked = `{"type":"appointment.created","data":{"status":"booked","start":"` + start.Format(time.RFC3339) + `"}}`

// reminder is a subscription to appointments with a filter.
func reminder(filter string, change ...func(*v1alpha1.WebhookSubscriptionSpec)) *v1alpha1.WebhookSubscription {
	s := sub()
	s.Name, s.UID = "reminder", "uid"
	s.Spec.Events, s.Spec.Filter = []string{"appointment.*"}, filter
	for _, c := range change {
		c(&s.Spec)
	}
	return s
}

func all(subs ...*v1alpha1.WebhookSubscription) map[string]*v1alpha1.WebhookSubscription {
	m := map[string]*v1alpha1.WebhookSubscription{}
	for _, s := range subs {
		m[s.Namespace+"/"+s.Name] = s
	}
	return m
}

func dispatcherThatAllows(allow bool) []v1alpha1.WebhookDispatcher {
	d := v1alpha1.WebhookDispatcher{ObjectMeta: metav1.ObjectMeta{Namespace: "eventflow-system", Name: "default"}}
	d.Spec.Egress.AllowHTTP = &allow
	return []v1alpha1.WebhookDispatcher{d}
}

// TestTry: the page says of each subscription if it matches and why not, when it is due, and what is sent.
func TestTry(t *testing.T) {
	t.Parallel()
	insecure := func(s *v1alpha1.WebhookSubscriptionSpec) { s.URL = "http://example.com/hooks" }
	for name, test := range map[string]struct {
		cluster    cluster
		text       string
		form       []string
		wantStatus int
		want       []string
	}{
		"matches": {cluster{subs: all(reminder(""))}, booked, nil, 200,
			[]string{"Due at once", "POST https://example.com/hooks", "*** (key key of Secret billing-key)", "1 of 1 subscriptions"}},
		"pattern":       {cluster{subs: all(sub())}, booked, nil, 200, []string{"Does not match", "spec.events names patient.*", "0 of 1 subscriptions"}},
		"a false term":  {cluster{subs: all(reminder("has(event.data.start) && event.data.status == 'arrived'"))}, booked, nil, 200, []string{"Does not match", `event.data.status == &#34;arrived&#34;`, ">decides<", `&#34;booked&#34;`}},
		"planned":       {cluster{subs: all(reminder("", at("timestamp(event.data.start)")))}, booked, nil, 200, []string{"Planned", start.Format("2006-01-02 15:04:05 UTC"), "The schedule says"}},
		"is past":       {cluster{subs: all(reminder("", at("timestamp('2020-01-01T00:00:00Z')")))}, booked, nil, 200, []string{"Skipped", "2020-01-01 00:00:00"}},
		"one alone":     {cluster{subs: all(reminder(""), sub())}, booked, []string{"subscription", "reminder"}, 200, []string{"1 of 1 subscriptions"}},
		"both":          {cluster{subs: all(reminder(""), sub())}, booked, nil, 200, []string{"1 of 2 subscriptions"}},
		"none":          {cluster{}, booked, nil, 200, []string{"0 of 0 subscriptions"}},
		"not there":     {cluster{}, booked, []string{"subscription", "gone"}, 404, []string{"It is not there"}},
		"not accepted":  {cluster{subs: all(reminder("event.data.status =="))}, booked, nil, 200, []string{"spec.filter"}},
		"no JSON":       {cluster{}, "{", nil, 422, []string{"The event cannot be tried"}},
		"nothing":       {cluster{}, "[]", nil, 422, []string{"The event cannot be tried"}},
		"an other type": {cluster{}, `{"type":"x.created","data":{}}`, nil, 422, []string{"The event cannot be tried"}},
		"too large":     {cluster{}, `{"type":"lab.created","data":{"a":"` + strings.Repeat("x", maxTriedBytes) + `"}}`, nil, 422, []string{"64 KiB"}},
		"too many":      {cluster{}, "[" + strings.Repeat(booked+",", 10) + booked + "]", nil, 422, []string{"At most 10"}},
		"may not":       {cluster{err: &kube.Forbidden{Verb: "list", Resource: "webhooksubscriptions"}}, booked, nil, 403, []string{"list webhooksubscriptions", "booked"}},
		"http, unseen":  {cluster{subs: all(reminder("", insecure)), dispatchersErr: &kube.Forbidden{}}, booked, nil, 200, []string{"does not see the settings", "Due at once"}},
		"http, refused": {cluster{subs: all(reminder("", insecure)), dispatchers: dispatcherThatAllows(false)}, booked, nil, 200, []string{"Does not match", "https"}},
		"http, allowed": {cluster{subs: all(reminder("", insecure)), dispatchers: dispatcherThatAllows(true)}, booked, nil, 200, []string{"Due at once"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handler, cookie := newServer(t, &test.cluster, deliveries.None{})
			f := url.Values{"namespace": {"clinic-a"}, "text": {test.text}}
			for i := 0; i < len(test.form); i += 2 {
				f.Set(test.form[i], test.form[i+1])
			}
			r := request(http.MethodPost, "/try", f)
			r.AddCookie(&http.Cookie{Name: "eventflow-times", Value: "utc"})
			answer := do(handler, cookie, r)
			page := answer.Body.String()
			if answer.Code != test.wantStatus {
				t.Fatalf("%d, want %d: %.3000s", answer.Code, test.wantStatus, page)
			}
			for _, want := range test.want {
				if !strings.Contains(page, want) {
					t.Errorf("the page does not say %q: %s", want, page)
				}
			}
			if strings.Contains(page, "placeholder-placeholder") {
				t.Error("the page shows a key")
			}
		})
	}
}

func at(expression string) func(*v1alpha1.WebhookSubscriptionSpec) {
	return func(s *v1alpha1.WebhookSubscriptionSpec) { s.Schedule = &v1alpha1.Schedule{At: expression} }
}

// TestTryOffersASample: of the type that the address names, and of a site's own type one to be filled in.
func TestTryOffersASample(t *testing.T) {
	t.Parallel()
	d := dispatcherThatAllows(false)
	d[0].Spec.EventResources = []string{"claim"}
	handler, cookie := newServer(t, &cluster{dispatchers: d}, deliveries.None{})
	for query, want := range map[string]string{
		"":                        `&#34;type&#34;: &#34;appointment.created&#34;`,
		"?type=lab.updated":       `&#34;previous&#34;`,
		"?type=claim.created":     `&#34;type&#34;: &#34;claim.created&#34;`,
		"?type=nothing":           `&#34;type&#34;: &#34;appointment.created&#34;`,
		"?event=evt_1":            `Load the payload of evt_1`,
		"?subscription=reminder":  `value="reminder"`,
		"?namespace=clinic-other": `clinic-other`,
	} {
		if page := body(t, handler, cookie, "/try"+query, 200); !strings.Contains(page, want) {
			t.Errorf("%s: the page does not hold %s", query, want)
		}
	}
}

// payloads is deliveries with a payload.
type payloads struct {
	deliveries.None
	err error
}

func (p payloads) Payload(context.Context, string, string) ([]byte, error) {
	return []byte(`{"id":"evt_1","type":"appointment.created","timestamp":"2026-01-15T09:15:00Z","data":{"status":"PHI"}}`), p.err
}

func (payloads) Get(_ context.Context, namespace, id string) (deliveries.Delivery, error) {
	return deliveries.Delivery{ID: id, Namespace: namespace, EventID: "evt_1", State: deliveries.Delivered}, nil
}

// TestTryLoadsAPayload: a published event is tried by who has the right to its payload, and the event stays in the page.
func TestTryLoadsAPayload(t *testing.T) {
	t.Parallel()
	f := url.Values{"namespace": {"clinic-a"}, "event": {"evt_1"}, "load": {"1"}, "text": {"as before"}}
	c := &cluster{subs: all(reminder("event.data.status == 'arrived'"))}
	handler, cookie := newServer(t, c, payloads{})
	answer := do(handler, cookie, request(http.MethodPost, "/try", f))
	if page := answer.Body.String(); answer.Code != 200 || !strings.Contains(page, "PHI") || !strings.Contains(page, "Does not match") || answer.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%d: %s", answer.Code, page)
	}
	handler, cookie = newServer(t, c, payloads{err: &deliveries.Forbidden{Verb: "get", Group: "g", Resource: "webhookevents/payload", Namespace: "clinic-a"}})
	answer = do(handler, cookie, request(http.MethodPost, "/try", f))
	if page := answer.Body.String(); answer.Code != 403 || strings.Contains(page, "PHI") || !strings.Contains(page, "get webhookevents/payload.g") || !strings.Contains(page, "as before") {
		t.Errorf("%d: %s", answer.Code, page)
	}
}

// TestTriesAreBounded: more than maxTries at once are refused, and a trial that ended makes room.
func TestTriesAreBounded(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}, maxTries), make(chan struct{})
	c := &cluster{specs: func() { begun <- struct{}{}; <-release }}
	handler, cookie := newServer(t, c, deliveries.None{})
	post := func() int {
		return do(handler, cookie, request(http.MethodPost, "/try", url.Values{"namespace": {"clinic-a"}, "text": {booked}})).Code
	}
	var trials sync.WaitGroup
	for range maxTries {
		trials.Go(func() {
			if code := post(); code != 200 {
				t.Errorf("a trial was answered %d", code)
			}
		})
		<-begun
	}
	if code := post(); code != 503 {
		t.Errorf("one more was answered %d, want 503", code)
	}
	close(release)
	trials.Wait()
	if code := post(); code != 200 {
		t.Errorf("the next was answered %d", code)
	}
}

// TestTryIsLinked: from a subscription, and from an event.
func TestTryIsLinked(t *testing.T) {
	t.Parallel()
	s := &source{items: []deliveries.Delivery{{ID: "dlv_1", EventID: "evt_1", EventType: "lab.created", Namespace: "clinic-a"}}}
	handler, cookie := newServer(t, &cluster{subs: all(reminder(""))}, s)
	for target, want := range map[string]string{
		"/namespaces/clinic-a/subscriptions/reminder": "/try?namespace=clinic-a&amp;subscription=reminder&amp;type=appointment.created",
		"/events?namespace=clinic-a":                  "/try?event=evt_1&amp;namespace=clinic-a&amp;type=lab.created",
	} {
		if page := body(t, handler, cookie, target, 200); !strings.Contains(page, want) {
			t.Errorf("%s does not lead to %s", target, want)
		}
	}
}
