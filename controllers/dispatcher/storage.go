package dispatcher

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
)

// What of a dispatcher's pods follows from its kind of store.

const (
	storeVolume = "store"
	stateVolume = "state"
	caVolume    = "database-ca"

	storePath = "/data"
	statePath = "/state"
	caPath    = "/etc/eventflow/database-ca"
)

// stateSize holds two routing tables: the last good one, and the next while it is written.
var stateSize = resource.MustParse("128Mi")

// storeArguments tell a dispatcher where its store is. A database's URL holds a password, so it comes by the environment.
func storeArguments(d *v1alpha1.WebhookDispatcher) []string {
	if d.Spec.Store.Postgres != nil {
		return []string{"--state-dir=" + statePath}
	}
	return []string{"--store=pebble:" + storePath}
}

// strategy is Recreate for an embedded store: two pods must never share one, and the claim would not let them. Those
// that share a database take over from each other.
func strategy(d *v1alpha1.WebhookDispatcher) *appsv1ac.DeploymentStrategyApplyConfiguration {
	if d.Spec.Store.Postgres == nil {
		return appsv1ac.DeploymentStrategy().WithType(appsv1.RecreateDeploymentStrategyType)
	}
	return appsv1ac.DeploymentStrategy().
		WithType(appsv1.RollingUpdateDeploymentStrategyType).
		WithRollingUpdate(appsv1ac.RollingUpdateDeployment().
			WithMaxUnavailable(intstr.FromInt32(0)).
			WithMaxSurge(intstr.FromInt32(1)))
}

// volumes of the pods. The routing table has signing keys in it: without a volume that is the dispatcher's own, it is
// kept in memory, and off the node's disk.
func volumes(d *v1alpha1.WebhookDispatcher) []*corev1ac.VolumeApplyConfiguration {
	postgres := d.Spec.Store.Postgres
	if postgres == nil {
		return []*corev1ac.VolumeApplyConfiguration{corev1ac.Volume().WithName(storeVolume).WithPersistentVolumeClaim(
			corev1ac.PersistentVolumeClaimVolumeSource().WithClaimName(names.Claim(d.Name)))}
	}
	result := []*corev1ac.VolumeApplyConfiguration{corev1ac.Volume().WithName(stateVolume).WithEmptyDir(
		corev1ac.EmptyDirVolumeSource().WithMedium(corev1.StorageMediumMemory).WithSizeLimit(stateSize))}
	if ca := postgres.CASecretRef; ca != nil {
		result = append(result, corev1ac.Volume().WithName(caVolume).WithSecret(corev1ac.SecretVolumeSource().
			WithSecretName(ca.Name).
			WithItems(corev1ac.KeyToPath().WithKey(ca.Key).WithPath(ca.Key))))
	}
	return result
}

func volumeMounts(d *v1alpha1.WebhookDispatcher) []*corev1ac.VolumeMountApplyConfiguration {
	postgres := d.Spec.Store.Postgres
	if postgres == nil {
		return []*corev1ac.VolumeMountApplyConfiguration{corev1ac.VolumeMount().WithName(storeVolume).WithMountPath(storePath)}
	}
	result := []*corev1ac.VolumeMountApplyConfiguration{corev1ac.VolumeMount().WithName(stateVolume).WithMountPath(statePath)}
	if postgres.CASecretRef != nil {
		result = append(result, corev1ac.VolumeMount().WithName(caVolume).WithMountPath(caPath).WithReadOnly(true))
	}
	return result
}

// environment of the container. The names with PG are libpq's, which a parameter of the same meaning in the URL overrides.
func environment(d *v1alpha1.WebhookDispatcher) []*corev1ac.EnvVarApplyConfiguration {
	// Not an argument: a pod of a version that does not know it ignores it (ADR 14).
	result := []*corev1ac.EnvVarApplyConfiguration{corev1ac.EnvVar().WithName("EVENTFLOW_PROGRAMMED_BY_REVISION").WithValue("true")}
	postgres := d.Spec.Store.Postgres
	if postgres == nil {
		return result
	}
	url := postgres.ConnectionSecretRef
	result = append(result, corev1ac.EnvVar().WithName("EVENTFLOW_STORE").WithValueFrom(
		corev1ac.EnvVarSource().WithSecretKeyRef(corev1ac.SecretKeySelector().WithName(url.Name).WithKey(url.Key))))
	if ca := postgres.CASecretRef; ca != nil {
		result = append(result,
			corev1ac.EnvVar().WithName("PGSSLMODE").WithValue("verify-full"),
			corev1ac.EnvVar().WithName("PGSSLROOTCERT").WithValue(caPath+"/"+ca.Key))
	}
	return result
}

// spread puts the pods that share a database onto different nodes where it can, unless the template says where they go.
// The pods of each rollout are counted by themselves: those that are about to end do not repel their successors.
func spread(d *v1alpha1.WebhookDispatcher) []*corev1ac.TopologySpreadConstraintApplyConfiguration {
	if d.Spec.Store.Postgres == nil || d.Spec.Template.Affinity != nil || len(d.Spec.Template.TopologySpreadConstraints) > 0 {
		return nil
	}
	return []*corev1ac.TopologySpreadConstraintApplyConfiguration{corev1ac.TopologySpreadConstraint().
		WithMaxSkew(1).
		WithTopologyKey(corev1.LabelHostname).
		WithWhenUnsatisfiable(corev1.ScheduleAnyway).
		WithLabelSelector(metav1ac.LabelSelector().WithMatchLabels(names.Selector(d.Name))).
		WithMatchLabelKeys(appsv1.DefaultDeploymentUniqueLabelKey)}
}
