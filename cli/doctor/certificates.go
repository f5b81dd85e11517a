package doctor

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// soon is before how long of its end a certificate is a warning.
const soon = 14 * 24 * time.Hour

// findCertificates looks at when the certificates end that dispatchers serve, trust a database by, and verify endpoints by.
func findCertificates(in *Installation) []Finding {
	var all []Finding
	for i := range in.Dispatchers {
		d := &in.Dispatchers[i]
		for _, ref := range dispatcherSecrets(d) {
			if ref.certificate {
				all = append(all, in.judgeCertificates("Secret", ref.ObjectKey, ref.key, in.Secrets)...)
			}
		}
	}
	for i := range in.Subscriptions {
		sub := &in.Subscriptions[i]
		if ref := sub.Spec.TLS.CASecretRef; ref != nil {
			all = append(all, in.judgeCertificates("Secret", client.ObjectKey{Namespace: sub.Namespace, Name: ref.Name}, ref.Key, in.Secrets)...)
		}
		if ref := sub.Spec.TLS.ClientCertificateSecretRef; ref.Name != "" {
			all = append(all, in.judgeCertificates("Secret", client.ObjectKey{Namespace: sub.Namespace, Name: ref.Name}, corev1.TLSCertKey, in.Secrets)...)
		}
		if ref := sub.Spec.TLS.CAConfigMapRef; ref != nil {
			all = append(all, in.judgeCertificates("ConfigMap", client.ObjectKey{Namespace: sub.Namespace, Name: ref.Name}, ref.Key, in.ConfigMaps)...)
		}
	}
	return all
}

// judgeCertificates says of the certificates under a key whether one ended, or will soon. What is not there is another check's.
func (in *Installation) judgeCertificates(kind string, of client.ObjectKey, key string, values map[client.ObjectKey]map[string][]byte) (all []Finding) {
	named := object(kind, of.Namespace, of.Name)
	for rest := values[of][key]; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return all
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			continue
		}
		f := Finding{
			Object: named, Why: "of " + key + ", subject " + certificate.Subject.String(),
			Mend: fmt.Sprintf("kubectl get certificate -n %s    # renew it; the dispatcher reads it again by itself", of.Namespace),
		}
		switch left := certificate.NotAfter.Sub(in.Now); {
		case left <= 0:
			f.Level, f.Problem = Failed, "a certificate ended on "+certificate.NotAfter.UTC().Format(time.DateOnly)
		case certificate.NotBefore.After(in.Now):
			f.Level, f.Problem = Failed, "a certificate is valid only from "+certificate.NotBefore.UTC().Format(time.DateOnly)+" on"
		case left < soon:
			f.Level, f.Problem = Warning, fmt.Sprintf("a certificate ends in %d days", int(left.Hours()/24))
		default:
			continue
		}
		all = append(all, f)
	}
}

// secretOf is a Secret that a dispatcher names.
type secretOf struct {
	client.ObjectKey
	key   string // "" for any
	field string
	// certificate is set if the key holds certificates.
	certificate bool
}

// dispatcherSecrets are those that a dispatcher's spec names.
func dispatcherSecrets(d *v1alpha1.WebhookDispatcher) (all []secretOf) {
	in := func(name string) client.ObjectKey { return client.ObjectKey{Namespace: d.Namespace, Name: name} }
	if p := d.Spec.Store.Postgres; p != nil {
		all = append(all, secretOf{in(p.ConnectionSecretRef.Name), p.ConnectionSecretRef.Key, "spec.store.postgres.connectionSecretRef", false})
		if p.CASecretRef != nil {
			all = append(all, secretOf{in(p.CASecretRef.Name), p.CASecretRef.Key, "spec.store.postgres.caSecretRef", true})
		}
	}
	if ref := d.Spec.Encryption.KeySecretRef; ref != nil {
		all = append(all, secretOf{in(ref.Name), "current", "spec.encryption.keySecretRef", false})
	}
	for _, volume := range d.Spec.Template.Volumes {
		if volume.Secret != nil && (volume.Secret.Optional == nil || !*volume.Secret.Optional) {
			name := in(volume.Secret.SecretName)
			all = append(all, secretOf{name, "", "spec.template.volumes " + volume.Name, false}, secretOf{name, "tls.crt", "", true})
		}
	}
	return all
}
