package dispatcher

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
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
		PendingDeliveries: quotas.PendingDeliveries, AttemptsInFlight: int(quotas.AttemptsInFlight),
	}
	s.Egress = settings.Egress{
		AllowHTTP:    ptr.Deref(spec.Egress.AllowHTTP, false),
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

// settingsSecret holds the document that the pods follow. It is no secret: the dispatcher may read its own Secrets anyway.
func settingsSecret(d *v1alpha1.WebhookDispatcher, document []byte) *corev1ac.SecretApplyConfiguration {
	return corev1ac.Secret(settings.SecretName(d.Name), d.Namespace).
		WithLabels(names.Labels(names.Settings, client.ObjectKeyFromObject(d))).
		WithOwnerReferences(owner(d)).
		WithType(corev1.SecretTypeOpaque).
		WithData(map[string][]byte{settings.Key: document})
}

// holdsSettings reports whether a Secret is where the settings of a dispatcher are.
func holdsSettings(secret client.Object) (client.ObjectKey, bool) {
	key, ok := names.Dispatcher(secret)
	return key, ok && key.Namespace == secret.GetNamespace() && secret.GetName() == settings.SecretName(key.Name)
}
