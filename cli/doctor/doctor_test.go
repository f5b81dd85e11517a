package doctor

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/cli/exit"
	"github.com/clinikapi/eventflow/test/kit/states"
)

var now = time.Date(2026, 1, 15, 9, 15, 0, 0, time.UTC)

// healthy is an installation in which nothing is wrong; change makes something so.
func healthy(change func(in *Installation)) *Installation {
	meta := func(namespace, name string, labels map[string]string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels, Generation: 1}
	}
	ready := []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonReady}}
	restricted := map[string]string{enforceLabel: "restricted"}
	in := &Installation{
		Version: "1.2.0", Now: now, Unread: map[string]string{}, Definitions: map[string]Definition{},
		Dispatchers: []v1alpha1.WebhookDispatcher{{
			ObjectMeta: meta("eventflow-system", "default", nil),
			Spec:       v1alpha1.WebhookDispatcherSpec{Store: v1alpha1.Store{Embedded: &v1alpha1.EmbeddedStore{Size: resource.MustParse("10Gi")}}},
			Status:     v1alpha1.WebhookDispatcherStatus{ObservedGeneration: 1, Conditions: slices.Clone(ready), Version: "1.2.3"},
		}},
		Subscriptions: []v1alpha1.WebhookSubscription{{
			ObjectMeta: meta("clinic-a", "billing", nil),
			Spec: v1alpha1.WebhookSubscriptionSpec{
				URL: "https://billing.example.com/hook", DispatcherRef: v1alpha1.DispatcherReference{Namespace: "eventflow-system", Name: "default"},
				Signing: v1alpha1.Signing{SecretRef: v1alpha1.SecretKeyReference{Name: "keys", Key: "current"}},
			},
			Status: v1alpha1.WebhookSubscriptionStatus{ObservedGeneration: 1, Conditions: slices.Clone(ready)},
		}},
		Deployments: []appsv1.Deployment{{
			ObjectMeta: meta("eventflow-system", "eventflow-manager", map[string]string{componentLabel: "manager"}),
			Status:     appsv1.DeploymentStatus{Replicas: 1, ReadyReplicas: 1},
		}},
		Pods: []corev1.Pod{{ObjectMeta: meta("eventflow-system", "eventflow-dispatcher-default-1", nil), Status: corev1.PodStatus{
			Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		}}},
		Claims: []corev1.PersistentVolumeClaim{{
			ObjectMeta: meta("eventflow-system", "eventflow-dispatcher-default-store", nil),
			Spec:       corev1.PersistentVolumeClaimSpec{StorageClassName: ptr.To("fast")},
			Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10Gi")}},
		}},
		Classes:     []storagev1.StorageClass{{ObjectMeta: metav1.ObjectMeta{Name: "fast", Annotations: map[string]string{defaultClass: "true"}}}},
		Namespaces:  []corev1.Namespace{{ObjectMeta: meta("", "eventflow-system", restricted)}, {ObjectMeta: meta("", "clinic-a", nil)}},
		APIServices: []APIService{{Name: "v1.", Available: true}, {Name: "v1beta1.metrics.k8s.io", Service: "kube-system/metrics-server", Available: true}},
		Secrets:     map[client.ObjectKey]map[string][]byte{{Namespace: "clinic-a", Name: "keys"}: {"current": []byte("never shown")}},
		ConfigMaps:  map[client.ObjectKey]map[string][]byte{},
		Hosts:       map[string]Host{"billing.example.com": {Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("93.184.216.34")}}},
	}
	for _, name := range definitions {
		in.Definitions[name] = Definition{Versions: []string{"v1alpha1"}, Established: true}
	}
	if change != nil {
		change(in)
	}
	return in
}

