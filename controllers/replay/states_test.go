package replay

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/test/kit/states"
)

var update = flag.Bool("update", false, "write the table of docs/states.md")

const document = "../../docs/states.md"

// The dimensions of a replay's state.
var (
	specs          = []string{"Replay", "Cancel", "`suspend: true`"}
	selections     = []string{"none, for less than 1 min", "none", "more than 256", "some", "one of a dispatcher that is not there"}
	progressStates = []string{"nothing yet", "Counting", "Running", "Waiting (QuotaExceeded)", "Waiting (StoreUnavailable)", "Suspended", "one of two is Finished", "Finished"}
)

// state is one, or in a row of the table a pattern: "" stands for any.
type state struct{ spec, subscriptions, dispatchers string }

func (s state) fits(other state) bool {
	is := func(pattern, value string) bool { return pattern == "" || pattern == value }
	return is(s.spec, other.spec) && is(s.subscriptions, other.subscriptions) && is(s.dispatchers, other.dispatchers)
}

// rows are the table: the first that fits a state holds.
var rows = []state{
	{subscriptions: "some", dispatchers: "Finished"},
	{subscriptions: "one of a dispatcher that is not there", dispatchers: "Finished"},
	{spec: "`suspend: true`"},
	{subscriptions: "none, for less than 1 min"},
	{subscriptions: "none"},
	{subscriptions: "more than 256"},
	{subscriptions: "one of a dispatcher that is not there"},
	{dispatchers: "nothing yet"},
	{dispatchers: "Suspended"},
	{dispatchers: "Waiting (QuotaExceeded)"},
	{dispatchers: "Waiting (StoreUnavailable)"},
	{dispatchers: "Counting"},
	{spec: "Replay"},
	{spec: "Cancel"},
}

func all(yield func(state)) {
	for _, spec := range specs {
		for _, subscriptions := range selections {
			for _, dispatchers := range progressStates {
				yield(state{spec, subscriptions, dispatchers})
			}
		}
	}
}

const generation = 3

var now = time.Date(2026, 1, 15, 9, 15, 0, 0, time.UTC)

var two = []v1alpha1.ReplaySubscription{{Name: "alerts", Dispatcher: "eventflow-system/default"}, {Name: "billing", Dispatcher: "eventflow-system/second"}}

func counted(name string, said v1alpha1.ReplayProgressState, reason string) v1alpha1.ReplayProgress {
	return v1alpha1.ReplayProgress{Name: name, State: said, Reason: reason, Selected: ptr.To(int64(10)), Done: ptr.To(int64(6)), PassedOver: ptr.To(int64(1))}
}

// observed is what the manager sees in a state.
func observed(s state) *observation {
	r := &v1alpha1.WebhookReplay{ObjectMeta: metav1.ObjectMeta{Generation: generation, CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))}}
	r.Spec = v1alpha1.WebhookReplaySpec{Action: v1alpha1.ActionReplay, SubscriptionRef: v1alpha1.SubscriptionReference{Name: "billing"}}
	switch s.spec {
	case "Cancel":
		r.Spec.Action = v1alpha1.ActionCancel
	case "`suspend: true`":
		r.Spec.Suspend = ptr.To(true)
	}
	o := &observation{replay: r, now: now}
	switch s.subscriptions {
	case "none, for less than 1 min":
		r.CreationTimestamp = metav1.NewTime(now.Add(-awaited + time.Second))
		return o
	case "none":
		return o
	case "more than 256":
		o.tooMany = true
		return o
	case "one of a dispatcher that is not there":
		o.missing = []string{"eventflow-system/second"}
	}
	r.Status.Subscriptions, o.subscriptions = two, two
	first := counted("eventflow-system/default", v1alpha1.ReplayFinished, "")
	second := map[string]v1alpha1.ReplayProgress{
		"Counting":                   {Name: "eventflow-system/second", State: v1alpha1.ReplayCounting},
		"Running":                    counted("eventflow-system/second", v1alpha1.ReplayRunning, ""),
		"Waiting (QuotaExceeded)":    counted("eventflow-system/second", v1alpha1.ReplayWaiting, v1alpha1.ReasonQuotaExceeded),
		"Waiting (StoreUnavailable)": counted("eventflow-system/second", v1alpha1.ReplayWaiting, v1alpha1.ReasonStoreUnavailable),
		"Suspended":                  counted("eventflow-system/second", v1alpha1.ReplaySuspended, ""),
		"one of two is Finished":     counted("eventflow-system/second", v1alpha1.ReplayRunning, ""),
		"Finished":                   counted("eventflow-system/second", v1alpha1.ReplayFinished, ""),
	}
	if s.dispatchers != "nothing yet" {
		r.Status.Dispatchers = []v1alpha1.ReplayProgress{first, second[s.dispatchers]}
	}
	return o
}

