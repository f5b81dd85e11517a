package subscription

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/announce"
	"github.com/clinikapi/eventflow/controllers/status"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/test/kit/states"
)

var update = flag.Bool("update", false, "write the tables of docs/states.md")

const document = "../../docs/states.md"

// The dimensions of a subscription's state.
var (
	specs       = []string{"valid", "`suspend: true`", "invalid"}
	secrets     = []string{"found", "missing", "unusable"}
	dispatchers = []string{"none", "not seen yet", "available", "unavailable since less than 30 s", "unavailable", "available again since less than 30 s", "`replicas: 0`"}
	programs    = []string{"no", "yes"}
	endpoints   = []string{"not attempted", "takes deliveries", "last attempt failed", "failing", "answered 410"}
)

// state is one, or in a row of the table a pattern: "" stands for any.
type state struct{ spec, secrets, dispatcher, programmed, endpoint string }

func (s state) fits(other state) bool {
	is := func(pattern, value string) bool { return pattern == "" || pattern == value }
	return is(s.spec, other.spec) && is(s.secrets, other.secrets) && is(s.dispatcher, other.dispatcher) &&
		is(s.programmed, other.programmed) && is(s.endpoint, other.endpoint)
}

// rows are the table: the first that fits a state holds.
var rows = []state{
	{dispatcher: "none"},
	{spec: "invalid", programmed: "yes"},
	{spec: "invalid"},
	{secrets: "missing", programmed: "yes"},
	{secrets: "missing"},
	{secrets: "unusable", programmed: "yes"},
	{secrets: "unusable"},
	{dispatcher: "`replicas: 0`"},
	{programmed: "no"},
	{dispatcher: "unavailable"},
	{dispatcher: "available again since less than 30 s"},
	{endpoint: "answered 410"},
	{spec: "`suspend: true`"},
	{spec: "valid"},
}

func all(yield func(state)) {
	for _, spec := range specs {
		for _, secret := range secrets {
			for _, dispatcher := range dispatchers {
				for _, programmed := range programs {
					for _, endpoint := range endpoints {
						yield(state{spec, secret, dispatcher, programmed, endpoint})
					}
				}
			}
		}
	}
}

var now = time.Date(2026, 1, 15, 9, 15, 0, 0, time.UTC)

// dispatcherIn is the dispatcher of a state.
func dispatcherIn(s state) *v1alpha1.WebhookDispatcher {
	said := metav1.Condition{Type: v1alpha1.ConditionAvailable, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}
	switch s.dispatcher {
	case "none":
		return nil
	case "not seen yet":
		said.Status, said.Reason = metav1.ConditionUnknown, v1alpha1.ReasonPending
	case "available":
		said.Status, said.Reason = metav1.ConditionTrue, v1alpha1.ReasonAvailable
	case "available again since less than 30 s":
		said.Status, said.Reason, said.LastTransitionTime = metav1.ConditionTrue, v1alpha1.ReasonAvailable, metav1.NewTime(now.Add(-HoldOff+time.Second))
	case "unavailable":
		said.Status, said.Reason = metav1.ConditionFalse, v1alpha1.ReasonStoreFull
	case "unavailable since less than 30 s":
		said.Status, said.Reason, said.LastTransitionTime = metav1.ConditionFalse, v1alpha1.ReasonNoPodReady, metav1.NewTime(now.Add(-HoldOff+time.Second))
	case "`replicas: 0`":
		said.Status, said.Reason = metav1.ConditionFalse, v1alpha1.ReasonSuspended
	}
	return &v1alpha1.WebhookDispatcher{Status: v1alpha1.WebhookDispatcherStatus{Conditions: []metav1.Condition{said}}}
}

