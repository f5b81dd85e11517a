package controllers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	follow "github.com/clinikapi/eventflow/controllers/subscription"
)

// report says as a dispatcher's pod does how its store is, and which version it is of.
func report(t *testing.T, d *v1alpha1.WebhookDispatcher, reason string) {
	t.Helper()
	change := []byte(fmt.Sprintf(`{"apiVersion":"webhooks.clinikapi.com/v1alpha1","kind":"WebhookDispatcher","status":{"version":"v1","store":{"reason":%q}}}`, reason))
	patch := client.RawPatch("application/apply-patch+yaml", change)
	if err := api.Status().Patch(t.Context(), d, patch, client.FieldOwner("eventflow-dispatcher"), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
}

// serving makes a dispatcher that accepts and delivers, as far as its pods say, with a key for subscriptions.
func serving(t *testing.T, ns string) (*v1alpha1.WebhookDispatcher, *appsv1.Deployment) {
	t.Helper()
	d := dispatcher(t, ns)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	pods(t, deployment, 1)
	report(t, d, v1alpha1.ReasonStoreReady)
	become(t, d, v1alpha1.ConditionAvailable, metav1.ConditionTrue, v1alpha1.ReasonAvailable)
	return d, deployment
}

// TestSubscriptionsFollowTheirDispatcher lets a dispatcher blink, die, come back, and be suspended.
func TestSubscriptionsFollowTheirDispatcher(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d, deployment := serving(t, ns)
	sub := create(t, subscription(ns, "billing"))
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	program(t, sub)
	become(t, sub, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)

	before := sub.ResourceVersion
	for range 3 { // it blinks
		pods(t, deployment, 0)
		become(t, d, v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonNoPodReady)
		become(t, d, v1alpha1.ConditionStoreReady, metav1.ConditionUnknown, v1alpha1.ReasonNoPodReady)
		pods(t, deployment, 1)
		become(t, d, v1alpha1.ConditionAvailable, metav1.ConditionTrue, v1alpha1.ReasonAvailable)
	}
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(sub), sub); err != nil || sub.ResourceVersion != before {
		t.Errorf("a blink of the dispatcher was written to its subscription (%v)", err)
	}

	report(t, d, v1alpha1.ReasonStoreFull) // for longer than the hold-off
	become(t, d, v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonStoreFull)
	began := time.Now()
	become(t, sub, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonDispatcherUnavailable)
	if took := time.Since(began); took < follow.HoldOff-2*time.Second {
		t.Errorf("it was marked after %v", took)
	}
	become(t, sub, v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonDispatcherUnavailable)
	report(t, d, v1alpha1.ReasonStoreReady)
	become(t, sub, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	if took := time.Since(began); took < 2*(follow.HoldOff-2*time.Second) {
		t.Errorf("it was marked, and back, after %v", took)
	}

	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Replicas = ptr.To(int32(0)) })
	become(t, sub, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonDispatcherSuspended)
	become(t, sub, v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonDispatcherSuspended)
	remove(t, d)
	become(t, sub, v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonDispatcherNotFound)
	become(t, sub, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonDispatcherNotFound)
}

// TestEventsAreMade looks for what a tenant and a platform team see, made with the rights that config/rbac gives.
func TestEventsAreMade(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d, _ := serving(t, ns)
	report(t, d, v1alpha1.ReasonStoreFull)
	sub := create(t, subscription(ns, "billing"))
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	for _, reason := range []string{v1alpha1.ReasonCircuitOpen, v1alpha1.ReasonGone, v1alpha1.ReasonCircuitOpen} {
		program(t, sub, metav1.Condition{Type: v1alpha1.ConditionEndpointHealthy, Status: metav1.ConditionFalse, Reason: reason})
	}
	program(t, sub, metav1.Condition{Type: v1alpha1.ConditionEndpointHealthy, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonDelivering})
	change(t, sub, func(s *v1alpha1.WebhookSubscription) { s.Spec.Signing.SecretRef.Name = "absent" })
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	eventually(t, func(ctx context.Context) error {
		var list eventsv1.EventList
		if err := api.List(ctx, &list, client.InNamespace(ns)); err != nil {
			return err
		}
		seen := map[string]int{}
		for _, e := range list.Items {
			seen[e.Regarding.Kind+" "+e.Reason]++
			if strings.Contains(e.Note, "canary") || strings.Contains(e.Note, "/in") {
				t.Errorf("an Event shows a URL's path: %s", e.Note)
			}
		}
		for _, want := range []string{
			"WebhookSubscription EndpointFailing", "WebhookSubscription EndpointGone", "WebhookSubscription EndpointRecovered",
			"WebhookSubscription NotAccepted", "WebhookDispatcher StoreNotReady", "WebhookDispatcher Unavailable",
		} {
			if seen[want] != 1 {
				return fmt.Errorf("want one Event %s, have %v", want, seen)
			}
		}
		return nil
	})
}

// TestAReplacedConditionGoes: one that failed does not say that it is in progress, too.
func TestAReplacedConditionGoes(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	sub := create(t, subscription(ns, "billing"))
	become(t, sub, v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonSecretNotFound)
	secret(t, ns, "key", map[string]string{"current": "short"})
	become(t, sub, v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonSecretKeyInvalid)
	if meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionReconciling) != nil {
		t.Errorf("it failed, and says that it is in progress: %+v", sub.Status.Conditions)
	}
}
