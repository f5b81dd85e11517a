package dispatcher

import (
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/certificates"
	"github.com/clinikapi/eventflow/controllers/names"
)

// What of a dispatcher follows from its deliveries API: a port, a Service that leads to it, and a certificate for that. The API
// is registered with the cluster by package deliveriesapi, once all this answers. The Service, and the certificate's Secret, have
// one name.
//
// +kubebuilder:rbac:groups="",resources=services,verbs=delete,roleName=eventflow-deliveries-namespace

const (
	deliveriesVolume = "deliveries-certificate"
	deliveriesPath   = "/etc/eventflow/deliveries"
	deliveriesPort   = 8443
	// deliveriesPortName is the port's name in the pods and in the Service.
	deliveriesPortName = "deliveries"
	// DeliveriesServicePort is the port of the Service.
	DeliveriesServicePort = 443
)

// AsksForDeliveries reports whether a dispatcher's spec asks for the deliveries API. One that does not ask the API server who
// publishes cannot have it; the schema refuses both at once.
func AsksForDeliveries(d *v1alpha1.WebhookDispatcher) bool {
	return ptr.Deref(d.Spec.DeliveriesAPI.Enabled, false) && d.Spec.Ingest.Authentication != v1alpha1.IngestNone
}

// DeliveriesHosts are the names under which kube-apiserver asks for a dispatcher's deliveries API, the whole name first.
func DeliveriesHosts(d client.ObjectKey) []string {
	return []string{names.Deliveries(d.Name) + "." + d.Namespace + ".svc"}
}

// deliveriesRegistered reports whether the cluster may still pass requests to the dispatcher, as was said last.
func deliveriesRegistered(d *v1alpha1.WebhookDispatcher) bool {
	c := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionDeliveriesAPIReady)
	return c != nil && (c.Status == metav1.ConditionTrue || c.Status == metav1.ConditionUnknown)
}

// settleDeliveries makes the spec, as it is here, say whether the pods serve the API: if it asks and the manager allows it, and as
// long as it is registered. Pods that stopped listening before would break the whole cluster's discovery.
func (r *Reconciler) settleDeliveries(d *v1alpha1.WebhookDispatcher) {
	d.Spec.DeliveriesAPI.Enabled = ptr.To(r.DeliveriesAPI && AsksForDeliveries(d) || deliveriesRegistered(d))
}

// servesDeliveries reports whether the pods serve the API. The spec is settled.
func servesDeliveries(d *v1alpha1.WebhookDispatcher) bool {
	return ptr.Deref(d.Spec.DeliveriesAPI.Enabled, false)
}

func deliveriesArguments(d *v1alpha1.WebhookDispatcher) []string {
	if !servesDeliveries(d) {
		return nil
	}
	return []string{
		"--deliveries-listen=:" + strconv.Itoa(deliveriesPort),
		"--deliveries-tls-cert-file=" + deliveriesPath + "/" + certificates.CertificateKey,
		"--deliveries-tls-key-file=" + deliveriesPath + "/" + certificates.PrivateKeyKey,
	}
}

func deliveriesPorts(d *v1alpha1.WebhookDispatcher) []*corev1ac.ContainerPortApplyConfiguration {
	if !servesDeliveries(d) {
		return nil
	}
	return []*corev1ac.ContainerPortApplyConfiguration{
		corev1ac.ContainerPort().WithName(deliveriesPortName).WithContainerPort(deliveriesPort).WithProtocol(corev1.ProtocolTCP),
	}
}

// deliveriesVolumes leave the certificate to come out of the pod.
func deliveriesVolumes(d *v1alpha1.WebhookDispatcher) []*corev1ac.VolumeApplyConfiguration {
	if !servesDeliveries(d) {
		return nil
	}
	item := func(key string) *corev1ac.KeyToPathApplyConfiguration {
		return corev1ac.KeyToPath().WithKey(key).WithPath(key)
	}
	return []*corev1ac.VolumeApplyConfiguration{corev1ac.Volume().WithName(deliveriesVolume).WithSecret(corev1ac.SecretVolumeSource().
		WithSecretName(names.Deliveries(d.Name)).
		WithItems(item(certificates.CertificateKey), item(certificates.PrivateKeyKey)))}
}

func deliveriesMounts(d *v1alpha1.WebhookDispatcher) []*corev1ac.VolumeMountApplyConfiguration {
	if !servesDeliveries(d) {
		return nil
	}
	return []*corev1ac.VolumeMountApplyConfiguration{
		corev1ac.VolumeMount().WithName(deliveriesVolume).WithMountPath(deliveriesPath).WithReadOnly(true),
	}
}

