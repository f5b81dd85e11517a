package dispatcher

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/settings"
)

// settingsOf is what a spec says that takes effect without a restart, and not for single tenants. The schema lets nothing
// pass that is no CIDR.
func settingsOf(d *v1alpha1.WebhookDispatcher) *settings.Settings {
	spec, s := &d.Spec, settings.Defaults()
	s.Generation = d.Generation
	if n := spec.Ingest.MaxEventBytes; n > 0 {
		s.MaxEventBytes = int(n)
	}
	if grace := spec.Ingest.OutageGrace; grace != nil {
		s.OutageGrace = grace.Duration
	}
	if kept := spec.Retention.Delivered.Duration; kept > 0 {
		s.Delivered = kept
	}
	if kept := spec.Retention.Failed.Duration; kept > 0 {
		s.Failed = kept
	}
	quotas := &spec.Quotas
	s.Quota = routing.Quota{
		EventsPerSecond: int(quotas.EventsPerSecond), EventsBurst: int(quotas.EventsBurst), PendingBytes: quotas.PendingBytes.Value(),
		PendingDeliveries: quotas.PendingDeliveries, ScheduledDeliveries: quotas.ScheduledDeliveries, AttemptsInFlight: int(quotas.AttemptsInFlight),
	}
	s.Egress = settings.Egress{
		AllowHTTP:    ptr.Deref(spec.Egress.AllowHTTP, false),
		MinTLS:       spec.Egress.MinTLSVersion.Number(),
		AllowedCIDRs: prefixes(spec.Egress.AllowedCIDRs), DeniedCIDRs: prefixes(spec.Egress.DeniedCIDRs),
	}
	for _, port := range spec.Egress.AllowedPorts {
		s.Egress.AllowedPorts = append(s.Egress.AllowedPorts, uint16(port))
	}
	s.EventResources = spec.EventResources
	return &s
}

func prefixes(texts []string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		prefix, _ := netip.ParsePrefix(text) // an invalid one keeps the settings from being written
		all = append(all, prefix)
	}
	return all
}

// settingsDigest stands for all of a spec that the settings follow from.
func settingsDigest(d *v1alpha1.WebhookDispatcher) string {
	s := settingsOf(d)
	s.Generation = 0
	document, err := s.Encode()
	if err != nil { // no pod works by them
		return ""
	}
	sum := sha256.Sum256(document)
	return hex.EncodeToString(sum[:])
}

// settingsGeneration is the generation of the spec that the settings of now came with: a later one that changed something
// else, such as spec.replicas, is none to them. secret is what the cache knows of the Secret, nil if nothing.
func settingsGeneration(d *v1alpha1.WebhookDispatcher, secret *metav1.PartialObjectMetadata) int64 {
	if secret == nil || !owns(secret, map[string]any{"metadata": map[string]any{"annotations": map[string]any{settingsAnnotation: ""}}}) {
		return d.Generation
	}
	since, digest, _ := strings.Cut(secret.Annotations[settingsAnnotation], "/")
	generation, err := strconv.ParseInt(since, 10, 64)
	if err != nil || generation < 1 || generation > d.Generation || digest != settingsDigest(d) || !belongsTo(secret, d) {
		return d.Generation
	}
	return generation
}

// belongsTo reports whether an object was made for this dispatcher, and not for another one of its name.
func belongsTo(object metav1.Object, d *v1alpha1.WebhookDispatcher) bool {
	return slices.ContainsFunc(object.GetOwnerReferences(), func(o metav1.OwnerReference) bool { return o.UID == d.UID })
}

// settingsSecret holds the document that the pods follow. It is no secret: the dispatcher may read its own Secrets anyway.
func settingsSecret(d *v1alpha1.WebhookDispatcher, document []byte, generation int64) *corev1ac.SecretApplyConfiguration {
	return corev1ac.Secret(settings.SecretName(d.Name), d.Namespace).
		WithAnnotations(map[string]string{settingsAnnotation: fmt.Sprintf("%d/%s", generation, settingsDigest(d))}).
		WithLabels(names.Labels(names.Settings, client.ObjectKeyFromObject(d))).
		WithOwnerReferences(owner(d)).
		WithType(corev1.SecretTypeOpaque).
		WithData(map[string][]byte{settings.Key: document})
}

// holdsSettings reports whether an object is where the settings of a dispatcher are, and of which.
func holdsSettings(secret metav1.Object) (client.ObjectKey, bool) {
	key, ok := names.Dispatcher(secret)
	return key, ok && key.Namespace == secret.GetNamespace() && secret.GetName() == settings.SecretName(key.Name)
}

// HoldsSettings reports whether an object is the Secret with a dispatcher's settings.
func HoldsSettings(object metav1.Object) bool {
	_, holds := holdsSettings(object)
	return holds
}
