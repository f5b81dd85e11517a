package controllers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// scaled waits until a dispatcher's scale subresource, which is all that an autoscaler sees of it, passes check.
func scaled(t *testing.T, d *v1alpha1.WebhookDispatcher, check func(*autoscalingv1.Scale) error) *autoscalingv1.Scale {
	t.Helper()
	scale := &autoscalingv1.Scale{}
	eventually(t, func(ctx context.Context) error {
		if err := api.SubResource("scale").Get(ctx, d, scale); err != nil {
			return err
		}
		return check(scale)
	})
	return scale
}

// scale asks for replicas as an autoscaler does.
func scale(ctx context.Context, d *v1alpha1.WebhookDispatcher, replicas int32) error {
	wanted := &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name},
		Spec:       autoscalingv1.ScaleSpec{Replicas: replicas},
	}
	return api.SubResource("scale").Update(ctx, d, client.WithSubResourceBody(wanted))
}

func TestDispatcherScales(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	secret(t, ns, "pg-app", map[string]string{"uri": databaseURL})
	d := dispatcher(t, ns, inDatabase, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Replicas = nil })
	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	first := scaled(t, d, func(s *autoscalingv1.Scale) error {
		if s.Spec.Replicas != 1 || s.Status.Replicas != 0 || s.Status.Selector == "" {
			return fmt.Errorf("scale of a new dispatcher: %+v %+v", s.Spec, s.Status)
		}
		return nil
	})
	selector, err := labels.Parse(first.Status.Selector)
	if err != nil {
		t.Fatal(err)
	}
	budget := appears(t, in(ns, workload, &policyv1.PodDisruptionBudget{}), exists)
	for what, other := range map[string]*metav1.LabelSelector{"Deployment": deployment.Spec.Selector, "PodDisruptionBudget": budget.Spec.Selector} {
		if metav1.FormatLabelSelector(other) != first.Status.Selector {
			t.Errorf("it selects %s, the %s %s", first.Status.Selector, what, metav1.FormatLabelSelector(other))
		}
	}
	if !selector.Matches(labels.Set(deployment.Spec.Template.Labels)) {
		t.Errorf("selector %s does not select the pods, whose labels are %v", selector, deployment.Spec.Template.Labels)
	}

	for _, replicas := range []int32{3, 5, 2} {
		if err := scale(t.Context(), d, replicas); err != nil {
			t.Fatal(err)
		}
		appears(t, deployment, func(d *appsv1.Deployment) error {
			if *d.Spec.Replicas != replicas {
				return fmt.Errorf("the Deployment has %d replicas, want %d", *d.Spec.Replicas, replicas)
			}
			return nil
		})
		pods(t, deployment, replicas)
		scaled(t, d, func(s *autoscalingv1.Scale) error {
			if s.Spec.Replicas != replicas || s.Status.Replicas != replicas {
				return fmt.Errorf("scale to %d: wanted %d, running %d", replicas, s.Spec.Replicas, s.Status.Replicas)
			}
			return nil
		})
		become(t, d, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady)
	}
	pods(t, deployment, 1) // a pod is lost
	scaled(t, d, func(s *autoscalingv1.Scale) error {
		if s.Spec.Replicas != 2 || s.Status.Replicas != 1 {
			return fmt.Errorf("a pod is lost: wanted %d, running %d", s.Spec.Replicas, s.Status.Replicas)
		}
		return nil
	})
	if err := scale(t.Context(), d, 101); !apierrors.IsInvalid(err) {
		t.Errorf("want more than 100 replicas refused, got %v", err)
	}
}

// pods says as the Deployment's controller does that n pods run.
func pods(t *testing.T, deployment *appsv1.Deployment, n int32) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if err := api.Get(ctx, client.ObjectKeyFromObject(deployment), deployment); err != nil {
			return err
		}
		deployment.Status = appsv1.DeploymentStatus{
			ObservedGeneration: deployment.Generation,
			Replicas:           n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n,
		}
		return api.Status().Update(ctx, deployment)
	})
}

func TestEmbeddedDispatcherDoesNotScale(t *testing.T) {
	t.Parallel()
	d := dispatcher(t, namespace(t))
	if err := scale(t.Context(), d, 2); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "at most one replica") {
		t.Errorf("want a second pod on an embedded store refused, got %v", err)
	}
	if err := scale(t.Context(), d, 0); err != nil {
		t.Error(err)
	}
	become(t, d, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonSuspended)
}
