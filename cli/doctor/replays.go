package doctor

import (
	"cmp"
	"strings"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// replayAdvice is what to do about a reason of a WebhookReplay, where that is not what advice says.
var replayAdvice = map[string]string{
	v1alpha1.ReasonQuotaExceeded:      "kubectl -n NAMESPACE get webhooksubscriptions    # it goes on when pending deliveries end; or raise spec.quotas of the dispatcher",
	v1alpha1.ReasonDispatcherNotFound: "kubectl -n NAMESPACE delete OBJECT    # or create the dispatcher that the message names",
}

// findReplays says of each replay that is not complete what its conditions say.
func findReplays(in *Installation) (all []Finding) {
	for i := range in.Replays {
		r := &in.Replays[i]
		mend := func(reason string) string {
			return strings.NewReplacer("OBJECT", "webhookreplay/"+r.Name, "NAMESPACE", r.Namespace, "NAME", r.Name, "RESUME", `'{"spec":{"suspend":false}}'`).
				Replace(cmp.Or(replayAdvice[reason], advice[reason]))
		}
		named := object("WebhookReplay", r.Namespace, r.Name)
		s := stateOf(r.Generation, r.Status.ObservedGeneration, r.Status.Conditions)
		switch {
		case s.level != "":
			all = append(all, Finding{Level: s.level, Object: named, Problem: "it is not complete: " + s.reason, Why: s.message, Mend: mend(s.reason)})
		case s.reason == v1alpha1.ReasonSuspended:
			all = append(all, Finding{Level: Note, Object: named, Problem: "it is suspended", Mend: mend(s.reason)})
		}
	}
	return all
}
