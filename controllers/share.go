package controllers

import (
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// shareTexts has a cached subscription share with all others the texts that most of them have alike: those of conditions
// are a third of its size.
func shareTexts(sub *v1alpha1.WebhookSubscription) {
	for _, text := range []*string{
		&sub.Namespace, &sub.Kind, &sub.APIVersion, &sub.Spec.DispatcherRef.Name, &sub.Spec.DispatcherRef.Namespace,
	} {
		*text = unique.Make(*text).Value()
	}
	for i := range sub.Status.Conditions {
		c := &sub.Status.Conditions[i]
		for _, text := range []*string{&c.Type, &c.Reason, &c.Message} {
			*text = unique.Make(*text).Value()
		}
		c.Status = metav1.ConditionStatus(unique.Make(string(c.Status)).Value())
	}
	for i := range sub.Spec.Events {
		sub.Spec.Events[i] = unique.Make(sub.Spec.Events[i]).Value()
	}
}
