package doctor

import (
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// findDispatchers says of each dispatcher what its conditions say, the store's reason before that of the whole.
func findDispatchers(in *Installation) []Finding {
	if len(in.Dispatchers) == 0 && in.Unread["webhookdispatchers"] == "" {
		return []Finding{{
			Level: Failed, Problem: "there is no WebhookDispatcher: no event is accepted",
			Why:  "the manager makes one, unless it runs with --create-default-dispatcher=false",
			Mend: "kubectl apply -k config/dispatchers/embedded",
		}}
	}
	var all []Finding
	for i := range in.Dispatchers {
		all = append(all, findDispatcher(&in.Dispatchers[i])...)
	}
	return all
}

func findDispatcher(d *v1alpha1.WebhookDispatcher) (all []Finding) {
	mend := func(reason string) string {
		return strings.NewReplacer("OBJECT", "webhookdispatcher/"+d.Name, "NAMESPACE", d.Namespace, "NAME", d.Name, "RESUME", `'{"spec":{"replicas":1}}'`).Replace(advice[reason])
	}
	named := object("WebhookDispatcher", d.Namespace, d.Name)
	s := stateOf(d.Generation, d.Status.ObservedGeneration, d.Status.Conditions)
	store := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionStoreReady)
	switch {
	case s.level != "":
		reason, why := s.reason, s.message
		if store != nil && store.Status == metav1.ConditionFalse && advice[store.Reason] != "" && reason == v1alpha1.ReasonNotReady {
			reason, why = store.Reason, store.Message
		}
		all = append(all, Finding{Level: s.level, Object: named, Problem: "it is not ready: " + reason, Why: why, Mend: mend(reason)})
	case s.reason == v1alpha1.ReasonSuspended:
		all = append(all, Finding{Level: Note, Object: named, Problem: "it is suspended: spec.replicas is 0, and no event is accepted", Mend: mend(s.reason)})
	}
	accepted := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionAccepted)
	if accepted != nil && accepted.Reason == v1alpha1.ReasonStoreImmutable {
		all = append(all, Finding{Level: Warning, Object: named, Problem: "a part of spec.store is ignored", Why: accepted.Message, Mend: mend(accepted.Reason)})
	}
	api := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionDeliveriesAPIReady)
	if api != nil && api.Status != metav1.ConditionTrue && s.level == "" && s.reason != v1alpha1.ReasonSuspended {
		all = append(all, Finding{Level: Warning, Object: named, Problem: "deliveries are not there in kubectl: " + api.Reason, Why: api.Message, Mend: mend(api.Reason)})
	}
	return all
}
