package dispatcher

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/announce"
	"github.com/clinikapi/eventflow/controllers/status"
	"github.com/clinikapi/eventflow/test/kit/states"
)

var update = flag.Bool("update", false, "write the tables of docs/states.md")

const document = "../../docs/states.md"

// The dimensions of a dispatcher's state.
var (
	specs     = []string{"valid", "invalid", "`replicas: 0`", "a store that cannot be"}
	secrets   = []string{"found", "missing", "unusable"}
	refusals  = []string{"nothing", "an object"}
	podStates = []string{"no Deployment", "not looked at by Kubernetes", "starting", "up", "being replaced, old ones serve", "refused", "stuck", "died"}
	stores    = []string{"nothing", "StoreReady", "DatabaseUnreachable", "StoreDamaged"}
	versions  = []string{"the manager's", "another"}
)

// state is one, or in a row of the table a pattern: "" stands for any.
type state struct{ spec, secrets, refused, pods, store, version string }

func (s state) fits(other state) bool {
	is := func(pattern, value string) bool { return pattern == "" || pattern == value }
	return is(s.spec, other.spec) && is(s.secrets, other.secrets) && is(s.refused, other.refused) && is(s.pods, other.pods) &&
		is(s.store, other.store) && is(s.version, other.version)
}

// rows are the table: the first that fits a state holds. Rows differ in Ready alone; Available stands in rows of its own.
var rows = []state{
	{spec: "invalid"},
	{secrets: "missing"},
	{secrets: "unusable"},
	{refused: "an object"},
	{spec: "`replicas: 0`"},
	{store: "DatabaseUnreachable"},
	{store: "StoreDamaged"},
	{pods: "no Deployment"},
	{pods: "refused"},
	{pods: "stuck"},
	{pods: "not looked at by Kubernetes"},
	{pods: "starting"},
	{pods: "being replaced, old ones serve"},
	{pods: "died"},
	{version: "another"},
	{spec: "a store that cannot be"},
	{spec: "valid"},
}

func all(yield func(state)) {
	for _, spec := range specs {
		for _, secret := range secrets {
			for _, refused := range refusals {
				for _, pod := range podStates {
					for _, store := range stores {
						for _, version := range versions {
							yield(state{spec, secret, refused, pod, store, version})
						}
					}
				}
			}
		}
	}
}

// observationOf is what the manager sees in a state.
func observationOf(s state) observation {
	o := observed()
	o.dispatcher.Generation = 7
	o.version, o.dispatcher.Status.Version = "v2", "v2"
	if s.version == "another" {
		o.dispatcher.Status.Version = "v1"
	}
	switch s.spec {
	case "invalid":
		o.dispatcher.Spec.EventResources = []string{"Invoice"}
	case "`replicas: 0`":
		o.dispatcher.Spec.Replicas = ptr.To(int32(0))
	case "a store that cannot be":
		o.dispatcher.Spec.Store.Embedded.Size = resource.MustParse("1Gi")
	}
	switch s.secrets {
	case "missing":
		o.connection = connection{reason: v1alpha1.ReasonSecretNotFound, message: "create it"}
	case "unusable":
		o.connection = connection{reason: v1alpha1.ReasonSecretKeyInvalid, message: "mend it"}
	}
	if s.refused != "nothing" {
		o.refused = "apply Service: forbidden"
	}
	if s.store != "nothing" {
		o.dispatcher.Status.Store.Reason = s.store
	}
	deploymentIn(&o, s.pods)
	return o
}

