package dispatcher

import (
	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1ac "k8s.io/client-go/applyconfigurations/rbac/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/seeds/cluster"
	"github.com/clinikapi/eventflow/dispatcher/settings"
)

// What a dispatcher's ServiceAccount is bound to, cluster-wide. Subscriptions are in every namespace, and so are those
// who publish.
//
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhooksubscriptions/status,verbs=get;patch,roleName=eventflow-dispatcher-status
// +kubebuilder:rbac:groups=webhooks.clinikapi.com,resources=webhooksubscriptions,verbs=list,roleName=eventflow-dispatcher-status
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create,roleName=eventflow-dispatcher-auth
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create,roleName=eventflow-dispatcher-auth
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get,roleName=eventflow-dispatcher-auth

// access is what lets a dispatcher read its routing table and say how its store is.
func access(d *v1alpha1.WebhookDispatcher) []object {
	name := names.Workload(d.Name)
	return []object{
		{kind: "Role", name: name, configuration: role(d)},
		{kind: "RoleBinding", name: name, configuration: roleBinding(d), replaced: &rbacv1.RoleBinding{}},
	}
}

// role names the Secrets of this dispatcher's table, settings and seeds alone. Those are all it can read: nobody else's, and no others. In
// the dispatcher's status it says how its store is.
func role(d *v1alpha1.WebhookDispatcher) *rbacv1ac.RoleApplyConfiguration {
	secrets := func() *rbacv1ac.PolicyRuleApplyConfiguration {
		return rbacv1ac.PolicyRule().WithAPIGroups("").WithResources("secrets")
	}
	role := rbacv1ac.Role(names.Workload(d.Name), d.Namespace).
		WithLabels(labels(d)).
		WithOwnerReferences(owner(d)).
		WithRules(
			secrets().WithVerbs("get", "list", "watch").WithResourceNames(routing.IndexName(d.Name), settings.SecretName(d.Name)),
			secrets().WithVerbs("get").WithResourceNames(routing.ShardNames(d.Name)...),
			rbacv1ac.PolicyRule().
				WithAPIGroups(v1alpha1.GroupVersion.Group).
				WithResources("webhookdispatchers/status").
				WithVerbs("get", "patch").
				WithResourceNames(d.Name),
		)
	if encrypts(d) {
		role.WithRules(secrets().WithVerbs("get", "patch").WithResourceNames(cluster.SecretNames(d.Name)...))
	}
	return role
}

func roleBinding(d *v1alpha1.WebhookDispatcher) *rbacv1ac.RoleBindingApplyConfiguration {
	return rbacv1ac.RoleBinding(names.Workload(d.Name), d.Namespace).
		WithLabels(labels(d)).
		WithOwnerReferences(owner(d)).
		WithSubjects(subject(d)).
		WithRoleRef(rbacv1ac.RoleRef().WithAPIGroup(rbacv1.GroupName).WithKind("Role").WithName(names.Workload(d.Name)))
}

func subject(d *v1alpha1.WebhookDispatcher) *rbacv1ac.SubjectApplyConfiguration {
	return rbacv1ac.Subject().
		WithKind(rbacv1.ServiceAccountKind).
		WithName(names.Workload(d.Name)).
		WithNamespace(d.Namespace)
}
