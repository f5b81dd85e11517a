package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/test/rights"
)

// tenantRole is what a manager with Roles alone needs in a namespace of subscriptions.
const tenantRole = "eventflow-tenant-namespace"

// aloneUser is the ServiceAccount of the manager that had Roles alone; "" if no test started it.
var aloneUser string

// alone is a namespace with a manager's ServiceAccount that is bound to nothing outside of it, as config/namespaces has it.
type alone struct {
	home   string
	config *rest.Config
}

func newAlone(t *testing.T) *alone {
	t.Helper()
	a := &alone{home: foreign(t)}
	create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: a.home, Name: managerUser}})
	text, err := os.ReadFile(filepath.Join("..", "config", "rbac", "role.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range rights.Documents(text) {
		role := &rbacv1.Role{}
		if err := yaml.Unmarshal(document, role); err == nil && role.Kind == "Role" {
			role.Namespace = a.home
			create(t, role)
		}
	}
	a.bind(t, a.home, "Role", managerUser)
	a.bind(t, a.home, "ClusterRole", namespaceRole)
	a.grant(t, a.home)
	token := &authenticationv1.TokenRequest{}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: a.home, Name: managerUser}}
	if err := api.SubResource("token").Create(t.Context(), account, token); err != nil {
		t.Fatal(err)
	}
	a.config = rest.AnonymousClientConfig(restConfig)
	a.config.BearerToken = token.Status.Token
	aloneUser = rights.ServiceAccount(a.home, managerUser)
	return a
}

func (a *alone) bind(t *testing.T, namespace, kind, role string) {
	t.Helper()
	create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role, Namespace: namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: managerUser, Namespace: a.home}},
	})
}

// grant does what config/components/tenant-namespace does.
func (a *alone) grant(t *testing.T, namespace string) {
	t.Helper()
	create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: statusRole, Namespace: namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: statusRole},
	})
	a.bind(t, namespace, "ClusterRole", tenantRole)
}

// subscribe makes a subscription of a namespace to the dispatcher, with its Secret.
func (a *alone) subscribe(t *testing.T, namespace string, edits ...func(*v1alpha1.WebhookSubscription)) *v1alpha1.WebhookSubscription {
	t.Helper()
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "key"}, &corev1.Secret{}); apierrors.IsNotFound(err) {
		secret(t, namespace, "key", map[string]string{"current": signingKey})
	}
	edits = append([]func(*v1alpha1.WebhookSubscription){func(s *v1alpha1.WebhookSubscription) { s.Spec.DispatcherRef.Namespace = a.home }}, edits...)
	sub := subscription(namespace, "hook", edits...)
	sub.Name, sub.GenerateName = "", "hook-"
	return create(t, sub)
}

// programAs has the dispatcher's own ServiceAccount say that it delivers.
func (a *alone) programAs(t *testing.T, sub *v1alpha1.WebhookSubscription) {
	t.Helper()
	pod, err := client.New(asPod(a.home), client.Options{Scheme: api.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error { // RBAC takes a moment
		patch := fmt.Sprintf(`{"status":{"programmedGeneration":%d}}`, sub.Generation)
		return pod.Status().Patch(ctx, sub, client.RawPatch("application/merge-patch+json", []byte(patch)), client.FieldOwner("eventflow-dispatcher"))
	})
}

// TestRolesAreEnough runs a manager that has Roles alone, in its own namespace and in those that were granted to it. One that
// is granted later joins them, and one that never is keeps nobody. It is not parallel: it stops the other manager.
func TestRolesAreEnough(t *testing.T) {
	if err := manager.stop(); err != nil {
		t.Fatal(err)
	}
	defer manager.start(controllers.Options{})
	a := newAlone(t)
	first, later, never := foreign(t), foreign(t), foreign(t)
	a.grant(t, first)
	worker := &process{}
	worker.startAs(a.config, controllers.Options{Namespace: a.home, Namespaces: []string{first, later, never}, CreateDefaultDispatcher: true})
	defer func() {
		if err := worker.stop(); err != nil {
			t.Error(err)
		}
	}()
	appears(t, in(a.home, "default", &v1alpha1.WebhookDispatcher{}), exists)
	dispatcher(t, a.home)

	sub := a.subscribe(t, first)
	ns := &corev1.Namespace{}
	if err := api.Get(t.Context(), client.ObjectKey{Name: first}, ns); err != nil {
		t.Fatal(err)
	}
	entry(t, a.home, sub.Name, func(e *routing.Entry) error {
		if e.Tenant != string(ns.UID) {
			return fmt.Errorf("the tenant is %q, want the namespace's uid", e.Tenant)
		}
		return nil
	})
	a.programAs(t, sub)
	become(t, sub, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)

	waiting, outside := a.subscribe(t, later), a.subscribe(t, never)
	lost := a.subscribe(t, first, func(s *v1alpha1.WebhookSubscription) { s.Spec.DispatcherRef.Namespace = never })
	become(t, lost, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonDispatcherNotFound)
	certified := a.subscribe(t, first, func(s *v1alpha1.WebhookSubscription) {
		s.Spec.TLS.CAConfigMapRef = &v1alpha1.ConfigMapKeyReference{Name: "ca", Key: "ca.crt"}
	})
	become(t, certified, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonConfigMapNotFound)

	served := a.subscribe(t, first, pointed)
	become(t, served, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonServiceNotFound)
	leadsTo(t, a.home, served, create(t, receiver(first)))
	remove(t, served)

	a.grant(t, later)
	entry(t, a.home, waiting.Name, func(*routing.Entry) error { return nil })
	a.programAs(t, waiting)
	become(t, waiting, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	change(t, in(first, "key", &corev1.Secret{}), func(s *corev1.Secret) { s.Data["current"] = []byte("another key of twenty-four bytes") })
	entry(t, a.home, sub.Name, func(e *routing.Entry) error {
		if string(e.Keys[0]) != "another key of twenty-four bytes" {
			return errors.New("it has the key of before")
		}
		return nil
	})
	remove(t, sub)
	names(t, a.home, waiting.Name)
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(outside), outside); err != nil || outside.Status.ObservedGeneration != -1 {
		t.Errorf("a subscription of a namespace that was not granted was looked at (%v): %+v", err, outside.Status)
	}
	replayRuns(t, a.home)
	a.hasNothingElse(t, never)
}

// hasNothingElse keeps that the test above is one of Roles.
func (a *alone) hasNothingElse(t *testing.T, namespace string) {
	t.Helper()
	for _, asked := range []authorizationv1.ResourceAttributes{
		{Verb: "list", Resource: "secrets"}, {Verb: "list", Resource: "services"}, {Verb: "watch", Resource: "namespaces"}, {Verb: "get", Resource: "secrets", Namespace: namespace},
		{Verb: "list", Group: v1alpha1.GroupVersion.Group, Resource: "webhooksubscriptions"},
		{Verb: "get", Group: rbacv1.GroupName, Resource: "clusterrolebindings", Name: statusRole},
	} {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: aloneUser, ResourceAttributes: &asked}}
		if err := api.Create(t.Context(), review); err != nil || review.Status.Allowed {
			t.Errorf("the manager may %s %s beyond its namespaces (%v)", asked.Verb, asked.Resource, err)
		}
	}
}
