package dispatcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	rbacv1ac "k8s.io/client-go/applyconfigurations/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
)

// The two ClusterRoleBindings are installed with the manager, and have the names of their ClusterRoles. The manager
// writes their subjects and nothing else: it can make no binding, delete none, and touch no other one.
//
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterrolebindings,verbs=get;list;watch;patch,resourceNames=eventflow-dispatcher-status;eventflow-dispatcher-auth
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles,verbs=bind,resourceNames=eventflow-dispatcher-status;eventflow-dispatcher-auth

// clusterRoles are those that the dispatcher needs: a dispatcher that need not ask the API server who publishes may not.
func clusterRoles(d *v1alpha1.WebhookDispatcher) []string {
	if d.Spec.Ingest.Authentication == v1alpha1.IngestNone {
		return []string{names.StatusRole}
	}
	return []string{names.StatusRole, names.AuthRole}
}

// bind makes the dispatchers' ServiceAccounts the subjects of the cluster-wide bindings: those of all dispatchers that
// exist and are where the manager may make them. One whose namespace is no longer granted keeps what it has until that is
// certain. missing is what to do if a binding is not installed.
func (r *Reconciler) bind(ctx context.Context) (missing string, err error) {
	dispatchers := &v1alpha1.WebhookDispatcherList{}
	if err := r.Client.List(ctx, dispatchers, client.UnsafeDisableDeepCopy); err != nil {
		return "", fmt.Errorf("list dispatchers: %w", err)
	}
	subjects, kept := make(map[string][]rbacv1.Subject), make(map[string][]rbacv1.Subject)
	for i := range dispatchers.Items {
		d := &dispatchers.Items[i]
		granted, refused, err := r.Grants.Standing(ctx, d.Namespace)
		if err != nil {
			return "", err
		}
		if refused >= withdrawnAfter || !d.DeletionTimestamp.IsZero() {
			continue
		}
		to := subjects
		if !granted {
			to = kept
		}
		for _, role := range clusterRoles(d) {
			to[role] = append(to[role], rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Name: names.Workload(d.Name), Namespace: d.Namespace})
		}
	}
	var errs []error
	for _, role := range []string{names.StatusRole, names.AuthRole} {
		err := r.bindTo(ctx, role, subjects[role], kept[role])
		if apierrors.IsNotFound(err) {
			missing = "ClusterRoleBinding " + role + " is missing: apply config/rbac again"
			continue
		}
		errs = append(errs, err)
	}
	return missing, errors.Join(errs...)
}

// withdraw takes the cluster-wide rights of a namespace's dispatchers back once the grant is gone for good. It does so for a
// few looks, and not as long as the namespace is refused.
func (r *Reconciler) withdraw(ctx context.Context, namespace string) error {
	_, refused, err := r.Grants.Standing(ctx, namespace)
	if err != nil || refused < withdrawnAfter || refused > withdrawnAfter+3*grantAwaited {
		return err
	}
	_, err = r.bind(ctx)
	return err
}

// bindTo sets the subjects of one binding, if they are others; of kept, those that it has stay. The binding is read from the API server: two reads for
// each change of a dispatcher are little, and an older one would be written over and over.
func (r *Reconciler) bindTo(ctx context.Context, role string, subjects, kept []rbacv1.Subject) error {
	binding := &rbacv1.ClusterRoleBinding{}
	if err := r.Reader.Get(ctx, client.ObjectKey{Name: role}, binding); err != nil {
		return fmt.Errorf("get ClusterRoleBinding %s: %w", role, err)
	}
	for _, s := range kept {
		if slices.Contains(binding.Subjects, s) {
			subjects = append(subjects, s)
		}
	}
	slices.SortFunc(subjects, func(a, b rbacv1.Subject) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	if slices.Equal(binding.Subjects, subjects) {
		return nil
	}
	wanted := rbacv1ac.ClusterRoleBinding(role).WithUID(binding.UID) // a binding that is deleted just now is not made
	for _, s := range subjects {
		wanted.WithSubjects(rbacv1ac.Subject().WithKind(s.Kind).WithName(s.Name).WithNamespace(s.Namespace))
	}
	if err := r.Client.Apply(ctx, wanted, client.FieldOwner(names.FieldOwner), client.ForceOwnership); err != nil {
		return fmt.Errorf("set the subjects of ClusterRoleBinding %s: %w", role, err)
	}
	return nil
}
