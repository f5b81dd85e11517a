package deliveriesapi

import (
	"context"
	"encoding/base64"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	deliveries "github.com/clinikapi/eventflow/api/deliveries/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/dispatcher"
	"github.com/clinikapi/eventflow/controllers/names"
)

// The manager registers this one API and no other.
//
// +kubebuilder:rbac:groups=apiregistration.k8s.io,resources=apiservices,verbs=get;create;patch;delete,resourceNames=v1alpha1.deliveries.webhooks.clinikapi.com,roleName=eventflow-deliveries-api

// Name is that of the APIService.
var Name = deliveries.GroupVersion.Version + "." + deliveries.GroupVersion.Group

// managerLabel is the namespace of the manager that registered the API: another one's is left alone.
const managerLabel = "webhooks.clinikapi.com/manager-namespace"

var apiServiceKind = schema.GroupVersionKind{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService"}

// registration is the APIService that there is; the zero value if there is none.
type registration struct {
	object *unstructured.Unstructured
	own    bool             // this manager registered it
	of     client.ObjectKey // the dispatcher that its Service leads to
}

// is reports whether the API of a dispatcher is registered by this manager.
func (r registration) is(d client.ObjectKey) bool { return r.own && r.of == d }

// foreign reports whether the API is registered by somebody else.
func (r registration) foreign() bool { return r.object != nil && !r.own }

// available is what the API server says.
func (r registration) available() metav1.ConditionStatus {
	conditions, _, _ := unstructured.NestedSlice(r.object.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "Available" {
			status, _ := c["status"].(string)
			return metav1.ConditionStatus(status)
		}
	}
	return ""
}

// registration reads the APIService from the API server.
func (r *Reconciler) registration(ctx context.Context) (registration, error) {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(apiServiceKind)
	err := r.Reader.Get(ctx, client.ObjectKey{Name: Name}, object)
	if apierrors.IsNotFound(err) {
		return registration{}, nil
	}
	if err != nil {
		return registration{}, fmt.Errorf("get APIService: %w", err)
	}
	of, labelled := names.Dispatcher(object)
	return registration{object: object, of: of, own: labelled && object.GetLabels()[managerLabel] == r.Home}, nil
}

// wanted is the APIService of a dispatcher, owned by a binding.
func (r *Reconciler) wanted(d client.ObjectKey, bundle []byte, binding types.UID) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
		"group": deliveries.GroupVersion.Group, "version": deliveries.GroupVersion.Version,
		"groupPriorityMinimum": int64(1000), "versionPriority": int64(10),
		"caBundle": base64.StdEncoding.EncodeToString(bundle),
		"service":  map[string]any{"namespace": d.Namespace, "name": names.Deliveries(d.Name), "port": int64(dispatcher.DeliveriesServicePort)},
	}}}
	object.SetGroupVersionKind(apiServiceKind)
	object.SetName(Name)
	labels := names.Labels(names.DataPlane, d)
	labels[managerLabel] = r.Home
	object.SetLabels(labels)
	object.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRoleBinding", Name: names.DeliveriesRole, UID: binding,
	}})
	return object
}

// put makes the APIService, or brings the manager's own up to date. One that somebody else made in between is not taken over:
// without force, the API server refuses.
func (r *Reconciler) put(ctx context.Context, found registration, wanted *unstructured.Unstructured) error {
	options := []client.ApplyOption{client.FieldOwner(names.FieldOwner)}
	if found.object != nil {
		if sameRegistration(found.object, wanted) {
			return nil
		}
		wanted.SetUID(found.object.GetUID())
		options = append(options, client.ForceOwnership)
	}
	if err := r.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(wanted), options...); err != nil {
		return fmt.Errorf("apply APIService: %w", err)
	}
	return nil
}

// sameRegistration reports whether there is nothing to change.
func sameRegistration(found, wanted *unstructured.Unstructured) bool {
	for key, value := range wanted.GetLabels() {
		if found.GetLabels()[key] != value {
			return false
		}
	}
	if !reflect.DeepEqual(found.GetOwnerReferences(), wanted.GetOwnerReferences()) {
		return false
	}
	want, _, _ := unstructured.NestedMap(wanted.Object, "spec")
	have, _, _ := unstructured.NestedMap(found.Object, "spec")
	for key, value := range want {
		if !reflect.DeepEqual(have[key], value) {
			return false
		}
	}
	return true
}

// takeBack deletes the manager's own APIService, and no other that has its name by now.
func (r *Reconciler) takeBack(ctx context.Context, found registration) error {
	if !found.own {
		return nil
	}
	uid := found.object.GetUID()
	err := r.Client.Delete(ctx, found.object, client.Preconditions{UID: &uid})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete APIService: %w", err)
	}
	return nil
}
