package controllers_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	podstatus "github.com/clinikapi/eventflow/dispatcher/status"
)

// TestStoreIsUsedOrAbandoned lets a pod's first event and the manager's replacement of the volume race: one of them wins.
func TestStoreIsUsedOrAbandoned(t *testing.T) {
	t.Parallel()
	for range 4 {
		ns := namespace(t)
		d := dispatcher(t, ns)
		claim := appears(t, in(ns, workload+"-store", &corev1.PersistentVolumeClaim{}), exists)
		bound(t, claim)
		mayAs(t, statusRole, ns, true)
		pod, err := podstatus.NewStoreUse(asPod(ns), ns, d.Name, "of-the-pod")
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, func(ctx context.Context) error {
			used, err := pod.Announce(ctx, false)
			if err == nil && used {
				t.Error("a store that was never used counts as used")
			}
			return err
		})
		var both sync.WaitGroup
		var first, second error
		smaller := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"store":{"embedded":{"size":"1Gi"}}}}`))
		both.Go(func() { first = pod.Use(t.Context()) })
		both.Go(func() { second = api.Patch(t.Context(), d, smaller) })
		both.Wait()
		if second != nil {
			t.Fatal(second)
		}
		if first != nil { // abandoned, or replaced already
			if err := pod.Use(t.Context()); err == nil {
				t.Error("a store that was abandoned was used afterwards")
			}
			continue
		}
		become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonStoreImmutable)
		if err := api.Get(t.Context(), client.ObjectKeyFromObject(claim), claim); err != nil || !claim.DeletionTimestamp.IsZero() {
			t.Errorf("the volume of a store that is used was deleted (%v)", err)
		}
	}
}

func TestAbandonedStoreRefuses(t *testing.T) {
	t.Parallel()
	ns := foreign(t) // the manager keeps out
	d := dispatcher(t, ns)
	pod, err := podstatus.NewStoreUse(restConfig, ns, d.Name, "of-the-pod")
	if err != nil {
		t.Fatal(err)
	}
	used(t, d, "another", v1alpha1.StoreUnused)
	if err := pod.Use(t.Context()); err == nil {
		t.Error("a store of which the status is not was used")
	}
	used(t, d, "of-the-pod", v1alpha1.StoreAbandoned)
	if err := pod.Use(t.Context()); !errors.Is(err, podstatus.ErrAbandoned) {
		t.Errorf("want ErrAbandoned, got %v", err)
	}
	if _, err := pod.Announce(t.Context(), false); !errors.Is(err, podstatus.ErrAbandoned) {
		t.Errorf("want ErrAbandoned, got %v", err)
	}
	if used, err := pod.Announce(t.Context(), true); err != nil || !used { // it holds events, whatever the status says
		t.Errorf("used %t (%v)", used, err)
	}
}
