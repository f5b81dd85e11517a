package v1alpha1_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/test/kit/states"
)

// TestTransitions changes stored objects.
func TestTransitions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		kind, patch, status string
		rules               map[string]rule
	}{
		"subscription": {"WebhookSubscription", "{}", "", subscriptionTransitions},
		"embedded":     {"WebhookDispatcher", "{}", "", embeddedTransitions},
		"used":         {"WebhookDispatcher", "{}", "status: {volume: {id: a, use: Used}}", embeddedTransitions},
		"unused":       {"WebhookDispatcher", "{}", "status: {volume: {id: a, use: Unused}}", unusedTransitions},
		"abandoned":    {"WebhookDispatcher", "{}", "status: {volume: {id: a, use: Abandoned}}", unusedTransitions},
		"encrypted":    {"WebhookDispatcher", "spec: {encryption: {mode: Enabled}}", "", encryptedTransitions},
		"postgres":     {"WebhookDispatcher", "spec: {store: " + postgresStore + "}", "", postgresTransitions},
		"set back":     {"WebhookDispatcher", "spec: {store: " + postgresStore + "}", "status: {volume: {id: a, use: Used}}", setBackTransitions},
		"replay":       {"WebhookReplay", "spec: {state: Failed, since: '2026-01-15T09:00:00Z', until: '2026-01-15T10:00:00Z'}", "", replayTransitions},
	} {
		stored := object(t, tt.kind, tt.patch)
		stored.SetName("transitions-" + strings.ReplaceAll(name, " ", "-"))
		if err := apiServer.Create(t.Context(), stored); err != nil {
			t.Fatal(err)
		}
		if tt.status != "" {
			merge(stored.Object, parse(t, tt.status))
			if err := apiServer.Status().Update(t.Context(), stored); err != nil {
				t.Fatal(err)
			}
		}
		for rule, r := range tt.rules {
			t.Run(name+"/"+rule, func(t *testing.T) {
				t.Parallel()
				check(t, r, func(ctx context.Context, patch string) error {
					changed := stored.DeepCopy()
					merge(changed.Object, parse(t, patch))
					return apiServer.Update(ctx, changed, client.DryRunAll)
				})
			})
		}
	}
}

