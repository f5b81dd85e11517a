package view

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/net/html"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/deliveries"
	"github.com/clinikapi/eventflow/console/kube"
	"github.com/clinikapi/eventflow/dispatcher/simulate"
)

var hostile = []string{
	`javascript:alert(1)`,
	`<script>alert(1)</script>`,
	`"><img src=x onerror=alert(1)>`,
	`' onmouseover='alert(1)`,
	"\u202egnp.exe\u2066",
	strings.Repeat("x", 10_000),
	`data:text/html,<script>alert(1)</script>`,
	"\x00\x1b[31m",
}

var moment = time.Date(2026, 1, 15, 9, 15, 0, 0, time.UTC)

func frame() Frame {
	return Frame{Title: "t", Nonce: "N", Prefs: Prefs{Times: TimesUTC, Theme: "auto", Zone: time.UTC, Now: moment}, Assets: Assets{"/static/a.css", "/static/a.js", "/static/h.js"}}
}

// pages are all pages with one text in every place that a tenant, or a server, can fill.
func pages(text string) map[string]templ.Component {
	f := frame()
	f.Title, f.Where, f.Path, f.Namespace = text, text, text, text
	f.Problem = &Problem{Title: text, Detail: text, Right: text}
	row := kube.Row{Namespace: text, Name: text, Endpoint: text, Events: []string{text}, State: text, Reason: text, GitOps: text}
	d := deliveries.Delivery{ID: text, Namespace: text, Subscription: text, EventID: text, EventType: text, State: text, Reason: text, ReplayOf: text,
		Planned: moment.Add(time.Hour), Attempts: []deliveries.Attempt{{Number: 1, Error: text}}}
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Namespace: text, Name: text}}
	sub.Spec.URL, sub.Spec.Events, sub.Spec.DispatcherRef.Name = text, []string{text}, text
	sub.Spec.Signing.SecretRef = v1alpha1.SecretKeyReference{Name: text, Key: text}
	sub.Spec.Signing.PreviousSecretRef = &sub.Spec.Signing.SecretRef
	begun := sub.DeepCopy()
	begun.Spec.Signing.PreviousSecretRef, begun.Spec.Signing.NextSecretRef = nil, &sub.Spec.Signing.SecretRef
	begun.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionProgrammed, Status: metav1.ConditionTrue}}
	begun.Status.Signing.Keys = []v1alpha1.SigningKey{{ID: text + "1"}, {ID: text, Scheme: v1alpha1.SchemeShared}}
	pair := begun.DeepCopy()
	pair.Status.Signing.Keys[1] = v1alpha1.SigningKey{ID: text, Scheme: v1alpha1.SchemePair, PublicKey: text}
	waiting := begun.DeepCopy()
	waiting.Status.Conditions[0] = metav1.Condition{Type: v1alpha1.ConditionProgrammed, Status: metav1.ConditionFalse, Message: text}
	sub.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: "False", Reason: text, Message: text}}
	sub.Status.Retrying = []v1alpha1.RetryingDelivery{{DeliveryID: text, EventType: text}}
	dispatcher := v1alpha1.WebhookDispatcher{ObjectMeta: sub.ObjectMeta}
	dispatcher.Status.Version, dispatcher.Status.PublishURL, dispatcher.Status.Store.Reason = text, text, text
	dispatcher.Status.Conditions = []metav1.Condition{{Type: "Available", Status: "False", Reason: text, Message: text}}
	dispatcher.Status.LargestTenants = []v1alpha1.TenantUsage{{Namespace: text}}
	form := Form{Namespace: text, Name: text, ResourceVersion: text, URL: text, URLSecret: text, URLKey: text, Secret: text, Key: text, Filter: text, At: text, ScheduleKey: text, Timeout: text, MaxInFlight: text}
	list := []deliveries.Delivery{d}
	return map[string]templ.Component{
		"subscriptions": SubscriptionsPage(&Subscriptions{Frame: f, State: text, Search: text, Namespaces: []string{text}, Rows: []kube.Row{row}, Page: 1, Pages: 2}),
		"the rows":      SubscriptionsPage(&Subscriptions{Frame: frame(), State: text, Search: text, Namespaces: []string{text}, Rows: []kube.Row{row}, Page: 1, Pages: 2}),
		"subscription":  SubscriptionPage(&Subscription{Frame: f, Sub: sub, Row: row, YAML: text, Owner: text, Recent: list, Failed: list, Scheduled: list, TestTypes: []string{text}}),
		"no deliveries": SubscriptionPage(&Subscription{Frame: f, Sub: sub, Row: row, YAML: text, DeliveriesProblem: f.Problem}),
		"deliveries":    DeliveriesPage(&Deliveries{Frame: frame(), Namespaces: []string{text}, Subscription: text, State: text, Since: text, Until: text, Items: list, Continue: text, First: text}),
		"events":        EventsPage(&Deliveries{Frame: frame(), Events: []Event{{ID: text, Type: text, Caused: list}}, Continue: text}),
		"delivery":      DeliveryPage(&Delivery{Frame: f, Delivery: d, Payload: text}),
		"replay":        ReplayPage(&Replay{Frame: f, Query: deliveries.Query{Subscription: text, State: text, Continue: text}, Since: text, Refused: []string{text}}),
		"dispatchers":   DispatchersPage(&Dispatchers{Frame: f, Items: []v1alpha1.WebhookDispatcher{dispatcher}}),
		"rotate":        RotatePage(&Rotate{Frame: f, Sub: sub}),
		"rotate, begun": RotatePage(&Rotate{Frame: f, Sub: begun}),
		"rotate, pair":  RotatePage(&Rotate{Frame: f, Sub: pair}),
		"rotate, waits": RotatePage(&Rotate{Frame: f, Sub: waiting}),
		"edit":          EditPage(&Edit{Frame: f, Form: form, Resources: []string{text}, Actions: []string{text}, Check: Check{Problems: []string{text}, YAML: text}, Owner: text, New: true}),
		"check":         CheckPart(&Check{Checked: true, Notes: []string{text}, YAML: text}),
		"try": TryPage(&Try{Frame: f, Namespaces: []string{text}, Types: []string{text}, Subscription: text, Type: text, Text: text, EventID: text, Lookup: text,
			Notes: []string{text}, Events: []Tried{tryOf(text)}}),
		"failure": Failure(&f),
	}
}

