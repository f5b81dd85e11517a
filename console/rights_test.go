package console

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/kube"
)

// TestUsersHaveTheirOwnRights: with one console for two users, each may what their token may, also right after the other one.
func TestUsersHaveTheirOwnRights(t *testing.T) {
	t.Parallel()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS is not set")
	}
	environment := &envtest.Environment{CRDDirectoryPaths: []string{filepath.Join("..", "config", "crd", "bases")}, ErrorIfCRDPathMissing: true}
	config, err := environment.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = environment.Stop() })
	admin, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	alice := user(t, admin, "alice", "clinic-a", "get", "list", "create", "update", "patch")
	bob := user(t, admin, "bob", "clinic-b", "get")

	// The console's own configuration may everything: none of it may reach a user.
	open, err := perToken(config, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	as := func(token string) kube.Objects {
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.Header.Set("Authorization", "Bearer "+token)
		b, err := open(r)
		if err != nil {
			t.Fatal(err)
		}
		return b.Objects
	}
	ctx := t.Context()
	if err := as(alice).Save(ctx, subscription("clinic-a", "billing")); err != nil {
		t.Fatalf("alice creates in her namespace: %v", err)
	}
	for range 2 {
		if list, err := as(alice).Subscriptions(ctx, "clinic-a", false); err != nil || len(list.Rows) != 1 {
			t.Fatalf("alice lists her namespace: %v", err)
		}
		forbidden(t, "bob lists what alice just listed", second(as(bob).Subscriptions(ctx, "clinic-a", false)), "list")
		forbidden(t, "bob lists his own", second(as(bob).Subscriptions(ctx, "clinic-b", false)), "list")
		_, _, err := as(bob).Specs(ctx, "clinic-a")
		forbidden(t, "bob tries an event on alice's", err, "list")
		forbidden(t, "bob gets alice's", second(as(bob).Subscription(ctx, "clinic-a", "billing")), "get")
		forbidden(t, "alice lists all", second(as(alice).Subscriptions(ctx, "", false)), "list")
		forbidden(t, "alice lists namespaces", second(as(alice).Namespaces(ctx)), "list")
		forbidden(t, "alice lists dispatchers", second(as(alice).Dispatchers(ctx)), "list")
		forbidden(t, "alice makes a Secret", as(alice).CreateSecret(ctx, "clinic-a", "k", "k", nil), "create")
		forbidden(t, "bob suspends alice's", as(bob).Patch(ctx, "clinic-a", "billing", []byte(`{"spec":{"suspend":true}}`)), "patch")
		forbidden(t, "bob checks a new one", as(bob).Check(ctx, subscription("clinic-b", "x")), "create")
		forbidden(t, "nobody", second(as("no-token").Subscriptions(ctx, "clinic-a", false)), "list")
	}
	forbidden(t, "bob asks if he could", as(bob).CheckPatch(ctx, "clinic-a", "billing", []byte(`{"spec":{"suspend":true}}`)), "patch")
	if err := as(alice).CheckPatch(ctx, "clinic-a", "billing", []byte(`{"spec":{"suspend":true}}`)); err != nil {
		t.Errorf("alice asks if she could: %v", err)
	}
	if subs, more, err := as(alice).Specs(ctx, "clinic-a"); err != nil || more || len(subs) != 1 || subs[0].Spec.Suspend != nil && *subs[0].Spec.Suspend {
		t.Errorf("asking changed something, or the specs are not there: %v", err)
	}
	if err := as(alice).Patch(ctx, "clinic-a", "billing", []byte(`{"spec":{"suspend":true}}`)); err != nil {
		t.Errorf("alice suspends hers: %v", err)
	}
	if list, err := as(alice).Subscriptions(ctx, "clinic-a", false); err != nil || !list.Rows[0].Suspended {
		t.Errorf("a change is seen at once: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func forbidden(t *testing.T, what string, err error, verb string) {
	t.Helper()
	f, ok := errors.AsType[*kube.Forbidden](err)
	if !ok || f.Verb != verb {
		t.Errorf("%s: %v, want forbidden to %s", what, err, verb)
	}
}

func subscription(namespace, name string) *v1alpha1.WebhookSubscription {
	sub := &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	sub.Spec.URL, sub.Spec.Events = "https://example.com/hooks", []string{"patient.*"}
	sub.Spec.Signing.SecretRef = v1alpha1.SecretKeyReference{Name: "k", Key: "k"}
	return sub
}

// user makes a ServiceAccount that has verbs on the subscriptions of a namespace, and returns its token.
func user(t *testing.T, admin kubernetes.Interface, name, namespace string, verbs ...string) string {
	t.Helper()
	ctx, one := context.Background(), metav1.CreateOptions{}
	_, err := admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, one)
	meta := metav1.ObjectMeta{Name: name, Namespace: namespace}
	if err == nil {
		_, err = admin.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, one)
	}
	if err == nil {
		_, err = admin.RbacV1().Roles(namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"webhooksubscriptions"}, Verbs: verbs,
		}}}, one)
	}
	if err == nil {
		_, err = admin.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: name, Namespace: namespace}},
		}, one)
	}
	if err != nil {
		t.Fatal(err)
	}
	token, err := admin.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{}, one)
	if err != nil {
		t.Fatal(err)
	}
	return token.Status.Token
}

func TestOnlyThisMachineReachesALocalConsole(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		o      options
		wantOK bool
	}{
		"loopback":             {options{listen: "127.0.0.1:0", auth: authLaunch}, true},
		"IPv6":                 {options{listen: "[::1]:0", auth: authLaunch}, true},
		"all interfaces":       {options{listen: ":8080", auth: authLaunch}, false},
		"an address":           {options{listen: "10.0.0.1:8080", auth: authLaunch}, false},
		"a login, no host":     {options{listen: ":8080", auth: authBearer}, false},
		"a login":              {options{listen: ":8080", auth: authBearer, hosts: []string{"hooks.example.com"}}, true},
		"a folder for all":     {options{listen: ":8080", auth: authBearer, hosts: []string{"h"}, folder: "x"}, false},
		"no authentication":    {options{listen: "127.0.0.1:0", auth: "none"}, false},
		"without an address":   {options{listen: "", auth: authLaunch}, false},
		"a name with a suffix": {options{listen: "localhost.example.com:80", auth: authLaunch}, false},
	} {
		if err := test.o.check(); (err == nil) != test.wantOK {
			t.Errorf("%s: %v", name, err)
		}
	}
}
