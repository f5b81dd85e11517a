package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers"
	"github.com/clinikapi/eventflow/dispatcher/settings"
)

// TestRestartAppliesNothing: a manager that starts applies nothing that stands, and reads a number of objects that does not
// grow with the subscriptions.
func TestRestartAppliesNothing(t *testing.T) {
	ns, _ := clinic(t, 3)
	d := in(ns, "main", &v1alpha1.WebhookDispatcher{})
	pods(t, appears(t, in(ns, workload, &appsv1.Deployment{}), exists), 1)
	tookOver(t, d, settingsOf(t, get(t, d)).Generation)
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	settled(t, ns)
	if err := manager.stop(); err != nil {
		t.Fatal(err)
	}
	asked.forget()
	manager.start(controllers.Options{})
	settled(t, ns)
	for _, method := range []string{http.MethodPatch, http.MethodPost, http.MethodPut, http.MethodDelete} {
		if n, list := asked.of(method, ns, ""); n > 0 {
			t.Errorf("%d requests to write: %v", n, list)
		}
	}
	// The claim and the Deployment, which must not be older than they are, twice; the index of the table, and its Secrets.
	if n, list := asked.of(http.MethodGet, ns, ""); n > 20 {
		t.Errorf("%d requests to read: %v", n, list)
	}
}

func get[T client.Object](t *testing.T, object T) T {
	t.Helper()
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
		t.Fatal(err)
	}
	return object
}

// TestScaleIsNoSettings: a change that is none to the settings, such as an autoscaler's, leaves their generation and their
// Secret as they are, and the dispatcher Ready without its pods having said anything.
func TestScaleIsNoSettings(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	secret(t, ns, "pg-app", map[string]string{"uri": databaseURL})
	d := dispatcher(t, ns, inDatabase, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Replicas = nil })
	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	pods(t, deployment, 1)
	first := settingsOf(t, d).Generation
	tookOver(t, d, first)
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	before := get(t, in(ns, settings.SecretName(d.Name), &corev1.Secret{})).ResourceVersion
	for _, replicas := range []int32{3, 2} {
		if err := scale(t.Context(), d, replicas); err != nil {
			t.Fatal(err)
		}
		appears(t, deployment, func(d *appsv1.Deployment) error {
			if *d.Spec.Replicas != replicas {
				return errors.New("it is not scaled yet")
			}
			return nil
		})
		pods(t, deployment, replicas)
		become(t, d, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	}
	if after := get(t, in(ns, settings.SecretName(d.Name), &corev1.Secret{})).ResourceVersion; after != before {
		t.Error("the settings were written although none changed")
	}
	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Ingest.MaxEventBytes = 4096 })
	if now := settingsOf(t, d).Generation; now != first+3 {
		t.Errorf("the settings that changed are of generation %d, want %d", now, first+3)
	}
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonPending)
}

// TestTamperingIsSetBack: what somebody changes, adds to a list that is one value, or removes, is as it was, although the
// manager applies nothing that stands.
func TestTamperingIsSetBack(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns)
	for name, tt := range map[string]struct {
		object client.Object
		patch  string
		kind   types.PatchType
		back   func(client.Object) bool
	}{
		"a changed value": {&policyv1.PodDisruptionBudget{}, `{"spec":{"maxUnavailable":5}}`, types.MergePatchType, func(o client.Object) bool {
			return o.(*policyv1.PodDisruptionBudget).Spec.MaxUnavailable.IntValue() == 1
		}},
		"a removed label": {&corev1.ServiceAccount{}, `{"metadata":{"labels":{"webhooks.clinikapi.com/dispatcher":null}}}`, types.MergePatchType, func(o client.Object) bool {
			return o.GetLabels()["webhooks.clinikapi.com/dispatcher"] == d.Name
		}},
		"an addition to a selector": {&corev1.Service{}, `{"spec":{"selector":{"tier":"gold"}}}`, types.MergePatchType, func(o client.Object) bool {
			return o.(*corev1.Service).Spec.Selector["tier"] == ""
		}},
		"another right": {&rbacv1.Role{}, `[{"op":"add","path":"/rules/-","value":{"apiGroups":[""],"resources":["secrets"],"verbs":["list"]}}]`, types.JSONPatchType, func(o client.Object) bool {
			return len(o.(*rbacv1.Role).Rules) == 3
		}},
		"another subject": {&rbacv1.RoleBinding{}, `[{"op":"add","path":"/subjects/-","value":{"kind":"User","name":"eve","apiGroup":"rbac.authorization.k8s.io"}}]`, types.JSONPatchType, func(o client.Object) bool {
			return len(o.(*rbacv1.RoleBinding).Subjects) == 1
		}},
		"a removed argument": {&appsv1.Deployment{}, `[{"op":"remove","path":"/spec/template/spec/containers/0/args/0"}]`, types.JSONPatchType, func(o client.Object) bool {
			return o.(*appsv1.Deployment).Spec.Template.Spec.Containers[0].Args[0] == "dispatcher"
		}},
		"a removed owner": {&corev1.Service{}, `{"metadata":{"ownerReferences":null}}`, types.MergePatchType, func(o client.Object) bool {
			return len(o.GetOwnerReferences()) == 1
		}},
		"a digest of somebody else's": {&corev1.Service{}, `{"metadata":{"annotations":{"webhooks.clinikapi.com/applied":"x"}}}`, types.MergePatchType, func(o client.Object) bool {
			return o.GetAnnotations()["webhooks.clinikapi.com/applied"] != "x"
		}},
	} {
		object := in(ns, workload, tt.object)
		eventually(t, func(ctx context.Context) error { return api.Get(ctx, client.ObjectKeyFromObject(object), object) })
		if err := api.Patch(t.Context(), object, client.RawPatch(tt.kind, []byte(tt.patch)), client.FieldOwner("eve")); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if tt.back(object) {
			t.Errorf("%s: the test changes nothing", name)
		}
		eventually(t, func(ctx context.Context) error {
			if err := api.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
				return err
			}
			if !tt.back(object) {
				return fmt.Errorf("%s stays", name)
			}
			return nil
		})
	}
}
