package controllers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/envelope"
	"github.com/clinikapi/eventflow/dispatcher/seeds"
	"github.com/clinikapi/eventflow/dispatcher/seeds/cluster"
)

// ring returns the keys of a Secret as the dispatcher reads them.
func ring(t *testing.T, secret *corev1.Secret) *envelope.KeyRing {
	t.Helper()
	keys := map[string][]byte{}
	for id, key := range secret.Data {
		if id != envelope.CurrentFile {
			keys[id] = key
		}
	}
	r, err := envelope.NewKeyRing(string(secret.Data[envelope.CurrentFile]), keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestEncryptionIsSetUp: a dispatcher that encrypts gets a key and Secrets for seeds, which outlive it, and the right to these
// Secrets alone. Nobody puts the key or the seeds back.
func TestEncryptionIsSetUp(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Encryption.Mode = v1alpha1.EncryptionEnabled })
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	key := appears(t, in(ns, "eventflow-encryption-main", &corev1.Secret{}), exists)
	if ring(t, key); len(key.OwnerReferences) > 0 || len(key.Data) != 2 {
		t.Errorf("the key is owned by %v, or has %d keys", key.OwnerReferences, len(key.Data))
	}
	for _, name := range cluster.SecretNames("main") {
		if s := appears(t, in(ns, name, &corev1.Secret{}), exists); len(s.OwnerReferences) > 0 || len(s.Data) > 0 {
			t.Errorf("%s is owned by %v, or has %d keys", name, s.OwnerReferences, len(s.Data))
		}
	}
	role := appears(t, in(ns, workload, &rbacv1.Role{}), exists)
	if last := role.Rules[len(role.Rules)-1]; len(role.Rules) != 4 || !slices.Equal(last.ResourceNames, cluster.SecretNames("main")) ||
		!slices.Equal(last.Verbs, []string{"get", "patch"}) || !slices.Equal(last.Resources, []string{"secrets"}) {
		t.Errorf("the rights are %+v", role.Rules)
	}
	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	pod := deployment.Spec.Template.Spec
	mounted := slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool {
		return v.Secret != nil && v.Secret.SecretName == "eventflow-encryption-main"
	})
	if args := strings.Join(pod.Containers[0].Args, " "); !mounted || !strings.Contains(args, "--encryption-keys=/etc/eventflow/encryption-keys --encryption-seeds=kubernetes") {
		t.Errorf("the key is mounted: %t; arguments are %s", mounted, args)
	}

	record := seeds.Record{Tenant: "uid", Seed: []byte("wrapped")}
	keeper := func() *cluster.Keeper { // with the rights of the dispatcher, and nothing in memory
		config := rest.CopyConfig(restConfig)
		config.Impersonate.UserName = "system:serviceaccount:" + ns + ":" + workload
		clients, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		return cluster.New(clients.CoreV1().Secrets(ns), "main")
	}
	eventually(t, func(ctx context.Context) error { return keeper().Create(ctx, record) }) // RBAC takes a moment
	if err := keeper().Create(t.Context(), record); !errors.Is(err, seeds.ErrExists) {
		t.Errorf("made again: %v", err)
	}
	before := bytes.Clone(key.Data[string(key.Data[envelope.CurrentFile])])
	change(t, key, func(s *corev1.Secret) {
		s.Data["next"], s.Data[envelope.CurrentFile] = bytes.Repeat([]byte{7}, 32), []byte("next")
	})
	change(t, d, func(d *v1alpha1.WebhookDispatcher) { d.Spec.Limits.Connections = 500 }) // all is applied again
	appears(t, deployment, func(d *appsv1.Deployment) error {
		if args := d.Spec.Template.Spec.Containers[0].Args; !slices.Contains(args, "--max-connections=500") {
			return fmt.Errorf("args %v", args)
		}
		return nil
	})
	key = appears(t, key, exists)
	if ring(t, key).Current() != "next" || !slices.ContainsFunc(slices.Collect(maps.Values(key.Data)), func(b []byte) bool { return bytes.Equal(b, before) }) {
		t.Error("the manager put the key back")
	}
	if got, err := keeper().Get(t.Context(), "uid"); err != nil || string(got.Seed) != "wrapped" {
		t.Errorf("the seed is %+v, %v", got, err)
	}
}

// TestEncryptionKeyOfOnesOwn: the pods wait for a usable key, and the condition says what to do without showing it.
func TestEncryptionKeyOfOnesOwn(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	d := dispatcher(t, ns, func(d *v1alpha1.WebhookDispatcher) {
		d.Spec.Encryption = v1alpha1.Encryption{Mode: v1alpha1.EncryptionEnabled, KeySecretRef: &v1alpha1.SecretReference{Name: "kek"}}
	})
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretNotFound)
	kek := secret(t, ns, "kek", map[string]string{"current": "a", "a": "canary-too-short"})
	c := become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonSecretKeyInvalid)
	if strings.Contains(c.Message, "canary") || !strings.Contains(c.Message, "want 32 bytes") {
		t.Errorf("message %q", c.Message)
	}
	change(t, kek, func(s *corev1.Secret) { s.Data["a"] = bytes.Repeat([]byte{1}, 32) })
	become(t, d, v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	deployment := appears(t, in(ns, workload, &appsv1.Deployment{}), exists)
	if !slices.ContainsFunc(deployment.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool { return v.Secret != nil && v.Secret.SecretName == "kek" }) {
		t.Errorf("the key is not mounted: %+v", deployment.Spec.Template.Spec.Volumes)
	}
}