// settle gives a replay the status that the manager writes in a state.
func settle(s state) *v1alpha1.WebhookReplay {
	o := observed(s)
	wanted := wantedOf(o)
	st := &o.replay.Status
	st.ObservedGeneration, st.Conditions, st.Subscriptions = wanted.ObservedGeneration, wanted.Conditions, wanted.Subscriptions
	st.Selected, st.Done, st.PassedOver, st.Remaining = wanted.Selected, wanted.Done, wanted.PassedOver, wanted.Remaining
	st.StartTime, st.CompletionTime = wanted.StartTime, wanted.CompletionTime
	return o.replay
}

// TestStatesAreDocumented makes the table of docs/states.md, and holds each state to the row that it falls under.
func TestStatesAreDocumented(t *testing.T) {
	outcomes := make([][]string, len(rows))
	all(func(s state) {
		i := rowOf(s)
		if i < 0 {
			t.Errorf("%+v is in no row", s)
			return
		}
		r := settle(s)
		is := func(kind string) string { return string(meta.FindStatusCondition(r.Status.Conditions, kind).Status) }
		ready := meta.FindStatusCondition(r.Status.Conditions, v1alpha1.ConditionReady)
		got := []string{is(v1alpha1.ConditionComplete), ready.Reason, string(ready.Status), is(v1alpha1.ConditionSuspended), states.Kstatus(t, r)}
		if outcomes[i] == nil {
			outcomes[i] = got
		} else if fmt.Sprint(outcomes[i]) != fmt.Sprint(got) {
			t.Errorf("%+v: %v, but row %+v says %v", s, got, rows[i], outcomes[i])
		}
	})
	table := [][]string{}
	for i, row := range rows {
		if outcomes[i] == nil {
			t.Fatalf("row %+v is of no state", row)
		}
		cells := []string{row.spec, row.subscriptions, row.dispatchers}
		for i, cell := range cells {
			if cell == "" {
				cells[i] = "any"
			}
		}
		table = append(table, append(cells, outcomes[i]...))
	}
	header := []string{"spec", "subscriptions", "dispatchers say", "COMPLETE", "REASON", "Ready", "Suspended", "kstatus"}
	states.Documented(t, document, "replays", states.Table(header, table), *update)
}

// rowOf is the index of the state's row; -1 if it has none.
func rowOf(s state) int { return slices.IndexFunc(rows, func(row state) bool { return row.fits(s) }) }

// TestExamplesAreDocumented keeps an object of each row, and of one that was not seen, for what judges them elsewhere.
func TestExamplesAreDocumented(t *testing.T) {
	t.Parallel()
	unseen := &v1alpha1.WebhookReplay{ObjectMeta: metav1.ObjectMeta{Generation: 1}}
	unseen.Status.ObservedGeneration = -1
	const kind = "WebhookReplay"
	examples := states.ExamplesOf(t, kind, unseen, all, rowOf, func(s state) any { return settle(s) })
	states.Golden(t, "../..", states.Replays, examples, *update)
}

