package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/deliveries"
	"github.com/clinikapi/eventflow/console/kube"
)

// rows makes many, of which each hundredth is failing.
func rows(n int) (made []kube.Row) {
	for i := range n {
		r := kube.Row{Namespace: fmt.Sprintf("clinic-%03d", i%200), Name: fmt.Sprintf("sub-%05d", i), Endpoint: "https://example.com", Events: []string{"patient.*"}, State: kube.StateReady}
		if i%100 == 99 {
			r.State, r.Reason = kube.StateFailing, "CircuitOpen"
		}
		made = append(made, r)
	}
	kube.Sort(made)
	return made
}

func body(t *testing.T, handler http.Handler, cookie *http.Cookie, target string, wantStatus int) string {
	t.Helper()
	answer := do(handler, cookie, request(http.MethodGet, target, nil))
	if answer.Code != wantStatus {
		t.Fatalf("%s: %d, want %d: %.300s", target, answer.Code, wantStatus, answer.Body)
	}
	return answer.Body.String()
}

func TestFailingSubscriptionsComeFirst(t *testing.T) {
	t.Parallel()
	handler, cookie := newServer(t, &cluster{rows: rows(10_000)}, deliveries.None{})
	page := body(t, handler, cookie, "/subscriptions", 200)
	if n := strings.Count(page, "sub-"); n < 50 || !strings.Contains(page, "sub-00099") || strings.Contains(page, ">sub-00000<") {
		t.Errorf("the first page does not begin with the failing ones")
	}
	if page := body(t, handler, cookie, "/subscriptions?page=200", 200); !strings.Contains(page, "sub-09998") {
		t.Error("the last page does not hold the last one")
	}
}

func TestSearchIsOverAllPages(t *testing.T) {
	t.Parallel()
	handler, cookie := newServer(t, &cluster{rows: rows(10_000)}, deliveries.None{})
	if page := body(t, handler, cookie, "/subscriptions?q=sub-07777", 200); !strings.Contains(page, ">sub-07777<") || !strings.Contains(page, "1 of") {
		t.Error("the search did not find one of a later page")
	}
}

// TestSubscriptionsAreFast: 200 ms at the 95th percentile with 10,000 subscriptions.
func TestSubscriptionsAreFast(t *testing.T) { // alone, before the parallel ones
	handler, cookie := newServer(t, &cluster{rows: rows(10_000)}, deliveries.None{})
	var took []time.Duration
	for i := range 40 {
		start := time.Now()
		body(t, handler, cookie, fmt.Sprintf("/subscriptions?q=clinic&page=%d", i+1), 200)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Logf("p50 %v, p95 %v", took[20], took[37])
	if took[37] > 200*time.Millisecond {
		t.Errorf("p95 is %v, want 200 ms at most", took[37])
	}
}

func TestForbiddenNamesTheRight(t *testing.T) {
	t.Parallel()
	handler, cookie := newServer(t, &cluster{err: &kube.Forbidden{Verb: "list", Group: "webhooks.clinikapi.com", Resource: "webhooksubscriptions"}}, deliveries.None{})
	page := body(t, handler, cookie, "/subscriptions", 403)
	if !strings.Contains(page, "list webhooksubscriptions.webhooks.clinikapi.com") || !strings.Contains(page, `name="namespace"`) {
		t.Error("the page does not name the missing right, or offers no namespace to name")
	}
}

func sub() *v1alpha1.WebhookSubscription {
	return &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{Namespace: "clinic-a", Name: "billing", ResourceVersion: "7"},
		Spec: v1alpha1.WebhookSubscriptionSpec{
			URL: "https://example.com/hooks", Events: []string{"patient.*"},
			Signing: v1alpha1.Signing{SecretRef: v1alpha1.SecretKeyReference{Name: "billing-key", Key: "key"}},
		},
		Status: v1alpha1.WebhookSubscriptionStatus{
			Conditions: []metav1.Condition{{Type: v1alpha1.ConditionProgrammed, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonProgrammed}},
			Signing:    v1alpha1.SigningStatus{Keys: []v1alpha1.SigningKey{{ID: "key_old", Scheme: v1alpha1.SchemeShared}}},
		},
	}
}

func form(changes ...string) url.Values {
	f := url.Values{"namespace": {"clinic-a"}, "name": {"billing"}, "url": {"https://example.com/hooks"}, "event": {"patient.created", "lab.*"}, "signing": {"new"}, "key": {"key"}, "mode": {"Full"}, "ordering": {"None"}}
	for i := 0; i < len(changes); i += 2 {
		f.Set(changes[i], changes[i+1])
	}
	return f
}

