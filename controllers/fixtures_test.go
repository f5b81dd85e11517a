package controllers_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/test/rights"
)

// patience is how long anything may take on a busy machine.
const patience = 2 * time.Minute

// The looks of eventually come at longer and longer intervals, so that tests which wait leave the processors to what they wait for.
const (
	firstLook  = 20 * time.Millisecond
	rarestLook = 100 * time.Millisecond
)

// eventually looks until check returns nil, and fails the test with its last error if that takes too long.
func eventually(t *testing.T, check func(ctx context.Context) error) {
	t.Helper()
	last := error(nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	backoff := wait.Backoff{Duration: firstLook, Factor: 1.3, Steps: math.MaxInt32, Cap: rarestLook}
	err := backoff.DelayFunc().Until(ctx, true, false, func(ctx context.Context) (bool, error) {
		err := check(ctx)
		if err != nil && (ctx.Err() == nil && !strings.Contains(err.Error(), "rate limiter") || last == nil) {
			last = err // and not that there is no time left
		}
		return err == nil, nil
	})
	if err != nil {
		t.Fatalf("it did not come to pass: %v", last)
	}
}

func create[T client.Object](t *testing.T, object T) T {
	t.Helper()
	if err := api.Create(t.Context(), object); err != nil {
		t.Fatalf("create %T: %v", object, err)
	}
	return object
}

func remove(t *testing.T, object client.Object) {
	t.Helper()
	if err := api.Delete(t.Context(), object); err != nil {
		t.Fatalf("delete %T: %v", object, err)
	}
}

// change updates an object, again if someone else was faster.
func change[T client.Object](t *testing.T, object T, edit func(T)) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if err := api.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		edit(object)
		return api.Update(ctx, object)
	})
}

// namespace makes a namespace of the test's own, in which the manager may make dispatchers.
func namespace(t *testing.T) string {
	t.Helper()
	ns := foreign(t)
	if err := bind(t.Context(), "ClusterRole", namespaceRole, ns); err != nil {
		t.Fatal(err)
	}
	granted(t, ns)
	return ns
}

// granted waits until the manager's RoleBindings in a namespace are in force. A manager that finds no rights there looks again after
// 10 s, and nearly every test would wait for that.
func granted(t *testing.T, namespace string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               rights.ServiceAccount(controllers.DefaultNamespace, managerUser),
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "patch", Group: rbacv1.GroupName, Resource: "roles"},
		}}
		if err := api.Create(ctx, review); err != nil || !review.Status.Allowed {
			return fmt.Errorf("the manager may nothing in %s: %w", namespace, err)
		}
		return nil
	})
}

// namespaceRole is what the manager needs in the namespace of a dispatcher.
const namespaceRole = "eventflow-dispatcher-namespace"

// foreign makes a namespace in which nobody let the manager do anything.
func foreign(t *testing.T) string {
	t.Helper()
	return create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "clinic-"}}).Name
}

// bound says of a claim, as the cluster does, that it has a volume.
func bound(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	change(t, claim, func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "volume-of-" + c.Namespace })
}

// used says of a dispatcher's store, as its pod does, whether it ever held an event.
func used(t *testing.T, d *v1alpha1.WebhookDispatcher, id string, use v1alpha1.StoreUse) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if err := api.Get(ctx, client.ObjectKeyFromObject(d), d); err != nil {
			return err
		}
		d.Status.Volume = v1alpha1.VolumeStatus{ID: id, Use: use}
		return api.Status().Update(ctx, d, client.FieldOwner("eventflow-dispatcher"))
	})
}

func dispatcher(t *testing.T, namespace string, edits ...func(*v1alpha1.WebhookDispatcher)) *v1alpha1.WebhookDispatcher {
	t.Helper()
	d := &v1alpha1.WebhookDispatcher{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "main"}}
	for _, edit := range edits {
		edit(d)
	}
	return create(t, d)
}

// signingKey is what the Secret "key" of most tests holds as "current".
const signingKey = "s3cret of twenty-four bytes or more"

func secret(t *testing.T, namespace, name string, data map[string]string) *corev1.Secret {
	t.Helper()
	return create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, StringData: data})
}

// subscription is one that the dispatcher "main" of its namespace accepts once Secret "key" has a key "current".
func subscription(namespace, name string, edits ...func(*v1alpha1.WebhookSubscription)) *v1alpha1.WebhookSubscription {
	sub := &v1alpha1.WebhookSubscription{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.WebhookSubscriptionSpec{
			DispatcherRef: v1alpha1.DispatcherReference{Namespace: namespace, Name: "main"},
			URL:           "https://hooks.example.com:8443/in?token=canary",
			Events:        []string{"patient.*"},
			Signing:       v1alpha1.Signing{SecretRef: v1alpha1.SecretKeyReference{Name: "key", Key: "current"}},
		},
	}
	for _, edit := range edits {
		edit(sub)
	}
	return sub
}

