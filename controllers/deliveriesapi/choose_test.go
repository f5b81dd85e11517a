package deliveriesapi

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// dispatcherOf asks for the API. The later the name, the younger it is.
func dispatcherOf(name string, edits ...func(*v1alpha1.WebhookDispatcher)) v1alpha1.WebhookDispatcher {
	d := v1alpha1.WebhookDispatcher{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns-" + name, Name: name, CreationTimestamp: metav1.NewTime(began.Add(time.Duration(name[0]) * time.Second)),
	}}
	d.Spec.DeliveriesAPI.Enabled = ptr.To(true)
	d.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAccepted}}
	for _, edit := range edits {
		edit(&d)
	}
	return d
}

// TestChoose: the oldest that can have the API gets it, and the others are told why they do not.
func TestChoose(t *testing.T) {
	t.Parallel()
	is := func(reason string) func(*v1alpha1.WebhookDispatcher) {
		return func(d *v1alpha1.WebhookDispatcher) {
			d.Status.Conditions[0].Status, d.Status.Conditions[0].Reason = metav1.ConditionFalse, reason
		}
	}
	off := func(d *v1alpha1.WebhookDispatcher) { d.Spec.DeliveriesAPI.Enabled = nil }
	open := func(d *v1alpha1.WebhookDispatcher) { d.Spec.Ingest.Authentication = v1alpha1.IngestNone }
	none := func(d *v1alpha1.WebhookDispatcher) { d.Spec.Replicas = ptr.To[int32](0) }
	unseen := func(d *v1alpha1.WebhookDispatcher) { d.Status.Conditions = nil }
	deleted := func(d *v1alpha1.WebhookDispatcher) { d.DeletionTimestamp = ptr.To(metav1.NewTime(began)) }
	for name, test := range map[string]struct {
		all        []v1alpha1.WebhookDispatcher
		forbidden  bool
		ending     string
		wantChosen string
		wantOthers map[string]string
	}{
		"nobody asks":            {all: []v1alpha1.WebhookDispatcher{dispatcherOf("a", off), dispatcherOf("b", open)}},
		"the oldest of two":      {all: []v1alpha1.WebhookDispatcher{dispatcherOf("b"), dispatcherOf("a")}, wantChosen: "a", wantOthers: map[string]string{"b": v1alpha1.ReasonServedByAnother}},
		"the oldest is deleted":  {all: []v1alpha1.WebhookDispatcher{dispatcherOf("b"), dispatcherOf("a", deleted)}, wantChosen: "b"},
		"the oldest is stopped":  {all: []v1alpha1.WebhookDispatcher{dispatcherOf("b"), dispatcherOf("a", none)}, wantChosen: "b", wantOthers: map[string]string{"a": v1alpha1.ReasonSuspended}},
		"nothing is granted":     {all: []v1alpha1.WebhookDispatcher{dispatcherOf("b"), dispatcherOf("a", is(v1alpha1.ReasonNamespaceNotGranted))}, wantChosen: "b", wantOthers: map[string]string{"a": v1alpha1.ReasonNamespaceNotGranted}},
		"another reason":         {all: []v1alpha1.WebhookDispatcher{dispatcherOf("a", is(v1alpha1.ReasonInvalidSpec))}, wantChosen: "a"},
		"not looked at yet":      {all: []v1alpha1.WebhookDispatcher{dispatcherOf("a", unseen)}, wantOthers: map[string]string{"a": v1alpha1.ReasonPending}},
		"the manager may not":    {all: []v1alpha1.WebhookDispatcher{dispatcherOf("a")}, forbidden: true, wantOthers: map[string]string{"a": v1alpha1.ReasonDeliveriesAPIOff}},
		"its namespace is going": {all: []v1alpha1.WebhookDispatcher{dispatcherOf("a"), dispatcherOf("b")}, ending: "ns-a", wantChosen: "b", wantOthers: map[string]string{"a": v1alpha1.ReasonTerminating}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			chosen, others := choose(asking(test.all), !test.forbidden, func(namespace string) bool { return namespace == test.ending })
			got := ""
			if chosen != nil {
				got = chosen.Name
			}
			if got != test.wantChosen {
				t.Errorf("%q is chosen, want %q", got, test.wantChosen)
			}
			if len(others) != len(test.wantOthers) {
				t.Errorf("others are told %v", others)
			}
			for name, reason := range test.wantOthers {
				if a := others[client.ObjectKey{Namespace: "ns-" + name, Name: name}]; a.reason != reason || a.status != metav1.ConditionFalse || a.message == "" {
					t.Errorf("%s is told %+v, want %s", name, a, reason)
				}
			}
		})
	}
}