func certificate(t *testing.T, from, until time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestEachCheckFinds: one thing is wrong in each case, and it is found by its check alone, with its level, object and command.
func TestEachCheckFinds(t *testing.T) {
	t.Parallel()
	const home = "eventflow-system"
	container := func(in *Installation, state corev1.ContainerState) {
		in.Pods[0].Status.ContainerStatuses = []corev1.ContainerStatus{{Image: "eventflow:1", State: state, RestartCount: 7, LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 2, Reason: "Error"}}}}
	}
	tls := func(until time.Time) func(in *Installation) {
		return func(in *Installation) {
			in.Dispatchers[0].Spec.Template.Volumes = []v1alpha1.TemplateVolume{{Name: "tls", Secret: &corev1.SecretVolumeSource{SecretName: "tls"}}}
			in.Secrets[client.ObjectKey{Namespace: home, Name: "tls"}] = map[string][]byte{"tls.crt": certificate(t, now.Add(-time.Hour), until)}
		}
	}
	address := func(a string) func(in *Installation) {
		return func(in *Installation) {
			in.Hosts["billing.example.com"] = Host{Addresses: []netip.Addr{netip.MustParseAddr(a)}}
		}
	}
	for name, test := range map[string]struct {
		change        func(in *Installation)
		check         string
		level         Level
		object        string
		problem, mend string // parts
	}{
		"a list that may not be made":     {func(in *Installation) { in.Unread["pods"], in.Pods = "you may not list pods", nil }, "rights", Note, "", "pods could not be looked at", "kubectl auth can-i list pods"},
		"no definition":                   {func(in *Installation) { delete(in.Definitions, definitions[0]) }, "definitions", Failed, "CustomResourceDefinition " + definitions[0], "not installed", "kubectl apply -k config/crd"},
		"a definition that is not served": {func(in *Installation) { in.Definitions[definitions[1]] = Definition{} }, "definitions", Waiting, "CustomResourceDefinition " + definitions[1], "does not serve it", "kubectl describe crd"},
		"no manager":                      {func(in *Installation) { in.Deployments = nil }, "manager", Failed, "", "no manager", "kubectl apply -k config/default"},
		"a manager not ready":             {func(in *Installation) { in.Deployments[0].Status.ReadyReplicas = 0 }, "manager", Waiting, "Deployment eventflow-system/eventflow-manager", "no manager is ready", "kubectl -n eventflow-system describe pods"},
		"a manager scaled to 0": {func(in *Installation) {
			in.Deployments[0].Spec.Replicas, in.Deployments[0].Status = ptr.To(int32(0)), appsv1.DeploymentStatus{}
		}, "manager", Failed, "Deployment eventflow-system/eventflow-manager", "no manager is ready", "describe pods"},
		"another's dead API": {func(in *Installation) { in.APIServices[1].Available = false }, "apiservices", Warning, "APIService v1beta1.metrics.k8s.io", "does not answer", "kubectl describe apiservice"},
		"the dead deliveries API": {func(in *Installation) {
			in.APIServices = append(in.APIServices, APIService{Name: "v1alpha1." + deliveriesGroup, Service: "eventflow-system/a", Reason: "MissingEndpoints"})
		}, "apiservices", Failed, "APIService v1alpha1." + deliveriesGroup, "MissingEndpoints", "kubectl delete apiservice"},
		"no dispatcher": {func(in *Installation) { in.Dispatchers, in.Subscriptions, in.Secrets = nil, nil, nil }, "dispatchers", Failed, "", "no WebhookDispatcher", "kubectl apply -k config/dispatchers/embedded"},
		"an image not there": {func(in *Installation) {
			container(in, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}})
		}, "pods", Failed, "Pod eventflow-system/eventflow-dispatcher-default-1", "cannot be pulled: eventflow:1", "describe pod"},
		"a pod that dies": {func(in *Installation) {
			container(in, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}})
		}, "pods", Failed, "Pod eventflow-system/eventflow-dispatcher-default-1", "again, 7 times", "logs eventflow-dispatcher-default-1 --previous"},
		"a pod without a node": {func(in *Installation) {
			in.Pods[0].Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable"}}
		}, "pods", Waiting, "Pod eventflow-system/eventflow-dispatcher-default-1", "no node takes it", "describe pod"},
		"a pod not ready": {func(in *Installation) { in.Pods[0].Status.Conditions[0].Status = corev1.ConditionFalse }, "pods", Waiting, "Pod eventflow-system/eventflow-dispatcher-default-1", "not ready", "describe pod"},
		"pods that are refused": {func(in *Installation) {
			in.Deployments[0].Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "violates PodSecurity"}}
		}, "pods", Failed, "Deployment eventflow-system/eventflow-manager", "refuses its pods", "describe replicasets"},
		"an old dispatcher": {func(in *Installation) { in.Dispatchers[0].Status.Version = "1.0.9" }, "versions", Warning, "WebhookDispatcher eventflow-system/default", "runs version 1.0.9", "version 1.0.9"},
		"two versions": {func(in *Installation) {
			other := in.Dispatchers[0]
			other.Name, other.Status.Version, other.Spec.Store.Embedded = "other", "1.2.4", nil
			in.Dispatchers = append(in.Dispatchers, other)
		}, "versions", Warning, "WebhookDispatcher eventflow-system/default", "another dispatcher 1.2.4", "rollout status"},
		"no default class": {func(in *Installation) { in.Classes, in.Claims = nil, nil }, "storage", Failed, "WebhookDispatcher eventflow-system/default", "no default storage class", "kubectl get storageclass"},
		"no such class": {func(in *Installation) {
			in.Dispatchers[0].Spec.Store.Embedded.StorageClassName, in.Claims = "slow", nil
		}, "storage", Failed, "WebhookDispatcher eventflow-system/default", "no storage class slow", "kubectl get storageclass"},
		"a volume not there":        {func(in *Installation) { in.Claims[0].Status.Phase = corev1.ClaimPending }, "storage", Waiting, "PersistentVolumeClaim eventflow-system/eventflow-dispatcher-default-store", "Pending", "describe pvc"},
		"a volume that cannot grow": {func(in *Installation) { in.Dispatchers[0].Spec.Store.Embedded.Size = resource.MustParse("20Gi") }, "storage", Failed, "PersistentVolumeClaim eventflow-system/eventflow-dispatcher-default-store", "lets no volume grow", "patch storageclass fast"},
		"a volume that grows": {func(in *Installation) {
			in.Dispatchers[0].Spec.Store.Embedded.Size, in.Classes[0].AllowVolumeExpansion = resource.MustParse("20Gi"), ptr.To(true)
		}, "storage", Warning, "PersistentVolumeClaim eventflow-system/eventflow-dispatcher-default-store", "growing to 20Gi", "describe pvc"},
		"no Pod Security":          {func(in *Installation) { in.Namespaces[0].Labels = nil }, "podsecurity", Note, "Namespace eventflow-system", "held to nothing", "kubectl label namespace eventflow-system"},
		"a certificate that ended": {tls(now.Add(-time.Minute)), "certificates", Failed, "Secret eventflow-system/tls", "ended on 2026-01-15", "renew it"},
		"a client certificate that ends": {func(in *Installation) {
			sub := &in.Subscriptions[0]
			sub.Spec.TLS.ClientCertificateSecretRef.Name = "ours"
			in.Secrets[client.ObjectKey{Namespace: sub.Namespace, Name: "ours"}] = map[string][]byte{"tls.crt": certificate(t, now.Add(-time.Hour), now.Add(50*time.Hour)), "tls.key": nil}
		}, "certificates", Warning, "Secret clinic-a/ours", "ends in 2 days", "renew it"},
		"a certificate that ends":                  {tls(now.Add(50 * time.Hour)), "certificates", Warning, "Secret eventflow-system/tls", "ends in 2 days", "renew it"},
		"a subscription whose change was not seen": {func(in *Installation) { in.Subscriptions[0].Generation = 2 }, "subscriptions", Waiting, "WebhookSubscription clinic-a/billing", "NotSeen", "logs deployment/eventflow-manager"},
		"deliveries that kubectl does not have": {func(in *Installation) {
			in.Dispatchers[0].Status.Conditions = append(in.Dispatchers[0].Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionDeliveriesAPIReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonUnreachable})
		}, "dispatchers", Warning, "WebhookDispatcher eventflow-system/default", "Unreachable", "get endpoints eventflow-deliveries-default"},
		"a dispatcher whose change was not seen": {func(in *Installation) { in.Dispatchers[0].Generation = 2 }, "dispatchers", Waiting, "WebhookDispatcher eventflow-system/default", "NotSeen", "logs deployment/eventflow-manager"},
		"a subscription that is suspended":       {func(in *Installation) { in.Subscriptions[0].Status.Conditions[0].Reason = v1alpha1.ReasonSuspended }, "subscriptions", Note, "WebhookSubscription clinic-a/billing", "suspended", `kubectl -n clinic-a patch webhooksubscription/billing --type=merge -p '{"spec":{"suspend":false}}'`},
		"an endpoint that fails": {func(in *Installation) {
			in.Subscriptions[0].Status.Conditions = append(in.Subscriptions[0].Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionEndpointHealthy, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonCircuitOpen})
		}, "subscriptions", Warning, "WebhookSubscription clinic-a/billing", "EndpointHealthy is False: CircuitOpen", "lastFailure"},
		"a filter that fails": {func(in *Installation) {
			in.Subscriptions[0].Status.Conditions = append(in.Subscriptions[0].Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionFilterHealthy, Status: metav1.ConditionFalse, Reason: "NoSuchOverload"})
		}, "subscriptions", Warning, "WebhookSubscription clinic-a/billing", "FilterHealthy is False", "eventflow test tries it"},
		"a Secret that is not there": {func(in *Installation) { in.Secrets[client.ObjectKey{Namespace: "clinic-a", Name: "keys"}] = nil }, "secrets", Waiting, "Secret clinic-a/keys", "does not exist", "create secret generic keys --from-file=current=FILE"},
		"a key that is not there": {func(in *Installation) {
			in.Secrets[client.ObjectKey{Namespace: "clinic-a", Name: "keys"}] = map[string][]byte{}
		}, "secrets", Failed, "Secret clinic-a/keys", "no key current", "kubectl -n clinic-a edit secret keys"},
		"a name that is not there": {func(in *Installation) { in.Hosts["billing.example.com"] = Host{Unknown: true} }, "endpoints", Warning, "WebhookSubscription clinic-a/billing", "DNS does not know", "spec.url"},
		"a private address":        {address("10.1.2.3"), "endpoints", Warning, "WebhookSubscription clinic-a/billing", "an address that spec.egress does not allow", "spec.egress.rules for the namespace clinic-a"},
		"a metadata service":       {address("169.254.169.254"), "endpoints", Warning, "WebhookSubscription clinic-a/billing", "an address that spec.egress does not allow", "spec.egress"},
		"a denied address": {func(in *Installation) {
			in.Dispatchers[0].Spec.Egress.DeniedCIDRs = []string{"93.184.0.0/16", "203.0.0.0/8"}
		}, "endpoints", Warning, "WebhookSubscription clinic-a/billing", "an address that spec.egress does not allow", "spec.egress"},
		"a port": {func(in *Installation) { in.Subscriptions[0].Spec.URL = "https://billing.example.com:25/" }, "endpoints", Warning, "WebhookSubscription clinic-a/billing", "a port that spec.egress does not allow: 25", "spec.egress"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			findings := examine(healthy(test.change), checks())
			if len(findings) != 1 {
				t.Fatalf("found %+v, want one thing", findings)
			}
			f := findings[0]
			if f.Check != test.check || f.Level != test.level || f.Object != test.object || !strings.Contains(f.Problem, test.problem) || !strings.Contains(f.Mend, test.mend) {
				t.Errorf("found %+v", f)
			}
		})
	}
	if findings := examine(healthy(nil), checks()); len(findings) > 0 {
		t.Errorf("nothing is wrong, and found %+v", findings)
	}
}

