package controllers_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

const workload = "eventflow-dispatcher-main"

// in names an object of a namespace, to be read into.
func in[T client.Object](namespace, name string, object T) T {
	object.SetNamespace(namespace)
	object.SetName(name)
	return object
}

// appears waits until an object exists and passes check.
func appears[T client.Object](t *testing.T, object T, check func(T) error) T {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if err := api.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		return check(object)
	})
	return object
}

func exists[T client.Object](T) error { return nil }

// mayAs waits until the dispatcher "main" of a namespace is a subject of a cluster-wide binding, or is none.
func mayAs(t *testing.T, role, namespace string, want bool) {
	t.Helper()
	appears(t, in("", role, &rbacv1.ClusterRoleBinding{}), func(b *rbacv1.ClusterRoleBinding) error {
		subject := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: workload}
		if got := slices.Contains(b.Subjects, subject); got != want {
			return fmt.Errorf("%s binds %s of %s: %t", role, workload, namespace, got)
		}
		return nil
	})
}

const (
	statusRole = "eventflow-dispatcher-status"
	authRole   = "eventflow-dispatcher-auth"
)

func TestDispatcherBecomesWorkload(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns, func(d *v1alpha1.WebhookDispatcher) {
		d.Spec.Template.NodeSelector = map[string]string{"disk": "ssd"}
		d.Spec.Template.Tolerations = []corev1.Toleration{{Key: "dedicated", Operator: corev1.TolerationOpExists}}
		d.Spec.Template.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{}}
	})
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonPending)
	if want := "https://" + workload + "." + ns + ".svc"; d.Status.PublishURL != want {
		t.Errorf("publishURL %q, want %q", d.Status.PublishURL, want)
	}

	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	pod := deployment.Spec.Template.Spec
	if got := pod.Containers[0].Image; got != testImage {
		t.Errorf("image %q, want %q", got, testImage)
	}
	if deployment.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType || pod.NodeSelector["disk"] != "ssd" ||
		len(pod.Tolerations) != 1 || pod.Tolerations[0].Key != "dedicated" || pod.Affinity.PodAntiAffinity == nil {
		t.Errorf("the Deployment lacks its strategy or something of the template: %+v", deployment.Spec)
	}
	if !metav1.IsControlledBy(deployment, d) {
		t.Error("the Deployment is not owned by its dispatcher")
	}
	claim := appears(t, in(ns, workload+"-store", &corev1.PersistentVolumeClaim{}), exists)
	if len(claim.OwnerReferences) != 0 || !slices.Equal(claim.Spec.AccessModes, []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}) {
		t.Errorf("the claim is owned, or has access modes %v", claim.Spec.AccessModes)
	}
	role := appears(t, in(ns, workload, &rbacv1.Role{}), exists)
	if rules := role.Rules; len(rules) != 3 || len(rules[0].ResourceNames) != 2 || len(rules[1].ResourceNames) != len(routing.ShardNames("main")) ||
		!slices.Equal(rules[2].Resources, []string{"webhookdispatchers/status"}) || !slices.Equal(rules[2].ResourceNames, []string{d.Name}) {
		t.Errorf("the Role allows more than the Secrets of the table and the settings, and the dispatcher's status: %+v", rules)
	}
	appears(t, in(ns, workload, &policyv1.PodDisruptionBudget{}), func(b *policyv1.PodDisruptionBudget) error {
		if b.Spec.MaxUnavailable == nil || b.Spec.MaxUnavailable.IntValue() != 1 {
			return fmt.Errorf("maxUnavailable is %v", b.Spec.MaxUnavailable)
		}
		return nil
	})
	names(t, ns) // a dispatcher with no subscription has a table all the same: without one it answers 503
}

func TestDispatcherReadyFollowsDeployment(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns)
	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	pods(t, deployment, 1)
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	pods(t, deployment, 0)
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonPending)
	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Replicas = ptr.To(int32(0)) })
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSuspended)
	become(t, d, v1alpha1.ConditionAvailable, metav1.ConditionFalse, v1alpha1.ReasonSuspended)
	become(t, d, v1alpha1.ConditionStoreReady, metav1.ConditionUnknown, v1alpha1.ReasonSuspended)
}