// TestFormsWorkWithoutScripts: each flow is a form post, answered with a page or a redirect to one.
func TestFormsWorkWithoutScripts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		target     string
		form       url.Values
		wantStatus int
		wantText   string
		wantSaved  int
	}{
		"create":                 {"/subscriptions", form(), 303, "", 1},
		"a filter's error":       {"/subscriptions", form("filter", "event.data.status =! 1"), 422, "filter", 0},
		"no events":              {"/subscriptions", form("event", "patient.exploded"), 422, "exploded", 0},
		"check":                  {"/subscriptions/check", form(), 200, "the cluster would take it", 0},
		"check of a bad one":     {"/subscriptions/check", form("at", "timestamp("), 200, "problems", 0},
		"download":               {"/subscriptions/yaml", form(), 200, "kind: WebhookSubscription", 0},
		"suspend":                {"/namespaces/clinic-a/subscriptions/billing/suspend", url.Values{}, 303, "", 0},
		"rotate":                 {"/namespaces/clinic-a/subscriptions/billing/rotate", url.Values{"step": {"begin"}, "version": {"7"}}, 303, "", 0},
		"rotate a changed one":   {"/namespaces/clinic-a/subscriptions/billing/rotate", url.Values{"step": {"begin"}, "version": {"6"}}, 502, "has changed", 0},
		"end before a beginning": {"/namespaces/clinic-a/subscriptions/billing/rotate", url.Values{"step": {"end"}, "version": {"7"}}, 502, "has changed", 0},
		"promote nothing":        {"/namespaces/clinic-a/subscriptions/billing/rotate", url.Values{"step": {"promote"}, "version": {"7"}}, 502, "has changed", 0},
		"preferences":            {"/preferences", url.Values{"times": {"utc"}, "theme": {"dark"}, "back": {"/deliveries"}}, 303, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &cluster{subs: map[string]*v1alpha1.WebhookSubscription{"clinic-a/billing": sub()}}
			handler, cookie := newServer(t, c, deliveries.None{})
			answer := do(handler, cookie, request(http.MethodPost, test.target, test.form))
			if answer.Code != test.wantStatus || !strings.Contains(answer.Body.String(), test.wantText) {
				t.Errorf("%d, want %d with %q: %.2000s", answer.Code, test.wantStatus, test.wantText, answer.Body)
			}
			if len(c.saved) != test.wantSaved || (test.wantSaved > 0 && !slices.Equal(c.secrets, []string{"clinic-a/billing-key"})) {
				t.Errorf("saved %d, Secrets %v", len(c.saved), c.secrets)
			}
		})
	}
}

// TestASecretIsMadeLast: only once the API server said that it takes the subscription, and if that fails nonetheless the page says
// what exists, and goes on with it.
func TestASecretIsMadeLast(t *testing.T) {
	t.Parallel()
	rotate := url.Values{"step": {"begin"}, "version": {"7"}}
	const rotation = "/namespaces/clinic-a/subscriptions/billing/rotate"
	for name, test := range map[string]struct {
		target     string
		form       url.Values
		refuse     string
		wantCalls  string
		wantStatus int
		wantText   string
	}{
		"create":                     {"/subscriptions", form(), "", "check secret save", 303, ""},
		"create, not taken":          {"/subscriptions", form(), "check", "check", 422, "refused"},
		"create, no Secret":          {"/subscriptions", form(), "secret", "check secret", 502, "refused"},
		"create, not saved":          {"/subscriptions", form(), "save", "check secret save", 502, "The Secret billing-key was made"},
		"create, with what was made": {"/subscriptions", form("signing", "have", "secret", "billing-key"), "", "check save", 303, ""},
		"rotate":                     {rotation, rotate, "", "check secret save", 303, ""},
		"rotate, not taken":          {rotation, rotate, "check", "check", 502, "refused"},
		"rotate, no Secret":          {rotation, rotate, "secret", "check secret", 502, "refused"},
		"rotate, not saved":          {rotation, rotate, "save", "check secret save", 502, "The Secret billing-key-"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &cluster{subs: map[string]*v1alpha1.WebhookSubscription{"clinic-a/billing": sub()}, refuse: map[string]error{test.refuse: errors.New("refused")}}
			handler, cookie := newServer(t, c, deliveries.None{})
			answer := do(handler, cookie, request(http.MethodPost, test.target, test.form))
			page := answer.Body.String()
			if calls := strings.Join(c.calls, " "); calls != test.wantCalls || answer.Code != test.wantStatus || !strings.Contains(page, test.wantText) {
				t.Errorf("%s and %d, want %s and %d with %q: %s", calls, answer.Code, test.wantCalls, test.wantStatus, test.wantText, page)
			}
			if made := test.refuse == "save"; made != strings.Contains(page, "delete secret billing-key") {
				t.Errorf("the page is wrong about the Secret that exists: %s", page)
			}
			if test.refuse == "save" && test.target == "/subscriptions" && !strings.Contains(page, `value="have" checked`) {
				t.Errorf("applying again would make the Secret again: %s", page)
			}
		})
	}
}

