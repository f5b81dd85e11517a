package dispatcher

import (
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// observed is a dispatcher that runs as it should.
func observed() observation {
	return observation{
		dispatcher: &v1alpha1.WebhookDispatcher{
			ObjectMeta: metav1.ObjectMeta{Namespace: "eventflow-system", Name: "main"},
			Spec: v1alpha1.WebhookDispatcherSpec{
				Replicas: ptr.To(int32(1)),
				Store:    v1alpha1.Store{Embedded: &v1alpha1.EmbeddedStore{Size: resource.MustParse("10Gi")}},
			},
		},
		claim: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: "claim"},
			Spec: corev1.PersistentVolumeClaimSpec{
				StorageClassName: ptr.To("fast"),
				Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10Gi")}},
			},
		},
		deployment: &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Generation: 4},
			Status:     appsv1.DeploymentStatus{ObservedGeneration: 4, Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: 1, AvailableReplicas: 1},
		},
	}
}

func TestConditions(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		edit         func(*observation)
		wantAccepted string // reason
		wantReady    string // reason
		wantWords    string // in the message of Ready
	}{
		"up": {func(*observation) {}, v1alpha1.ReasonAccepted, v1alpha1.ReasonReady, "up"},
		"no claim yet": {
			func(o *observation) { o.claim = nil }, v1alpha1.ReasonAccepted, v1alpha1.ReasonReady, "",
		},
		"larger store": {
			func(o *observation) { o.dispatcher.Spec.Store.Embedded.Size = resource.MustParse("20Gi") },
			v1alpha1.ReasonAccepted, v1alpha1.ReasonReady, "",
		},
		"same size, written differently": {
			func(o *observation) { o.dispatcher.Spec.Store.Embedded.Size = resource.MustParse("10240Mi") },
			v1alpha1.ReasonAccepted, v1alpha1.ReasonReady, "",
		},
		"smaller store": {
			func(o *observation) { o.dispatcher.Spec.Store.Embedded.Size = resource.MustParse("5Gi") },
			v1alpha1.ReasonStoreImmutable, v1alpha1.ReasonReady, "up",
		},
		"same class": {
			func(o *observation) { o.dispatcher.Spec.Store.Embedded.StorageClassName = "fast" },
			v1alpha1.ReasonAccepted, v1alpha1.ReasonReady, "",
		},
		"other class": {
			func(o *observation) { o.dispatcher.Spec.Store.Embedded.StorageClassName = "slow" },
			v1alpha1.ReasonStoreImmutable, v1alpha1.ReasonReady, "up",
		},
		"other access mode": {
			func(o *observation) { o.dispatcher.Spec.Store.Embedded.AccessMode = "ReadWriteOnce" },
			v1alpha1.ReasonStoreImmutable, v1alpha1.ReasonReady, "up",
		},
		"a volume that grew by itself": {
			func(o *observation) {
				o.claim.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("20Gi")
			},
			v1alpha1.ReasonStoreImmutable, v1alpha1.ReasonReady, "up",
		},
		"a class that does not grow": {
			func(o *observation) { o.fixed = "only dynamically provisioned claims can be resized" },
			v1alpha1.ReasonStoreImmutable, v1alpha1.ReasonReady, "up",
		},
		"resource is no label": {
			func(o *observation) { o.dispatcher.Spec.EventResources = []string{"Invoice"} },
			v1alpha1.ReasonInvalidSpec, v1alpha1.ReasonInvalidSpec, "Invoice",
		},
		"selector is none": {
			func(o *observation) {
				o.dispatcher.Spec.Subscriptions.NamespaceSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "Near"}}
			},
			v1alpha1.ReasonInvalidSpec, v1alpha1.ReasonInvalidSpec, "Near",
		},
		"no Secret to connect by": {
			func(o *observation) {
				o.connection = connection{reason: v1alpha1.ReasonSecretNotFound, message: "there is no Secret db"}
			},
			v1alpha1.ReasonSecretNotFound, v1alpha1.ReasonSecretNotFound, "Secret db",
		},
		"store is away": {
			func(o *observation) {
				o.dispatcher.Status.Store.Reason = v1alpha1.ReasonDatabaseUnreachable
				o.deployment.Status.AvailableReplicas = 0
			},
			v1alpha1.ReasonAccepted, v1alpha1.ReasonDatabaseUnreachable, "the store is not ready: the database does not answer",
		},
		"store is away, and no replicas wanted": {
			func(o *observation) {
				o.dispatcher.Status.Store.Reason = v1alpha1.ReasonDatabaseUnreachable
				o.dispatcher.Spec.Replicas = ptr.To(int32(0))
			},
			v1alpha1.ReasonAccepted, v1alpha1.ReasonSuspended, "replicas",
		},
		"store is ready": {
			func(o *observation) {
				o.dispatcher.Status.Store.Reason = v1alpha1.ReasonStoreReady
			},
			v1alpha1.ReasonAccepted, v1alpha1.ReasonReady, "up",
		},
		"refused by the API server": {
			func(o *observation) { o.refused = "apply PersistentVolumeClaim: forbidden" },
			v1alpha1.ReasonAccepted, v1alpha1.ReasonNotReady, "forbidden",
		},
		"no replicas wanted": {
			func(o *observation) { o.dispatcher.Spec.Replicas = ptr.To(int32(0)) },
			v1alpha1.ReasonAccepted, v1alpha1.ReasonSuspended, "replicas",
		},
		"no selector of a quota": {
			func(o *observation) {
				o.dispatcher.Spec.Quotas.Overrides = []v1alpha1.QuotaOverride{{NamespaceSelector: noSelector()}}
			}, v1alpha1.ReasonInvalidSpec, v1alpha1.ReasonInvalidSpec, "spec.quotas.overrides[0].namespaceSelector",
		},
		"no selector of a rule": {
			func(o *observation) {
				o.dispatcher.Spec.Egress.Rules = []v1alpha1.EgressRule{{NamespaceSelector: &metav1.LabelSelector{}}, {NamespaceSelector: noSelector()}}
			}, v1alpha1.ReasonInvalidSpec, v1alpha1.ReasonInvalidSpec, "spec.egress.rules[1].namespaceSelector",
		},
		"no deployment yet": {
			func(o *observation) { o.deployment = nil }, v1alpha1.ReasonAccepted, v1alpha1.ReasonPending, "",
		},
		"deployment not observed": {
			func(o *observation) { o.deployment.Generation = 5 }, v1alpha1.ReasonAccepted, v1alpha1.ReasonPending, "kubectl",
		},
		"pods not available": {
			func(o *observation) { o.deployment.Status.AvailableReplicas = 0 },
			v1alpha1.ReasonAccepted, v1alpha1.ReasonPending, "kubectl",
		},
		"old pods still there": {
			func(o *observation) { o.deployment.Status.UpdatedReplicas = 0 },
			v1alpha1.ReasonAccepted, v1alpha1.ReasonPending, "kubectl",
		},
		"pods refused": {
			func(o *observation) {
				o.deployment.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota"}}
			},
			v1alpha1.ReasonAccepted, v1alpha1.ReasonNotReady, "exceeded quota",
		},
		"rollout stuck": {
			func(o *observation) {
				o.deployment.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse}}
			},
			v1alpha1.ReasonAccepted, v1alpha1.ReasonNotReady, "kubectl",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := observed()
			test.edit(&o)
			a := accepted(o)
			fine := a.Reason == v1alpha1.ReasonAccepted || a.Reason == v1alpha1.ReasonStoreImmutable
			if a.Reason != test.wantAccepted || (a.Status == metav1.ConditionTrue) != fine {
				t.Errorf("Accepted=%s (%s), want reason %s", a.Status, a.Reason, test.wantAccepted)
			}
			r, _ := ready(o, a, storeReady(o))
			fine = r.Reason == v1alpha1.ReasonReady || r.Reason == v1alpha1.ReasonSuspended
			if r.Reason != test.wantReady || (r.Status == metav1.ConditionTrue) != fine || !strings.Contains(r.Message, test.wantWords) {
				t.Errorf("Ready=%s (%s) %q, want reason %s and %q", r.Status, r.Reason, r.Message, test.wantReady, test.wantWords)
			}
		})
	}
}