// tryOf is a trial with one text in every place.
func tryOf(text string) Tried {
	c := &simulate.Condition{Expression: text, Result: "false", Terms: []simulate.Term{{Text: text, Result: text, Message: text, Decides: true, Fields: []simulate.Field{{Name: text, Value: text}}}}}
	r := &simulate.Request{Method: text, URL: text, Header: []simulate.HeaderLine{{Name: text, Value: text}}, Body: text}
	return Tried{
		EventReport: simulate.EventReport{ID: text, Type: text, Results: []*simulate.Result{{
			Subscription: text, Outcome: simulate.Outcome(text), Reason: text, Explanation: []string{text}, Filter: c, Recheck: c, Lookup: r, Request: r,
			CancelOn: []simulate.CancelItem{{Filter: c}}, Failures: []simulate.Failure{{Use: text, Message: text}},
			Plan: &simulate.Plan{IfPast: text, Window: &simulate.Window{From: text, Until: text, TimeZone: text, Outside: text}},
		}}},
		Refused: map[string]string{text: text},
	}
}

// TestHostileTextStaysInert: whatever a tenant writes, a page has the elements and attributes that it has without, and no link
// leads out of the console.
func TestHostileTextStaysInert(t *testing.T) {
	t.Parallel()
	for _, text := range hostile {
		for name, page := range pages(text) {
			var b bytes.Buffer
			if err := page.Render(context.Background(), &b); err != nil {
				t.Fatal(err)
			}
			inspect(t, name, text, b.Bytes())
		}
	}
}

func inspect(t *testing.T, name, text string, page []byte) {
	t.Helper()
	root, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for node := range root.Descendants() {
		switch node.Type {
		case html.ElementNode:
			if node.Data == "img" || node.Data == "iframe" || node.Data == "style" || (node.Data == "script" && node.FirstChild != nil) {
				t.Errorf("%s: %.40q made an element %s", name, text, node.Data)
			}
			for _, a := range node.Attr {
				inspectAttribute(t, name, text, node, a)
			}
		case html.TextNode:
			if node.Parent.Data != "textarea" && strings.ContainsAny(node.Data, "\u202e\u2066\x1b\x00") {
				t.Errorf("%s: %.40q is shown with its hidden characters", name, text)
			}
		default:
		}
	}
}

func inspectAttribute(t *testing.T, name, text string, node *html.Node, a html.Attribute) {
	t.Helper()
	switch {
	case strings.HasPrefix(a.Key, "on"), a.Key == "style":
		t.Errorf("%s: %.40q made the attribute %s", name, text, a.Key)
	case a.Key == "href" || a.Key == "action" || a.Key == "formaction" || a.Key == "src" || strings.HasPrefix(a.Key, "hx-") && a.Key[3:] != "trigger" && a.Key[3:] != "swap" && a.Key[3:] != "include":
		if (!strings.HasPrefix(a.Val, "/") || strings.HasPrefix(a.Val, "//")) && a.Val != "#main" && a.Val != "data:," {
			t.Errorf("%s: %.40q made <%s %s=%.60q>", name, text, node.Data, a.Key, a.Val)
		}
	}
}

// TestTimes: each form names its zone, but for the relative one, which is a span.
func TestTimes(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("CET", 3600)
	for form, want := range map[string]string{
		TimesUTC:      "2026-01-15 09:15:00 UTC",
		TimesLocal:    "2026-01-15 10:15:00 CET",
		TimesRelative: "5 min ago",
	} {
		p := Prefs{Times: form, Zone: zone, Now: moment.Add(5 * time.Minute)}
		if got := p.Stamp(moment); got != want {
			t.Errorf("%s: %q, want %q", form, got, want)
		}
	}
	if got := (Prefs{Now: moment}).Relative(moment.Add(time.Hour)); got != "in 1 h" {
		t.Errorf("a time to come: %q", got)
	}
}

func TestShown(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"billing":   "billing",
		"a\u202eb":  "a⟨U+202E⟩b",
		"\x00":      "⟨U+0000⟩",
		"Zürich 東京": "Zürich 東京",
	} {
		if got := Shown(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if n := len([]rune(Shown(strings.Repeat("x", 10_000)))); n != maxShown+1 {
		t.Errorf("a long text has %d characters", n)
	}
}
