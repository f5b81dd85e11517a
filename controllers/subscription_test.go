package controllers_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

func TestSubscriptionBecomesReady(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	sub := create(t, subscription(ns, "billing"))

	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	become(t, sub, v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonPending)
	if want := "https://hooks.example.com:8443"; sub.Status.Endpoint != want || sub.Status.ObservedGeneration != sub.Generation {
		t.Errorf("status: endpoint %q, observedGeneration %d; want %q, %d", sub.Status.Endpoint, sub.Status.ObservedGeneration, want, sub.Generation)
	}
	entry(t, ns, "billing", func(e *routing.Entry) error {
		if e.Identity != string(sub.UID) || e.Generation != sub.Generation || string(e.Keys[0]) != signingKey || e.Waiting != "" {
			return fmt.Errorf("it is of another subscription, generation or key, or waits: %s", e.Waiting)
		}
		return nil
	})

	program(t, sub)
	become(t, sub, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	become(t, sub, v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	if meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionReconciling) != nil {
		t.Errorf("it is Ready, and says that it is in progress: %+v", sub.Status.Conditions)
	}

	program(t, sub, metav1.Condition{Type: v1alpha1.ConditionEndpointHealthy, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonGone})
	become(t, sub, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonGone)
	become(t, sub, v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonGone)
	if meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionEndpointHealthy) == nil {
		t.Error("the manager removed a condition of the dispatcher")
	}

	change(t, sub, func(s *v1alpha1.WebhookSubscription) { s.Spec.Events = []string{"lab.created"} })
	become(t, sub, v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonPending)
}

func TestSubscriptionIsNotWrittenWithoutChange(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	key := secret(t, ns, "key", map[string]string{"current": signingKey})
	sub := create(t, subscription(ns, "billing"))
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	names(t, ns, "billing")
	before, secrets := sub.ResourceVersion, versions(t, ns)

	// The Secret's change makes the manager look again; a subscription made behind it tells when it has.
	change(t, key, func(s *corev1.Secret) { s.Annotations = map[string]string{"note": "touched"} })
	later := create(t, subscription(ns, "later"))
	become(t, later, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	names(t, ns, "billing", "later")

	if err := api.Get(t.Context(), client.ObjectKeyFromObject(sub), sub); err != nil {
		t.Fatal(err)
	}
	if sub.ResourceVersion != before {
		t.Errorf("the status was written without need: %+v", sub.ManagedFields)
	}
	shard := routing.ShardName("main", routing.ShardOf(string(sub.UID)))
	if routing.ShardOf(string(sub.UID)) != routing.ShardOf(string(later.UID)) && versions(t, ns)[shard] != secrets[shard] {
		t.Error("a shard was written without need")
	}
}

func TestSubscriptionRejected(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		edit       func(*v1alpha1.WebhookSubscription)
		wantReason string
		wantWords  string
	}{
		"secret missing": {
			edit:       func(s *v1alpha1.WebhookSubscription) { s.Spec.Signing.SecretRef.Name = "absent" },
			wantReason: v1alpha1.ReasonSecretNotFound,
			wantWords:  `"absent"`,
		},
		"key missing": {
			edit:       func(s *v1alpha1.WebhookSubscription) { s.Spec.Signing.SecretRef.Key = "absent" },
			wantReason: v1alpha1.ReasonSecretKeyMissing,
			wantWords:  `"absent"`,
		},
		"key empty": {
			edit:       func(s *v1alpha1.WebhookSubscription) { s.Spec.Signing.SecretRef.Key = "empty" },
			wantReason: v1alpha1.ReasonSecretKeyInvalid,
			wantWords:  "empty",
		},
		"unknown resource": {
			edit:       func(s *v1alpha1.WebhookSubscription) { s.Spec.Events = []string{"patient.*", "invoice.created"} },
			wantReason: v1alpha1.ReasonUnknownResource,
			wantWords:  "invoice",
		},
		"url in a secret is none": {
			edit: func(s *v1alpha1.WebhookSubscription) {
				s.Spec.URL, s.Spec.URLFrom = "", &v1alpha1.ValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: "key", Key: "url"}}
			},
			wantReason: v1alpha1.ReasonInvalidURL,
			wantWords:  "urlFrom",
		},
		"http": {
			edit:       func(s *v1alpha1.WebhookSubscription) { s.Spec.URL = "http://hooks.example.com" },
			wantReason: v1alpha1.ReasonHTTPNotAllowed,
			wantWords:  "allowHTTP",
		},
		"header from a secret has a newline": {
			edit: func(s *v1alpha1.WebhookSubscription) {
				s.Spec.Headers = []v1alpha1.Header{{Name: "Authorization", ValueFrom: &v1alpha1.ValueSource{SecretKeyRef: v1alpha1.SecretKeyReference{Name: "key", Key: "newline"}}}}
			},
			wantReason: v1alpha1.ReasonInvalidHeader,
			wantWords:  "Authorization",
		},
		"no dispatcher": {
			edit:       func(s *v1alpha1.WebhookSubscription) { s.Spec.DispatcherRef.Name = "absent" },
			wantReason: v1alpha1.ReasonDispatcherNotFound,
			wantWords:  `"absent"`,
		},
	}
	ns := namespace(t)
	dispatcher(t, ns)
	secret(t, ns, "key", map[string]string{"current": signingKey, "empty": "", "url": "ftp://canary.example.com", "newline": "Bearer canary\n"})
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sub := create(t, subscription(ns, "s-"+strings.ReplaceAll(name, " ", "-"), test.edit))
			accepted := become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, test.wantReason)
			become(t, sub, v1alpha1.ConditionReady, metav1.ConditionFalse, test.wantReason)
			if !strings.Contains(accepted.Message, test.wantWords) || strings.Contains(accepted.Message, "canary") {
				t.Errorf("message %q: want %q in it, and nothing of a Secret or URL", accepted.Message, test.wantWords)
			}
		})
	}
}

