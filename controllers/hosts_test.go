package controllers_test

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// ofNamespace selects one namespace, as API servers label it.
func ofNamespace(name string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: name}}
}

// hook makes a namespace with a subscription to the dispatcher of another.
func hook(t *testing.T, home string, edits ...func(*v1alpha1.WebhookSubscription)) *v1alpha1.WebhookSubscription {
	t.Helper()
	ns := foreign(t)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	edits = append([]func(*v1alpha1.WebhookSubscription){func(s *v1alpha1.WebhookSubscription) { s.Spec.DispatcherRef.Namespace = home }}, edits...)
	return create(t, subscription(ns, "hook-"+ns, edits...))
}

// delivers waits until a subscription's entry has its URL.
func delivers(t *testing.T, home string, sub *v1alpha1.WebhookSubscription) {
	t.Helper()
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	entry(t, home, sub.Name, func(e *routing.Entry) error {
		if e.Waiting != "" || e.URL == "" {
			return errors.New("it waits because of " + e.Waiting)
		}
		return nil
	})
}

// TestHostsOfTenants: a rule binds the namespace that it selects, and no other, while all run.
func TestHostsOfTenants(t *testing.T) {
	t.Parallel()
	home := namespace(t)
	d := dispatcher(t, home)
	bound, free := hook(t, home), hook(t, home)
	delivers(t, home, bound)
	delivers(t, home, free)
	rule := func(hosts ...string) func(*v1alpha1.WebhookDispatcher) {
		return func(d *v1alpha1.WebhookDispatcher) {
			d.Spec.Egress.Rules = []v1alpha1.EgressRule{{NamespaceSelector: ofNamespace(bound.Namespace), Hosts: hosts}}
		}
	}
	change(t, d, rule("api.clinikapi.com"))
	waits(t, home, bound, v1alpha1.ReasonHostNotAllowed)
	delivers(t, home, free)
	change(t, d, rule("api.clinikapi.com", "*.example.com"))
	delivers(t, home, bound)
	change(t, bound, func(s *v1alpha1.WebhookSubscription) { s.Spec.URL = "https://hooks.example.org/" })
	waits(t, home, bound, v1alpha1.ReasonHostNotAllowed)
	change(t, bound, pointed)
	service := create(t, receiver(bound.Namespace))
	leadsTo(t, home, bound, service)
}

// approval makes a WebhookDestination for a namespace.
func approval(t *testing.T, namespace string, hosts ...string) *v1alpha1.WebhookDestination {
	t.Helper()
	made := create(t, &v1alpha1.WebhookDestination{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "destination-"},
		Spec:       v1alpha1.WebhookDestinationSpec{Hosts: hosts, NamespaceSelector: ofNamespace(namespace)},
	})
	t.Cleanup(func() { _ = api.Delete(context.Background(), made) })
	return made
}

// TestHostsAreApproved: where a dispatcher requires it, a host is delivered to once a WebhookDestination names it for the namespace, and
// for as long.
func TestHostsAreApproved(t *testing.T) {
	t.Parallel()
	home := namespace(t)
	d := dispatcher(t, home)
	one, two := hook(t, home), hook(t, home)
	service := create(t, receiver(two.Namespace))
	inside := create(t, subscription(two.Namespace, "inside-"+two.Namespace, pointed, func(s *v1alpha1.WebhookSubscription) { s.Spec.DispatcherRef.Namespace = home }))
	delivers(t, home, one)
	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Egress.Approval = v1alpha1.ApprovalRequired })
	waits(t, home, one, v1alpha1.ReasonNotApproved)
	waits(t, home, two, v1alpha1.ReasonNotApproved)
	become(t, one, v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonNotApproved)
	leadsTo(t, home, inside, service)

	approval(t, one.Namespace, "billing.example.org")
	approved := approval(t, one.Namespace, "*.example.com")
	delivers(t, home, one)
	waits(t, home, two, v1alpha1.ReasonNotApproved)
	late := create(t, subscription(one.Namespace, "late-"+one.Namespace, func(s *v1alpha1.WebhookSubscription) {
		s.Spec.DispatcherRef.Namespace, s.Spec.URL = home, "https://hooks.example.net/?token=canary"
	}))
	become(t, late, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonNotApproved)

	change(t, approved, func(w *v1alpha1.WebhookDestination) { w.Spec.NamespaceSelector = ofNamespace(two.Namespace) })
	delivers(t, home, two)
	waits(t, home, one, v1alpha1.ReasonNotApproved)
	remove(t, approved)
	waits(t, home, two, v1alpha1.ReasonNotApproved)
	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Egress.Approval = v1alpha1.ApprovalNone })
	delivers(t, home, one)
	delivers(t, home, late)
}