// TestSubscriptionDefaults gives what is not said in every way of not saying it.
func TestSubscriptionDefaults(t *testing.T) {
	t.Parallel()
	minimal := v1alpha1.WebhookSubscriptionSpec{
		URL:     "https://billing.example.com/hooks",
		Events:  []string{"*"},
		Signing: v1alpha1.Signing{SecretRef: v1alpha1.SecretKeyReference{Name: "billing-key", Key: "current"}},
	}
	want := minimal
	want.DispatcherRef = v1alpha1.DispatcherReference{Name: "default"}
	want.Timeout.Duration = 30 * time.Second
	want.Retry = v1alpha1.Retry{
		InitialDelay: metav1.Duration{Duration: 30 * time.Second},
		Factor:       4,
		MaxDelay:     metav1.Duration{Duration: 2 * time.Hour},
		MaxAge:       metav1.Duration{Duration: 72 * time.Hour},
	}
	want.Delivery = v1alpha1.Delivery{Mode: v1alpha1.DeliveryPush, MaxInFlight: 32, Ordering: v1alpha1.OrderingNone}
	want.FilterErrors = v1alpha1.FilterErrorsDeliver
	want.Payload.Mode, want.Payload.Format = v1alpha1.PayloadFull, v1alpha1.FormatStandard
	want.Suspend = ptr.To(false)

	nulls := object(t, "WebhookSubscription", "{}")
	for _, field := range [][]string{{"retry", "maxAttempts"}, {"retry", "factor"}, {"delivery"}, {"timeout"}, {"urlFrom"}, {"headers"}, {"suspend"}} {
		if err := unstructured.SetNestedField(nulls.Object, nil, append([]string{"spec"}, field...)...); err != nil {
			t.Fatal(err)
		}
	}

	for name, given := range map[string]client.Object{
		"nothing":       object(t, "WebhookSubscription", "{}"),
		"empty structs": object(t, "WebhookSubscription", "spec: {dispatcherRef: {}, retry: {}, delivery: {}, payload: {}}"),
		"nulls":         nulls,
		"the Go type":   &v1alpha1.WebhookSubscription{ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: metav1.NamespaceDefault}, Spec: minimal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got v1alpha1.WebhookSubscription
			create(t, given, &got)
			if diff := cmp.Diff(want, got.Spec); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAutomationDefaults gives what is not said of the automations.
func TestAutomationDefaults(t *testing.T) {
	t.Parallel()
	var got v1alpha1.WebhookSubscription
	create(t, object(t, "WebhookSubscription", `
spec:
  schedule: {at: event.timestamp, window: {timeZone: UTC, from: "09:00", until: "20:00"}}
  transform: {}
  auth: {oauth2ClientCredentials: {tokenURL: 'https://a.example', secretRef: {name: a}}}
`), &got)
	if s := got.Spec.Schedule; s.IfPast != v1alpha1.IfPastSkip || s.Window.Outside != v1alpha1.OutsideLater {
		t.Errorf("schedule is %+v, window %+v", s, s.Window)
	}
	if tr := got.Spec.Transform; tr.ContentType != v1alpha1.ContentTypeJSON || tr.Method != http.MethodPost {
		t.Errorf("transform is %+v", tr)
	}
	if a := got.Spec.Auth.OAuth2ClientCredentials; a.CredentialsIn != v1alpha1.CredentialsInHeader {
		t.Errorf("auth is %+v", a)
	}
}

func TestDispatcherDefaults(t *testing.T) {
	t.Parallel()
	want := v1alpha1.WebhookDispatcherSpec{
		Replicas:  ptr.To(int32(1)),
		Store:     v1alpha1.Store{Embedded: &v1alpha1.EmbeddedStore{Size: resource.MustParse("10Gi")}},
		Ingest:    v1alpha1.Ingest{Authentication: v1alpha1.IngestKubernetes, MaxEventBytes: 1 << 20, OutageGrace: &metav1.Duration{Duration: 5 * time.Minute}},
		Egress:    v1alpha1.Egress{AllowHTTP: ptr.To(false)},
		Retention: v1alpha1.Retention{Delivered: metav1.Duration{Duration: 24 * time.Hour}, Failed: metav1.Duration{Duration: 720 * time.Hour}},

		Encryption:    v1alpha1.Encryption{Mode: v1alpha1.EncryptionDisabled},
		DeliveriesAPI: v1alpha1.DeliveriesAPI{Enabled: new(false)},
	}
	for name, given := range map[string]client.Object{
		"nothing":       object(t, "WebhookDispatcher", "{}"),
		"empty structs": object(t, "WebhookDispatcher", "spec: {store: {embedded: {}}, subscriptions: {}, ingest: {}, egress: {}, retention: {}}"),
		"the Go type":   &v1alpha1.WebhookDispatcher{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: metav1.NamespaceDefault}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got v1alpha1.WebhookDispatcher
			create(t, given, &got)
			if diff := cmp.Diff(want, got.Spec); diff != "" {
				t.Errorf("spec (-want +got):\n%s", diff)
			}
		})
	}
}

// create submits an object and reads the answer into typed, without storing anything.
func create(t *testing.T, given, typed client.Object) {
	t.Helper()
	if err := apiServer.Create(t.Context(), given, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	answer, err := json.Marshal(given)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(answer, typed); err != nil {
		t.Fatal(err)
	}
}

// TestUnknownFieldsAreRefused in each way in which people and GitOps tools apply manifests: a filter that is dropped
// for a typing mistake would send too much.
func TestUnknownFieldsAreRefused(t *testing.T) {
	t.Parallel()
	manifest := write(t, "subscription.yaml", `
apiVersion: webhooks.clinikapi.com/v1alpha1
kind: WebhookSubscription
metadata: {name: typo, namespace: default}
spec:
  url: https://billing.example.com/hooks
  event: [encounter.updated]
  events: ["*"]
  signing: {secretRef: {name: billing-key, key: current}}
`)
	for name, apply := range map[string][]string{
		"client-side": {"apply", "-f", manifest},
		"server-side": {"apply", "--server-side", "-f", manifest},
		"server-side by a tool that validates nothing": {"apply", "--server-side", "--validate=ignore", "-f", manifest},
		"create": {"create", "-f", manifest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			output, err := kubectl(t, apply...)
			if err == nil || !strings.Contains(output, "spec.event") {
				t.Errorf("want spec.event refused, got %v:\n%s", err, output)
			}
		})
	}
}