// TestEveryStateIsTrue holds each state to what its conditions and counts claim.
func TestEveryStateIsTrue(t *testing.T) {
	t.Parallel()
	n := 0
	all(func(s state) {
		n++
		r := settle(s)
		is := func(kind string) bool { return meta.IsStatusConditionTrue(r.Status.Conditions, kind) }
		some := s.subscriptions == "some" || s.subscriptions == "one of a dispatcher that is not there"
		complete := some && s.dispatchers == "Finished"
		if is(v1alpha1.ConditionComplete) != complete || (r.Status.CompletionTime != nil) != complete {
			t.Errorf("%+v: Complete=%t at %v", s, is(v1alpha1.ConditionComplete), r.Status.CompletionTime)
		}
		if want := s.spec == "`suspend: true`" && !complete; is(v1alpha1.ConditionSuspended) != want {
			t.Errorf("%+v: Suspended=%t", s, !want)
		}
		exclusive := 0
		for _, kind := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
			if is(kind) {
				exclusive++
			}
		}
		if exclusive != 1 {
			t.Errorf("%+v: want exactly one of Ready, Reconciling and Stalled, have %+v", s, r.Status.Conditions)
		}
		want := map[bool]string{true: "Current", false: "InProgress"}[is(v1alpha1.ConditionReady)]
		if is(v1alpha1.ConditionStalled) {
			want = "Failed"
		}
		if got := states.Kstatus(t, r); got != want {
			t.Errorf("%+v: kstatus says %s, the conditions %s", s, got, want)
		}
		for _, c := range r.Status.Conditions {
			if c.ObservedGeneration != generation || c.Reason == "" || c.Message == "" {
				t.Errorf("%+v: condition %+v", s, c)
			}
		}
		if complete && *r.Status.Remaining != 0 {
			t.Errorf("%+v: %d remain", s, *r.Status.Remaining)
		}
	})
	if want := len(specs) * len(selections) * len(progressStates); n != want {
		t.Errorf("%d states, want %d", n, want)
	}
}

