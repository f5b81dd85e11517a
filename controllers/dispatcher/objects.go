package dispatcher

import (
	"cmp"
	"maps"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	policyv1ac "k8s.io/client-go/applyconfigurations/policy/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
	"github.com/clinikapi/eventflow/dispatcher/settings"
)

// object is something that a dispatcher becomes.
type object struct {
	kind, name    string
	configuration runtime.ApplyConfiguration
	// replaced tells that a field which cannot be changed makes it worth deleting the object and making it anew.
	replaced client.Object
}

// objects is all that a dispatcher becomes, in the order in which it is needed.
func objects(o observation, image Image) ([]object, error) {
	d := o.dispatcher
	name := names.Workload(d.Name)
	result := []object{{kind: "ServiceAccount", name: name, configuration: serviceAccount(d)}}
	result = append(result, access(d)...)
	wanted := settingsOf(d)
	wanted.Generation = cmp.Or(o.settings, d.Generation)
	if document, err := wanted.Encode(); err == nil { // else the pods keep those before, and Accepted says why
		result = append(result, object{kind: "Secret", name: settings.SecretName(d.Name), configuration: settingsSecret(d, document, wanted.Generation)})
	}
	result = append(result, seedSecrets(d)...)
	if d.Spec.Store.Postgres == nil {
		result = append(result, object{kind: "PersistentVolumeClaim", name: names.Claim(d.Name), configuration: persistentVolumeClaim(d, o.claim)})
	}
	result = append(result,
		object{kind: "Service", name: name, configuration: service(d)},
		object{kind: "PodDisruptionBudget", name: name, configuration: podDisruptionBudget(d)},
	)
	result = append(result, deliveriesService(d)...)
	result = append(result, ingestCA(d, o.publishCA)...)
	if keepsVolume(d) || o.certificateMissing {
		return result, nil
	}
	version := o.connection.version
	if o.connection.reason != "" {
		if o.deployment == nil { // its pods could not start
			return result, nil
		}
		version = o.deployment.Spec.Template.Annotations[connectionAnnotation] // those that run go on
	}
	pods, err := deployment(d, version, image)
	return append(result, object{kind: "Deployment", name: name, configuration: pods}), err
}

// owner makes Kubernetes collect an object once the dispatcher is deleted.
func owner(d *v1alpha1.WebhookDispatcher) *metav1ac.OwnerReferenceApplyConfiguration {
	return metav1ac.OwnerReference().
		WithAPIVersion(v1alpha1.GroupVersion.String()).
		WithKind("WebhookDispatcher").
		WithName(d.Name).
		WithUID(d.UID).
		WithController(true)
}

func labels(d *v1alpha1.WebhookDispatcher) map[string]string {
	return names.Labels(names.DataPlane, client.ObjectKeyFromObject(d))
}

func serviceAccount(d *v1alpha1.WebhookDispatcher) *corev1ac.ServiceAccountApplyConfiguration {
	return corev1ac.ServiceAccount(names.Workload(d.Name), d.Namespace).
		WithLabels(labels(d)).
		WithAnnotations(maps.Clone(d.Spec.Template.ServiceAccountAnnotations)).
		WithOwnerReferences(owner(d))
}

// servicePort leads to the port of the same name in the pods.
func servicePort(name string, number int32) *corev1ac.ServicePortApplyConfiguration {
	return corev1ac.ServicePort().
		WithName(name).
		WithPort(number).
		WithTargetPort(intstr.FromString(name)).
		WithProtocol(corev1.ProtocolTCP)
}

