package controllers_test

import (
	"context"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// TestSigningKeysAreShown: with a dispatcher that runs, the status names the keys that sign. That comes with the write that says
// Programmed; a Secret that changes costs one write more, and each key keeps its time.
func TestSigningKeysAreShown(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	keys := secret(t, ns, "key", map[string]string{"current": signingKey, "next": "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="})
	pods(t, appears(t, in(ns, workload, &appsv1.Deployment{}), exists), 1)
	p := newPod(t, newWire(t), ns)
	p.options.ProgrammedByRevision = true
	p.start(t)

	sub := create(t, subscription(ns, "billing"))
	become(t, sub, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	if len(sub.Status.Signing.Keys) != 1 || sub.Status.Signing.Keys[0].Scheme != v1alpha1.SchemeShared || sub.Status.Signing.Keys[0].SinceTime.IsZero() {
		t.Fatalf("Ready without the key that signs: %+v", sub.Status.Signing)
	}
	first := sub.Status.Signing.Keys[0]

	change(t, sub, func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Signing.NextSecretRef = &v1alpha1.SecretKeyReference{Name: "key", Key: "next"}
	})
	shows := func(ids ...string) {
		t.Helper()
		eventually(t, func(ctx context.Context) error {
			if err := api.Get(ctx, client.ObjectKeyFromObject(sub), sub); err != nil {
				return err
			}
			have := sub.Status.Signing.Keys
			for i, id := range ids {
				if len(have) != len(ids) || id != "" && have[i].ID != id {
					return fmt.Errorf("the keys %+v sign, want %q", have, ids)
				}
			}
			return nil
		})
	}
	shows(first.ID, "")
	if next := sub.Status.Signing.Keys[1]; next.Scheme != v1alpha1.SchemePair || next.PublicKey != "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=" {
		t.Errorf("the pair is shown as %+v", next)
	}
	if again := sub.Status.Signing.Keys[0]; !again.SinceTime.Equal(&first.SinceTime) {
		t.Errorf("the first key signs since %v, and %v before", again.SinceTime, first.SinceTime)
	}

	settled(t, ns)
	before, _ := asked.of("", ns, "/webhooksubscriptions/") // others are counted meanwhile
	change(t, keys, func(s *corev1.Secret) {
		s.StringData = map[string]string{"current": "another key of twenty-four bytes"}
	})
	shows("", sub.Status.Signing.Keys[1].ID)
	eventually(t, func(ctx context.Context) error {
		if err := api.Get(ctx, client.ObjectKeyFromObject(sub), sub); err != nil {
			return err
		}
		if sub.Status.Signing.Keys[0].ID == first.ID {
			return fmt.Errorf("the replaced key is still shown")
		}
		return nil
	})
	settled(t, ns)
	if n, list := asked.of("", ns, "/webhooksubscriptions/"); n != before+1 {
		t.Errorf("%d writes of the subscription, want 1: %v", n-before, list)
	}
	p.stop(t)
}