// deliveriesService leads to pods that are not ready, too: they answer discovery before their store is open.
func deliveriesService(d *v1alpha1.WebhookDispatcher) []object {
	if !servesDeliveries(d) {
		return nil
	}
	spec := corev1ac.ServiceSpec().
		WithType(corev1.ServiceTypeClusterIP).
		WithSelector(names.Selector(d.Name)).
		WithPublishNotReadyAddresses(true).
		WithIPFamilies(d.Spec.Service.IPFamilies...).
		WithPorts(corev1ac.ServicePort().
			WithName(deliveriesPortName).
			WithPort(DeliveriesServicePort).
			WithTargetPort(intstr.FromString(deliveriesPortName)).
			WithProtocol(corev1.ProtocolTCP))
	if policy := d.Spec.Service.IPFamilyPolicy; policy != "" {
		spec.WithIPFamilyPolicy(policy)
	}
	name := names.Deliveries(d.Name)
	return []object{{kind: "Service", name: name, configuration: corev1ac.Service(name, d.Namespace).
		WithLabels(labels(d)).
		WithOwnerReferences(owner(d)).
		WithSpec(spec)}}
}

// ensureCertificate keeps the certificate of a dispatcher's API valid, and returns when to look again; the zero time if it has
// none. It is written before the pods that mount it.
func (r *Reconciler) ensureCertificate(ctx context.Context, d *v1alpha1.WebhookDispatcher) (again time.Time, err error) {
	if !servesDeliveries(d) {
		return time.Time{}, nil
	}
	_, again, err = r.keepCertificate(ctx, d, names.Deliveries(d.Name), DeliveriesHosts(client.ObjectKeyFromObject(d)), certificates.Brief)
	return again, err
}

// keepCertificate keeps a Set in a Secret of the manager's own valid, and returns what it is and when to look again. Of one that is
// as it was, the bundle alone comes back, and nothing is read: the manager keeps no keys.
func (r *Reconciler) keepCertificate(ctx context.Context, d *v1alpha1.WebhookDispatcher, name string, hosts []string, by certificates.Schedule) (certificates.Set, time.Time, error) {
	none, key := certificates.Set{}, client.ObjectKey{Namespace: d.Namespace, Name: name}
	if metadata := r.secretMetadata(ctx, d.Namespace, name); metadata != nil && belongsTo(metadata, d) {
		if known, ok := r.kept.get(key); ok && known.version == metadata.ResourceVersion && r.now().Before(known.again) {
			return certificates.Set{Bundle: known.bundle}, known.again, nil
		}
	}
	found := &corev1.Secret{}
	if err := r.Reader.Get(ctx, key, found); client.IgnoreNotFound(err) != nil {
		return none, time.Time{}, fmt.Errorf("get the certificate %s: %w", name, err)
	}
	kept := certificates.FromData(found.Data)
	wanted, again, err := by.Renew(kept, hosts, r.now())
	if err != nil {
		return none, time.Time{}, fmt.Errorf("renew the certificate %s: %w", name, err)
	}
	if wanted.Equal(kept) && belongsTo(found, d) {
		r.kept.put(key, keptCertificate{version: found.ResourceVersion, bundle: wanted.Bundle, again: again})
		return wanted, again, nil
	}
	secret := corev1ac.Secret(name, d.Namespace).
		WithLabels(labels(d)).
		WithOwnerReferences(owner(d)).
		WithType(corev1.SecretTypeOpaque).
		WithData(wanted.Data())
	if err := r.Client.Apply(ctx, secret, client.FieldOwner(names.FieldOwner), client.ForceOwnership); err != nil {
		return none, time.Time{}, fmt.Errorf("apply the certificate %s: %w", name, err)
	}
	return wanted, again, nil
}

// removeDeliveries deletes what a dispatcher that serves no API any more has left of it.
func (r *Reconciler) removeDeliveries(ctx context.Context, d *v1alpha1.WebhookDispatcher) error {
	if servesDeliveries(d) {
		return nil
	}
	name := names.Deliveries(d.Name)
	for _, left := range []struct {
		found  *metav1.PartialObjectMetadata
		object client.Object
	}{
		{r.secretMetadata(ctx, d.Namespace, name), &corev1.Secret{}},
		{r.workload(ctx, d.Namespace, "Service", name), &corev1.Service{}},
	} {
		if left.found == nil || !belongsTo(left.found, d) || !left.found.DeletionTimestamp.IsZero() {
			continue
		}
		err := r.remove(ctx, left.object, client.ObjectKey{Namespace: d.Namespace, Name: name})
		if apierrors.IsForbidden(err) { // config/components/deliveries-api was taken away. It goes with the dispatcher.
			log.FromContext(ctx).V(1).Info("An object of the deliveries API is left", "object", name)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// workload is what the caches know of a core object that a dispatcher became, nil if nothing.
func (r *Reconciler) workload(ctx context.Context, namespace, kind, name string) *metav1.PartialObjectMetadata {
	ctx, cancel := context.WithTimeout(ctx, syncedWithin)
	defer cancel()
	kinds := r.watches.of(namespace)
	if kinds == nil || !kinds.WaitForCacheSync(ctx) {
		return nil
	}
	found := &metav1.PartialObjectMetadata{}
	found.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	if err := kinds.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, found); err != nil {
		return nil
	}
	return found
}

func (r *Reconciler) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}