// TestRulesLetEndpointsBeReached: what spec.egress allows is not found.
func TestRulesLetEndpointsBeReached(t *testing.T) {
	t.Parallel()
	for name, egress := range map[string]v1alpha1.Egress{
		"for all":          {AllowedCIDRs: []string{"10.0.0.0/8"}},
		"by a rule":        {Rules: []v1alpha1.EgressRule{{NamespaceSelector: &metav1.LabelSelector{}, CIDRs: []string{"10.0.0.0/8"}}}},
		"by a rule's port": {Rules: []v1alpha1.EgressRule{{NamespaceSelector: &metav1.LabelSelector{}, CIDRs: []string{"10.0.0.0/8"}, Ports: []int32{443}}}},
	} {
		in := healthy(func(in *Installation) {
			in.Dispatchers[0].Spec.Egress = egress
			in.Hosts["billing.example.com"] = Host{Addresses: []netip.Addr{netip.MustParseAddr("10.1.2.3")}}
		})
		if findings := examine(in, checks()); len(findings) > 0 {
			t.Errorf("%s: %+v", name, findings)
		}
	}
	in := healthy(func(in *Installation) {
		in.Dispatchers[0].Spec.Egress = v1alpha1.Egress{Rules: []v1alpha1.EgressRule{{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, CIDRs: []string{"10.0.0.0/8"}}}}
		in.Hosts["billing.example.com"] = Host{Addresses: []netip.Addr{netip.MustParseAddr("10.1.2.3")}}
	})
	if findings := examine(in, checks()); len(findings) != 1 {
		t.Errorf("a rule of other namespaces: %+v", findings)
	}
}

