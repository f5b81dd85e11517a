package dispatcher

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/controllers/names"
)

// What stands is not applied again, so that neither a restart of the manager nor a dispatcher's many reconciles ask anything
// of the API server. That it stands follows from metadata, which is watched anyway. An annotation has the digest of what was
// applied last, and managedFields have the fields that the manager owns: nobody can change or remove the value of a field
// that another one owns, without taking it from the owner.

// appliedAnnotation is the digest of what was applied last.
const appliedAnnotation = "webhooks.clinikapi.com/applied"

// settingsAnnotation, on the Secret with a dispatcher's settings, is the generation that they are of, a slash, and their
// digest.
const settingsAnnotation = "webhooks.clinikapi.com/settings"

// syncedWithin is how long to wait for a cache that was just made.
const syncedWithin = 5 * time.Second

// OwnFields leaves of an object's metadata what the manager applied, by which it is known whether an object stands.
func OwnFields(object metav1.Object) {
	annotations := make(map[string]string)
	for _, key := range []string{appliedAnnotation, settingsAnnotation} {
		if value, found := object.GetAnnotations()[key]; found {
			annotations[key] = value
		}
	}
	object.SetAnnotations(annotations)
	var own []metav1.ManagedFieldsEntry
	for _, entry := range object.GetManagedFields() {
		if entry.Manager == names.FieldOwner && entry.Operation == metav1.ManagedFieldsOperationApply && entry.Subresource == "" {
			own = append(own, entry)
		}
	}
	object.SetManagedFields(own)
}

// digested is a configuration with its digest in an annotation, as it is applied.
func digested(configuration runtime.ApplyConfiguration) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(configuration)
	if err != nil {
		return nil, fmt.Errorf("convert a configuration: %w", err)
	}
	text, err := json.Marshal(content)
	if err != nil {
		return nil, fmt.Errorf("encode a configuration: %w", err)
	}
	// As JSON has it: numbers of one kind, and nothing that is shared with the configuration.
	object := &unstructured.Unstructured{}
	if err := json.Unmarshal(text, &object.Object); err != nil {
		return nil, fmt.Errorf("decode a configuration: %w", err)
	}
	sum := sha256.Sum256(text)
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = make(map[string]string)
	}
	annotations[appliedAnnotation] = hex.EncodeToString(sum[:])
	object.SetAnnotations(annotations)
	return object, nil
}

// stands reports whether an object, nil if there is none, is as the manager would apply it.
func stands(found *metav1.PartialObjectMetadata, wanted *unstructured.Unstructured) bool {
	if found == nil || !found.DeletionTimestamp.IsZero() ||
		found.Annotations[appliedAnnotation] != wanted.GetAnnotations()[appliedAnnotation] {
		return false
	}
	return owns(found, wanted.Object)
}

// owns reports whether the manager owns each field of a configuration.
func owns(found *metav1.PartialObjectMetadata, configuration map[string]any) bool {
	for _, entry := range found.ManagedFields {
		if entry.Manager != names.FieldOwner || entry.Operation != metav1.ManagedFieldsOperationApply || entry.Subresource != "" || entry.FieldsV1 == nil {
			continue
		}
		var fields map[string]any
		if err := json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields); err != nil {
			return false
		}
		return covers(fields, owned(configuration))
	}
	return false
}

// owned is what can be owned of a configuration: not what tells which object it is.
func owned(configuration map[string]any) map[string]any {
	fields := make(map[string]any, len(configuration))
	for key, value := range configuration {
		if key != "apiVersion" && key != "kind" && key != "metadata" {
			fields[key] = value
		}
	}
	metadata, _ := configuration["metadata"].(map[string]any)
	kept := make(map[string]any)
	for _, key := range []string{"labels", "annotations", "ownerReferences"} {
		if value, found := metadata[key]; found {
			kept[key] = value
		}
	}
	if len(kept) > 0 {
		fields["metadata"] = kept
	}
	return fields
}

// covers reports whether a set of fields, in the format FieldsV1, has all of a value: f: before the name of a field, k: before
// the key of an element, v: before an element itself. A value with none of these below it is owned as a whole.
func covers(fields map[string]any, value any) bool {
	switch value := value.(type) {
	case map[string]any:
		if !has(fields, "f:") {
			return true
		}
		for key, below := range value {
			child, found := fields["f:"+key].(map[string]any)
			if !found || !covers(child, below) {
				return false
			}
		}
	case []any:
		if !has(fields, "k:") && !has(fields, "v:") {
			return true
		}
		for _, element := range value {
			child := elementOf(fields, element)
			if child == nil || !covers(child, element) {
				return false
			}
		}
	}
	return true
}

func has(fields map[string]any, prefix string) bool {
	for key := range fields {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// elementOf finds the fields of a list's element, nil if it is not among them. What the key has and the element does not is a
// default.
func elementOf(fields map[string]any, element any) map[string]any {
	text, err := json.Marshal(element)
	if err != nil {
		return nil
	}
	if child, found := fields["v:"+string(text)].(map[string]any); found {
		return child
	}
	content, _ := element.(map[string]any)
	for name, child := range fields {
		encoded, isKey := strings.CutPrefix(name, "k:")
		var key map[string]any
		if !isKey || json.Unmarshal([]byte(encoded), &key) != nil {
			continue
		}
		matches := true
		for field, want := range key {
			have, found := content[field]
			matches = matches && (!found || sameJSON(have, want))
		}
		if matches {
			below, _ := child.(map[string]any)
			return below
		}
	}
	return nil
}

func sameJSON(a, b any) bool {
	first, err := json.Marshal(a)
	second, other := json.Marshal(b)
	return err == nil && other == nil && bytes.Equal(first, second)
}

// applied reports whether an object stands, as far as the caches know. If they know nothing yet, it does not.
func (r *Reconciler) applied(ctx context.Context, namespace string, wanted *unstructured.Unstructured) bool {
	kind := wanted.GroupVersionKind()
	if kind.Kind == "Secret" {
		return stands(r.secretMetadata(ctx, namespace, wanted.GetName()), wanted)
	}
	ctx, cancel := context.WithTimeout(ctx, syncedWithin)
	defer cancel()
	kinds := r.watches.of(namespace)
	if kinds == nil || !kinds.WaitForCacheSync(ctx) {
		return false
	}
	found := &metav1.PartialObjectMetadata{}
	found.SetGroupVersionKind(kind)
	return kinds.Get(ctx, client.ObjectKey{Namespace: namespace, Name: wanted.GetName()}, found) == nil && stands(found, wanted)
}

// secretMetadata is what the cache knows of a Secret, nil if nothing.
func (r *Reconciler) secretMetadata(ctx context.Context, namespace, name string) *metav1.PartialObjectMetadata {
	found := &metav1.PartialObjectMetadata{}
	found.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	if err := r.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, found); err != nil {
		return nil
	}
	return found
}
