package subscription

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/routes"
)

// awaited reports whether a dispatcher, nil if there is none, has yet to take over what became of a subscription: that it is
// delivered by this generation, or that its deliveries wait because it is not accepted. See docs/adr/0014.
func awaited(sub *v1alpha1.WebhookSubscription, v verdict, d *v1alpha1.WebhookDispatcher, t routes.Takeover) bool {
	if d == nil || (t.Inherited || !t.Awaited) && stood(sub, v) { // also if the report is gone: a pod of an earlier version was the last
		return false
	}
	if d.Status.ProgrammedRevision > 0 {
		return t.Awaited
	}
	// Its pods are of an earlier version, and say so at each subscription; or they have not said anything yet.
	if v.rejection != nil {
		return sub.Status.ProgrammedGeneration != 0
	}
	return sub.Status.ProgrammedGeneration != sub.Generation
}

// stood reports whether the status says of this generation that the dispatcher had taken over what became of it.
func stood(sub *v1alpha1.WebhookSubscription, v verdict) bool {
	said := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionProgrammed)
	if said == nil || said.ObservedGeneration != sub.Generation {
		return false
	}
	if v.rejection != nil {
		return said.Reason == v1alpha1.ReasonWaiting
	}
	return said.Status == metav1.ConditionTrue || said.Reason == v1alpha1.ReasonDispatcherUnavailable
}
