package subscription

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// generation of every subscription in this file.
const generation = 3

func set(kind string, value metav1.ConditionStatus, reason string, generation int64) metav1.Condition {
	return metav1.Condition{Type: kind, Status: value, Reason: reason, ObservedGeneration: generation}
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
		"label": {func(s *v1alpha1.WebhookSubscription) { s.Labels = map[string]string{"a": "b"} }, false},
		"label under a filter": {func(s *v1alpha1.WebhookSubscription) {
			s.Spec.Filter, s.Labels = "subscription.labels.a == 'b'", map[string]string{"a": "b"}
		}, true},
		"label under a filter that reads none": {func(s *v1alpha1.WebhookSubscription) {
			s.Spec.Filter, s.Labels = "event.data.a == 'b'", map[string]string{"a": "b"}
		}, false},
		"label under a transform": {func(s *v1alpha1.WebhookSubscription) {
			s.Spec.Transform, s.Labels = &v1alpha1.Transform{URLSuffix: "'/' + subscription.labels.a"}, map[string]string{"a": "b"}
		}, true},
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
