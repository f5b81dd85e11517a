package config_test

import (
	"strings"
	"testing"
)

// Manifests under an autoscaler leave spec.replicas out.
const (
	onDatabase = `
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookDispatcher
metadata: {name: scaled, namespace: clinic-a}
spec: {store: {postgres: {connectionSecretRef: {name: db, key: uri}}}}`
	onVolume = `
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookDispatcher
metadata: {name: single, namespace: clinic-a}`
)

// testScale scales dispatchers as people and autoscalers do. What is applied again takes nothing back.
func testScale(t *testing.T) {
	for name, apply := range map[string][]string{
		"by the client": {"apply", "-f", "-"},
		"by the server": {"apply", "--server-side", "--field-manager=gitops", "-f", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			applied := func(manifest string) {
				t.Helper()
				if output, err := runKubectl(t, manifest, apply...); err != nil {
					t.Fatal(output)
				}
			}
			applied(onDatabase)
			applied(onVolume)
			defer kubectl(t, "delete", "-n", "clinic-a", "webhookdispatchers", "scaled", "single")
			if got := replicasOf(t, "scaled"); got != "1" {
				t.Errorf("%s replicas where none are named", got)
			}
			kubectl(t, "scale", "-n", "clinic-a", "webhookdispatcher/scaled", "--replicas=3")
			applied(onDatabase)
			if got := replicasOf(t, "scaled"); got != "3" {
				t.Errorf("%s replicas after the manifest was applied again, want those that it was scaled to", got)
			}
			if again, err := runKubectl(t, onDatabase, append([]string{"diff"}, apply[1:]...)...); err != nil {
				t.Errorf("want no difference to the manifest (%v):\n%s", err, again)
			}
			output, err := runKubectl(t, "", "scale", "-n", "clinic-a", "webhookdispatcher/single", "--replicas=3")
			if err == nil || !strings.Contains(output, "the embedded store works with at most one replica") {
				t.Errorf("want the embedded store scaled to one pod at most (%v):\n%s", err, output)
			}
			kubectl(t, "scale", "-n", "clinic-a", "webhookdispatcher/single", "--replicas=0")
			if got := replicasOf(t, "single"); got != "0" {
				t.Errorf("%s replicas, want 0", got)
			}
		})
	}
}

func replicasOf(t *testing.T, dispatcher string) string {
	t.Helper()
	return kubectl(t, "get", "-n", "clinic-a", "webhookdispatchers", dispatcher, "-o", "jsonpath={.spec.replicas}")
}
