package dispatcher

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
)

const (
	containerName = "dispatcher"
	// nonRoot is the user and group of the image.
	nonRoot = 65532
	// graceSeconds is what a dispatcher needs to stop: 5 s of accepting, 20 s of finishing, and some to close the store.
	graceSeconds = 40
)

// defaultResources are those of a dispatcher whose template names none. There is no limit of CPU: being throttled
// delays every delivery.
var defaultResources = corev1.ResourceRequirements{
	Requests: corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("100m"),
		corev1.ResourceMemory: resource.MustParse("256Mi"),
	},
	Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
}

// Image is what a dispatcher's container runs.
type Image struct {
	Name       string
	PullPolicy corev1.PullPolicy
}

// deployment runs the pods. connection is the version of what they connect to a database by, "" for an embedded store.
func deployment(d *v1alpha1.WebhookDispatcher, connection string, image Image) (*appsv1ac.DeploymentApplyConfiguration, error) {
	pod, err := podSpec(d, image)
	if err != nil {
		return nil, err
	}
	key := client.ObjectKeyFromObject(d)
	template := corev1ac.PodTemplateSpec().
		WithLabels(maps.Clone(d.Spec.Template.Labels)).
		WithLabels(names.Labels(names.DataPlane, key)).
		WithAnnotations(maps.Clone(d.Spec.Template.Annotations)).
		WithSpec(pod)
	if connection != "" {
		template.WithAnnotations(map[string]string{connectionAnnotation: connection})
	}
	return appsv1ac.Deployment(names.Workload(d.Name), d.Namespace).
		WithLabels(names.Labels(names.DataPlane, key)).
		WithOwnerReferences(owner(d)).
		WithSpec(appsv1ac.DeploymentSpec().
			WithReplicas(replicas(d)).
			WithRevisionHistoryLimit(3).
			WithStrategy(strategy(d)).
			WithSelector(metav1ac.LabelSelector().WithMatchLabels(names.Selector(d.Name))).
			WithTemplate(template)), nil
}

func replicas(d *v1alpha1.WebhookDispatcher) int32 {
	if d.Spec.Replicas == nil {
		return 1
	}
	return *d.Spec.Replicas
}

func podSpec(d *v1alpha1.WebhookDispatcher, image Image) (*corev1ac.PodSpecApplyConfiguration, error) {
	laid, err := overlay(d)
	if err != nil {
		return nil, err
	}
	spec := corev1ac.PodSpec().
		WithServiceAccountName(names.Workload(d.Name)).
		WithEnableServiceLinks(false).
		WithTerminationGracePeriodSeconds(graceSeconds).
		WithSecurityContext(podSecurity(laid.SecurityContext)).
		WithVolumes(volumes(d)...).
		WithVolumes(keysVolumes(d)...).
		WithVolumes(deliveriesVolumes(d)...).
		WithVolumes(ingestVolumes(d)...).
		WithVolumes(proxyVolumes(d)...).
		WithTopologySpreadConstraints(spread(d)...).
		WithContainers(container(d, image, laid)).
		WithNodeSelector(d.Spec.Template.NodeSelector)
	for i := range laid.Volumes {
		spec.WithVolumes(&laid.Volumes[i])
	}
	for i := range laid.TopologySpreadConstraints {
		spec.WithTopologySpreadConstraints(&laid.TopologySpreadConstraints[i])
	}
	for i := range laid.Tolerations {
		spec.WithTolerations(&laid.Tolerations[i])
	}
	for i := range laid.ImagePullSecrets {
		spec.WithImagePullSecrets(&laid.ImagePullSecrets[i])
	}
	spec.Affinity = laid.Affinity
	if class := d.Spec.Template.PriorityClassName; class != "" {
		spec.WithPriorityClassName(class)
	}
	return spec, nil
}

// laidOver is what of a template has the form of an apply configuration already: the same fields, each a pointer.
type laidOver struct {
	Tolerations               []corev1ac.TolerationApplyConfiguration               `json:"tolerations"`
	Affinity                  *corev1ac.AffinityApplyConfiguration                  `json:"affinity"`
	TopologySpreadConstraints []corev1ac.TopologySpreadConstraintApplyConfiguration `json:"topologySpreadConstraints"`
	ImagePullSecrets          []corev1ac.LocalObjectReferenceApplyConfiguration     `json:"imagePullSecrets"`
	Env                       []corev1ac.EnvVarApplyConfiguration                   `json:"env"`
	EnvFrom                   []corev1ac.EnvFromSourceApplyConfiguration            `json:"envFrom"`
	Volumes                   []corev1ac.VolumeApplyConfiguration                   `json:"volumes"`
	VolumeMounts              []corev1ac.VolumeMountApplyConfiguration              `json:"volumeMounts"`
	SecurityContext           *corev1ac.PodSecurityContextApplyConfiguration        `json:"securityContext"`
}