// TestColumns reads what kubectl get shows of an object that has everything to show.
func TestColumns(t *testing.T) {
	t.Parallel()
	namespace := "columns"
	if output, err := kubectl(t, "create", "namespace", namespace); err != nil {
		t.Fatal(output)
	}
	subscription := object(t, "WebhookSubscription", "spec: {events: [encounter.updated, appointment.*]}")
	subscription.SetNamespace(namespace)
	dispatcher := object(t, "WebhookDispatcher", "{}")
	dispatcher.SetNamespace(namespace)
	for o, status := range map[*unstructured.Unstructured]string{
		subscription: "status: {endpoint: 'https://billing.example.com', conditions: [" + fmt.Sprintf(condition, "Accepted") + ", " + fmt.Sprintf(condition, "Ready") +
			", {type: EndpointHealthy, status: 'False', reason: CircuitOpen, message: '', lastTransitionTime: '2026-01-15T09:15:00Z'}" +
			"], deliveries: {pending: 1000, delivered: 12, retrying: 3, failed: 1, lastDeliveredTime: '2026-01-15T09:15:00Z', lastFailure: {time: '2026-01-15T09:15:00Z', reason: Timeout}}}",
		dispatcher: "status: {subscriptions: 7, version: v1.2.3, publishURL: 'http://dispatcher', conditions: [" + fmt.Sprintf(condition, "Ready") + "]}",
	} {
		if err := apiServer.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		merge(o.Object, parse(t, status))
		if err := apiServer.Status().Update(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		get        []string
		wantHeader string
		wantCells  []string
	}{
		"subscription": {
			get:        []string{"whsub"},
			wantHeader: "NAME READY REASON ENDPOINT PENDING FAILED LAST DELIVERY AGE",
			wantCells:  []string{"billing-sync", "True", "Ready", "False", "1000", "1"},
		},
		"subscription, wide": {
			get:        []string{"webhooksubscriptions", "-o", "wide"},
			wantHeader: "NAME READY REASON ENDPOINT PENDING FAILED LAST DELIVERY AGE HEALTH LAST FAILURE DELIVERED RETRYING URL EVENTS",
			wantCells:  []string{"CircuitOpen", "Timeout", "12", "3", "https://billing.example.com", `["encounter.updated","appointment.*"]`},
		},
		"dispatcher": {
			get:        []string{"whdisp"},
			wantHeader: "NAME READY REASON AVAILABLE REPLICAS SUBSCRIPTIONS VERSION AGE",
			wantCells:  []string{"default", "True", "Ready", "7", "v1.2.3"},
		},
		"all of the product": {
			get:        []string{"eventflow"},
			wantHeader: "NAME READY REASON AVAILABLE REPLICAS SUBSCRIPTIONS VERSION AGE",
			wantCells:  []string{"webhookdispatcher.webhooks.clinikapi.com/default", "webhooksubscription.webhooks.clinikapi.com/billing-sync"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			output, err := kubectl(t, append([]string{"get", "-n", namespace}, tt.get...)...)
			if err != nil {
				t.Fatal(output)
			}
			header, rest, _ := strings.Cut(output, "\n")
			if got := strings.Join(strings.Fields(header), " "); got != tt.wantHeader {
				t.Errorf("columns: want %s, got %s", tt.wantHeader, got)
			}
			for _, cell := range tt.wantCells {
				if !slices.Contains(strings.Fields(rest), cell) {
					t.Errorf("want a cell %s in\n%s", cell, rest)
				}
			}
		})
	}
}

// TestExplain waits, because the API server publishes a new resource's documentation a moment after the resource.
func TestExplain(t *testing.T) {
	t.Parallel()
	want := "initialDelay is the wait after the first failed attempt"
	var output string
	err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		output, _ = kubectl(t, "explain", "webhooksubscriptions.spec.retry.initialDelay")
		return strings.Contains(output, want), nil
	})
	if err != nil {
		t.Errorf("want %q, got:\n%s", want, output)
	}
}

