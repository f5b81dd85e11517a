// Package status writes the status of the project's resources: by server-side apply, one field owner per writer, so
// that each writer removes and overwrites its own fields alone, and only when there is something to write.
package status

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Conditions returns the wanted conditions with the generation they were observed at, and with the transition time of
// those that the object has already with the same status.
func Conditions(object client.Object, existing []metav1.Condition, wanted ...metav1.Condition) []metav1.Condition {
	result := make([]metav1.Condition, 0, len(wanted))
	for _, condition := range wanted {
		condition.ObservedGeneration = object.GetGeneration()
		var one []metav1.Condition
		if old := meta.FindStatusCondition(existing, condition.Type); old != nil {
			one = append(one, *old)
		}
		meta.SetStatusCondition(&one, condition)
		result = append(result, one...)
	}
	return result
}

// Contains reports whether existing holds each of the wanted conditions as it is.
func Contains(existing, wanted []metav1.Condition) bool {
	for _, condition := range wanted {
		if old := meta.FindStatusCondition(existing, condition.Type); old == nil || !same(*old, condition) {
			return false
		}
	}
	return true
}

// same compares without the transition time, which follows from the status.
func same(a, b metav1.Condition) bool {
	a.LastTransitionTime = b.LastTransitionTime
	return a == b
}

// Apply makes fields, a pointer to a struct, all that the field owner has in the object's status. An object that is
// gone, or was replaced by another of its name, is left alone.
func Apply(ctx context.Context, c client.Client, object client.Object, owner client.FieldOwner, fields any) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(fields)
	if err != nil {
		return fmt.Errorf("convert status: %w", err)
	}
	gvk, err := apiutil.GVKForObject(object, c.Scheme())
	if err != nil {
		return fmt.Errorf("find the kind of an object: %w", err)
	}
	patch := &unstructured.Unstructured{Object: map[string]any{"status": content}}
	patch.SetGroupVersionKind(gvk)
	patch.SetNamespace(object.GetNamespace())
	patch.SetName(object.GetName())
	patch.SetUID(object.GetUID())
	err = c.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(patch), owner, client.ForceOwnership)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("apply status of %s %s: %w", gvk.Kind, client.ObjectKeyFromObject(object), err)
	}
	return nil
}