func deploymentIn(o *observation, pods string) {
	d := &o.deployment.Status
	switch pods {
	case "no Deployment":
		o.deployment = nil
	case "not looked at by Kubernetes":
		*d = appsv1.DeploymentStatus{}
	case "starting":
		*d = appsv1.DeploymentStatus{ObservedGeneration: 4, Replicas: 1, UpdatedReplicas: 1}
	case "being replaced, old ones serve":
		*d = appsv1.DeploymentStatus{ObservedGeneration: 4, Replicas: 2, UpdatedReplicas: 1, AvailableReplicas: 1, ReadyReplicas: 1}
	case "refused":
		*d = appsv1.DeploymentStatus{ObservedGeneration: 4, Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota"}}}
	case "stuck":
		*d = appsv1.DeploymentStatus{ObservedGeneration: 4, Replicas: 1, UpdatedReplicas: 1, Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse}}}
	case "died":
		*d = appsv1.DeploymentStatus{ObservedGeneration: 4, Replicas: 1, UpdatedReplicas: 1, Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue}}}
	}
}

// settle gives the dispatcher the conditions that the manager writes in a state.
func settle(s state) *v1alpha1.WebhookDispatcher {
	o := observationOf(s)
	o.dispatcher.Status.Conditions = status.Conditions(o.dispatcher, nil, decide(o)...)
	o.dispatcher.Status.ObservedGeneration = o.dispatcher.Generation
	return o.dispatcher
}

func said(d *v1alpha1.WebhookDispatcher, kind string) string {
	c := meta.FindStatusCondition(d.Status.Conditions, kind)
	if c == nil {
		return "none"
	}
	return fmt.Sprintf("%s (%s)", c.Status, c.Reason)
}

// TestStatesAreDocumented makes the tables of docs/states.md, and holds each state to the row that it falls under.
func TestStatesAreDocumented(t *testing.T) {
	fine := state{"valid", "found", "nothing", "up", "StoreReady", "the manager's"}
	outcomes, available, accepted := make([][]string, len(rows)), make([][]string, len(rows)), make([][]string, len(rows))
	all(func(s state) {
		d := settle(s)
		i := rowOf(s)
		if i < 0 {
			t.Fatalf("%+v is in no row", s)
		}
		ready := meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionReady)
		got := []string{string(ready.Status), ready.Reason, states.Kstatus(t, d)}
		if outcomes[i] == nil {
			outcomes[i] = got
		} else if !slices.Equal(outcomes[i], got) {
			t.Fatalf("%+v: %v, but row %+v says %v", s, got, rows[i], outcomes[i])
		}
		if a := said(d, v1alpha1.ConditionAccepted); !slices.Contains(accepted[i], a) {
			accepted[i] = append(accepted[i], a)
		}
		if a := string(meta.FindStatusCondition(d.Status.Conditions, v1alpha1.ConditionAvailable).Status); !slices.Contains(available[i], a) {
			available[i] = append(available[i], a)
		}
	})
	table := [][]string{}
	for i, row := range rows {
		if outcomes[i] == nil {
			t.Fatalf("row %+v is of no state", row)
		}
		cells := []string{row.spec, row.secrets, row.refused, row.pods, row.store, row.version}
		example := fine
		for i, field := range []*string{&example.spec, &example.secrets, &example.refused, &example.pods, &example.store, &example.version} {
			if cells[i] == "" {
				cells[i] = "any"
			} else {
				*field = cells[i]
			}
		}
		slices.SortFunc(available[i], func(a, b string) int { return len(a) - len(b) }) // True, False, Unknown
		table = append(table, slices.Concat(cells, outcomes[i], []string{strings.Join(accepted[i], " or "), strings.Join(available[i], " or "), reasons(settle(fine), settle(example))}))
	}
	header := []string{
		"spec", "Secrets", "refused by the API server", "pods", "store, as the pods say", "version that runs",
		"READY", "REASON", "kstatus", "Accepted", "AVAILABLE", "events",
	}
	states.Documented(t, document, "dispatchers", states.Table(header, table), *update)
}

// TestStoresAreDocumented makes the table of what pods report.
func TestStoresAreDocumented(t *testing.T) {
	fine := state{"valid", "found", "nothing", "up", "StoreReady", "the manager's"}
	rows := [][]string{}
	known := []string{""}
	for reason := range storeMessages {
		known = append(known, reason)
	}
	slices.Sort(known)
	for _, reason := range known {
		s := fine
		s.store = reason
		if reason == "" {
			s.store = "nothing"
		}
		d := settle(s)
		rows = append(rows, []string{s.store, said(d, v1alpha1.ConditionStoreReady), states.Kstatus(t, d), reasons(settle(fine), d)})
	}
	states.Documented(t, document, "stores", states.Table([]string{"store, as the pods say", "StoreReady", "kstatus", "events"}, rows), *update)
}