// TestCheckSaysWhatItDoesNotKnow: the dispatcher's settings decide where the user may see them; elsewhere the page says what the
// manager may refuse.
func TestCheckSaysWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	claim := dispatcherThatAllows(false)
	claim[0].Spec.EventResources = []string{"claim"}
	twins := append(dispatcherThatAllows(false), dispatcherThatAllows(false)...)
	twins[1].Namespace = "other"
	for name, test := range map[string]struct {
		cluster      cluster
		form         url.Values
		want, unwant string
	}{
		"https":                     {cluster{}, form(), "the cluster would take it", "does not see the settings"},
		"http, unseen":              {cluster{dispatchersErr: &kube.Forbidden{}}, form("url", "HTTP://example.com"), "refused later unless the dispatcher has spec.egress.allowHTTP", "problems"},
		"http, allowed":             {cluster{dispatchers: dispatcherThatAllows(true)}, form("url", "http://example.com"), "the cluster would take it", "does not see the settings"},
		"http, not allowed":         {cluster{dispatchers: dispatcherThatAllows(false)}, form("url", "http://example.com"), "problems", "the cluster would take it"},
		"http, one of two":          {cluster{dispatchers: twins}, form("url", "http://example.com"), "does not see the settings", "problems"},
		"a site's own, known":       {cluster{dispatchers: claim}, form("event", "claim.created"), "the cluster would take it", "does not see the settings"},
		"a site's own, not known":   {cluster{dispatchers: dispatcherThatAllows(false)}, form("event", "claim.created"), "problems", "the cluster would take it"},
		"a site's own, not the one": {cluster{}, form("event", "claim.created"), "problems", "the cluster would take it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handler, cookie := newServer(t, &test.cluster, deliveries.None{})
			page := do(handler, cookie, request(http.MethodPost, "/subscriptions/check", test.form)).Body.String()
			if !strings.Contains(page, test.want) || strings.Contains(page, test.unwant) {
				t.Errorf("want %q and not %q: %s", test.want, test.unwant, page)
			}
		})
	}
}

// TestGitOwnedIsRefused: what Argo CD or Flux owns is changed only if the user says so.
func TestGitOwnedIsRefused(t *testing.T) {
	t.Parallel()
	for _, owned := range []func(*v1alpha1.WebhookSubscription){
		func(s *v1alpha1.WebhookSubscription) {
			s.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "app:x"}
		},
		func(s *v1alpha1.WebhookSubscription) {
			s.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps"}
		},
	} {
		s := sub()
		owned(s)
		c := &cluster{subs: map[string]*v1alpha1.WebhookSubscription{"clinic-a/billing": s}}
		handler, cookie := newServer(t, c, deliveries.None{})
		f := form("resourceVersion", "7", "secret", "billing-key")
		if answer := do(handler, cookie, request(http.MethodPost, "/subscriptions", f)); answer.Code != 422 || len(c.saved) > 0 {
			t.Errorf("%d and %d saved, want 422 and none", answer.Code, len(c.saved))
		}
		f.Set("force", "1")
		if answer := do(handler, cookie, request(http.MethodPost, "/subscriptions", f)); answer.Code != 303 || len(c.saved) != 1 {
			t.Errorf("forced: %d and %d saved, want 303 and one", answer.Code, len(c.saved))
		}
	}
}

// TestEditKeepsOtherFields: a form changes what it shows, and nothing else of a spec.
func TestEditKeepsOtherFields(t *testing.T) {
	t.Parallel()
	s := sub()
	s.Spec.Retry.MaxAttempts = new(int32)
	*s.Spec.Retry.MaxAttempts = 3
	s.Spec.Headers = []v1alpha1.Header{{Name: "X-Team", Value: "a"}}
	got := overlay(s, formOf(s))
	if got.Spec.Retry.MaxAttempts == nil || len(got.Spec.Headers) != 1 || got.ResourceVersion != "7" {
		t.Errorf("the form dropped something: %+v", got.Spec)
	}
	s.Spec.URL, s.Spec.ServiceRef = "", v1alpha1.ServiceReference{Name: "receiver", Port: 8443}
	if got := overlay(s, formOf(s)); got.Spec.ServiceRef != s.Spec.ServiceRef {
		t.Errorf("the form dropped the Service: %+v", got.Spec)
	}
	f := formOf(s)
	f.URL = "https://example.com/"
	if got := overlay(s, f); got.Spec.ServiceRef.Name != "" {
		t.Errorf("the form left a Service beside the URL: %+v", got.Spec)
	}
}