// become waits until a condition of the object's newest generation has a status and a reason.
func become(t *testing.T, object client.Object, kind string, status metav1.ConditionStatus, reason string) metav1.Condition {
	t.Helper()
	var found metav1.Condition
	eventually(t, func(ctx context.Context) error {
		if err := api.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		c := meta.FindStatusCondition(conditionsOf(object), kind)
		if c == nil || c.Status != status || c.Reason != reason || c.ObservedGeneration != object.GetGeneration() {
			return fmt.Errorf("want %s=%s (%s) of generation %d, have %+v", kind, status, reason, object.GetGeneration(), c)
		}
		found = *c
		return nil
	})
	return found
}

func conditionsOf(object client.Object) []metav1.Condition {
	switch object := object.(type) {
	case *v1alpha1.WebhookSubscription:
		return object.Status.Conditions
	case *v1alpha1.WebhookDispatcher:
		return object.Status.Conditions
	case *v1alpha1.WebhookReplay:
		return object.Status.Conditions
	default:
		return nil
	}
}

// table reads the routing table of the dispatcher "main" as a dispatcher does: the index, and the shards it names.
func table(ctx context.Context, namespace string) (map[string]*routing.Entry, error) {
	var secret corev1.Secret
	if err := api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: routing.IndexName("main")}, &secret); err != nil {
		return nil, err
	}
	index, err := routing.DecodeIndex(secret.Data[routing.IndexKey])
	if err != nil {
		return nil, err
	}
	entries := make(map[string]*routing.Entry)
	for i, hash := range index.Shards {
		var secret corev1.Secret
		if err := api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: routing.ShardName("main", i)}, &secret); err != nil {
			return nil, err
		}
		if got := routing.Hash(secret.Data[routing.ShardKey]); got != hash {
			return nil, fmt.Errorf("shard %d has hash %s, the index says %s", i, got, hash)
		}
		shard, err := routing.DecodeShard(secret.Data[routing.ShardKey])
		if err != nil {
			return nil, err
		}
		for _, entry := range shard {
			if routing.ShardOf(entry.Identity) != i {
				return nil, fmt.Errorf("shard %d holds %s, which belongs into another", i, entry.Identity)
			}
			entries[entry.Name] = entry
		}
	}
	return entries, nil
}

// entry waits until the table has an entry that passes check.
func entry(t *testing.T, namespace, name string, check func(*routing.Entry) error) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		entries, err := table(ctx, namespace)
		if err != nil {
			return err
		}
		if entries[name] == nil {
			return fmt.Errorf("the table has no entry %s", name)
		}
		return check(entries[name])
	})
}

// names waits until the table has entries of these names and no others.
func names(t *testing.T, namespace string, want ...string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		entries, err := table(ctx, namespace)
		if err != nil {
			return err
		}
		for _, name := range want {
			if entries[name] == nil {
				return fmt.Errorf("the table has no entry %s", name)
			}
		}
		if len(entries) != len(want) {
			return fmt.Errorf("the table has entries %v, want %v", slices.Collect(maps.Keys(entries)), want)
		}
		return nil
	})
}

// versions are the resource versions of a table's Secrets, by name.
func versions(t *testing.T, namespace string) map[string]string {
	t.Helper()
	var list corev1.SecretList
	if err := api.List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, s := range list.Items {
		if strings.HasPrefix(s.Name, "main-routes") {
			found[s.Name] = s.ResourceVersion
		}
	}
	return found
}

// absent waits until an object is gone.
func absent(t *testing.T, object client.Object) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		err := api.Get(ctx, client.ObjectKeyFromObject(object), object)
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return fmt.Errorf("get %T: %w", object, err)
		}
		return fmt.Errorf("%T is still there", object)
	})
}

// program says as a dispatcher does that it has a subscription's generation, and how its endpoint is.
func program(t *testing.T, sub *v1alpha1.WebhookSubscription, conditions ...metav1.Condition) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if err := api.Get(ctx, client.ObjectKeyFromObject(sub), sub); err != nil {
			return err
		}
		sub.Status.ProgrammedGeneration = sub.Generation
		for _, c := range conditions {
			c.ObservedGeneration = sub.Generation
			meta.SetStatusCondition(&sub.Status.Conditions, c)
		}
		return api.Status().Update(ctx, sub, client.FieldOwner("eventflow-dispatcher"))
	})
}