// TestWhatIsIgnoredIsSaid: a store that cannot become what the spec says works on, and the condition says what is ignored.
func TestWhatIsIgnoredIsSaid(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		edit func(*observation)
		want string
	}{
		"smaller":     {func(o *observation) { o.dispatcher.Spec.Store.Embedded.Size = resource.MustParse("5Gi") }, "set the size to 10Gi"},
		"other class": {func(o *observation) { o.dispatcher.Spec.Store.Embedded.StorageClassName = "slow" }, `"slow"`},
		"fixed class": {func(o *observation) { o.fixed = "only dynamically provisioned claims can be resized" }, "dynamically provisioned"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := observed()
			test.edit(&o)
			if a := accepted(o); a.Status != metav1.ConditionTrue || !strings.Contains(a.Message, test.want) || !strings.Contains(a.Message, "ignored") {
				t.Errorf("Accepted=%s (%s): %s", a.Status, a.Reason, a.Message)
			}
		})
	}
}

func noSelector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Unknown"}}}
}

// TestAllowedCIDRsWarn: what opens a range to every tenant says so.
func TestAllowedCIDRsWarn(t *testing.T) {
	t.Parallel()
	o := observed()
	if c := accepted(o); strings.Contains(c.Message, "every tenant") {
		t.Errorf("it warns of nothing: %s", c.Message)
	}
	o.dispatcher.Spec.Egress.AllowedCIDRs = []string{"10.0.0.0/8"}
	if c := accepted(o); c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, "every tenant") || !strings.Contains(c.Message, "spec.egress.rules") {
		t.Errorf("Accepted=%s: %s", c.Status, c.Message)
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	base := []string{
		"dispatcher", "--dispatcher-name=main", "--dispatcher-namespace=eventflow-system",
		"--routes=kubernetes", "--settings=kubernetes", "--ops-listen=:8081",
	}
	secured := []string{"--listen=:8444", "--tls-cert-file=/etc/eventflow/ingest/tls.crt", "--tls-key-file=/etc/eventflow/ingest/tls.key", "--audit-level=Reads"}
	tests := map[string]struct {
		spec v1alpha1.WebhookDispatcherSpec
		want []string
	}{
		"nothing set": {v1alpha1.WebhookDispatcherSpec{}, []string{"--ingest-auth=kubernetes", "--store=pebble:/data"}},
		"a database": {
			v1alpha1.WebhookDispatcherSpec{Store: v1alpha1.Store{Postgres: &v1alpha1.PostgresStore{}}},
			[]string{"--ingest-auth=kubernetes", "--state-dir=/state"},
		},
		"everything set": {
			v1alpha1.WebhookDispatcherSpec{
				Ingest: v1alpha1.Ingest{Authentication: v1alpha1.IngestNone, MaxEventBytes: 2048, OutageGrace: &metav1.Duration{}, Hosts: []string{"events.example.com"}},
				Limits: v1alpha1.Limits{AttemptsInFlight: 4096, Connections: 2000, Memory: resource.MustParse("1Gi")},
				Quotas: v1alpha1.Quotas{
					TenantLimits: v1alpha1.TenantLimits{
						Subscriptions: 10, ConfigurationBytes: resource.MustParse("1Mi"), EventsPerSecond: 100, EventsBurst: 500,
						PendingBytes: resource.MustParse("1Gi"), PendingDeliveries: 100000, ScheduledDeliveries: 50000, AttemptsInFlight: 64,
					},
					Overrides: []v1alpha1.QuotaOverride{{NamespaceSelector: &metav1.LabelSelector{}, TenantLimits: v1alpha1.TenantLimits{EventsPerSecond: 1}}},
				},
				Retention: v1alpha1.Retention{
					Delivered: metav1.Duration{Duration: 24 * time.Hour},
					Failed:    metav1.Duration{Duration: 720 * time.Hour},
				},
				Egress: v1alpha1.Egress{
					AllowHTTP:    ptr.To(true),
					AllowedPorts: []int32{25, 853},
					AllowedCIDRs: []string{"10.96.0.0/12", "fd00::/8"},
					DeniedCIDRs:  []string{"10.96.0.1/32"},
				},
				EventResources: []string{"claim", "invoice"},
			},
			[]string{
				"--ingest-auth=none", "--store=pebble:/data", "--ingest-host=events.example.com",
				"--max-in-flight=4096", "--max-connections=2000", "--max-memory=1073741824",
			},
		},
		"http not allowed":              {v1alpha1.WebhookDispatcherSpec{Egress: v1alpha1.Egress{AllowHTTP: ptr.To(false)}}, []string{"--ingest-auth=kubernetes", "--store=pebble:/data"}},
		"an authentication of tomorrow": {v1alpha1.WebhookDispatcherSpec{Ingest: v1alpha1.Ingest{Authentication: "Future"}}, []string{"--ingest-auth=kubernetes", "--store=pebble:/data"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := observed().dispatcher
			d.Spec = test.spec
			wanted := slices.Insert(slices.Clone(test.want), 1, secured...) // behind the authentication
			if got, want := arguments(d), slices.Concat(base, wanted); !slices.Equal(got, want) {
				t.Errorf("arguments\n%v, want\n%v", got, want)
			}
		})
	}
}