func kubectl(t *testing.T, arguments ...string) (output string, err error) {
	t.Helper()
	kubeconfig := write(t, "kubeconfig", string(environment.KubeConfig))
	command := exec.CommandContext(t.Context(), environment.ControlPlane.KubectlPath, append([]string{"--kubeconfig", kubeconfig}, arguments...)...)
	command.Env = append(os.Environ(), "HOME="+filepath.Dir(kubeconfig))
	combined, err := command.CombinedOutput()
	return string(combined), err
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestColumnsFit: the widest line of kubectl get fits on a terminal, and leaves room for one more number.
func TestColumnsFit(t *testing.T) {
	t.Parallel()
	namespace := "wide"
	if output, err := kubectl(t, "create", "namespace", namespace); err != nil {
		t.Fatal(output)
	}
	subscription := object(t, "WebhookSubscription", "spec: {events: [encounter.updated]}")
	subscription.SetNamespace(namespace)
	subscription.SetName("appointment-reminder")
	if err := apiServer.Create(t.Context(), subscription); err != nil {
		t.Fatal(err)
	}
	merge(subscription.Object, parse(t, "status: {conditions: ["+
		"{type: Ready, status: Unknown, reason: DispatcherUnavailable, message: '', lastTransitionTime: '2026-01-15T09:15:00Z'},"+
		"{type: EndpointHealthy, status: Unknown, reason: NoAttempts, message: '', lastTransitionTime: '2026-01-15T09:15:00Z'}],"+
		"deliveries: {pending: 10000000, failed: 100000, lastDeliveredTime: '2024-01-15T09:15:00Z'}}"))
	if err := apiServer.Status().Update(t.Context(), subscription); err != nil {
		t.Fatal(err)
	}
	output, err := kubectl(t, "get", "whsub", "-n", namespace)
	if err != nil {
		t.Fatal(output)
	}
	for line := range strings.Lines(output) {
		if n := len(strings.TrimRight(line, "\n ")); n > 120-len("   SCHEDULED") {
			t.Errorf("a line of %d characters:\n%s", n, line)
		}
	}
}

// TestWhatNobodyHasSeenIsInProgress: the API server itself says that no generation was observed, and goes on saying so when
// another writer than the manager is first.
func TestWhatNobodyHasSeenIsInProgress(t *testing.T) {
	t.Parallel()
	namespace := "unseen"
	if output, err := kubectl(t, "create", "namespace", namespace); err != nil {
		t.Fatal(output)
	}
	for kind, status := range map[string]string{"WebhookSubscription": "{programmedGeneration: 1}", "WebhookDispatcher": "{subscriptions: 0}"} {
		spec := "{}"
		if kind == "WebhookSubscription" {
			spec = "spec: {events: [encounter.updated]}"
		}
		o := object(t, kind, spec)
		o.SetNamespace(namespace)
		if err := apiServer.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		for _, when := range []string{"created", "written by another"} {
			if err := apiServer.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
				t.Fatal(err)
			}
			if got, _, _ := unstructured.NestedInt64(o.Object, "status", "observedGeneration"); got != -1 {
				t.Errorf("%s, %s: observedGeneration %d, want -1", kind, when, got)
			}
			if got := states.Kstatus(t, o); got != "InProgress" {
				t.Errorf("%s, %s: kstatus says %s", kind, when, got)
			}
			patch := "apiVersion: webhooks.clinikapi.com/v1alpha1\nkind: " + kind + "\nstatus: " + status
			if err := apiServer.Status().Patch(t.Context(), o, client.RawPatch(types.ApplyPatchType, []byte(patch)), client.FieldOwner("eventflow-dispatcher")); err != nil {
				t.Fatal(err)
			}
		}
	}
}
