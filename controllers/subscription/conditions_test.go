package subscription

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/status"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// generation of every subscription in this file.
const generation = 3

func set(kind string, value metav1.ConditionStatus, reason string, generation int64) metav1.Condition {
	return metav1.Condition{Type: kind, Status: value, Reason: reason, ObservedGeneration: generation}
}

func TestReady(t *testing.T) {
	t.Parallel()
	var (
		ok         = verdict{endpoint: "https://example.com"}
		programmed = set(v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed, generation)
	)
	tests := map[string]struct {
		verdict    verdict
		suspend    bool
		conditions []metav1.Condition
		wantStatus metav1.ConditionStatus
		wantReason string
	}{
		"not accepted": {
			verdict:    verdict{rejection: &routing.Rejection{Reason: v1alpha1.ReasonSecretNotFound, Message: "create it"}},
			conditions: []metav1.Condition{programmed},
			wantStatus: metav1.ConditionFalse, wantReason: v1alpha1.ReasonSecretNotFound,
		},
		"the dispatcher said nothing": {
			verdict: ok, wantStatus: metav1.ConditionUnknown, wantReason: v1alpha1.ReasonPending,
		},
		"the dispatcher has an older generation": {
			verdict:    ok,
			conditions: []metav1.Condition{set(v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed, generation-1)},
			wantStatus: metav1.ConditionUnknown, wantReason: v1alpha1.ReasonPending,
		},
		"the dispatcher cannot": {
			verdict:    ok,
			conditions: []metav1.Condition{set(v1alpha1.ConditionProgrammed, metav1.ConditionFalse, "NoReplica", generation)},
			wantStatus: metav1.ConditionFalse, wantReason: "NoReplica",
		},
		"programmed": {
			verdict: ok, conditions: []metav1.Condition{programmed},
			wantStatus: metav1.ConditionTrue, wantReason: v1alpha1.ReasonReady,
		},
		"failing": {
			verdict:    ok,
			conditions: []metav1.Condition{programmed, set(v1alpha1.ConditionEndpointHealthy, metav1.ConditionFalse, v1alpha1.ReasonCircuitOpen, generation)},
			wantStatus: metav1.ConditionTrue, wantReason: v1alpha1.ReasonReady,
		},
		"gone": {
			verdict:    ok,
			conditions: []metav1.Condition{programmed, set(v1alpha1.ConditionEndpointHealthy, metav1.ConditionFalse, v1alpha1.ReasonGone, generation)},
			wantStatus: metav1.ConditionFalse, wantReason: v1alpha1.ReasonGone,
		},
		"gone before the spec changed": {
			verdict:    ok,
			conditions: []metav1.Condition{programmed, set(v1alpha1.ConditionEndpointHealthy, metav1.ConditionFalse, v1alpha1.ReasonGone, generation-1)},
			wantStatus: metav1.ConditionTrue, wantReason: v1alpha1.ReasonReady,
		},
		"suspended": {
			verdict: ok, suspend: true, conditions: []metav1.Condition{programmed},
			wantStatus: metav1.ConditionTrue, wantReason: v1alpha1.ReasonSuspended,
		},
		"suspended and not programmed": {
			verdict: ok, suspend: true, wantStatus: metav1.ConditionUnknown, wantReason: v1alpha1.ReasonPending,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := &v1alpha1.WebhookSubscription{
				ObjectMeta: metav1.ObjectMeta{Generation: generation},
				Spec:       v1alpha1.WebhookSubscriptionSpec{Suspend: &test.suspend},
				Status:     v1alpha1.WebhookSubscriptionStatus{ObservedGeneration: generation, Conditions: test.conditions},
			}
			got := ready(sub, accepted(test.verdict))
			if got.Status != test.wantStatus || got.Reason != test.wantReason || got.Message == "" && test.wantReason != "NoReplica" {
				t.Errorf("Ready=%s (%s) %q, want %s (%s)", got.Status, got.Reason, got.Message, test.wantStatus, test.wantReason)
			}
			sub.Status.Conditions = append(sub.Status.Conditions, status.Conditions(sub, nil, got)...)
			if current := kstatusIsCurrent(sub); current != (test.wantStatus == metav1.ConditionTrue) {
				t.Errorf("Ready is %s, and kstatus takes it for current: %t", got.Status, current)
			}
		})
	}
}

