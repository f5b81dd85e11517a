package controllers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// receiver is a Service as a subscription may name it.
func receiver(namespace string, edits ...func(*corev1.ServiceSpec)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "receiver"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "receiver"}, Ports: []corev1.ServicePort{{Port: 8443}},
	}}
	for _, edit := range edits {
		edit(&s.Spec)
	}
	return s
}

// pointed has a subscription name it.
func pointed(s *v1alpha1.WebhookSubscription) {
	s.Spec.URL, s.Spec.ServiceRef = "", v1alpha1.ServiceReference{Name: "receiver", Port: 8443, Path: "/in?token=canary"}
}

// leadsTo waits until a subscription's entry in a dispatcher's table has the addresses of a Service.
func leadsTo(t *testing.T, home string, sub *v1alpha1.WebhookSubscription, service *corev1.Service) {
	t.Helper()
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	entry(t, home, sub.Name, func(e *routing.Entry) error {
		var have []string
		for _, a := range e.Service {
			have = append(have, a.String())
		}
		if want := fmt.Sprintf("https://receiver.%s.svc:8443/in?token=canary", sub.Namespace); !slices.Equal(have, service.Spec.ClusterIPs) || e.URL != want || e.Waiting != "" {
			return fmt.Errorf("URL %s, addresses %v, waiting %q; want %s, %v", e.URL, have, e.Waiting, want, service.Spec.ClusterIPs)
		}
		return nil
	})
}

// waits waits until a subscription's entry leads nowhere, and goes on matching.
func waits(t *testing.T, home string, sub *v1alpha1.WebhookSubscription, reason string) {
	t.Helper()
	for _, kind := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionReady} {
		if c := become(t, sub, kind, metav1.ConditionFalse, reason); strings.Contains(c.Message, "canary") {
			t.Errorf("%s shows what nobody should see: %s", kind, c.Message)
		}
	}
	entry(t, home, sub.Name, func(e *routing.Entry) error {
		if e.Waiting != reason || len(e.Service) > 0 || e.URL != "" || len(e.Patterns) != 1 {
			return fmt.Errorf("waiting %q, addresses %v, patterns %v; want it to match on and wait for %s", e.Waiting, e.Service, e.Patterns, reason)
		}
		return nil
	})
}

// TestServiceTakesEffect follows a Service: it appears late, gets another address, leads out of the namespace, has no address, no
// port, and is gone. Deliveries go to the addresses that it has, and wait in all other states.
func TestServiceTakesEffect(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	sub := create(t, subscription(ns, "billing", pointed))
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonServiceNotFound)
	become(t, sub, v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonServiceNotFound)
	if want := "https://receiver." + ns + ".svc:8443"; sub.Status.Endpoint != want {
		t.Errorf("the endpoint is %q, want %q", sub.Status.Endpoint, want)
	}

	service := create(t, receiver(ns))
	leadsTo(t, ns, sub, service)
	before := service.Spec.ClusterIP
	remove(t, service)
	waits(t, ns, sub, v1alpha1.ReasonServiceNotFound)

	other := create(t, receiver(ns, func(s *corev1.ServiceSpec) { s.Selector = nil })) // takes an address, perhaps the one of before
	waits(t, ns, sub, v1alpha1.ReasonServiceNotAllowed)
	change(t, other, func(s *corev1.Service) { s.Name, s.Spec.Selector = "receiver", map[string]string{"app": "receiver"} })
	leadsTo(t, ns, sub, other)
	if other.Spec.ClusterIP == before {
		t.Logf("the API server gave %s out again", before)
	}

	change(t, other, func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalName, s.Spec.ClusterIP, s.Spec.ClusterIPs = corev1.ServiceTypeExternalName, "metadata.canary.example", "", nil
	})
	waits(t, ns, sub, v1alpha1.ReasonServiceNotAllowed)
	change(t, other, func(s *corev1.Service) { s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeClusterIP, "" })
	leadsTo(t, ns, sub, other)
	change(t, other, func(s *corev1.Service) { s.Spec.Ports[0].Port = 9443 })
	waits(t, ns, sub, v1alpha1.ReasonServicePortMissing)
	remove(t, other)
	waits(t, ns, sub, v1alpha1.ReasonServiceNotFound)
	create(t, receiver(ns, func(s *corev1.ServiceSpec) { s.ClusterIP = corev1.ClusterIPNone }))
	waits(t, ns, sub, v1alpha1.ReasonServiceWithoutAddress)
}

// TestServicesOfTenantsAreTheirOwn: two namespaces have a Service of one name, and each leads to its own.
func TestServicesOfTenantsAreTheirOwn(t *testing.T) {
	t.Parallel()
	home, one, two := namespace(t), foreign(t), foreign(t)
	dispatcher(t, home)
	subscribe := func(ns string) *v1alpha1.WebhookSubscription {
		secret(t, ns, "key", map[string]string{"current": signingKey})
		return create(t, subscription(ns, "hook-"+ns, pointed, func(s *v1alpha1.WebhookSubscription) { s.Spec.DispatcherRef.Namespace = home }))
	}
	first, second := subscribe(one), subscribe(two)
	service := create(t, receiver(one))
	leadsTo(t, home, first, service)
	become(t, second, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonServiceNotFound)
	other := create(t, receiver(two))
	leadsTo(t, home, second, other)
	remove(t, service)
	waits(t, home, first, v1alpha1.ReasonServiceNotFound)
	leadsTo(t, home, second, other)
}

// TestTheAPIServerIsNoReceiver: its Service stands in the namespace default, and nobody's deliveries go there.
func TestTheAPIServerIsNoReceiver(t *testing.T) {
	t.Parallel()
	home := namespace(t)
	dispatcher(t, home)
	secret(t, metav1.NamespaceDefault, home+"-key", map[string]string{"current": signingKey})
	sub := create(t, subscription(metav1.NamespaceDefault, home, func(s *v1alpha1.WebhookSubscription) {
		s.Spec.DispatcherRef.Namespace, s.Spec.Signing.SecretRef.Name = home, home+"-key"
		s.Spec.URL, s.Spec.ServiceRef = "", v1alpha1.ServiceReference{Name: "kubernetes", Port: 443}
	}))
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonServiceNotAllowed)
	become(t, sub, v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonServiceNotAllowed)
}
