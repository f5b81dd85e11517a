package controllers_test

import (
	"context"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// writers are who has fields in the status of a subscription.
func writers(t *testing.T, sub *v1alpha1.WebhookSubscription) map[string]bool {
	t.Helper()
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(sub), sub); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, entry := range sub.ManagedFields {
		if entry.Subresource == "status" {
			found[entry.Manager] = true
		}
	}
	return found
}

// TestOneWriteForEachSubscription runs a dispatcher of this version, one of the version before, and one of this version again, under
// one manager: subscriptions become Ready with each of them, and are written by this version's manager alone.
func TestOneWriteForEachSubscription(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	pods(t, appears(t, in(ns, workload, &appsv1.Deployment{}), exists), 1)
	p := newPod(t, newWire(t), ns)

	reports := func(by bool) {
		t.Helper()
		eventually(t, func(ctx context.Context) error {
			if err := api.Get(ctx, client.ObjectKeyFromObject(d), d); err != nil {
				return err
			}
			if (d.Status.ProgrammedRevision > 0) != by || d.Status.Store.Reason != v1alpha1.ReasonStoreReady {
				return fmt.Errorf("the pods report %+v, by revision: %t", d.Status, by)
			}
			return nil
		})
	}
	restart := func(byRevision bool) {
		t.Helper()
		p.stop(t)
		p.options.ProgrammedByRevision = byRevision
		p.options.Version = fmt.Sprintf("by-revision-%t", byRevision)
		p.start(t)
	}
	ready := func(sub *v1alpha1.WebhookSubscription) {
		t.Helper()
		become(t, sub, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	}
	suspended := func(sub *v1alpha1.WebhookSubscription) {
		t.Helper()
		on := true
		change(t, sub, func(s *v1alpha1.WebhookSubscription) { s.Spec.Suspend = &on })
		become(t, sub, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSuspended)
	}

	restart(true)
	first := create(t, subscription(ns, "first"))
	ready(first)
	reports(true)
	if by := writers(t, first); len(by) != 1 || !by["eventflow-manager"] {
		t.Errorf("the status was written by %v, want the manager alone", by)
	}
	version := first.ResourceVersion
	suspended(create(t, subscription(ns, "second")))

	restart(false) // of the version before
	reports(false)
	third := create(t, subscription(ns, "third"))
	ready(third)
	if by := writers(t, third); !by["eventflow-dispatcher"] {
		t.Errorf("the status was written by %v, want the dispatcher too", by)
	}
	suspended(first)

	restart(true)
	reports(true)
	fourth := create(t, subscription(ns, "fourth"))
	ready(fourth)
	suspended(third)
	if by := writers(t, fourth); len(by) != 1 || first.ResourceVersion == version {
		t.Errorf("the status was written by %v, want the manager alone", by)
	}
}