// kstatusIsCurrent is the rule by which Argo CD, Flux and kubectl plugins take a custom resource for done (kstatus, in
// sigs.k8s.io/cli-utils): its generation was observed, nothing says Reconciling or Stalled, and Ready is True.
func kstatusIsCurrent(sub *v1alpha1.WebhookSubscription) bool {
	if sub.Status.ObservedGeneration != sub.Generation {
		return false
	}
	for _, c := range sub.Status.Conditions {
		switch c.Type {
		case "Reconciling", "Stalled":
			if c.Status == metav1.ConditionTrue {
				return false
			}
		case "Ready":
			return c.Status == metav1.ConditionTrue
		}
	}
	return true
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	sub := &v1alpha1.WebhookSubscription{}
	tests := map[string]struct {
		dispatcher *v1alpha1.WebhookDispatcher
		selected   bool
		wantReason string
	}{
		"no dispatcher": {nil, false, v1alpha1.ReasonDispatcherNotFound},
		"not selected":  {&v1alpha1.WebhookDispatcher{}, false, v1alpha1.ReasonNamespaceNotSelected},
		"admitted":      {&v1alpha1.WebhookDispatcher{}, true, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reason := ""
			if rejection := admit(sub, test.dispatcher, test.selected); rejection != nil {
				reason = rejection.Reason
			}
			if reason != test.wantReason {
				t.Errorf("reason %q, want %q", reason, test.wantReason)
			}
		})
	}
}

func TestMatters(t *testing.T) {
	t.Parallel()
	delivered := int64(7)
	base := func() *v1alpha1.WebhookSubscription {
		return &v1alpha1.WebhookSubscription{
			ObjectMeta: metav1.ObjectMeta{Generation: generation},
			Status: v1alpha1.WebhookSubscriptionStatus{
				ObservedGeneration: generation,
				Endpoint:           "https://example.com",
				Conditions:         []metav1.Condition{set(v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed, generation)},
			},
		}
	}
	tests := map[string]struct {
		edit func(*v1alpha1.WebhookSubscription)
		want bool
	}{
		"nothing": {func(*v1alpha1.WebhookSubscription) {}, false},
		"counts": {func(s *v1alpha1.WebhookSubscription) {
			s.Status.Deliveries = &v1alpha1.DeliveryCounts{Delivered: &delivered}
		}, false},
		"label":                 {func(s *v1alpha1.WebhookSubscription) { s.Labels = map[string]string{"a": "b"} }, false},
		"spec":                  {func(s *v1alpha1.WebhookSubscription) { s.Generation++ }, true},
		"deleted":               {func(s *v1alpha1.WebhookSubscription) { now := metav1.Now(); s.DeletionTimestamp = &now }, true},
		"condition":             {func(s *v1alpha1.WebhookSubscription) { s.Status.Conditions[0].Status = metav1.ConditionFalse }, true},
		"condition's age":       {func(s *v1alpha1.WebhookSubscription) { s.Status.Conditions[0].ObservedGeneration-- }, true},
		"condition removed":     {func(s *v1alpha1.WebhookSubscription) { s.Status.Conditions = nil }, true},
		"endpoint overwritten":  {func(s *v1alpha1.WebhookSubscription) { s.Status.Endpoint = "" }, true},
		"generation unobserved": {func(s *v1alpha1.WebhookSubscription) { s.Status.ObservedGeneration = 0 }, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			after := base()
			test.edit(after)
			if got := matters(event.UpdateEvent{ObjectOld: base(), ObjectNew: after}); got != test.want {
				t.Errorf("it matters: %t, want %t", got, test.want)
			}
		})
	}
}
