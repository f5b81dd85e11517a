package deliveriesapi

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1ac "k8s.io/client-go/applyconfigurations/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
)

// The binding of the dispatchers that serve the API is installed with the right to register it. The manager writes its subjects
// and nothing else. The ClusterRole is what Role extension-apiserver-authentication-reader of kube-system allows, and less: one
// ConfigMap by its name.
//
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=get,resourceNames=extension-apiserver-authentication,roleName=eventflow-dispatcher-deliveries
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterrolebindings,verbs=get;patch,resourceNames=eventflow-dispatcher-deliveries,roleName=eventflow-deliveries-api
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles,verbs=bind,resourceNames=eventflow-dispatcher-deliveries,roleName=eventflow-deliveries-api

// namespaceRole lets the manager ask the pods of a namespace.
const namespaceRole = "eventflow-deliveries-namespace"

// bind makes the ServiceAccounts of dispatchers that serve the API the subjects of the binding.
func (r *Reconciler) bind(ctx context.Context, binding *rbacv1.ClusterRoleBinding, asks []*v1alpha1.WebhookDispatcher) error {
	subjects := make([]rbacv1.Subject, 0, len(asks))
	for _, d := range asks {
		if _, refused := refuse(d, r.Allowed, func(string) bool { return false }); !refused {
			subjects = append(subjects, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Name: names.Workload(d.Name), Namespace: d.Namespace})
		}
	}
	slices.SortFunc(subjects, func(a, b rbacv1.Subject) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	if slices.Equal(subjects, binding.Subjects) {
		return nil
	}
	wanted := rbacv1ac.ClusterRoleBinding(binding.Name).WithUID(binding.UID)
	for _, s := range subjects {
		wanted.WithSubjects(rbacv1ac.Subject().WithKind(s.Kind).WithName(s.Name).WithNamespace(s.Namespace))
	}
	if err := r.Client.Apply(ctx, wanted, client.FieldOwner(names.FieldOwner), client.ForceOwnership); err != nil {
		return fmt.Errorf("set the subjects of ClusterRoleBinding %s: %w", binding.Name, err)
	}
	return nil
}
