package dispatcher

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	rbacv1ac "k8s.io/client-go/applyconfigurations/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// sharedBinding is a binding that is installed with the manager, and has the dispatchers' ServiceAccounts for subjects. It
// has the name of the ClusterRole that it binds.
type sharedBinding struct {
	role      string
	namespace string // of a RoleBinding; "" for a ClusterRoleBinding
}

// String is how a person names it.
func (b sharedBinding) String() string {
	if b.namespace == "" {
		return "ClusterRoleBinding " + b.role
	}
	return "RoleBinding " + b.role + " in namespace " + b.namespace
}

// missing is what to do if there is no such binding.
func (b sharedBinding) missing() string {
	if b.namespace == "" {
		return b.String() + " is missing: apply config/rbac again"
	}
	return b.String() + " is missing: apply config/components/tenant-namespace to that namespace again"
}

// read returns the binding's uid, and its subjects.
func (b sharedBinding) read(ctx context.Context, from client.Reader) (types.UID, []rbacv1.Subject, error) {
	if b.namespace == "" {
		found := &rbacv1.ClusterRoleBinding{}
		err := from.Get(ctx, client.ObjectKey{Name: b.role}, found)
		return found.UID, found.Subjects, err
	}
	found := &rbacv1.RoleBinding{}
	err := from.Get(ctx, client.ObjectKey{Namespace: b.namespace, Name: b.role}, found)
	return found.UID, found.Subjects, err
}

// with is the binding with other subjects. One that is deleted just now is not made: its uid would be another.
func (b sharedBinding) with(uid types.UID, subjects []rbacv1.Subject) runtime.ApplyConfiguration {
	wanted := make([]*rbacv1ac.SubjectApplyConfiguration, len(subjects))
	for i, s := range subjects {
		wanted[i] = rbacv1ac.Subject().WithKind(s.Kind).WithName(s.Name).WithNamespace(s.Namespace)
	}
	if b.namespace == "" {
		return rbacv1ac.ClusterRoleBinding(b.role).WithUID(uid).WithSubjects(wanted...)
	}
	return rbacv1ac.RoleBinding(b.role, b.namespace).WithUID(uid).WithSubjects(wanted...)
}
