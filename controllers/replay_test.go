package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers"
)

// replay is one of what failed, of the subscriptions with a label.
func replay(namespace, name string, edits ...func(*v1alpha1.WebhookReplay)) *v1alpha1.WebhookReplay {
	r := &v1alpha1.WebhookReplay{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.WebhookReplaySpec{Selector: v1alpha1.ReplaySelector{MatchLabels: map[string]v1alpha1.LabelValue{"tier": "gold"}}},
	}
	for _, edit := range edits {
		edit(r)
	}
	return r
}

func gold(s *v1alpha1.WebhookSubscription) { s.Labels = map[string]string{"tier": "gold"} }

// says is what a dispatcher says of a replay, as it writes that.
func says(t *testing.T, r *v1alpha1.WebhookReplay, p v1alpha1.ReplayProgress) {
	t.Helper()
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&v1alpha1.WebhookReplayStatus{Dispatchers: []v1alpha1.ReplayProgress{p}})
	if err != nil {
		t.Fatal(err)
	}
	patch := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"dispatchers": content["dispatchers"]}}}
	patch.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("WebhookReplay"))
	patch.SetNamespace(r.Namespace)
	patch.SetName(r.Name)
	err = api.Status().Apply(t.Context(), client.ApplyConfigurationFromUnstructured(patch), client.FieldOwner("eventflow-dispatcher/"+p.Name), client.ForceOwnership)
	if err != nil {
		t.Fatal(err)
	}
}

func progress(r *v1alpha1.WebhookReplay, said v1alpha1.ReplayProgressState, done int64) v1alpha1.ReplayProgress {
	return v1alpha1.ReplayProgress{Name: r.Namespace + "/main", State: said, Selected: ptr.To(int64(10)), Done: ptr.To(done), PassedOver: ptr.To(int64(1))}
}

// replayRuns takes a replay from its creation, before its subscription's, to its end.
func replayRuns(t *testing.T, ns string) {
	t.Helper()
	r := create(t, replay(ns, "after-the-outage", func(r *v1alpha1.WebhookReplay) { r.Spec.TTLSecondsAfterFinished = ptr.To(int32(0)) }))
	become(t, r, v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonSubscriptionNotFound)
	create(t, subscription(ns, "billing", gold))
	become(t, r, v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonPending)
	if got, want := fmt.Sprint(r.Status.Subscriptions), fmt.Sprintf("[{billing %s/main}]", ns); got != want {
		t.Errorf("selected are %s, want %s", got, want)
	}
	create(t, subscription(ns, "later", gold))
	says(t, r, progress(r, v1alpha1.ReplayRunning, 3))
	become(t, r, v1alpha1.ConditionComplete, metav1.ConditionFalse, v1alpha1.ReasonReplaying)
	eventually(t, func(ctx context.Context) error {
		if err := api.Get(ctx, client.ObjectKeyFromObject(r), r); err != nil {
			return err
		}
		if st := r.Status; st.Remaining == nil || *st.Selected != 10 || *st.Done != 3 || *st.PassedOver != 1 || *st.Remaining != 6 || len(st.Subscriptions) != 1 {
			return fmt.Errorf("the status says %+v", st)
		}
		return nil
	})
	says(t, r, progress(r, v1alpha1.ReplayFinished, 9))
	eventually(t, func(ctx context.Context) error {
		err := api.Get(ctx, client.ObjectKeyFromObject(r), r)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("it is still there, finished for longer than its TTL"))
	})
}

// TestReplay selects, sums up and deletes.
func TestReplay(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	replayRuns(t, ns)
}