// subscriptionIn is a subscription as the manager finds it in a state, before it writes the conditions.
func subscriptionIn(s state) (*v1alpha1.WebhookSubscription, verdict) {
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Generation: generation}}
	sub.Spec.DispatcherRef = v1alpha1.DispatcherReference{Namespace: "eventflow-system", Name: "default"}
	suspend := s.spec == "`suspend: true`"
	sub.Spec.Suspend = &suspend
	if s.endpoint == "answered 410" {
		sub.Status.Conditions = append(sub.Status.Conditions, set(v1alpha1.ConditionEndpointHealthy, metav1.ConditionFalse, v1alpha1.ReasonGone, generation))
	}
	if s.dispatcher == "available again since less than 30 s" {
		sub.Status.Conditions = append(sub.Status.Conditions, set(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonDispatcherUnavailable, generation))
	}
	v := verdict{}
	switch {
	case s.dispatcher == "none":
		v.rejection = admit(sub, nil, false)
	case s.spec == "invalid":
		v.rejection = &routing.Rejection{Reason: v1alpha1.ReasonInvalidPattern, Message: "say what to mend"}
	case s.secrets == "missing":
		v.rejection = &routing.Rejection{Reason: v1alpha1.ReasonSecretNotFound, Message: "create it"}
	case s.secrets == "unusable":
		v.rejection = &routing.Rejection{Reason: v1alpha1.ReasonSecretKeyInvalid, Message: "say what to mend"}
	}
	return sub, v
}

// awaitedIn reports whether the dispatcher has yet to take over what became of the subscription.
func awaitedIn(s state, v verdict) bool { return (v.rejection == nil) == (s.programmed == "no") }

// settle gives a subscription the conditions that the manager writes in a state.
func settle(s state) *v1alpha1.WebhookSubscription {
	sub, v := subscriptionIn(s)
	wanted := status.Conditions(sub, sub.Status.Conditions, decide(observe(sub, v, dispatcherIn(s), awaitedIn(s, v), now))...)
	kept := sub.Status.Conditions
	sub.Status.Conditions = wanted
	for _, c := range kept {
		if c.Type == v1alpha1.ConditionEndpointHealthy {
			sub.Status.Conditions = append(sub.Status.Conditions, c)
		}
	}
	sub.Status.ObservedGeneration = sub.Generation
	return sub
}

func cells(t *testing.T, s state) []string {
	t.Helper()
	sub := settle(s)
	say := func(kind string) string {
		c := meta.FindStatusCondition(sub.Status.Conditions, kind)
		return fmt.Sprintf("%s (%s)", c.Status, c.Reason)
	}
	ready := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionReady)
	fine := settle(state{"valid", "found", "available", "yes", "takes deliveries"})
	// Of the endpoint, the table of endpoints tells.
	meta.RemoveStatusCondition(&sub.Status.Conditions, v1alpha1.ConditionEndpointHealthy)
	return []string{
		string(ready.Status), ready.Reason, say(v1alpha1.ConditionAccepted), say(v1alpha1.ConditionProgrammed),
		states.Kstatus(t, sub), eventReasons(announce.OfSubscription(fine, sub)),
	}
}

func eventReasons(events []announce.Event) string {
	reasons := []string{}
	for _, e := range events {
		reasons = append(reasons, e.Reason)
	}
	return strings.Join(reasons, ", ")
}

// TestStatesAreDocumented makes the table of docs/states.md, and holds each state to the row that it falls under.
func TestStatesAreDocumented(t *testing.T) {
	outcomes := make([][]string, len(rows))
	all(func(s state) {
		for i, row := range rows {
			if !row.fits(s) {
				continue
			}
			got := cells(t, s)
			if outcomes[i] == nil {
				outcomes[i] = got
			} else if fmt.Sprint(outcomes[i]) != fmt.Sprint(got) {
				t.Errorf("%+v: %v, but row %+v says %v", s, got, row, outcomes[i])
			}
			return
		}
		t.Errorf("%+v is in no row", s)
	})
	table := [][]string{}
	for i, row := range rows {
		if outcomes[i] == nil {
			t.Fatalf("row %+v is of no state", row)
		}
		cells := []string{row.spec, row.secrets, row.dispatcher, row.programmed, row.endpoint}
		for i, cell := range cells {
			if cell == "" {
				cells[i] = "any"
			}
		}
		table = append(table, append(cells, outcomes[i]...))
	}
	header := []string{"spec", "Secrets", "dispatcher", "delivers by it", "endpoint", "READY", "REASON", "Accepted", "Programmed", "kstatus", "events"}
	states.Documented(t, document, "subscriptions", states.Table(header, table), *update)
}

// rowOf is the index of the state's row; -1 if it has none.
func rowOf(s state) int { return slices.IndexFunc(rows, func(row state) bool { return row.fits(s) }) }