func TestDriftIsRepaired(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns)
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)

	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	change(t, deployment, func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Args = []string{"dispatcher", "--ingest-auth=none"}
		d.Spec.Replicas = ptr.To(int32(3))
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType}
		delete(d.Labels, "app.kubernetes.io/managed-by")
	})
	appears(t, deployment, func(d *appsv1.Deployment) error {
		args := d.Spec.Template.Spec.Containers[0].Args
		if !slices.Contains(args, "--ingest-auth=kubernetes") || *d.Spec.Replicas != 1 || d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType || d.Labels["app.kubernetes.io/managed-by"] == "" {
			return fmt.Errorf("args %v, replicas %d, strategy %s, labels %v", args, *d.Spec.Replicas, d.Spec.Strategy.Type, d.Labels)
		}
		return nil
	})

	service := appears(t, in(ns, workload, &corev1.Service{}), exists)
	change(t, service, func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "thief"} })
	appears(t, service, func(s *corev1.Service) error {
		if s.Spec.Selector["app.kubernetes.io/instance"] != "main" {
			return fmt.Errorf("selector %v", s.Spec.Selector)
		}
		return nil
	})

	role := appears(t, in(ns, workload, &rbacv1.Role{}), exists)
	change(t, role, func(r *rbacv1.Role) { r.Rules[0].ResourceNames = nil })
	appears(t, role, func(r *rbacv1.Role) error {
		if len(r.Rules[0].ResourceNames) != 2 {
			return fmt.Errorf("the Role still reads every Secret")
		}
		return nil
	})

	for _, object := range []client.Object{
		in(ns, workload, &corev1.ServiceAccount{}),
		in(ns, workload, &rbacv1.RoleBinding{}),
		in(ns, workload, &policyv1.PodDisruptionBudget{}),
		service, role, deployment,
	} {
		appears(t, object, exists)
		uid := object.GetUID()
		remove(t, object)
		appears(t, object, func(o client.Object) error {
			if o.GetUID() == uid {
				return fmt.Errorf("%T is still the old one", o)
			}
			return nil
		})
	}
}

// TestBindingsAreSetBack keeps that nobody else is a subject of the cluster-wide bindings, and that the manager makes none.
func TestBindingsAreSetBack(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	mayAs(t, statusRole, ns, true)
	thief := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: "thief"}
	binding := in("", statusRole, &rbacv1.ClusterRoleBinding{})
	change(t, binding, func(b *rbacv1.ClusterRoleBinding) { b.Subjects = []rbacv1.Subject{thief} })
	appears(t, binding, func(b *rbacv1.ClusterRoleBinding) error {
		if slices.Contains(b.Subjects, thief) {
			return fmt.Errorf("the thief is still bound")
		}
		return nil
	})
	mayAs(t, statusRole, ns, true)
}

func TestBindingToAnotherRoleIsReplaced(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: workload},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"},
	})
	dispatcher(t, ns)
	appears(t, in(ns, workload, &rbacv1.RoleBinding{}), func(b *rbacv1.RoleBinding) error {
		if b.RoleRef.Kind != "Role" || b.RoleRef.Name != workload {
			return fmt.Errorf("it binds %s %s", b.RoleRef.Kind, b.RoleRef.Name)
		}
		return nil
	})
}

func TestDispatcherWithoutAuthenticationMayNotAsk(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns)
	mayAs(t, authRole, ns, true)
	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Ingest.Authentication = v1alpha1.IngestNone })
	mayAs(t, authRole, ns, false)
	mayAs(t, statusRole, ns, true)
}

