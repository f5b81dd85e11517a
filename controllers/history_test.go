package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// world is what the statuses of a history are to follow from. Its zero value is that there is nothing.
type world struct {
	namespace  string
	dispatcher bool
	replicas   int32
	pods       int32
	secret     string // "", "key" or "other": the key that Secret "key" has
	subs       map[string]*wish

	wire *wire
	pod  *pod
}

// wish is a subscription as it was applied last.
type wish struct{ invalid, suspend bool }

// step does one random thing to the world, and to the API server.
func (w *world) step(t *testing.T, random *rand.Rand) {
	t.Helper()
	name := fmt.Sprintf("sub-%d", random.IntN(4))
	d := in(w.namespace, "main", &v1alpha1.WebhookDispatcher{})
	switch what := random.IntN(12); {
	case what < 3 && w.subs[name] == nil, what < 2:
		w.subs[name] = &wish{invalid: random.IntN(3) == 0, suspend: random.IntN(3) == 0}
		w.apply(t, name)
	case what == 2:
		remove(t, in(w.namespace, name, &v1alpha1.WebhookSubscription{}))
		delete(w.subs, name)
	case what == 3:
		w.secret = []string{"", "current", "other"}[random.IntN(3)]
		w.applySecret(t)
	case what == 4 && w.dispatcher:
		remove(t, d)
		w.dispatcher = false
	case what == 4:
		dispatcher(t, w.namespace)
		w.dispatcher, w.replicas = true, 1
	case what == 5 && w.dispatcher:
		w.replicas = 1 - w.replicas
		change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Replicas = &w.replicas })
	case what == 6:
		w.pods = 1 - w.pods
		w.applyPods(t)
	case what == 7: // of this version or the one before
		w.pod.stop(t)
		w.pod.options.ProgrammedByRevision = random.IntN(3) > 0
	case what < 10: // the API server is unavailable to both planes, or available again
		w.wire.flip()
	default:
		w.restartManager(t)
	}
	w.kubelet(t)
}

func (w *world) restartManager(t *testing.T) {
	t.Helper()
	if err := manager.stop(); err != nil {
		t.Fatal(err)
	}
	manager.startSupervised(w.wire.config(managerConfig), controllers.Options{})
}

// kubelet has the dispatcher's process run while there is a pod to be.
func (w *world) kubelet(t *testing.T) {
	t.Helper()
	if w.dispatcher && w.replicas == 1 && w.pods == 1 {
		w.pod.start(t)
	} else {
		w.pod.stop(t)
	}
}

func (w *world) apply(t *testing.T, name string) {
	t.Helper()
	sub := subscription(w.namespace, name)
	edit := func(s *v1alpha1.WebhookSubscription) {
		s.Spec.Events = []string{"patient.*"}
		if w.subs[name].invalid {
			s.Spec.Events = []string{"invoice.*"}
		}
		s.Spec.Suspend = &w.subs[name].suspend
	}
	edit(sub)
	if err := api.Create(t.Context(), sub); apierrors.IsAlreadyExists(err) {
		change(t, sub, edit)
	} else if err != nil {
		t.Fatal(err)
	}
}

func (w *world) applySecret(t *testing.T) {
	t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "key"}}
	if err := client.IgnoreNotFound(api.Delete(t.Context(), s)); err != nil {
		t.Fatal(err)
	}
	if w.secret != "" {
		secret(t, w.namespace, "key", map[string]string{w.secret: signingKey})
	}
}

// applyPods says as the Deployment's controller does how many pods run, if there ever was a Deployment.
func (w *world) applyPods(t *testing.T) {
	t.Helper()
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: workload}, &appsv1.Deployment{}); err == nil {
		pods(t, in(w.namespace, workload, &appsv1.Deployment{}), w.pods)
	}
}

// want is the condition Ready that follows from the world, in the words of docs/states.md.
func (w *world) want(sub *v1alpha1.WebhookSubscription) (metav1.ConditionStatus, string) {
	wish := w.subs[sub.Name]
	switch {
	case !w.dispatcher:
		return metav1.ConditionFalse, v1alpha1.ReasonDispatcherNotFound
	case wish.invalid:
		return metav1.ConditionFalse, v1alpha1.ReasonUnknownResource
	case w.secret == "":
		return metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound
	case w.secret != "current":
		return metav1.ConditionFalse, v1alpha1.ReasonSecretKeyMissing
	case w.replicas == 0:
		return metav1.ConditionFalse, v1alpha1.ReasonDispatcherSuspended
	case !w.pod.runs() && w.unheard(sub): // as it was said last
		return metav1.ConditionUnknown, v1alpha1.ReasonPending
	case w.pods == 0:
		return metav1.ConditionFalse, v1alpha1.ReasonDispatcherUnavailable
	case wish.suspend:
		return metav1.ConditionTrue, v1alpha1.ReasonSuspended
	default:
		return metav1.ConditionTrue, v1alpha1.ReasonReady
	}
}

// unheard reports whether no pod ever said that it works by a subscription's generation, as far as the statuses tell: those that do
// not run now say nothing more.
func (w *world) unheard(sub *v1alpha1.WebhookSubscription) bool {
	said := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionProgrammed)
	return said != nil && said.ObservedGeneration == sub.Generation && said.Reason == v1alpha1.ReasonPending
}

