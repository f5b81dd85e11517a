package keys

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/signature"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/console/kube"
)

const (
	// secretKey is the key of the Secrets that this command makes.
	secretKey = "key"
	// madeFor marks them, with the name of the subscription.
	madeFor = "webhooks.clinikapi.com/signing-key-of"
	// managedBy is the value of the label app.kubernetes.io/managed-by, and the field manager.
	managedBy = "eventflow-keys"
	// keyBytes are those of a shared key.
	keyBytes = 32
)

// secretName names the Secret of the key that follows the current one: the same at each run, so that a run that was interrupted
// leaves one Secret, and another one after each rotation.
func secretName(sub *v1alpha1.WebhookSubscription) string {
	current := sub.Spec.Signing.SecretRef
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s", sub.UID, current.Name, current.Key))
	const most = 253 - len("-key-") - 10
	return strings.TrimRight(sub.Name[:min(len(sub.Name), most)], "-.") + "-key-" + hex.EncodeToString(sum[:5])
}

// newSecret returns a Secret with a new key of a scheme.
func newSecret(sub *v1alpha1.WebhookSubscription, scheme v1alpha1.SignatureScheme, labels map[string]string) *corev1.Secret {
	random := make([]byte, keyBytes) // an ed25519 seed has as many (RFC 8032)
	_, _ = rand.Read(random)         // never fails
	prefix := "whsec_"
	if scheme == v1alpha1.SchemePair {
		prefix = "whsk_"
	}
	s := &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Name: secretName(sub), Namespace: sub.Namespace, Labels: map[string]string{"app.kubernetes.io/managed-by": managedBy},
			Annotations: map[string]string{madeFor: sub.Name},
		},
		Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{secretKey: []byte(prefix + base64.StdEncoding.EncodeToString(random))},
	}
	for name, value := range labels {
		s.Labels[name] = value
	}
	return s
}

// public returns the public half of a Secret's pair, "" of a shared key.
func public(s *corev1.Secret) (string, error) {
	key, err := signature.ParseKey(s.Data[secretKey])
	if err != nil {
		return "", fmt.Errorf("key %q of Secret %s: %w", secretKey, s.Name, err)
	}
	return key.Public(), nil
}

// ensure creates a Secret, or returns the one that an interrupted run, or one that was taken back, left. The labels are those that
// were asked for.
func ensure(ctx context.Context, api client.Client, secret *corev1.Secret, labels map[string]string) (*corev1.Secret, error) {
	err := api.Create(ctx, secret, client.FieldOwner(managedBy))
	if !apierrors.IsAlreadyExists(err) {
		if err != nil {
			return nil, fmt.Errorf("create Secret %s: %w", secret.Name, err)
		}
		return nil, nil
	}
	left := &corev1.Secret{}
	if err := api.Get(ctx, client.ObjectKeyFromObject(secret), left); err != nil {
		return nil, fmt.Errorf("secret %s exists already, and cannot be read: %w", secret.Name, err)
	}
	have, err := public(left)
	if err != nil {
		return nil, err
	}
	want, err := public(secret)
	if err != nil {
		return nil, err
	}
	if left.Annotations[madeFor] != secret.Annotations[madeFor] || (have == "") != (want == "") {
		return nil, fmt.Errorf("secret %s exists already, and cannot be used, as it was not made for this step: \"kubectl -n %s delete secret %s\" if nothing uses it", secret.Name, secret.Namespace, secret.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if value, ok := left.Labels[name]; !ok || value != labels[name] {
			return nil, fmt.Errorf("secret %s exists already, without the label %s=%s: \"kubectl -n %s label --overwrite secret %s %s=%s\", and make this step again",
				secret.Name, name, labels[name], secret.Namespace, secret.Name, name, labels[name])
		}
	}
	return left, nil
}

// owner names what keeps an object as it is, or returns "": a tool that has it in Git, or a controller that makes it, such as
// that of an ExternalSecret.
func owner(object metav1.Object) string {
	if tool := kube.Owner(object); tool != "" {
		return tool
	}
	if of := metav1.GetControllerOf(object); of != nil {
		return "a controller of " + of.Kind
	}
	return ""
}

// ownedBy says why the user is not to change a subscription here, "" if nothing speaks against it. Of the Secret, whose metadata
// is read alone, nothing is said if the user may not read it.
func ownedBy(ctx context.Context, api client.Client, sub *v1alpha1.WebhookSubscription) (string, error) {
	if by := owner(sub); by != "" {
		return by + " owns the subscription, and would take the change back", nil
	}
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err := api.Get(ctx, client.ObjectKey{Namespace: sub.Namespace, Name: sub.Spec.Signing.SecretRef.Name}, secret)
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look whether Secret %s has an owner: %w", sub.Spec.Signing.SecretRef.Name, err)
	}
	if by := owner(secret); by != "" {
		return by + " owns Secret " + secret.Name + ", so the keys of this subscription come from elsewhere", nil
	}
	return "", nil
}

// parseLabels reads key=value.
func parseLabels(texts []string) (map[string]string, error) {
	labels := map[string]string{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, errors.New("want key=value")
		}
		labels[name] = value
	}
	return labels, nil
}
