package status

import (
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// TestFilterHealthy: a failure is shown at once, and for ten minutes after the last one; who has no filter has no condition.
func TestFilterHealthy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		w, stop := start(t, f)
		defer stop()
		plain, filtered := route("plain", 1), route("filtered", 1)
		filtered.Filter = &routing.Filter{}
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
