package doctor

import (
	"bytes"
	"context"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// TestAgainstAnAPIServer: what an administrator sees of an installation without a manager; and what somebody without rights
// does.
func TestAgainstAnAPIServer(t *testing.T) {
	t.Parallel()
	environment := &envtest.Environment{CRDDirectoryPaths: []string{filepath.Join("..", "..", "config", "crd", "bases")}, ErrorIfCRDPathMissing: true}
	config, err := environment.Start()
	if err != nil {
		t.Fatalf("start the API server (KUBEBUILDER_ASSETS must name a folder with etcd and kube-apiserver): %v", err)
	}
	t.Cleanup(func() {
		if err := environment.Stop(); err != nil {
			t.Error(err)
		}
	})
	kube, err := newClient(config)
	if err != nil {
		t.Fatal(err)
	}
	meta := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name}
	}
	dead := &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"name": "v1.dead.example.com"},
		"spec": map[string]any{
			"group": "dead.example.com", "version": "v1", "groupPriorityMinimum": int64(100), "versionPriority": int64(10), "insecureSkipTLSVerify": true,
			"service": map[string]any{"namespace": "default", "name": "nobody"},
		},
	}}
	dead.SetGroupVersionKind(apiServiceKind)
	for _, object := range []client.Object{
		&corev1.Namespace{ObjectMeta: meta("", "eventflow-system")},
		&v1alpha1.WebhookDispatcher{ObjectMeta: meta("eventflow-system", "default")},
		&v1alpha1.WebhookSubscription{ObjectMeta: meta("default", "billing"), Spec: v1alpha1.WebhookSubscriptionSpec{
			URL: "https://192.168.7.7/hook", Events: []string{"patient.*"}, Signing: v1alpha1.Signing{SecretRef: v1alpha1.SecretKeyReference{Name: "keys", Key: "current"}},
		}},
		dead,
	} {
		if err := kube.Create(t.Context(), object); err != nil {
			t.Fatalf("create %s: %v", object.GetName(), err)
		}
	}
	wants := map[string]string{
		"manager": "", "storage": "WebhookDispatcher eventflow-system/default", "dispatchers": "WebhookDispatcher eventflow-system/default",
		"subscriptions": "WebhookSubscription default/billing", "secrets": "Secret default/keys", "endpoints": "WebhookSubscription default/billing",
		"apiservices": "APIService v1.dead.example.com", "podsecurity": "Namespace eventflow-system",
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !found(ctx, t, wants, func() ([]Finding, error) { return diagnose(ctx, config, "", "1.2.3") }) { // the API server judges APIServices by and by
		select {
		case <-ctx.Done():
			t.Fatal("not found in time")
		case <-time.After(100 * time.Millisecond):
		}
	}
	stranger, err := environment.AddUser(envtest.User{Name: "stranger"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	findings, err := diagnose(t.Context(), stranger.Config(), "", "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if broken(findings) || len(findings) < 8 || slices.ContainsFunc(findings, func(f Finding) bool { return f.Check != "rights" }) {
		t.Errorf("somebody without rights sees %+v", findings)
	}
	var out bytes.Buffer
	if err := report(&out, "text", findings); err != nil || !strings.Contains(out.String(), "you may not list webhooksubscriptions") {
		t.Errorf("%s: %v", out.String(), err)
	}
}

// found reports whether each check found what is wanted, and nothing else did.
func found(ctx context.Context, t *testing.T, wants map[string]string, look func() ([]Finding, error)) bool {
	t.Helper()
	findings, err := look()
	if err != nil && ctx.Err() == nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range findings {
		got[f.Check] = f.Object
	}
	return maps.Equal(got, wants)
}
