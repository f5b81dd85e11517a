package controllers_test

import (
	"context"
	"fmt"
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

func TestTableIsRepaired(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	sub := create(t, subscription(ns, "billing"))
	names(t, ns, "billing")
	shard := in(ns, routing.ShardName("main", routing.ShardOf(string(sub.UID))), &corev1.Secret{})
	index := in(ns, routing.IndexName("main"), &corev1.Secret{})

	stolen := routing.Entry{}
	tests := []struct {
		name string
		harm func()
	}{
		{"shard replaced", func() {
			change(t, shard, func(s *corev1.Secret) {
				data, err := routing.EncodeShard([]*routing.Entry{&stolen})
				if err != nil {
					t.Fatal(err)
				}
				s.Data[routing.ShardKey] = data
			})
		}},
		{"shard deleted", func() { remove(t, shard) }},
		{"index emptied", func() { change(t, index, func(s *corev1.Secret) { s.Data = nil }) }},
		{"index deleted", func() { remove(t, index) }},
		{"labels removed", func() { change(t, shard, func(s *corev1.Secret) { s.Labels = nil }) }},
		{"made immutable", func() {
			change(t, shard, func(s *corev1.Secret) { s.Immutable, s.Data = new(true), map[string][]byte{"thief": nil} })
		}},
	}
	for _, test := range tests {
		test.harm()
		names(t, ns, "billing")
		appears(t, shard, func(s *corev1.Secret) error {
			if s.Labels["app.kubernetes.io/managed-by"] == "" || len(s.OwnerReferences) != 1 {
				return fmt.Errorf("%s: labels %v, owners %v", test.name, s.Labels, s.OwnerReferences)
			}
			return nil
		})
	}
}

func TestTableIsSharded(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	const n = 100
	want := make([]string, n)
	shards := make(map[int]bool)
	for i := range n {
		want[i] = fmt.Sprintf("s-%03d", i)
		shards[routing.ShardOf(string(create(t, subscription(ns, want[i])).UID))] = true
	}
	names(t, ns, want...) // and each in the shard that its identity belongs into
	if got := len(versions(t, ns)); got != len(shards)+1 {
		t.Errorf("%d Secrets for %d shards that are not empty and an index", got, len(shards))
	}
}

func TestSubscriptionsFindTheirNamespaceAlone(t *testing.T) {
	t.Parallel()
	home, other := namespace(t), namespace(t)
	dispatcher(t, home)
	secret(t, home, "key", map[string]string{"current": "the signing key of home"})
	secret(t, other, "key", map[string]string{"current": "the signing key of other"})
	create(t, subscription(other, "guest", func(s *v1alpha1.WebhookSubscription) { s.Spec.DispatcherRef.Namespace = home }))
	entry(t, home, "guest", func(e *routing.Entry) error {
		if e.Namespace != other || string(e.Keys[0]) != "the signing key of other" {
			return fmt.Errorf("it is of namespace %s", e.Namespace)
		}
		return nil
	})
}

// TestRestart is not parallel: it stops the manager.
func TestRestart(t *testing.T) {
	ns := namespace(t)
	dispatcher(t, ns)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	lost := secret(t, ns, "lost", map[string]string{"current": signingKey})
	create(t, subscription(ns, "kept"))
	held := create(t, subscription(ns, "held", func(s *v1alpha1.WebhookSubscription) { s.Spec.Signing.SecretRef.Name = "lost" }))
	deleted := create(t, subscription(ns, "deleted"))
	names(t, ns, "kept", "held", "deleted")
	remove(t, lost)
	waits := func(e *routing.Entry) error {
		if e.Waiting != v1alpha1.ReasonSecretNotFound {
			return fmt.Errorf("it does not wait: %q", e.Waiting)
		}
		return nil
	}
	entry(t, ns, "held", waits)
	become(t, held, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)

	restart := func(meanwhile func()) {
		t.Helper()
		if err := manager.stop(); err != nil {
			t.Fatal(err)
		}
		meanwhile()
		manager.start(controllers.Options{})
		// A subscription made behind the start tells when the manager has been through all there is.
		marker := create(t, subscription(ns, "marker"))
		names := []string{"kept", "held", "marker"}
		eventually(t, func(ctx context.Context) error {
			entries, err := table(ctx, ns)
			if err == nil && (len(entries) != len(names) || entries["marker"] == nil || entries["deleted"] != nil) {
				err = fmt.Errorf("the table has %d entries", len(entries))
			}
			return err
		})
		remove(t, marker)
		eventually(t, func(ctx context.Context) error {
			entries, err := table(ctx, ns)
			if err == nil && entries["marker"] != nil {
				err = fmt.Errorf("the deleted one is still there")
			}
			return err
		})
	}
	restart(func() { remove(t, deleted) })
	entry(t, ns, "held", waits)

	before := versions(t, ns)
	if err := manager.stop(); err != nil {
		t.Fatal(err)
	}
	manager.start(controllers.Options{})
	// What another dispatcher's subscriptions become tells that the manager works; this table must be as it was.
	other := namespace(t)
	dispatcher(t, other)
	secret(t, other, "key", map[string]string{"current": signingKey})
	create(t, subscription(other, "late"))
	names(t, other, "late")
	if after := versions(t, ns); !maps.Equal(before, after) {
		t.Errorf("a restart wrote the table: %v, then %v", before, after)
	}

	restart(func() { // what is lost while nobody looks is made anew from what there is
		for name := range versions(t, ns) {
			remove(t, in(ns, name, &corev1.Secret{}))
		}
		secret(t, ns, "lost", map[string]string{"current": "a signing key, found again"})
	})
	entry(t, ns, "held", func(e *routing.Entry) error {
		if e.Waiting != "" {
			return fmt.Errorf("it waits: %s", e.Waiting)
		}
		return nil
	})
}

// TestDefaultDispatcher is not parallel: it stops the manager.
func TestDefaultDispatcher(t *testing.T) {
	withDefault := func(namespace string) {
		t.Helper()
		if err := manager.stop(); err != nil {
			t.Fatal(err)
		}
		manager.start(controllers.Options{CreateDefaultDispatcher: true, DefaultDispatcherNamespace: namespace, LeaderElection: true, Namespace: namespace})
	}
	var existing v1alpha1.WebhookDispatcherList
	if err := api.List(t.Context(), &existing); err != nil {
		t.Fatal(err)
	}
	for i := range existing.Items {
		remove(t, &existing.Items[i])
	}
	ns := managed(t)
	withDefault(ns)
	d := in(ns, "default", &v1alpha1.WebhookDispatcher{})
	appears(t, d, exists)
	mark := in(ns, "eventflow-default-dispatcher", &corev1.ConfigMap{})
	appears(t, mark, exists)
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)

	applied(t, fmt.Sprintf(`
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookDispatcher
metadata: {name: default, namespace: %s}
spec: {store: {embedded: {size: 20Gi}}, retention: {delivered: 48h}}
`, ns)) // Git may come late: nobody owns what it sets
	remove(t, d)
	withDefault(ns)
	dispatcher(t, ns) // once this one is seen to, the manager has had its time
	become(t, in(ns, "main", &v1alpha1.WebhookDispatcher{}), v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	absent(t, d)

	elsewhere := managed(t)
	withDefault(elsewhere)
	appears(t, in(elsewhere, "eventflow-default-dispatcher", &corev1.ConfigMap{}), exists)
	absent(t, in(elsewhere, "default", &v1alpha1.WebhookDispatcher{}))

	if err := manager.stop(); err != nil {
		t.Fatal(err)
	}
	manager.start(controllers.Options{})
}

// managed is a namespace in which the manager has the rights that it is given where it is installed.
func managed(t *testing.T) string {
	t.Helper()
	ns := namespace(t)
	role := &rbacv1.Role{}
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: controllers.DefaultNamespace, Name: managerUser}, role); err != nil {
		t.Fatal(err)
	}
	create(t, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: managerUser}, Rules: role.Rules})
	if err := bind(t.Context(), "Role", managerUser, ns); err != nil {
		t.Fatal(err)
	}
	return ns
}