// delivers fails unless the pods report that they work by the generation of a subscription, each version in its way.
func (w *world) delivers(ctx context.Context, sub *v1alpha1.WebhookSubscription) error {
	d := in(w.namespace, "main", &v1alpha1.WebhookDispatcher{})
	index := in(w.namespace, "main-routes", &corev1.Secret{})
	if err := errors.Join(api.Get(ctx, client.ObjectKeyFromObject(d), d), api.Get(ctx, client.ObjectKeyFromObject(index), index)); err != nil {
		return err
	}
	now, err := routing.DecodeIndex(index.Data[routing.IndexKey])
	if err != nil {
		return err
	}
	switch {
	case w.pod.options.ProgrammedByRevision && d.Status.ProgrammedRevision != now.Revision:
		return fmt.Errorf("the dispatcher reports revision %d, the index is %d", d.Status.ProgrammedRevision, now.Revision)
	case !w.pod.options.ProgrammedByRevision && sub.Status.ProgrammedGeneration != sub.Generation:
		return fmt.Errorf("%s: the dispatcher does not say that it works by generation %d", sub.Name, sub.Generation)
	}
	return nil
}

func (w *world) holds(ctx context.Context) error {
	for name := range w.subs {
		sub := &v1alpha1.WebhookSubscription{}
		if err := api.Get(ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, sub); err != nil {
			return err
		}
		status, reason := w.want(sub)
		ready := meta.FindStatusCondition(sub.Status.Conditions, v1alpha1.ConditionReady)
		if status == metav1.ConditionTrue && w.pod.runs() {
			if err := w.delivers(ctx, sub); err != nil {
				return err
			}
		}
		if ready == nil || ready.Status != status || ready.Reason != reason || ready.ObservedGeneration != sub.Generation || sub.Status.ObservedGeneration != sub.Generation {
			return fmt.Errorf("%s: want Ready=%s (%s), have %+v", name, status, reason, ready)
		}
	}
	return nil
}

// TestStatusesFollowFromTheWorld does random things: applies, deletions, changes of the Secret, restarts of both planes, and an
// API server that is unavailable to them. In the end each status is what a look at the world says, and planes that know
// nothing of the history change none. It is not parallel: it stops the manager.
func TestStatusesFollowFromTheWorld(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("HISTORY_SEED"); text != "" { // to have one again
		_, _ = fmt.Sscan(text, &seed)
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	way := newWire(t)
	worlds := make([]*world, 4)
	for i := range worlds {
		worlds[i] = &world{namespace: namespace(t), subs: map[string]*wish{}, wire: way}
		worlds[i].pod = newPod(t, way, worlds[i].namespace)
	}
	defer func() {
		if err := manager.stop(); err != nil {
			t.Error(err)
		}
		manager.start(controllers.Options{})
	}()
	worlds[0].restartManager(t)
	for range 25 {
		for _, w := range worlds {
			w.step(t, random)
		}
	}
	way.cut(false)
	for i, w := range worlds {
		if i%2 == 0 { // else hardly any history ends with what delivers
			w.complete(t, random)
		}
		if w.dispatcher {
			appears(t, in(w.namespace, workload, &appsv1.Deployment{}), exists)
		}
		w.applyPods(t)
		w.kubelet(t)
	}
	for _, w := range worlds {
		eventually(t, w.holds)
		settled(t, w.namespace)
		w.pod.stop(t)
	}
	before := make([]map[string]string, len(worlds))
	for i, w := range worlds {
		before[i] = w.versions(t)
	}
	worlds[0].restartManager(t)
	for i, w := range worlds {
		w.kubelet(t)
		w.forgets(t, before[i])
	}
}

// complete adds what is missing for subscriptions to be delivered, in any order.
func (w *world) complete(t *testing.T, random *rand.Rand) {
	t.Helper()
	steps := []func(){
		func() {
			if !w.dispatcher {
				dispatcher(t, w.namespace)
			}
			one := int32(1)
			change(t, in(w.namespace, "main", &v1alpha1.WebhookDispatcher{}), func(d *v1alpha1.WebhookDispatcher) { d.Spec.Replicas = &one })
			w.dispatcher, w.replicas, w.pods = true, 1, 1
		},
		func() { w.secret = "current"; w.applySecret(t) },
		func() { w.subs["sub-0"] = &wish{}; w.apply(t, "sub-0") },
	}
	random.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for _, step := range steps {
		step()
	}
}

// versions are those of the subscriptions now.
func (w *world) versions(t *testing.T) map[string]string {
	t.Helper()
	versions := map[string]string{}
	for name := range w.subs {
		versions[name] = get(t, in(w.namespace, name, &v1alpha1.WebhookSubscription{})).ResourceVersion
	}
	return versions
}

// forgets keeps that planes which were started anew write no status once more.
func (w *world) forgets(t *testing.T, versions map[string]string) {
	t.Helper()
	last := create(t, subscription(w.namespace, "sub-z", func(s *v1alpha1.WebhookSubscription) { s.Spec.Events = []string{"invoice.*"} }))
	eventually(t, func(ctx context.Context) error { // it is looked at behind the others
		if err := api.Get(ctx, client.ObjectKeyFromObject(last), last); err != nil {
			return err
		}
		if last.Status.ObservedGeneration != last.Generation {
			return fmt.Errorf("not seen yet")
		}
		return nil
	})
	if w.pod.runs() && w.secret == "current" {
		news := subscription(w.namespace, "sub-y")
		become(t, create(t, news), v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	}
	for name, before := range versions {
		sub := get(t, in(w.namespace, name, &v1alpha1.WebhookSubscription{}))
		if sub.ResourceVersion != before {
			t.Errorf("planes that know nothing of the history wrote %s: %+v", name, sub.Status.Conditions)
		}
	}
}