func TestPodIsRestricted(t *testing.T) {
	t.Parallel()
	d := observed().dispatcher
	d.Spec.Template.Resources = corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}}
	configuration, err := deployment(d, "", Image{Name: "eventflow:test", PullPolicy: corev1.PullNever})
	if err != nil {
		t.Fatal(err)
	}
	var got appsv1.Deployment
	if err := convert(configuration, &got); err != nil {
		t.Fatal(err)
	}
	pod, container := got.Spec.Template.Spec, got.Spec.Template.Spec.Containers[0]
	for what, ok := range map[string]bool{
		"runs as a user other than root":    *pod.SecurityContext.RunAsNonRoot && *pod.SecurityContext.RunAsUser == nonRoot && *pod.SecurityContext.FSGroup == nonRoot,
		"has the default seccomp profile":   pod.SecurityContext.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault,
		"cannot gain privileges":            !*container.SecurityContext.AllowPrivilegeEscalation && slices.Equal(container.SecurityContext.Capabilities.Drop, []corev1.Capability{"ALL"}),
		"cannot write its image":            *container.SecurityContext.ReadOnlyRootFilesystem,
		"has 40 s to stop":                  *pod.TerminationGracePeriodSeconds == 40,
		"may start for more than 60 s":      container.StartupProbe.PeriodSeconds*container.StartupProbe.FailureThreshold > 120,
		"has the resources of the template": container.Resources.Requests.Cpu().String() == "2" && container.Resources.Limits == nil,
		"pulls as the manager's pod does":   container.ImagePullPolicy == corev1.PullNever,
		"keeps its store on the claim":      pod.Volumes[0].PersistentVolumeClaim.ClaimName == "eventflow-dispatcher-main-store" && container.VolumeMounts[0].MountPath == storePath,
	} {
		if !ok {
			t.Errorf("it is not so that the pod %s", what)
		}
	}
}