func reasons(before, after *v1alpha1.WebhookDispatcher) string {
	found := []string{}
	for _, e := range announce.OfDispatcher(before, after) {
		found = append(found, e.Reason)
	}
	return strings.Join(found, ", ")
}

// rowOf is the index of the state's row; -1 if it has none.
func rowOf(s state) int { return slices.IndexFunc(rows, func(row state) bool { return row.fits(s) }) }

// TestExamplesAreDocumented keeps an object of each row, of each report of a store, and of one that was not seen, for what
// judges them elsewhere.
func TestExamplesAreDocumented(t *testing.T) {
	t.Parallel()
	unseen := &v1alpha1.WebhookDispatcher{ObjectMeta: metav1.ObjectMeta{Generation: 1}}
	unseen.Status.ObservedGeneration = -1
	const kind = "WebhookDispatcher"
	examples := states.ExamplesOf(t, kind, unseen, all, rowOf, func(s state) any { return settle(s) })
	for _, reason := range slices.Sorted(maps.Keys(storeMessages)) {
		s := state{"valid", "found", "nothing", "up", reason, "the manager's"}
		examples = append(examples, states.NewExample(t, fmt.Sprintf("%+v", s), kind, "store-"+strings.ToLower(reason), settle(s)))
	}
	states.Golden(t, "../..", states.Dispatchers, examples, *update)
}

// TestEveryStateIsTrue holds each state to what its conditions claim.
func TestEveryStateIsTrue(t *testing.T) {
	t.Parallel()
	all(func(s state) {
		d := settle(s)
		said := func(kind string) metav1.ConditionStatus {
			c := meta.FindStatusCondition(d.Status.Conditions, kind)
			if c == nil {
				return metav1.ConditionFalse
			}
			return c.Status
		}
		is := func(kind string) bool { return said(kind) == metav1.ConditionTrue }
		serves := s.spec != "`replicas: 0`" && (s.store == "StoreReady" || s.store == "nothing") &&
			(s.pods == "up" || s.pods == "being replaced, old ones serve" || s.store == "StoreReady" && (s.pods == "not looked at by Kubernetes" || s.pods == "no Deployment"))
		if is(v1alpha1.ConditionAvailable) != serves {
			t.Errorf("%+v: Available=%s, and it serves: %t", s, said(v1alpha1.ConditionAvailable), serves)
		}
		if is(v1alpha1.ConditionStoreReady) && (s.pods == "died" || s.pods == "starting" || s.spec == "`replicas: 0`") {
			t.Errorf("%+v: StoreReady=True, and no pod can know", s)
		}
		if is(v1alpha1.ConditionReady) && !is(v1alpha1.ConditionAvailable) && s.spec != "`replicas: 0`" {
			t.Errorf("%+v: it is Ready, and not Available", s)
		}
		want := "Current"
		switch {
		case is(v1alpha1.ConditionStalled):
			want = "Failed"
		case !is(v1alpha1.ConditionReady):
			want = "InProgress"
		}
		if got := states.Kstatus(t, d); got != want {
			t.Errorf("%+v: kstatus says %s, the conditions %s", s, got, want)
		}
		one := 0
		for _, kind := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
			if is(kind) {
				one++
			}
		}
		if one != 1 {
			t.Errorf("%+v: want exactly one of Ready, Reconciling and Stalled, have %+v", s, d.Status.Conditions)
		}
		for _, c := range d.Status.Conditions {
			if c.ObservedGeneration != 7 || c.Reason == "" || c.Message == "" {
				t.Errorf("%+v: condition %+v", s, c)
			}
		}
	})
}
