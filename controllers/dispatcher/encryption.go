package dispatcher

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/names"
	"github.com/clinikapi/eventflow/dispatcher/envelope"
	"github.com/clinikapi/eventflow/dispatcher/seeds/cluster"
)

// What of a dispatcher follows from its encryption. Neither the key nor the seeds have an owner: without them, the events on
// a volume that outlives a mistaken delete could not be read.

const (
	keysVolume = "encryption-keys"
	keysPath   = "/etc/eventflow/encryption-keys"
	// keyBytes is the length of a key-encryption key.
	keyBytes = 32
)

func encrypts(d *v1alpha1.WebhookDispatcher) bool {
	return d.Spec.Encryption.Mode == v1alpha1.EncryptionEnabled
}

// keySecret is the name of the Secret of key-encryption keys; own reports whether the manager makes it.
func keySecret(d *v1alpha1.WebhookDispatcher) (name string, own bool) {
	if ref := d.Spec.Encryption.KeySecretRef; ref != nil {
		return ref.Name, false
	}
	return "eventflow-encryption-" + d.Name, true
}

func encryptionArguments(d *v1alpha1.WebhookDispatcher) []string {
	if !encrypts(d) {
		return nil
	}
	return []string{"--encryption-keys=" + keysPath, "--encryption-seeds=kubernetes"}
}

// seedSecrets are the Secrets that the dispatcher keeps seeds in. The manager owns nothing in their data.
func seedSecrets(d *v1alpha1.WebhookDispatcher) (all []object) {
	if !encrypts(d) {
		return nil
	}
	for _, name := range cluster.SecretNames(d.Name) {
		all = append(all, object{kind: "Secret", name: name, configuration: corev1ac.Secret(name, d.Namespace).
			WithLabels(labels(d)).
			WithType(corev1.SecretTypeOpaque)})
	}
	return all
}

func keysVolumes(d *v1alpha1.WebhookDispatcher) []*corev1ac.VolumeApplyConfiguration {
	if !encrypts(d) {
		return nil
	}
	name, _ := keySecret(d)
	return []*corev1ac.VolumeApplyConfiguration{corev1ac.Volume().WithName(keysVolume).WithSecret(
		corev1ac.SecretVolumeSource().WithSecretName(name))}
}

func keysMounts(d *v1alpha1.WebhookDispatcher) []*corev1ac.VolumeMountApplyConfiguration {
	if !encrypts(d) {
		return nil
	}
	return []*corev1ac.VolumeMountApplyConfiguration{corev1ac.VolumeMount().WithName(keysVolume).WithMountPath(keysPath).WithReadOnly(true)}
}

// ensureKey makes the key of a dispatcher that names none. It never writes to a Secret that is there.
func (r *Reconciler) ensureKey(ctx context.Context, d *v1alpha1.WebhookDispatcher) error {
	name, own := keySecret(d)
	if !encrypts(d) || !own {
		return nil
	}
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: d.Namespace, Name: name}, &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}})
	if !apierrors.IsNotFound(err) {
		return err
	}
	key := make([]byte, keyBytes)
	_, _ = rand.Read(key) // never fails
	id := time.Now().UTC().Format("20060102")
	err = r.Client.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: d.Namespace, Labels: maps.Clone(names.Labels(names.DataPlane, client.ObjectKeyFromObject(d)))},
		Data:       map[string][]byte{envelope.CurrentFile: []byte(id), id: key},
	}, client.FieldOwner(names.FieldOwner))
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make the encryption key: %w", err)
	}
	return nil
}

// keysRefused reports what is wrong with the Secret of keys that a dispatcher names, without showing anything in it.
func (r *Reconciler) keysRefused(ctx context.Context, d *v1alpha1.WebhookDispatcher) (connection, error) {
	name, own := keySecret(d)
	if !encrypts(d) || own {
		return connection{}, nil
	}
	secret := &corev1.Secret{}
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: d.Namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return connection{reason: v1alpha1.ReasonSecretNotFound, message: fmt.Sprintf(
			"spec.encryption.keySecretRef: there is no Secret %s in namespace %s: create it, with key current", name, d.Namespace)}, nil
	}
	if err != nil {
		return connection{}, fmt.Errorf("get Secret %s: %w", name, err)
	}
	keys := maps.Clone(secret.Data)
	delete(keys, envelope.CurrentFile)
	if _, err := envelope.NewKeyRing(string(secret.Data[envelope.CurrentFile]), keys, nil); err != nil {
		return connection{reason: v1alpha1.ReasonSecretKeyInvalid, message: fmt.Sprintf("spec.encryption.keySecretRef: Secret %s: %v", name, err)}, nil
	}
	return connection{}, nil
}
