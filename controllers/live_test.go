package controllers_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/settings"
)

// settingsOf waits until the settings of the dispatcher are those of its generation.
func settingsOf(t *testing.T, d *v1alpha1.WebhookDispatcher) *settings.Settings {
	t.Helper()
	var found *settings.Settings
	secret := in(d.Namespace, settings.SecretName(d.Name), &corev1.Secret{})
	appears(t, secret, func(s *corev1.Secret) error {
		var err error
		if found, err = settings.Decode(s.Data[settings.Key]); err == nil && found.Generation != d.Generation {
			err = fmt.Errorf("the settings are of generation %d, want %d", found.Generation, d.Generation)
		}
		return err
	})
	return found
}

// TestChangesLeaveThePods changes what takes effect in running pods: the settings follow, the Deployment stays as it is, and
// the dispatcher is ready once its pods say that they work by the change.
func TestChangesLeaveThePods(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns)
	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	pods(t, deployment, 1)
	tookOver(t, d, settingsOf(t, d).Generation)
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	for name, edit := range map[string]func(*v1alpha1.WebhookDispatcherSpec){
		"egress": func(s *v1alpha1.WebhookDispatcherSpec) {
			s.Egress.AllowHTTP, s.Egress.AllowedPorts = ptr.To(true), []int32{25}
			s.Egress.AllowedCIDRs, s.Egress.DeniedCIDRs = []string{"10.0.0.0/8"}, []string{"10.1.0.0/16"}
		},
		"ingest": func(s *v1alpha1.WebhookDispatcherSpec) {
			s.Ingest.MaxEventBytes, s.Ingest.OutageGrace = 2048, &metav1.Duration{}
		},
		"retention": func(s *v1alpha1.WebhookDispatcherSpec) { s.Retention.Failed.Duration = 48 * time.Hour },
		"quotas": func(s *v1alpha1.WebhookDispatcherSpec) {
			s.Quotas.EventsPerSecond, s.Quotas.PendingBytes = 5, resource.MustParse("1Gi")
		},
		"resources": func(s *v1alpha1.WebhookDispatcherSpec) { s.EventResources = []string{"lab-order"} },
	} {
		change(t, d, func(d *v1alpha1.WebhookDispatcher) { edit(&d.Spec) })
		got := settingsOf(t, d)
		become(t, d, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonPending)
		tookOver(t, d, got.Generation)
		become(t, d, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
		now := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
		if now.Generation != deployment.Generation {
			t.Errorf("%s: the Deployment was changed", name)
		}
	}
	s := settingsOf(t, d)
	if !s.Egress.AllowHTTP || len(s.Egress.DeniedCIDRs) != 1 || s.MaxEventBytes != 2048 || s.OutageGrace != 0 || s.Failed != 48*time.Hour ||
		s.Quota.PendingBytes != 1<<30 || len(s.EventResources) != 1 {
		t.Errorf("the settings are %+v", s)
	}

	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Limits.AttemptsInFlight = 100 })
	appears(t, in(ns, workload, &appsv1.Deployment{}), func(now *appsv1.Deployment) error {
		if now.Generation == deployment.Generation {
			return fmt.Errorf("a change of a limit does not replace the pods")
		}
		return nil
	})
}

// tookOver writes what the pods write.
func tookOver(t *testing.T, d *v1alpha1.WebhookDispatcher, generation int64) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		patch := fmt.Sprintf(`{"status":{"settingsGeneration":%d}}`, generation)
		return api.Status().Patch(ctx, in(d.Namespace, d.Name, &v1alpha1.WebhookDispatcher{}), client.RawPatch("application/merge-patch+json", []byte(patch)))
	})
}

// TestSettingsArePutBack: someone else's change, and a deletion, do not last.
func TestSettingsArePutBack(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns)
	settingsOf(t, d)
	secret := in(ns, settings.SecretName(d.Name), &corev1.Secret{})
	change(t, secret, func(s *corev1.Secret) { s.Data[settings.Key] = []byte(`{"format":1,"egress":{"allowHTTP":true}}`) })
	if s := settingsOf(t, d); s.Egress.AllowHTTP {
		t.Error("someone else's settings stay")
	}
	remove(t, secret)
	settingsOf(t, d)
}

// TestCrashingPodsAreEvicted: a drain gets through to pods that are not ready, and waits for others that are.
func TestCrashingPodsAreEvicted(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	dispatcher(t, ns)
	budget := appears(t, in(ns, workload, &policyv1.PodDisruptionBudget{}), exists)
	if _, selects := budget.Spec.Selector.MatchLabels["app.kubernetes.io/instance"]; !selects {
		t.Fatalf("the budget selects %v", budget.Spec.Selector)
	}
	clients, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		t.Fatal(err)
	}
	// As the disruption controller has it: one is expected, and nothing healthy may go.
	budget.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: budget.Generation, ExpectedPods: 1, DesiredHealthy: 1}
	if err := api.Status().Update(t.Context(), budget); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		ready corev1.ConditionStatus
		want  bool
	}{"crashing": {corev1.ConditionFalse, true}, "ready": {corev1.ConditionTrue, false}} {
		pod := create(t, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: budget.Spec.Selector.MatchLabels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "dispatcher", Image: testImage}}},
		})
		pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: tc.ready}}}
		if err := api.Status().Update(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		err := clients.PolicyV1().Evictions(ns).Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}})
		if (err == nil) != tc.want {
			t.Errorf("a pod that is %s: %v", name, err)
		}
	}
}