func service(d *v1alpha1.WebhookDispatcher) *corev1ac.ServiceApplyConfiguration {
	spec := corev1ac.ServiceSpec().
		WithType(corev1.ServiceTypeClusterIP).
		WithSelector(names.Selector(d.Name)).
		WithIPFamilies(d.Spec.Service.IPFamilies...).
		WithPorts(ingestServicePorts(d)...).
		WithPorts(servicePort("ops", opsPort))
	if kind := d.Spec.Service.Type; kind != "" {
		spec.WithType(corev1.ServiceType(kind))
	}
	if policy := d.Spec.Service.IPFamilyPolicy; policy != "" {
		spec.WithIPFamilyPolicy(policy)
	}
	return corev1ac.Service(names.Workload(d.Name), d.Namespace).
		WithLabels(labels(d)).
		WithAnnotations(maps.Clone(d.Spec.Service.Annotations)).
		WithOwnerReferences(owner(d)).
		WithSpec(spec)
}

func podDisruptionBudget(d *v1alpha1.WebhookDispatcher) *policyv1ac.PodDisruptionBudgetApplyConfiguration {
	return policyv1ac.PodDisruptionBudget(names.Workload(d.Name), d.Namespace).
		WithLabels(labels(d)).
		WithOwnerReferences(owner(d)).
		WithSpec(policyv1ac.PodDisruptionBudgetSpec().
			WithMaxUnavailable(intstr.FromInt32(1)).
			// A pod that is not ready delivers nothing: a drain need not wait until it is.
			WithUnhealthyPodEvictionPolicy(policyv1.AlwaysAllow).
			WithSelector(metav1ac.LabelSelector().WithMatchLabels(names.Selector(d.Name))))
}

// defaultSize is the volume of a store that names none.
var defaultSize = resource.MustParse("10Gi")

// persistentVolumeClaim has no owner: the events on it outlive a mistaken delete. Of a claim that exists, only its size
// can be changed, and only to a larger one.
func persistentVolumeClaim(d *v1alpha1.WebhookDispatcher, existing *corev1.PersistentVolumeClaim) *corev1ac.PersistentVolumeClaimApplyConfiguration {
	size, class := wantedStore(d)
	if existing != nil {
		if current := claimSize(existing); size.Cmp(current) < 0 {
			size = current
		}
		class = ""
		if existing.Spec.StorageClassName != nil {
			class = *existing.Spec.StorageClassName
		}
	}
	spec := corev1ac.PersistentVolumeClaimSpec().
		WithAccessModes(accessMode(d)).
		WithResources(corev1ac.VolumeResourceRequirements().WithRequests(corev1.ResourceList{corev1.ResourceStorage: size}))
	if existing != nil {
		spec.AccessModes = existing.Spec.AccessModes
	}
	if class != "" {
		spec.WithStorageClassName(class)
	}
	return corev1ac.PersistentVolumeClaim(names.Claim(d.Name), d.Namespace).
		WithLabels(names.Labels(names.DataPlane, client.ObjectKeyFromObject(d))).
		WithSpec(spec)
}

// wantedStore is the size and the storage class of the embedded store; the class is "" for the cluster's default.
func wantedStore(d *v1alpha1.WebhookDispatcher) (resource.Quantity, string) {
	embedded := d.Spec.Store.Embedded
	if embedded == nil {
		return defaultSize, ""
	}
	if embedded.Size.IsZero() {
		return defaultSize, embedded.StorageClassName
	}
	return embedded.Size, embedded.StorageClassName
}

// accessMode is that of the embedded store's volume.
func accessMode(d *v1alpha1.WebhookDispatcher) corev1.PersistentVolumeAccessMode {
	if embedded := d.Spec.Store.Embedded; embedded != nil && embedded.AccessMode != "" {
		return corev1.PersistentVolumeAccessMode(embedded.AccessMode)
	}
	return corev1.ReadWriteOncePod
}

// accessModeOf is that of a claim.
func accessModeOf(claim *corev1.PersistentVolumeClaim) corev1.PersistentVolumeAccessMode {
	if len(claim.Spec.AccessModes) == 0 {
		return corev1.ReadWriteOncePod
	}
	return claim.Spec.AccessModes[0]
}

func claimSize(claim *corev1.PersistentVolumeClaim) resource.Quantity {
	return claim.Spec.Resources.Requests[corev1.ResourceStorage]
}
