package doctor

import (
	"cmp"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// findSubscriptions says of each subscription what its conditions say.
func findSubscriptions(in *Installation) []Finding {
	var all []Finding
	for i := range in.Subscriptions {
		sub := &in.Subscriptions[i]
		mend := func(reason string) string {
			ref := sub.Spec.DispatcherRef
			return strings.NewReplacer(
				"DISPATCHERNAMESPACE", cmp.Or(ref.Namespace, "eventflow-system"), "DISPATCHER", cmp.Or(ref.Name, "default"),
				"OBJECT", "webhooksubscription/"+sub.Name, "NAMESPACE", sub.Namespace, "NAME", sub.Name, "RESUME", `'{"spec":{"suspend":false}}'`,
			).Replace(advice[reason])
		}
		named := object("WebhookSubscription", sub.Namespace, sub.Name)
		s := stateOf(sub.Generation, sub.Status.ObservedGeneration, sub.Status.Conditions)
		switch {
		case s.level != "":
			all = append(all, Finding{Level: s.level, Object: named, Problem: "it is not ready: " + s.reason, Why: s.message, Mend: mend(s.reason)})
		case s.reason == v1alpha1.ReasonSuspended:
			all = append(all, Finding{Level: Note, Object: named, Problem: "it is suspended: its deliveries wait", Mend: mend(s.reason)})
		}
		for _, kind := range []string{
			v1alpha1.ConditionEndpointHealthy, v1alpha1.ConditionFilterHealthy, v1alpha1.ConditionScheduleHealthy, v1alpha1.ConditionTransformHealthy,
		} {
			c := meta.FindStatusCondition(sub.Status.Conditions, kind)
			if c == nil || c.Status != metav1.ConditionFalse || c.Reason == s.reason {
				continue
			}
			all = append(all, Finding{
				Level: Warning, Object: named, Problem: kind + " is False: " + c.Reason, Why: c.Message,
				Mend: cmp.Or(mend(c.Reason), "kubectl -n "+sub.Namespace+" edit webhooksubscription/"+sub.Name+"    # eventflow test tries it"),
			})
		}
	}
	return all
}