// TestExamplesAreDocumented keeps an object of each row, and of one that was not seen, for what judges them elsewhere.
func TestExamplesAreDocumented(t *testing.T) {
	t.Parallel()
	unseen := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Generation: 1}}
	unseen.Status.ObservedGeneration = -1
	const kind = "WebhookSubscription"
	examples := states.ExamplesOf(t, kind, unseen, all, rowOf, func(s state) any { return settle(s) })
	states.Golden(t, "../..", states.Subscriptions, examples, *update)
}

// TestEveryStateIsTrue holds each state to what its conditions claim.
func TestEveryStateIsTrue(t *testing.T) {
	t.Parallel()
	n := 0
	all(func(s state) {
		n++
		sub := settle(s)
		is := func(kind string) bool { return meta.IsStatusConditionTrue(sub.Status.Conditions, kind) }
		delivers := s.spec != "invalid" && s.secrets == "found" && s.programmed == "yes" && s.endpoint != "answered 410" &&
			(s.dispatcher == "available" || s.dispatcher == "not seen yet" || s.dispatcher == "unavailable since less than 30 s")
		if is(v1alpha1.ConditionReady) != delivers {
			t.Errorf("%+v: Ready=%t, and an event would be delivered or kept: %t", s, is(v1alpha1.ConditionReady), delivers)
		}
		want := "Current"
		switch {
		case is(v1alpha1.ConditionStalled):
			want = "Failed"
		case !is(v1alpha1.ConditionReady):
			want = "InProgress"
		}
		if got := states.Kstatus(t, sub); got != want {
			t.Errorf("%+v: kstatus says %s, the conditions %s", s, got, want)
		}
		if is(v1alpha1.ConditionReady) && (is(v1alpha1.ConditionReconciling) || is(v1alpha1.ConditionStalled)) ||
			is(v1alpha1.ConditionReconciling) && is(v1alpha1.ConditionStalled) || !is(v1alpha1.ConditionReady) && !is(v1alpha1.ConditionReconciling) && !is(v1alpha1.ConditionStalled) {
			t.Errorf("%+v: want exactly one of Ready, Reconciling and Stalled, have %+v", s, sub.Status.Conditions)
		}
		if is(v1alpha1.ConditionReady) && (!is(v1alpha1.ConditionAccepted) || !is(v1alpha1.ConditionProgrammed)) {
			t.Errorf("%+v: it is Ready, and not Accepted and Programmed", s)
		}
		for _, c := range sub.Status.Conditions {
			if c.ObservedGeneration != generation || c.Reason == "" || c.Type != v1alpha1.ConditionEndpointHealthy && c.Message == "" {
				t.Errorf("%+v: condition %+v", s, c)
			}
		}
	})
	if want := len(specs) * len(secrets) * len(dispatchers) * len(programs) * len(endpoints); n != want {
		t.Errorf("%d states, want %d", n, want)
	}
}

// TestANewSubscriptionIsInProgress: kstatus must not take an object that nobody has seen for current.
func TestANewSubscriptionIsInProgress(t *testing.T) {
	t.Parallel()
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Generation: 1}, Status: v1alpha1.WebhookSubscriptionStatus{ObservedGeneration: -1}}
	if got := states.Kstatus(t, sub); got != "InProgress" {
		t.Errorf("kstatus says %s", got)
	}
	d := &v1alpha1.WebhookDispatcher{ObjectMeta: metav1.ObjectMeta{Generation: 1}, Status: v1alpha1.WebhookDispatcherStatus{ObservedGeneration: -1}}
	if got := states.Kstatus(t, d); got != "InProgress" {
		t.Errorf("kstatus says %s of a dispatcher", got)
	}
}

// TestPulledIsReady: Ready of a subscription that is pulled says what is true of it, also where an endpoint was gone before.
func TestPulledIsReady(t *testing.T) {
	t.Parallel()
	gone := state{"valid", "found", "available", "yes", "answered 410"}
	sub, v := subscriptionIn(gone)
	sub.Spec.Delivery.Mode = v1alpha1.DeliveryPull
	conditions := decide(observe(sub, v, dispatcherIn(gone), false, now))
	ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
	if ready.Status != metav1.ConditionTrue || ready.Reason != v1alpha1.ReasonReady || ready.Message != "events are kept until the consumer pulls and acknowledges them" {
		t.Errorf("%+v", ready)
	}
}
