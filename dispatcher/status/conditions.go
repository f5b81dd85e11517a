package status

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/engine"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// failingAfter is how many attempts in a row must fail before an endpoint counts as failing.
const failingAfter = engine.BreakerThreshold

// conditions returns what is to be said of a route's endpoint, given what became of its deliveries. Messages hold nothing
// that changes while the state does not.
func conditions(route *routing.Route, counts delivery.Counts) []metav1.Condition {
	healthy := endpointHealthy(route, counts)
	healthy.Type, healthy.ObservedGeneration = v1alpha1.ConditionEndpointHealthy, route.Generation
	return []metav1.Condition{healthy}
}

// programmed is the generation that the dispatcher delivers by; 0 while deliveries wait.
func programmed(route *routing.Route) int64 {
	if route.Endpoint.Target == nil {
		return 0
	}
	return route.Generation
}

func endpointHealthy(route *routing.Route, counts delivery.Counts) metav1.Condition {
	switch {
	case route.Endpoint.Pull:
		return metav1.Condition{
			Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonPulled,
			Message: "The consumer pulls its deliveries: there is no endpoint to check; see status.deliveries for what waits",
		}
	case counts.Gone != 0 && counts.Gone == route.Endpoint.Generation:
		return metav1.Condition{
			Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonGone,
			Message: "The endpoint answered 410 Gone: deliveries wait until the subscription's spec changes, or a value that it takes from a Secret",
		}
	case counts.FailuresInARow >= failingAfter:
		return metav1.Condition{
			Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonCircuitOpen,
			Message: "Ten or more attempts in a row failed: deliveries go one at a time until one succeeds; see status.deliveries.lastFailure",
		}
	case counts.FailuresInARow > 0:
		return metav1.Condition{
			Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonLastFailed,
			Message: "The last attempt failed and will be repeated; see status.deliveries.lastFailure",
		}
	case counts.LastDelivered.IsZero():
		return metav1.Condition{Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonNoAttempts, Message: "No delivery was attempted yet"}
	default:
		return metav1.Condition{Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonDelivering, Message: "The endpoint took the last delivery"}
	}
}

// carryTransitions gives each condition the transition time of the one that stood before, if its status is the same.
func carryTransitions(wanted, before []metav1.Condition, now time.Time) {
	for i := range wanted {
		c := &wanted[i]
		c.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
		for _, b := range before {
			if b.Type == c.Type && b.Status == c.Status && !b.LastTransitionTime.IsZero() {
				c.LastTransitionTime = b.LastTransitionTime
			}
		}
	}
}