// TestVerdictIsThatOfKstatus: on each state of docs/states.md, the level is what Flux waits by, and the command is there.
func TestVerdictIsThatOfKstatus(t *testing.T) {
	t.Parallel()
	verdicts := map[string]Level{"Failed": Failed, "InProgress": Waiting, "Current": ""}
	for file, judge := range map[string]func(t *testing.T, object map[string]any) []Finding{
		states.Subscriptions: func(t *testing.T, object map[string]any) []Finding {
			t.Helper()
			in := &Installation{Subscriptions: make([]v1alpha1.WebhookSubscription, 1)}
			convert(t, object, &in.Subscriptions[0])
			return findSubscriptions(in)
		},
		states.Replays: func(t *testing.T, object map[string]any) []Finding {
			t.Helper()
			in := &Installation{Replays: make([]v1alpha1.WebhookReplay, 1)}
			convert(t, object, &in.Replays[0])
			return findReplays(in)
		},
		states.Dispatchers: func(t *testing.T, object map[string]any) []Finding {
			t.Helper()
			in := &Installation{Dispatchers: make([]v1alpha1.WebhookDispatcher, 1)}
			convert(t, object, &in.Dispatchers[0])
			return findDispatchers(in)
		},
	} {
		for _, example := range states.Examples(t, "../..", file) {
			level := Level("")
			for _, f := range judge(t, example.Object) {
				if f.Level == Failed || f.Level == Waiting {
					level = f.Level
				}
				if f.Mend == "" || regexp.MustCompile(`\b(OBJECT|NAMESPACE|NAME|RESUME|DISPATCHER)\b`).MatchString(f.Mend) {
					t.Errorf("%s %s: %q says not what to do", file, example.Row, f.Mend)
				}
			}
			if level != verdicts[example.Kstatus] {
				t.Errorf("%s %s: doctor says %q, kstatus %s", file, example.Row, level, example.Kstatus)
			}
		}
	}
}

