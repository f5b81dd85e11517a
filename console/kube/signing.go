package kube

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// SigningKeys returns the keys that sign for a subscription in every pod, in the order current, previous, next, or why that cannot
// be told: the status is not about this spec, or not yet.
func SigningKeys(sub *v1alpha1.WebhookSubscription) ([]v1alpha1.SigningKey, string) {
	is := func(kind string) *metav1.Condition {
		c := meta.FindStatusCondition(sub.Status.Conditions, kind)
		if c == nil || c.ObservedGeneration != sub.Generation || sub.Status.ObservedGeneration != sub.Generation {
			return nil
		}
		return c
	}
	keys, refs := sub.Status.Signing.Keys, routing.SigningReferences(&sub.Spec)
	accepted, programmed := is(v1alpha1.ConditionAccepted), is(v1alpha1.ConditionProgrammed)
	switch {
	case accepted != nil && accepted.Status == metav1.ConditionFalse:
		return nil, "the subscription is not accepted, and its deliveries wait: " + accepted.Message
	case programmed == nil:
		return nil, "the manager has not looked at this spec yet"
	case programmed.Status != metav1.ConditionTrue:
		return nil, "the dispatcher does not work by this spec yet: " + programmed.Message
	case len(keys) == 0:
		return nil, "status.signing does not say which keys sign. An earlier version wrote this status. Change spec.signing once, and it is written anew"
	case len(keys) < len(refs):
		return nil, fmt.Sprintf("%s, and spec.signing names %d: the dispatcher has not taken all of them up yet, or two are the same", sign(len(keys)), len(refs))
	case len(keys) > len(refs):
		return nil, "a key that spec.signing does not name any more still signs: the dispatcher has not taken that up yet"
	}
	return keys, ""
}

func sign(keys int) string {
	if keys == 1 {
		return "1 key signs"
	}
	return fmt.Sprintf("%d keys sign", keys)
}