// TestSums: what the dispatchers counted is added up; what a dispatcher of no selected subscription says is not.
func TestSums(t *testing.T) {
	t.Parallel()
	stray := counted("eventflow-system/third", v1alpha1.ReplayRunning, "")
	for name, test := range map[string]struct {
		dispatchers []v1alpha1.ReplayProgress
		want        [4]int64 // selected, done, passed over, remaining
		wantNone    bool
	}{
		"nobody":               {nil, [4]int64{}, true},
		"one counts":           {[]v1alpha1.ReplayProgress{{Name: two[0].Dispatcher, State: v1alpha1.ReplayCounting}, stray}, [4]int64{}, true},
		"one has, one not yet": {[]v1alpha1.ReplayProgress{counted(two[0].Dispatcher, v1alpha1.ReplayRunning, "")}, [4]int64{10, 6, 1, 3}, false},
		"both":                 {[]v1alpha1.ReplayProgress{counted(two[0].Dispatcher, v1alpha1.ReplayRunning, ""), stray, counted(two[1].Dispatcher, v1alpha1.ReplayRunning, "")}, [4]int64{20, 12, 2, 6}, false},
		"more came meanwhile":  {[]v1alpha1.ReplayProgress{{Name: two[0].Dispatcher, Selected: ptr.To(int64(1)), Done: ptr.To(int64(3))}}, [4]int64{1, 3, 0, 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, c, d := sum(&v1alpha1.WebhookReplayStatus{Dispatchers: test.dispatchers}, two)
			if (a == nil) != test.wantNone {
				t.Fatalf("selected %v", a)
			}
			if got := [4]int64{ptr.Deref(a, 0), ptr.Deref(b, 0), ptr.Deref(c, 0), ptr.Deref(d, 0)}; got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

// TestSelected: subscriptions are selected by name or by all of the labels, in the order of their names, and never more than fit.
func TestSelected(t *testing.T) {
	t.Parallel()
	sub := func(name string, labels map[string]string) (s v1alpha1.WebhookSubscription) {
		s.Name, s.Labels = name, labels
		s.Spec.DispatcherRef = v1alpha1.DispatcherReference{Namespace: "eventflow-system", Name: "default"}
		return s
	}
	subs := []v1alpha1.WebhookSubscription{sub("c", map[string]string{"tier": "gold", "site": "x"}), sub("b", map[string]string{"tier": "gold"}), sub("a", map[string]string{"tier": "tin"}), sub("d", nil)}
	var many []v1alpha1.WebhookSubscription
	for i := range maxSubscriptions + 1 {
		many = append(many, sub(fmt.Sprint("s", i), map[string]string{"tier": "gold"}))
	}
	by := func(labels map[string]v1alpha1.LabelValue) v1alpha1.WebhookReplaySpec {
		return v1alpha1.WebhookReplaySpec{Selector: v1alpha1.ReplaySelector{MatchLabels: labels}}
	}
	gold := by(map[string]v1alpha1.LabelValue{"tier": "gold"})
	for name, test := range map[string]struct {
		spec        v1alpha1.WebhookReplaySpec
		all         []v1alpha1.WebhookSubscription
		want        []string
		wantTooMany bool
	}{
		"a name":                 {v1alpha1.WebhookReplaySpec{SubscriptionRef: v1alpha1.SubscriptionReference{Name: "b"}}, subs, []string{"b"}, false},
		"no such name":           {v1alpha1.WebhookReplaySpec{SubscriptionRef: v1alpha1.SubscriptionReference{Name: "x"}}, subs, nil, false},
		"a label":                {gold, subs, []string{"b", "c"}, false},
		"both labels":            {by(map[string]v1alpha1.LabelValue{"tier": "gold", "site": "x"}), subs, []string{"c"}, false},
		"an empty value":         {by(map[string]v1alpha1.LabelValue{"site": ""}), subs, nil, false},
		"more than there may be": {gold, many, nil, true},
		"as many as may be":      {gold, many[:maxSubscriptions], nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found, tooMany := selected(&test.spec, test.all)
			var got []string
			for _, s := range found {
				got = append(got, s.Name)
			}
			if tooMany != test.wantTooMany || len(test.all) < 10 && !slices.Equal(got, test.want) || len(test.all) == maxSubscriptions && len(got) != maxSubscriptions {
				t.Errorf("got %d %v, too many: %v", len(got), got, tooMany)
			}
		})
	}
}

// TestFromGit: what Argo CD or Flux applied is known by their marks.
func TestFromGit(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		meta metav1.ObjectMeta
		want bool
	}{
		"kubectl":     {metav1.ObjectMeta{Labels: map[string]string{"app.kubernetes.io/instance": "x"}}, false},
		"Argo CD":     {metav1.ObjectMeta{Annotations: map[string]string{"argocd.argoproj.io/tracking-id": "app:x"}}, true},
		"its label":   {metav1.ObjectMeta{Labels: map[string]string{"argocd.argoproj.io/instance": "x"}}, true},
		"Flux":        {metav1.ObjectMeta{Labels: map[string]string{"kustomize.toolkit.fluxcd.io/name": "x"}}, true},
		"Flux's Helm": {metav1.ObjectMeta{Labels: map[string]string{"helm.toolkit.fluxcd.io/name": "x"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := fromGit(&v1alpha1.WebhookReplay{ObjectMeta: test.meta}); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

// TestCompleteStays: whatever a dispatcher's entry becomes afterwards, a replay is complete once.
func TestCompleteStays(t *testing.T) {
	t.Parallel()
	r := settle(state{"Replay", "some", "Finished"})
	r.Status.Dispatchers = nil
	at := r.Status.CompletionTime
	wanted := wantedOf(&observation{replay: r, subscriptions: r.Status.Subscriptions, now: now.Add(time.Hour)})
	if !meta.IsStatusConditionTrue(wanted.Conditions, v1alpha1.ConditionComplete) || !wanted.CompletionTime.Equal(at) {
		t.Errorf("it is %+v since %v", wanted.Conditions, wanted.CompletionTime)
	}
}
