package status

import (
	"flag"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/controllers/announce"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/test/kit/states"
)

var update = flag.Bool("update", false, "write the table of docs/states.md")

// TestPendingIsShown: what waits is counted in the status, also of a subscription whose endpoint never gets anything, and a
// count that does not change is not written again.
func TestPendingIsShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		w, stop := start(t, f)
		defer stop()
		w.Use(table(t, route("a", 1), route("b", 1)))
		f.oldest = map[event.SubscriptionKey]time.Time{event.NewSubscriptionKey("a"): epoch}
		w.Pending(map[event.SubscriptionKey]int64{event.NewSubscriptionKey("a"): 1000})
		advance(10 * time.Second)
		if got := f.stands["a"].Deliveries.Pending; got == nil || *got != 1000 {
			t.Fatalf("pending %v, want 1000", got)
		}
		if got := f.stands["b"].Deliveries.Pending; got == nil || *got != 0 {
			t.Errorf("of another subscription %v are pending, want 0", got)
		}
		f.takeWrites()
		for range 10 {
			w.Pending(map[event.SubscriptionKey]int64{event.NewSubscriptionKey("a"): 1000})
			advance(time.Minute)
		}
		if n := f.takeWrites(); n != 0 {
			t.Errorf("%d writes of what did not change", n)
		}
		f.oldest = nil
		w.Pending(nil)
		advance(10 * time.Second)
		if got := f.stands["a"].Deliveries.Pending; got == nil || *got != 0 {
			t.Errorf("pending %v after all was delivered", got)
		}
	})
}

// TestARestartKeepsPending: until a new dispatcher has counted, the count that stands stands.
func TestARestartKeepsPending(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		f.oldest = map[event.SubscriptionKey]time.Time{event.NewSubscriptionKey("a"): epoch}
		w, stop := start(t, f)
		w.Use(table(t, route("a", 1)))
		w.Pending(map[event.SubscriptionKey]int64{event.NewSubscriptionKey("a"): 5})
		advance(10 * time.Second)
		stop()
		f.takeWrites()
		w, stop = start(t, f)
		defer stop()
		w.Use(table(t, route("a", 1)))
		advance(10 * time.Second)
		if n, got := f.takeWrites(), f.stands["a"].Deliveries.Pending; n != 0 || got == nil || *got != 5 {
			t.Errorf("%d writes, pending %v", n, got)
		}
	})
}

// TestEndpointsAreDocumented makes the table of endpoints in docs/states.md.
func TestEndpointsAreDocumented(t *testing.T) {
	counts := []struct {
		state  string
		counts delivery.Counts
	}{
		{"not attempted", delivery.Counts{}},
		{"takes deliveries", delivery.Counts{LastDelivered: epoch}},
		{"last attempt failed, 9 in a row at most", delivery.Counts{FailuresInARow: failingAfter - 1}},
		{"failing: 10 attempts in a row failed", delivery.Counts{FailuresInARow: failingAfter}},
		{"answered 410", delivery.Counts{Gone: 3, FailuresInARow: 1}},
		{"takes deliveries again", delivery.Counts{LastDelivered: epoch}},
	}
	of := func(c metav1.Condition) *v1alpha1.WebhookSubscription {
		return &v1alpha1.WebhookSubscription{Status: v1alpha1.WebhookSubscriptionStatus{Conditions: []metav1.Condition{c}}}
	}
	rows, before := [][]string{}, of(metav1.Condition{})
	for _, test := range counts {
		c := conditions(route("a", 3), test.counts)[0]
		if isAssumed(&c) { // by revision, it is not written
			c = metav1.Condition{}
		}
		after, said := of(c), ""
		for _, e := range announce.OfSubscription(before, after) {
			said = e.Reason
		}
		rows, before = append(rows, []string{test.state, string(c.Status), c.Reason, said}), after
	}
	pulled := route("a", 3)
	pulled.Endpoint.Pull = true
	c := conditions(pulled, delivery.Counts{})[0]
	rows = append(rows, []string{"none: `delivery.mode: Pull`", string(c.Status), c.Reason, ""})
	states.Documented(t, "../../docs/states.md", "endpoints", states.Table([]string{"endpoint", "ENDPOINT", "HEALTH", "event"}, rows), *update)
}