func TestStoreSurvivesItsDispatcher(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns)
	claim := appears(t, in(ns, workload+"-store", &corev1.PersistentVolumeClaim{}), exists)
	for _, role := range []string{statusRole, authRole} {
		mayAs(t, role, ns, true)
	}
	remove(t, d)
	for _, role := range []string{statusRole, authRole} {
		mayAs(t, role, ns, false)
	}
	uid := claim.UID
	again := dispatcher(t, ns)
	become(t, again, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	appears(t, claim, func(c *corev1.PersistentVolumeClaim) error {
		if c.UID != uid || len(c.OwnerReferences) != 0 || !c.DeletionTimestamp.IsZero() {
			t.Error("the claim was deleted, made anew, or is owned")
		}
		return nil
	})
}

func TestStoreGrowsAndNeverShrinks(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns, func(d *v1alpha1.WebhookDispatcher) {
		d.Spec.Store.Embedded = &v1alpha1.EmbeddedStore{Size: resource.MustParse("2Gi")}
	})
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	claim := in(ns, workload+"-store", &corev1.PersistentVolumeClaim{})
	has := func(size string) func(*corev1.PersistentVolumeClaim) error {
		return func(c *corev1.PersistentVolumeClaim) error {
			if got := c.Spec.Resources.Requests[corev1.ResourceStorage]; got.Cmp(resource.MustParse(size)) != 0 {
				return fmt.Errorf("the claim has %s, want %s", got.String(), size)
			}
			return nil
		}
	}
	appears(t, claim, has("2Gi"))
	bound(t, claim)
	used(t, d, "of-the-pod", v1alpha1.StoreUsed)
	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Store.Embedded.Size = resource.MustParse("1Gi") })
	c := become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonStoreImmutable)
	if !strings.Contains(c.Message, "2Gi") {
		t.Errorf("message %q does not say what to set the size to", c.Message)
	}
	appears(t, claim, has("2Gi"))
	pods(t, appears(t, in(ns, workload, &appsv1.Deployment{}), exists), 1) // it works all the same
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)

	// No volume, no growth: the API server refuses it, and the condition says what it said.
	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Store.Embedded.Size = resource.MustParse("4Gi") })
	c = become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonStoreImmutable)
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	if !strings.Contains(c.Message, "PersistentVolumeClaim") {
		t.Errorf("message %q does not say what was refused", c.Message)
	}
}

// TestDispatcherReadsItsTableAlone asks as a dispatcher's pod.
func TestDispatcherReadsItsTableAlone(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	sub := create(t, subscription(ns, "billing"))
	names(t, ns, "billing")
	mayAs(t, authRole, ns, true)

	config := rest.CopyConfig(restConfig)
	config.Impersonate.UserName = "system:serviceaccount:" + ns + ":" + workload
	pod, err := client.New(config, client.Options{Scheme: api.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) error {
		return pod.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, &corev1.Secret{})
	}
	eventually(t, func(context.Context) error { return read(routing.IndexName("main")) }) // RBAC takes a moment
	if err := read(routing.ShardName("main", routing.ShardOf(string(sub.UID)))); err != nil {
		t.Errorf("it cannot read its shard: %v", err)
	}
	byName := client.MatchingFields{"metadata.name": routing.IndexName("main")}
	if err := pod.List(t.Context(), &corev1.SecretList{}, client.InNamespace(ns), byName); err != nil {
		t.Errorf("it cannot list its index by name: %v", err)
	}
	if err := read("key"); !apierrors.IsForbidden(err) {
		t.Errorf("it can read a subscription's Secret (%v)", err)
	}
	if err := pod.List(t.Context(), &corev1.SecretList{}, client.InNamespace(ns)); !apierrors.IsForbidden(err) {
		t.Errorf("it can list Secrets (%v)", err)
	}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"status":{"deliveries":{"delivered":1}}}`))
	if err := pod.Status().Patch(t.Context(), sub, patch); err != nil {
		t.Errorf("it cannot write a subscription's status: %v", err)
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: "x"}}
	if err := pod.Create(t.Context(), review); err != nil {
		t.Errorf("it cannot ask who publishes: %v", err)
	}
}