func convert(t *testing.T, object map[string]any, into any) {
	t.Helper()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object, into); err != nil {
		t.Fatal(err)
	}
}

// TestEveryReasonHasAdvice: each reason that a condition which is False may have.
func TestEveryReasonHasAdvice(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../api/v1alpha1/conditions.go")
	if err != nil {
		t.Fatal(err)
	}
	fine := map[string]bool{"Accepted": true, "Programmed": true, "NoAttempts": true, "Evaluated": true, "Delivering": true, "Ready": true, "Available": true, "StoreReady": true, "Served": true, "Completed": true, "NotSuspended": true}
	reasons := regexp.MustCompile(`(?m)^\s+Reason\w+ += "(\w+)"`).FindAllStringSubmatch(string(text), -1)
	if len(reasons) < 40 {
		t.Fatalf("found %d reasons", len(reasons))
	}
	for _, reason := range reasons {
		if !fine[reason[1]] && advice[reason[1]] == "" {
			t.Errorf("there is no advice for %s", reason[1])
		}
	}
}

// TestReport: text for people, JSON for programs, and an exit code for both. No value of a Secret is in either.
func TestReport(t *testing.T) {
	t.Parallel()
	broken := healthy(func(in *Installation) {
		in.Secrets[client.ObjectKey{Namespace: "clinic-a", Name: "keys"}] = map[string][]byte{"other": []byte("never shown")}
		in.Namespaces[0].Labels = nil
	})
	for _, output := range []string{"text", "json"} {
		var out bytes.Buffer
		if err := report(&out, output, examine(broken, checks())); !errors.Is(err, errBroken) || exit.Code(err) != exit.Failure {
			t.Errorf("%s: %v", output, err)
		}
		if text := out.String(); strings.Contains(text, "never shown") || !strings.Contains(text, "kubectl -n clinic-a edit secret keys") || strings.Index(text, "Failed") > strings.Index(text, "Note") {
			t.Errorf("%s: %s", output, text)
		}
		out.Reset()
		noted := healthy(func(in *Installation) { in.Namespaces[0].Labels = nil })
		if err := report(&out, output, examine(noted, checks())); err != nil {
			t.Errorf("%s: a note alone: %v", output, err)
		}
	}
	var out bytes.Buffer
	if err := report(&out, "json", examine(healthy(nil), checks())); err != nil {
		t.Fatal(err)
	}
	var said struct {
		Healthy  bool
		Findings []Finding
	}
	if err := json.Unmarshal(out.Bytes(), &said); err != nil || !said.Healthy || said.Findings == nil {
		t.Errorf("%s: %v", out.String(), err)
	}
}