// TestPodIsToldToReportTheRevision: what a pod of this version reports follows from its environment, which one of the version before
// ignores. A template may say otherwise.
func TestPodIsToldToReportTheRevision(t *testing.T) {
	t.Parallel()
	const name = "EVENTFLOW_PROGRAMMED_BY_REVISION"
	for value, template := range map[string][]corev1.EnvVar{
		"true":  {{Name: "TZ", Value: "UTC"}},
		"false": {{Name: name, Value: "false"}},
	} {
		for _, postgres := range []*v1alpha1.PostgresStore{nil, database(true)} {
			d := observed().dispatcher
			d.Spec.Template.Env, d.Spec.Store.Postgres = template, postgres
			configuration, err := deployment(d, "", Image{Name: "eventflow:test"})
			if err != nil {
				t.Fatal(err)
			}
			var got appsv1.Deployment
			if err := convert(configuration, &got); err != nil {
				t.Fatal(err)
			}
			var found []string
			for _, v := range got.Spec.Template.Spec.Containers[0].Env {
				if v.Name == name {
					found = append(found, v.Value)
				}
			}
			if !slices.Equal(found, []string{value}) {
				t.Errorf("%s is %q, want %q", name, found, value)
			}
		}
	}
}

// convert copies an apply configuration into the API object of the same fields.
func convert(configuration, object any) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(configuration)
	if err != nil {
		return err
	}
	return runtime.DefaultUnstructuredConverter.FromUnstructured(content, object)
}