func overlay(d *v1alpha1.WebhookDispatcher) (*laidOver, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&d.Spec.Template)
	if err != nil {
		return nil, fmt.Errorf("read spec.template: %w", err)
	}
	laid := &laidOver{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, laid); err != nil {
		return nil, fmt.Errorf("read spec.template: %w", err)
	}
	return laid, nil
}

// podSecurity is what a template says, in place of the image's own user and groups; what keeps the pod within the
// restricted Pod Security Standard stays.
func podSecurity(laid *corev1ac.PodSecurityContextApplyConfiguration) *corev1ac.PodSecurityContextApplyConfiguration {
	security := laid
	if security == nil {
		security = corev1ac.PodSecurityContext().
			WithRunAsUser(nonRoot).
			WithRunAsGroup(nonRoot).
			WithFSGroup(nonRoot)
	}
	security.WithRunAsNonRoot(true)
	if security.FSGroupChangePolicy == nil {
		security.WithFSGroupChangePolicy(corev1.FSGroupChangeOnRootMismatch) // a large store is not walked at each start
	}
	if security.SeccompProfile == nil {
		security.WithSeccompProfile(corev1ac.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault))
	}
	return security
}

func container(d *v1alpha1.WebhookDispatcher, image Image, laid *laidOver) *corev1ac.ContainerApplyConfiguration {
	resources := d.Spec.Template.Resources
	if resources.Requests == nil && resources.Limits == nil {
		resources = defaultResources
	}
	c := corev1ac.Container().
		WithName(containerName).
		WithImage(image.Name).
		WithArgs(arguments(d)...).
		WithPorts(ingestPorts(d)...).
		WithPorts(
			corev1ac.ContainerPort().WithName("ops").WithContainerPort(opsPort).WithProtocol(corev1.ProtocolTCP)).
		WithPorts(deliveriesPorts(d)...).
		WithResources(resourceRequirements(resources)).
		WithVolumeMounts(volumeMounts(d)...).
		WithVolumeMounts(keysMounts(d)...).
		WithVolumeMounts(deliveriesMounts(d)...).
		WithVolumeMounts(ingestMounts(d)...).
		WithVolumeMounts(proxyMounts(d)...).
		// A pod may wait 60 s for the store's lock, and then reads what was not flushed when it was killed.
		WithStartupProbe(probe("/healthz", 2, 2, 150)).
		WithLivenessProbe(probe("/healthz", 10, 5, 6)).
		WithReadinessProbe(probe("/readyz", 2, 2, 2)).
		WithSecurityContext(corev1ac.SecurityContext().
			WithAllowPrivilegeEscalation(false).
			WithReadOnlyRootFilesystem(true).
			WithRunAsNonRoot(true).
			WithCapabilities(corev1ac.Capabilities().WithDrop("ALL")))
	for _, own := range environment(d) {
		if !slices.ContainsFunc(laid.Env, func(v corev1ac.EnvVarApplyConfiguration) bool { return ptr.Equal(v.Name, own.Name) }) {
			c.WithEnv(own)
		}
	}
	for i := range laid.Env {
		c.WithEnv(&laid.Env[i])
	}
	for i := range laid.EnvFrom {
		c.WithEnvFrom(&laid.EnvFrom[i])
	}
	for i := range laid.VolumeMounts {
		c.WithVolumeMounts(&laid.VolumeMounts[i])
	}
	if image.PullPolicy != "" {
		c.WithImagePullPolicy(image.PullPolicy)
	}
	return c
}

// probe asks path on the ops port each period; durations are in seconds.
func probe(path string, period, timeout, failures int32) *corev1ac.ProbeApplyConfiguration {
	return corev1ac.Probe().
		WithHTTPGet(corev1ac.HTTPGetAction().WithPath(path).WithPort(intstr.FromString("ops")).WithScheme(corev1.URISchemeHTTP)).
		WithPeriodSeconds(period).
		WithTimeoutSeconds(timeout).
		WithSuccessThreshold(1).
		WithFailureThreshold(failures)
}

func resourceRequirements(r corev1.ResourceRequirements) *corev1ac.ResourceRequirementsApplyConfiguration {
	result := corev1ac.ResourceRequirements()
	if r.Requests != nil {
		result.WithRequests(r.Requests)
	}
	if r.Limits != nil {
		result.WithLimits(r.Limits)
	}
	for _, claim := range r.Claims {
		one := corev1ac.ResourceClaim().WithName(claim.Name)
		if claim.Request != "" {
			one.WithRequest(claim.Request)
		}
		result.WithClaims(one)
	}
	return result
}
