package controllers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	deliveries "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers"
	certs "github.com/clinikapi/eventflow/controllers/certificates"
	"github.com/clinikapi/eventflow/controllers/deliveriesapi"
)

// None of these tests is parallel: a cluster has one deliveries API.

// TestDeliveriesAPIIsSetUp walks from a dispatcher that asks to an API that is served, and back.
func TestDeliveriesAPIIsSetUp(t *testing.T) {
	withDeliveries(t)
	ns := deliveriesNamespace(t)
	plane := startDataPlane(t, ns)
	d := dispatcher(t, ns, asks)
	set := certificateOf(t, ns, anyCertificate)
	become(t, d, v1alpha1.ConditionDeliveriesAPIReady, metav1.ConditionFalse, v1alpha1.ReasonUnreachable) // nothing listens
	unregistered(t)

	other, _, err := certs.Brief.Renew(certs.Set{}, []string{deliveriesName + "." + ns + ".svc"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	plane.listen(t, other)
	become(t, d, v1alpha1.ConditionDeliveriesAPIReady, metav1.ConditionFalse, v1alpha1.ReasonCertificateNotServed)
	unregistered(t)

	plane.serve(t, set)
	service := registered(t, d)
	binding := appears(t, in("", deliveriesRole, &rbacv1.ClusterRoleBinding{}), exists)
	if owners := service.GetOwnerReferences(); len(owners) != 1 || owners[0].UID != binding.UID || owners[0].Kind != "ClusterRoleBinding" {
		t.Errorf("the APIService does not go with the right to it: %+v", owners)
	}
	mayAs(t, deliveriesRole, ns, true)
	podsServe(t, ns, true)
	if s := appears(t, in(ns, deliveriesName, &corev1.Service{}), exists); !s.Spec.PublishNotReadyAddresses || !metav1.IsControlledBy(s, d) {
		t.Errorf("the Service leads to ready pods alone, or does not go with its dispatcher: %+v", s.Spec)
	}

	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.DeliveriesAPI.Enabled = ptr.To(false) })
	unregistered(t)
	conditionGone(t, d)
	mayAs(t, deliveriesRole, ns, false)
	podsServe(t, ns, false)
	for _, object := range []client.Object{in(ns, deliveriesName, &corev1.Service{}), in(ns, deliveriesName, &corev1.Secret{})} {
		eventually(t, func(ctx context.Context) error {
			if err := api.Get(ctx, client.ObjectKeyFromObject(object), object); !apierrors.IsNotFound(err) {
				return errors.Join(fmt.Errorf("%T is left", object), err)
			}
			return nil
		})
	}
}

// podsServe waits until the pods of a namespace's dispatcher serve the API, or do not.
func podsServe(t *testing.T, ns string, want bool) {
	t.Helper()
	appears(t, in(ns, workload, &appsv1.Deployment{}), func(deployment *appsv1.Deployment) error {
		pod := deployment.Spec.Template.Spec
		args := pod.Containers[0].Args
		mounted := false
		for _, volume := range pod.Volumes {
			if volume.Secret == nil || volume.Secret.SecretName != deliveriesName {
				continue
			}
			mounted = true
			if len(volume.Secret.Items) != 2 { // the next key is none of the pod's business
				return fmt.Errorf("the pod sees all of the Secret: %+v", volume.Secret)
			}
		}
		if listens := argument(args, "deliveries-listen") != ""; listens != want || mounted != want || len(pod.Containers[0].Ports) != 2+map[bool]int{true: 1}[want] {
			return fmt.Errorf("listens %t, mounted %t, ports %v", listens, mounted, pod.Containers[0].Ports)
		}
		return nil
	})
}

// TestDeadDispatcherHarmsNobody: the API goes with the pods, and comes back with them.
func TestDeadDispatcherHarmsNobody(t *testing.T) {
	withDeliveries(t)
	ns := deliveriesNamespace(t)
	plane := startDataPlane(t, ns)
	d := dispatcher(t, ns, asks)
	set := certificateOf(t, ns, anyCertificate)
	plane.listen(t, set)
	registered(t, d)

	plane.kill(t)
	become(t, d, v1alpha1.ConditionDeliveriesAPIReady, metav1.ConditionUnknown, v1alpha1.ReasonUnreachable) // for a moment, it may pass
	unregistered(t)
	become(t, d, v1alpha1.ConditionDeliveriesAPIReady, metav1.ConditionFalse, v1alpha1.ReasonUnreachable)
	podsServe(t, ns, true) // or they could never come back

	plane.listen(t, set)
	registered(t, d)
	remove(t, d) // its pods go on for a while
	unregistered(t)
}

