package subscription

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// verdict is what was decided about a subscription.
type verdict struct {
	rejection *routing.Rejection // nil if it is accepted
	endpoint  string             // scheme, host and port; "" if it cannot be told
}

// accepted is the condition that says what was decided.
func accepted(v verdict) metav1.Condition {
	if v.rejection != nil {
		return condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v.rejection.Reason, v.rejection.Message)
	}
	return condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted, "the spec is valid and its Secrets were found")
}

// ready is the condition that sums up: True means that an event published now will be delivered.
func ready(sub *v1alpha1.WebhookSubscription, accepted metav1.Condition) metav1.Condition {
	for _, check := range []func(*v1alpha1.WebhookSubscription, metav1.Condition) (metav1.Condition, bool){
		notAccepted, notProgrammed, endpointGone,
	} {
		if c, failed := check(sub, accepted); failed {
			return c
		}
	}
	if suspend := sub.Spec.Suspend; suspend != nil && *suspend {
		return condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSuspended, "events match, and their deliveries wait until spec.suspend is false")
	}
	return condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "events are delivered")
}

func notAccepted(_ *v1alpha1.WebhookSubscription, accepted metav1.Condition) (metav1.Condition, bool) {
	return condition(v1alpha1.ConditionReady, metav1.ConditionFalse, accepted.Reason, accepted.Message), accepted.Status != metav1.ConditionTrue
}

func notProgrammed(sub *v1alpha1.WebhookSubscription, _ metav1.Condition) (metav1.Condition, bool) {
	programmed := current(sub, v1alpha1.ConditionProgrammed)
	switch {
	case programmed == nil:
		ref := sub.Spec.DispatcherRef
		message := fmt.Sprintf("waiting for WebhookDispatcher %s in namespace %s to take up this generation; see its condition Ready", ref.Name, ref.Namespace)
		return condition(v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonPending, message), true
	case programmed.Status != metav1.ConditionTrue:
		return condition(v1alpha1.ConditionReady, programmed.Status, programmed.Reason, programmed.Message), true
	}
	return metav1.Condition{}, false
}

func endpointGone(sub *v1alpha1.WebhookSubscription, _ metav1.Condition) (metav1.Condition, bool) {
	healthy := current(sub, v1alpha1.ConditionEndpointHealthy)
	if healthy == nil || healthy.Status == metav1.ConditionTrue || healthy.Reason != v1alpha1.ReasonGone {
		return metav1.Condition{}, false
	}
	return condition(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonGone, "the endpoint answered 410 Gone: deliveries wait until the spec is changed, or a value that it takes from a Secret"), true
}

// current returns a condition that was set for the current generation, or nil.
func current(sub *v1alpha1.WebhookSubscription, kind string) *metav1.Condition {
	c := meta.FindStatusCondition(sub.Status.Conditions, kind)
	if c == nil || c.ObservedGeneration != sub.Generation {
		return nil
	}
	return c
}

func condition(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}