// TestReplayFromGitStays: Flux would make it again, and it would run again.
func TestReplayFromGitStays(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	create(t, subscription(ns, "billing", gold))
	ttl := func(r *v1alpha1.WebhookReplay) { r.Spec.TTLSecondsAfterFinished = ptr.To(int32(0)) }
	flux := create(t, replay(ns, "flux", ttl, func(r *v1alpha1.WebhookReplay) { r.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "x"} }))
	argo := create(t, replay(ns, "argo", ttl, func(r *v1alpha1.WebhookReplay) {
		r.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "x"}
	}))
	plain := create(t, replay(ns, "plain", ttl))
	for _, r := range []*v1alpha1.WebhookReplay{flux, argo, plain} { // the plain one last: by its end the others were looked at
		become(t, r, v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonPending)
		says(t, r, progress(r, v1alpha1.ReplayFinished, 9))
	}
	eventually(t, func(ctx context.Context) error {
		if err := api.Get(ctx, client.ObjectKeyFromObject(plain), plain); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the plain one is still there: %w", err)
		}
		return nil
	})
	for _, r := range []*v1alpha1.WebhookReplay{flux, argo} {
		become(t, r, v1alpha1.ConditionComplete, metav1.ConditionTrue, v1alpha1.ReasonCompleted)
	}
}

// TestReplaySuspended: a replay that was created suspended selects nothing before it may begin; one that is complete stays so.
func TestReplaySuspended(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	create(t, subscription(ns, "billing", gold))
	r := create(t, replay(ns, "suspended", func(r *v1alpha1.WebhookReplay) { r.Spec.Suspend = ptr.To(true) }))
	become(t, r, v1alpha1.ConditionSuspended, metav1.ConditionTrue, v1alpha1.ReasonSuspended)
	if len(r.Status.Subscriptions) != 0 {
		t.Errorf("it selected %v", r.Status.Subscriptions)
	}
	change(t, r, func(r *v1alpha1.WebhookReplay) { r.Spec.Suspend = nil })
	become(t, r, v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonPending)
	says(t, r, progress(r, v1alpha1.ReplayFinished, 9))
	become(t, r, v1alpha1.ConditionComplete, metav1.ConditionTrue, v1alpha1.ReasonCompleted)
	change(t, r, func(r *v1alpha1.WebhookReplay) { r.Spec.Suspend = ptr.To(true) })
	become(t, r, v1alpha1.ConditionSuspended, metav1.ConditionFalse, v1alpha1.ReasonNotSuspended)
	become(t, r, v1alpha1.ConditionComplete, metav1.ConditionTrue, v1alpha1.ReasonCompleted)
}

// TestReplayWithoutItsDispatcher says who is missing.
func TestReplayWithoutItsDispatcher(t *testing.T) {
	t.Parallel()
	ns := foreign(t)
	create(t, subscription(ns, "billing", gold))
	r := create(t, replay(ns, "alone"))
	become(t, r, v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonDispatcherNotFound)
}

// TestReplayOutlivesTheManager: what one manager selected, the next one goes by, whatever the labels are then. It is not parallel: it
// stops the manager.
func TestReplayOutlivesTheManager(t *testing.T) {
	ns := namespace(t)
	dispatcher(t, ns)
	sub := create(t, subscription(ns, "billing", gold))
	r := create(t, replay(ns, "long"))
	become(t, r, v1alpha1.ConditionReconciling, metav1.ConditionTrue, v1alpha1.ReasonPending)
	before := r.Status.DeepCopy()
	if err := manager.stop(); err != nil {
		t.Fatal(err)
	}
	change(t, sub, func(s *v1alpha1.WebhookSubscription) { s.Labels = nil })
	create(t, subscription(ns, "another", gold))
	says(t, r, progress(r, v1alpha1.ReplayFinished, 9))
	manager.start(controllers.Options{})
	become(t, r, v1alpha1.ConditionComplete, metav1.ConditionTrue, v1alpha1.ReasonCompleted)
	if fmt.Sprint(r.Status.Subscriptions) != fmt.Sprint(before.Subscriptions) || !r.Status.StartTime.Equal(before.StartTime) {
		t.Errorf("selected are %v since %v, were %v since %v", r.Status.Subscriptions, r.Status.StartTime, before.Subscriptions, before.StartTime)
	}
}