// TestManagerThatComesBack: without a manager, a dispatcher goes on serving. What died in between is found by the next one.
func TestManagerThatComesBack(t *testing.T) {
	withDeliveries(t)
	ns := deliveriesNamespace(t)
	plane := startDataPlane(t, ns)
	d := dispatcher(t, ns, asks)
	set := certificateOf(t, ns, anyCertificate)
	plane.listen(t, set)
	uid := registered(t, d).GetUID()

	restart(t, deliveriesOptions())
	if again := registered(t, d); again.GetUID() != uid {
		t.Error("a restart of the manager registers the API anew")
	}

	for name, die := range map[string]func(){
		"the pods":       func() { plane.kill(t) },
		"the dispatcher": func() { remove(t, d) },
	} {
		if err := manager.stop(); err != nil {
			t.Fatal(err)
		}
		discovered(t, true)
		die()
		if err := api.Get(t.Context(), client.ObjectKey{Name: deliveriesapi.Name}, apiService()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		manager.start(deliveriesOptions())
		unregistered(t)
		if plane.server == nil {
			plane.listen(t, set)
		} else {
			d = dispatcher(t, ns, asks)
			plane.serve(t, certificateOf(t, ns, anyCertificate))
		}
		registered(t, d)
	}
}

// TestCertificateIsRotated: clients trust a successor before it is served, and an expired one is replaced.
func TestCertificateIsRotated(t *testing.T) {
	withDeliveries(t)
	ns := deliveriesNamespace(t)
	plane := startDataPlane(t, ns)
	d := dispatcher(t, ns, asks)
	set := certificateOf(t, ns, anyCertificate)
	plane.listen(t, set)
	uid := registered(t, d).GetUID()

	// As if it was made 61 days ago.
	host := []string{deliveriesName + "." + ns + ".svc"}
	old, _, err := certs.Brief.Renew(certs.Set{}, host, time.Now().Add(-61*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	put := func(set certs.Set) {
		change(t, in(ns, deliveriesName, &corev1.Secret{}), func(s *corev1.Secret) { s.Data = set.Data() })
	}
	plane.serve(t, old)
	put(old)
	staged := certificateOf(t, ns, func(s certs.Set) error {
		if len(s.Next.Certificate) == 0 || !bytes.Equal(s.Serving.Certificate, old.Serving.Certificate) {
			return errors.New("it has no successor, or is replaced at once")
		}
		return nil
	})
	published(t, staged)

	// An hour later the successor takes its place; the pods follow a minute later.
	due, _, err := certs.Brief.Renew(old, host, time.Now().Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	put(due)
	next := certificateOf(t, ns, func(s certs.Set) error {
		if !bytes.Equal(s.Serving.Certificate, due.Next.Certificate) {
			return errors.New("the successor is not served")
		}
		return nil
	})
	published(t, next)
	plane.serve(t, next)
	if again := registered(t, d); again.GetUID() != uid {
		t.Error("a rotation took the API back")
	}

	// Nobody renewed it for 91 days.
	expired, _, err := certs.Brief.Renew(certs.Set{}, host, time.Now().Add(-91*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	put(expired)
	fresh := certificateOf(t, ns, func(s certs.Set) error {
		if bytes.Equal(s.Serving.Certificate, expired.Serving.Certificate) {
			return errors.New("it is not replaced")
		}
		return nil
	})
	plane.serve(t, fresh)
	registered(t, d)
}

// published waits until the API server verifies by a bundle.
func published(t *testing.T, set certs.Set) {
	t.Helper()
	appears(t, apiService(), func(s *unstructured.Unstructured) error {
		if bundle, _, _ := unstructured.NestedString(s.Object, "spec", "caBundle"); bundle != encoded(set.Bundle) {
			return errors.New("the bundle is another")
		}
		return nil
	})
}

// TestManagerWithoutTheFlagTakesTheAPIBack: and the pods stop listening only then.
func TestManagerWithoutTheFlagTakesTheAPIBack(t *testing.T) {
	withDeliveries(t)
	ns := deliveriesNamespace(t)
	plane := startDataPlane(t, ns)
	d := dispatcher(t, ns, asks)
	plane.listen(t, certificateOf(t, ns, anyCertificate))
	registered(t, d)
	restart(t, controllers.Options{})
	unregistered(t)
	become(t, d, v1alpha1.ConditionDeliveriesAPIReady, metav1.ConditionFalse, v1alpha1.ReasonDeliveriesAPIOff)
	podsServe(t, ns, false)
	mayAs(t, deliveriesRole, ns, false)
}

// TestForeignAPIServiceStays: one that somebody else registered is neither changed nor deleted, whoever asks.
func TestForeignAPIServiceStays(t *testing.T) {
	withDeliveries(t)
	ns := deliveriesNamespace(t)
	plane := startDataPlane(t, ns)
	foreign := apiService()
	foreign.SetLabels(map[string]string{"app.kubernetes.io/managed-by": "eventflow-manager"}) // and not all that the manager's have
	foreign.Object["spec"] = map[string]any{
		"group": deliveries.GroupVersion.Group, "version": deliveries.GroupVersion.Version, "groupPriorityMinimum": int64(7), "versionPriority": int64(7),
		"service": map[string]any{"namespace": ns, "name": deliveriesName}, "insecureSkipTLSVerify": true,
	}
	create(t, foreign)
	uid, generation := foreign.GetUID(), foreign.GetGeneration()
	stays := func() {
		t.Helper()
		if found := appears(t, apiService(), exists); found.GetUID() != uid || found.GetGeneration() != generation || len(found.GetOwnerReferences()) > 0 {
			t.Errorf("somebody else's APIService was changed: %v", found)
		}
	}
	d := dispatcher(t, ns, asks)
	plane.listen(t, certificateOf(t, ns, anyCertificate))
	become(t, d, v1alpha1.ConditionDeliveriesAPIReady, metav1.ConditionFalse, v1alpha1.ReasonRegisteredByOthers)
	stays()
	remove(t, foreign)
	uid = registered(t, d).GetUID()
	remove(t, d)
	unregistered(t)
	foreign.SetUID("")
	foreign.SetResourceVersion("")
	create(t, foreign)
	uid = foreign.GetUID()
	settledLooks(t)
	stays()
}

// settledLooks waits until a manager that has just begun has looked at the API.
func settledLooks(t *testing.T) {
	t.Helper()
	asked.forget()
	restart(t, deliveriesOptions())
	looks := func(n int) {
		eventually(t, func(context.Context) error {
			asked.mu.Lock()
			defer asked.mu.Unlock()
			if asked.count["GET /apis/apiregistration.k8s.io/v1/apiservices/"+deliveriesapi.Name] < n {
				return errors.New("it has not looked")
			}
			return nil
		})
	}
	looks(1)
	dispatcher(t, deliveriesNamespace(t))
	looks(2) // so it is done with the first
}

// TestOldestServes: of two that ask, the older one, and the other when that is gone.
func TestOldestServes(t *testing.T) {
	withDeliveries(t)
	older, younger := deliveriesNamespace(t), deliveriesNamespace(t)
	first, second := startDataPlane(t, older), startDataPlane(t, younger)
	a := dispatcher(t, older, asks)
	eventually(t, func(context.Context) error { // creation has seconds
		if time.Since(a.CreationTimestamp.Time) < 2*time.Second {
			return errors.New("too early")
		}
		return nil
	})
	b := dispatcher(t, younger, asks)
	second.listen(t, certificateOf(t, younger, anyCertificate))
	become(t, b, v1alpha1.ConditionDeliveriesAPIReady, metav1.ConditionFalse, v1alpha1.ReasonServedByAnother)
	unregistered(t) // although it would answer
	first.listen(t, certificateOf(t, older, anyCertificate))
	registered(t, a)
	remove(t, a)
	registered(t, b)
}

// TestUninstalledFirst: the API goes before what serves it, if the namespace is deleted or the right to it is taken away.
func TestUninstalledFirst(t *testing.T) {
	withDeliveries(t)
	ns := deliveriesNamespace(t)
	plane := startDataPlane(t, ns)
	d := dispatcher(t, ns, asks)
	plane.listen(t, certificateOf(t, ns, anyCertificate))
	registered(t, d)

	binding := appears(t, in("", deliveriesRole, &rbacv1.ClusterRoleBinding{}), exists)
	again := binding.DeepCopy()
	remove(t, binding)
	unregistered(t)
	become(t, d, v1alpha1.ConditionDeliveriesAPIReady, metav1.ConditionFalse, v1alpha1.ReasonRightsMissing)
	again.ObjectMeta = metav1.ObjectMeta{Name: again.Name}
	create(t, again)
	registered(t, d)

	remove(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	unregistered(t)
	become(t, d, v1alpha1.ConditionDeliveriesAPIReady, metav1.ConditionFalse, v1alpha1.ReasonTerminating)
}
