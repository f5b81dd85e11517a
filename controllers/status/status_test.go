package status

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

func TestConditions(t *testing.T) {
	t.Parallel()
	past := metav1.NewTime(time.Date(2026, 1, 15, 9, 15, 0, 0, time.UTC))
	object := &v1alpha1.WebhookDispatcher{ObjectMeta: metav1.ObjectMeta{Generation: 2}}
	existing := []metav1.Condition{
		{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Old", LastTransitionTime: past, ObservedGeneration: 1},
		{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Ready", LastTransitionTime: past, ObservedGeneration: 1},
		{Type: "Other", Status: metav1.ConditionTrue, Reason: "NotOurs", LastTransitionTime: past},
	}
	accepted := metav1.Condition{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "New", Message: "m"}
	ready := metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "NotReady"}

	got := Conditions(object, existing, accepted, ready)
	if len(got) != 2 || got[0].Reason != "New" || got[0].ObservedGeneration != 2 || got[1].ObservedGeneration != 2 {
		t.Fatalf("conditions %+v", got)
	}
	if !got[0].LastTransitionTime.Equal(&past) {
		t.Errorf("a condition whose status stayed has changed at %v", got[0].LastTransitionTime)
	}
	if got[1].LastTransitionTime.Equal(&past) || got[1].LastTransitionTime.IsZero() {
		t.Errorf("a condition whose status changed has changed at %v", got[1].LastTransitionTime)
	}
	if existing[0].Reason != "Old" {
		t.Error("the existing conditions were modified")
	}
	if Contains(existing, got) || !Contains(append(existing[2:], got...), got) {
		t.Error("Contains cannot tell what is there already")
	}
	later := []metav1.Condition{got[0], got[1]}
	later[1].LastTransitionTime = metav1.NewTime(past.Add(time.Hour))
	if !Contains(later, got) {
		t.Error("a transition time alone makes a difference")
	}
	if again := Conditions(object, got, accepted, ready); !Contains(got, again) {
		t.Error("the same conditions again are others")
	}
}