func TestSecretTakesEffect(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	sub := create(t, subscription(ns, "billing"))
	program(t, sub)
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)

	key := secret(t, ns, "key", map[string]string{"other": "x"})
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretKeyMissing)
	names(t, ns)

	change(t, key, func(s *corev1.Secret) { s.StringData = map[string]string{"current": "the first signing key there is"} })
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	signsWith := func(want string) func(*routing.Entry) error {
		return func(e *routing.Entry) error {
			if e.Waiting != "" || len(e.Keys) != 1 || !bytes.Equal(e.Keys[0], []byte(want)) {
				return fmt.Errorf("it does not sign with the key %q (waiting: %q)", want, e.Waiting)
			}
			return nil
		}
	}
	entry(t, ns, "billing", signsWith("the first signing key there is"))

	before := sub.ResourceVersion
	change(t, key, func(s *corev1.Secret) { s.StringData = map[string]string{"current": "the second signing key there is"} })
	entry(t, ns, "billing", signsWith("the second signing key there is"))
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(sub), sub); err != nil || sub.ResourceVersion != before {
		t.Errorf("a rotated Secret changed the subscription (%v)", err)
	}

	remove(t, key)
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	entry(t, ns, "billing", func(e *routing.Entry) error {
		if e.Waiting != v1alpha1.ReasonSecretNotFound || len(e.Keys) != 0 || len(e.Patterns) != 1 {
			return fmt.Errorf("waiting %q, %d keys, patterns %v: want it to match on and wait", e.Waiting, len(e.Keys), e.Patterns)
		}
		return nil
	})

	secret(t, ns, "key", map[string]string{"current": "the third signing key there is"})
	entry(t, ns, "billing", signsWith("the third signing key there is"))
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
}

func TestInvalidEditKeepsLastValidEntry(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	sub := create(t, subscription(ns, "billing"))
	names(t, ns, "billing")

	change(t, sub, func(s *v1alpha1.WebhookSubscription) { s.Spec.Events = []string{"invoice.*"} })
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonUnknownResource)
	entry(t, ns, "billing", func(e *routing.Entry) error {
		if e.Waiting != v1alpha1.ReasonUnknownResource || e.Generation != sub.Generation || e.Patterns[0] != "patient.*" {
			return fmt.Errorf("waiting %q, generation %d, patterns %v", e.Waiting, e.Generation, e.Patterns)
		}
		return nil
	})
}

func TestDispatcherAppears(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	sub := create(t, subscription(ns, "billing"))
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonDispatcherNotFound)
	d := dispatcher(t, ns)
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	names(t, ns, "billing")
	eventually(t, func(ctx context.Context) error {
		if err := api.Get(ctx, client.ObjectKeyFromObject(d), d); err != nil {
			return err
		}
		if n := d.Status.Subscriptions; n == nil || *n != 1 {
			return fmt.Errorf("the dispatcher counts %v subscriptions, want 1", n)
		}
		return nil
	})
	remove(t, d)
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonDispatcherNotFound)
}

func TestNamespaceSelector(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns, func(d *v1alpha1.WebhookDispatcher) {
		d.Spec.Subscriptions.NamespaceSelector.MatchLabels = map[string]string{"tier": "gold"}
	})
	secret(t, ns, "key", map[string]string{"current": signingKey})
	sub := create(t, subscription(ns, "billing"))
	program(t, sub)
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonNamespaceNotSelected)

	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}
	change(t, object, func(n *corev1.Namespace) { n.Labels["tier"] = "gold" })
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)

	change(t, object, func(n *corev1.Namespace) { delete(n.Labels, "tier") })
	become(t, sub, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonNamespaceNotSelected)
	entry(t, ns, "billing", func(e *routing.Entry) error {
		if e.Waiting != v1alpha1.ReasonNamespaceNotSelected {
			return fmt.Errorf("it does not wait: %q", e.Waiting)
		}
		return nil
	})
}

func TestDeletionRemovesEntry(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	secret(t, ns, "key", map[string]string{"current": signingKey})
	first, second := create(t, subscription(ns, "first")), create(t, subscription(ns, "second"))
	names(t, ns, "first", "second")
	remove(t, first)
	names(t, ns, "second")

	remove(t, second)
	again := create(t, subscription(ns, "second"))
	entry(t, ns, "second", func(e *routing.Entry) error {
		if e.Identity != string(again.UID) {
			return fmt.Errorf("it is still that of the deleted one of the same name")
		}
		return nil
	})
	remove(t, again)
	names(t, ns)
	eventually(t, func(context.Context) error {
		if left := versions(t, ns); len(left) != 1 {
			return fmt.Errorf("empty shards exist: %v", left)
		}
		return nil
	})
}
