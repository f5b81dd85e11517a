package status

import (
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// rules are those of an entry that has no more than them.
func rules(t *testing.T, e *routing.Entry) *routing.Rules {
	t.Helper()
	e.Identity, e.Namespace, e.Name, e.Patterns = "i", "clinic", "n", []event.Pattern{"*"}
	e.Waiting, e.MaxInFlight, e.Retry = "Waiting", 1, routing.Retry{Initial: time.Second, Max: time.Minute, MaxAge: time.Hour, Factor: 2}
	route, err := e.Route()
	if err != nil {
		t.Fatal(err)
	}
	return route.Rules
}

// TestScheduleIsShown: a schedule has a condition of its own, and what it has planned stands among the counts.
func TestScheduleIsShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		w, stop := start(t, f)
		defer stop()
		plain, scheduled := route("plain", 1), route("scheduled", 1)
		scheduled.Rules = rules(t, &routing.Entry{Schedule: &routing.Schedule{At: "event.timestamp"}})
		w.Use(table(t))
		w.Use(table(t, plain, scheduled))
		advance(time.Second)
		if c := f.condition("scheduled", v1alpha1.ConditionScheduleHealthy); c.Status != metav1.ConditionTrue {
			t.Errorf("ScheduleHealthy is %q", c.Status)
		}
		for name, condition := range map[string]string{"plain": v1alpha1.ConditionScheduleHealthy, "scheduled": v1alpha1.ConditionFilterHealthy} {
			if c := f.condition(name, condition); c.Status != "" {
				t.Errorf("%s has %s", name, condition)
			}
		}
		next := time.Now().Add(time.Hour)
		w.Scheduled(map[event.SubscriptionKey]Scheduled{scheduled.Key: {Count: 3, Next: next}, plain.Key: {}})
		w.ScheduleFailed(scheduled.Key, "WrongType", "no such overload")
		advance(2 * time.Minute)
		if c := f.condition("scheduled", v1alpha1.ConditionScheduleHealthy); c.Status != metav1.ConditionFalse || c.Reason != "WrongType" {
			t.Errorf("ScheduleHealthy is %s (%s)", c.Status, c.Reason)
		}
		d := f.status("scheduled").Deliveries
		if d.Scheduled == nil || *d.Scheduled != 3 || *d.Pending != 3 || d.NextScheduledTime == nil || d.NextScheduledTime.Unix() != next.Unix() {
			t.Errorf("counts are %+v", d)
		}
		if d := f.status("plain").Deliveries; d.Scheduled != nil {
			t.Errorf("counts without a schedule are %+v", d)
		}
		w.Scheduled(map[event.SubscriptionKey]Scheduled{scheduled.Key: {}})
		advance(2 * time.Minute)
		if d := f.status("scheduled").Deliveries; *d.Scheduled != 0 || *d.Pending != 0 || d.NextScheduledTime != nil {
			t.Errorf("counts of none are %+v", d)
		}
	})
}

// TestFilterHealthy: a failure is shown at once, and for ten minutes after the last one; who has no filter has no condition.
func TestFilterHealthy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		w, stop := start(t, f)
		defer stop()
		plain, filtered := route("plain", 1), route("filtered", 1)
		filtered.Rules = rules(t, &routing.Entry{Filter: "event.data.n == 1"})
		w.Use(table(t))
		w.Use(table(t, plain, filtered))
		advance(time.Second)
		want := func(name, reason string, status metav1.ConditionStatus) {
			t.Helper()
			if c := f.condition(name, v1alpha1.ConditionFilterHealthy); c.Reason != reason || c.Status != status {
				t.Errorf("%s: FilterHealthy is %s (%s), want %s (%s)", name, c.Status, c.Reason, status, reason)
			}
		}
		want("plain", "", "")
		want("filtered", v1alpha1.ReasonEvaluated, metav1.ConditionTrue)
		w.FilterFailed(filtered.Key, "WrongType", "line 1, column 2: no such overload")
		advance(time.Second)
		want("filtered", "WrongType", metav1.ConditionFalse)
		advance(9 * time.Minute)
		f.takeWrites()
		for range 1000 { // the same again is no news
			w.FilterFailed(filtered.Key, "WrongType", "line 1, column 2: no such overload")
		}
		advance(8 * time.Minute)
		want("filtered", "WrongType", metav1.ConditionFalse)
		if n := f.takeWrites(); n != 0 {
			t.Errorf("%d writes for what is said already", n)
		}
		advance(4 * time.Minute)
		want("filtered", v1alpha1.ReasonEvaluated, metav1.ConditionTrue)
	})
}