// TestEditShowsEveryPattern: also one of a resource that neither the console nor a visible dispatcher knows. Apply would drop it.
func TestEditShowsEveryPattern(t *testing.T) {
	t.Parallel()
	s := sub()
	s.Spec.Events = []string{"claim.*", "patient.created", "payer.updated", "eventflow.*", "eventflow.endpoint.gone", "eventflow.key.rotated"}
	handler, cookie := newServer(t, &cluster{subs: all(s)}, deliveries.None{})
	page := body(t, handler, cookie, "/namespaces/clinic-a/subscriptions/billing/edit", 200)
	for _, pattern := range s.Spec.Events {
		if !strings.Contains(page, `name="event" value="`+pattern+`" checked`) {
			t.Errorf("there is no box for %s", pattern)
		}
	}
	if strings.Contains(page, "eventflow.created") || strings.Contains(page, "Events of eventflow are refused") {
		t.Error("Event Flow's own events are taken for a resource's")
	}
}

// source is deliveries of one namespace.
type source struct {
	deliveries.None
	items    []deliveries.Delivery
	replayed []string
	steps    int
}

func (s *source) List(context.Context, string, deliveries.Query) (deliveries.List, error) {
	return deliveries.List{Items: s.items}, nil
}

func (s *source) Replay(_ context.Context, _, id string) (deliveries.Delivery, error) {
	s.replayed = append(s.replayed, id)
	return deliveries.Delivery{ID: id}, nil
}

func (s *source) ReplayMany(_ context.Context, _ string, q deliveries.Query) (deliveries.Progress, error) {
	s.steps++
	if q.Continue == "" {
		return deliveries.Progress{Replayed: 600, Continue: "more"}, nil
	}
	return deliveries.Progress{Replayed: 400}, nil
}

func TestReplayOfManyShowsProgress(t *testing.T) {
	t.Parallel()
	s := &source{}
	handler, cookie := newServer(t, &cluster{}, s)
	target := "/namespaces/clinic-a/replay"
	first := do(handler, cookie, request(http.MethodPost, target, url.Values{"what": {"all"}, "state": {"Failed"}})).Body.String()
	if !strings.Contains(first, "600</b> replayed") || !strings.Contains(first, `name="continue" value="more"`) {
		t.Errorf("the first step does not show how to go on: %s", first)
	}
	last := do(handler, cookie, request(http.MethodPost, target, url.Values{"what": {"all"}, "state": {"Failed"}, "continue": {"more"}, "replayed": {"600"}})).Body.String()
	if !strings.Contains(last, "1\u202f000</b> replayed") || s.steps != 2 {
		t.Errorf("the last step does not show all: %s", last)
	}
	chosen := do(handler, cookie, request(http.MethodPost, target, url.Values{"what": {"chosen"}, "id": {"dlv_1", "dlv_2"}}))
	if chosen.Code != 200 || len(s.replayed) != 2 {
		t.Errorf("chosen: %d, replayed %v", chosen.Code, s.replayed)
	}
}

// TestPayloadNeedsItsOwnRight: the page names it, shows nothing, and no browser keeps either answer.
func TestPayloadNeedsItsOwnRight(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err        error
		wantStatus int
		want       string
	}{
		{nil, 200, "PHI"},
		{&deliveries.Forbidden{Verb: "get", Group: "g", Resource: "webhookevents/payload", Namespace: "clinic-a"}, 403, "get webhookevents/payload.g in clinic-a"},
		{deliveries.ErrNoPayload, 501, "serves no payloads"},
	} {
		handler, cookie := newServer(t, &cluster{}, payloads{err: test.err})
		answer := do(handler, cookie, request(http.MethodPost, "/namespaces/clinic-a/deliveries/dlv_1/payload", url.Values{}))
		page := answer.Body.String()
		if answer.Code != test.wantStatus || !strings.Contains(page, test.want) || (test.err != nil) == strings.Contains(page, "PHI") {
			t.Errorf("%d: %s", answer.Code, page)
		}
		if got := answer.Header().Get("Cache-Control"); got != "no-store" {
			t.Errorf("Cache-Control %q", got)
		}
	}
}

func TestNewDeliveriesAreCounted(t *testing.T) {
	t.Parallel()
	s := &source{items: []deliveries.Delivery{{ID: "dlv_3"}, {ID: "dlv_2"}, {ID: "dlv_1"}}}
	handler, cookie := newServer(t, &cluster{}, s)
	if page := body(t, handler, cookie, "/deliveries/fresh?namespace=clinic-a&first=dlv_1", 200); !strings.Contains(page, ">2 ") {
		t.Errorf("two are new: %s", page)
	}
	if page := body(t, handler, cookie, "/deliveries/fresh?namespace=clinic-a&first=dlv_3", 200); strings.Contains(page, "new") {
		t.Errorf("none is new: %s", page)
	}
}
