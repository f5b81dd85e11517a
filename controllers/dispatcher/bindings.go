package dispatcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
)

// The two ClusterRoleBindings are installed with the manager, and have the names of their ClusterRoles. The manager
// writes their subjects and nothing else: it can make no binding, delete none, and touch no other one.
//
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterrolebindings,verbs=get;list;watch;patch,resourceNames=eventflow-dispatcher-status;eventflow-dispatcher-auth
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles,verbs=bind,resourceNames=eventflow-dispatcher-status;eventflow-dispatcher-auth

//
// A manager with Roles alone does the same to a RoleBinding in each of its namespaces, and cannot for the other one: who
// publishes is asked of the whole cluster.
//
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=rolebindings,verbs=get;list;watch;patch,resourceNames=eventflow-dispatcher-status,roleName=eventflow-tenant-namespace
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles,verbs=bind,resourceNames=eventflow-dispatcher-status,roleName=eventflow-tenant-namespace

// shared are the bindings that the manager writes the subjects of.
func (r *Reconciler) shared() []sharedBinding {
	if len(r.Namespaces) == 0 {
		return []sharedBinding{{role: names.StatusRole}, {role: names.AuthRole}}
	}
	var all []sharedBinding
	for _, namespace := range r.Namespaces {
		all = append(all, sharedBinding{role: names.StatusRole, namespace: namespace})
	}
	return all
}

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
	for _, binding := range r.shared() {
		err := r.bindTo(ctx, binding, subjects[binding.role], kept[binding.role])
		if apierrors.IsNotFound(err) {
			missing = binding.missing()
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

// bindTo sets the subjects of one binding, if they are others; of kept, those that it has stay. The binding is read from
// the API server: two reads for each change of a dispatcher are little, and an older one would be written over and over.
func (r *Reconciler) bindTo(ctx context.Context, binding sharedBinding, subjects, kept []rbacv1.Subject) error {
	uid, existing, err := binding.read(ctx, r.Reader)
	if err != nil {
		return fmt.Errorf("get %s: %w", binding, err)
	}
	subjects = slices.Clone(subjects) // other bindings have the same
	for _, s := range kept {
		if slices.Contains(existing, s) {
			subjects = append(subjects, s)
		}
	}
	slices.SortFunc(subjects, func(a, b rbacv1.Subject) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	if slices.Equal(existing, subjects) {
		return nil
	}
	if err := r.Client.Apply(ctx, binding.with(uid, subjects), client.FieldOwner(names.FieldOwner), client.ForceOwnership); err != nil {
		return fmt.Errorf("set the subjects of %s: %w", binding, err)
	}
	return nil
}
