package routing

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// SecretUse is what a subscription takes from a Secret.
type SecretUse int

// The uses of a Secret's values.
const (
	SecretSigningKey SecretUse = iota
	SecretURL
	SecretCertificates
	SecretHeader
	SecretCredential
	SecretClientCertificate
)

// SecretReference is one value that a subscription takes from a Secret of its namespace.
type SecretReference struct {
	// Where is the field that names the Secret.
	Where     string
	Use       SecretUse
	Name, Key string
}

// SecretReferences returns all values that a subscription takes from Secrets, in the order of the spec.
func SecretReferences(sub *v1alpha1.WebhookSubscription) (all []SecretReference) {
	add := func(where string, use SecretUse, ref *v1alpha1.SecretKeyReference) {
		if ref.Name != "" {
			all = append(all, SecretReference{Where: where, Use: use, Name: ref.Name, Key: ref.Key})
		}
	}
	add("spec.signing.secretRef", SecretSigningKey, &sub.Spec.Signing.SecretRef)
	if ref := sub.Spec.Signing.PreviousSecretRef; ref != nil {
		add("spec.signing.previousSecretRef", SecretSigningKey, ref)
	}
	if ref := sub.Spec.Signing.NextSecretRef; ref != nil {
		add("spec.signing.nextSecretRef", SecretSigningKey, ref)
	}
	if from := sub.Spec.URLFrom; from != nil {
		add("spec.urlFrom.secretKeyRef", SecretURL, &from.SecretKeyRef)
	}
	if ref := sub.Spec.TLS.CASecretRef; ref != nil {
		add("spec.tls.caSecretRef", SecretCertificates, ref)
	}
	if ref := sub.Spec.TLS.ClientCertificateSecretRef; ref.Name != "" {
		for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
			add(clientCertificateField, SecretClientCertificate, &v1alpha1.SecretKeyReference{Name: ref.Name, Key: key})
		}
	}
	for i := range sub.Spec.Headers {
		if from := sub.Spec.Headers[i].ValueFrom; from != nil {
			add(fmt.Sprintf("spec.headers[%d].valueFrom.secretKeyRef", i), SecretHeader, &from.SecretKeyRef)
		}
	}
	authReferences("spec.auth", sub.Spec.Auth, add)
	if lookup := sub.Spec.Lookup; lookup != nil {
		authReferences("spec.lookup.auth", lookup.Auth, add)
	}
	return all
}

// SigningReferences are those of SecretReferences that name signing keys, in the order in which these sign.
func SigningReferences(spec *v1alpha1.WebhookSubscriptionSpec) (all []v1alpha1.SecretKeyReference) {
	for _, ref := range SecretReferences(&v1alpha1.WebhookSubscription{Spec: v1alpha1.WebhookSubscriptionSpec{Signing: spec.Signing}}) {
		all = append(all, v1alpha1.SecretKeyReference{Name: ref.Name, Key: ref.Key})
	}
	return all
}

// authReferences adds those of SecretReferences that an authentication has.
func authReferences(where string, auth *v1alpha1.Auth, add func(string, SecretUse, *v1alpha1.SecretKeyReference)) {
	both := func(where, name string, keys ...string) {
		for _, key := range keys {
			add(where, SecretCredential, &v1alpha1.SecretKeyReference{Name: name, Key: key})
		}
	}
	switch {
	case auth == nil:
	case auth.Basic != nil:
		both(where+".basic.secretRef", auth.Basic.SecretRef.Name, usernameKey, passwordKey)
	case auth.Bearer != nil:
		add(where+".bearer.secretKeyRef", SecretCredential, &auth.Bearer.SecretKeyRef)
	case auth.APIKey != nil:
		add(where+".apiKey.secretKeyRef", SecretCredential, &auth.APIKey.SecretKeyRef)
	case auth.OAuth2ClientCredentials != nil:
		both(where+".oauth2ClientCredentials.secretRef", auth.OAuth2ClientCredentials.SecretRef.Name, clientIDKey, clientSecretKey)
	}
}
