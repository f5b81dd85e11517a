package status

import (
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/api/v1alpha1"
	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// startByRevision runs a Writer whose manager concludes from the revision what is programmed.
func startByRevision(t *testing.T, f *fakes) (*Writer, func()) {
	t.Helper()
	return start(t, f, (*Writer).ByRevision)
}

func filtered(t *testing.T, name string, generation int64) *routing.Route {
	t.Helper()
	r := route(name, generation)
	r.Rules = rules(t, &routing.Entry{Filter: "event.data.a == 'b'"})
	return r
}

// TestOnlyWhatTheDispatcherKnowsIsWritten: by revision, a subscription costs no write of the dispatcher before there is something
// that nobody else knows, whether it is new, changed, or was written by an earlier version.
func TestOnlyWhatTheDispatcherKnowsIsWritten(t *testing.T) {
	t.Parallel()
	key := event.NewSubscriptionKey("a")
	delivered := func(c *delivery.Counts) { c.Delivered, c.LastDelivered = c.Delivered+1, epoch }
	failed := func(c *delivery.Counts) { c.FailuresInARow, c.Retrying = c.FailuresInARow+1, 1 }
	for name, test := range map[string]struct {
		first  *routing.Route            // generation 1, nil for one without rules
		before func(f *fakes, w *Writer) // what became of it
		wrote  int                       // because of that
		next   *routing.Route            // the table after that, nil for the same
		after  func(f *fakes, w *Writer)
		want   int // writes
	}{
		"new":                           {},
		"new, with a filter":            {next: filtered(t, "a", 2)},
		"changed":                       {next: route("a", 2)},
		"attempted":                     {after: func(f *fakes, w *Writer) { f.set(w, key, delivered) }, want: 1},
		"failed":                        {after: func(f *fakes, w *Writer) { f.set(w, key, failed) }, want: 1},
		"pending":                       {after: func(f *fakes, w *Writer) { w.Pending(map[event.SubscriptionKey]int64{key: 3}); f.wait(key) }, want: 1},
		"touched, and nothing became":   {after: func(_ *fakes, w *Writer) { w.Changed(key) }},
		"changed once it was attempted": {before: func(f *fakes, w *Writer) { f.set(w, key, delivered) }, wrote: 1, next: route("a", 2)},
		"filter added once attempted":   {before: func(f *fakes, w *Writer) { f.set(w, key, delivered) }, wrote: 1, next: filtered(t, "a", 2)},
		"changed while it fails":        {before: func(f *fakes, w *Writer) { f.set(w, key, failed) }, wrote: 1, next: route("a", 2), want: 1},
		"changed once it was gone":      {before: func(f *fakes, w *Writer) { f.set(w, key, func(c *delivery.Counts) { c.Gone, c.FailuresInARow = 1, 1 }) }, wrote: 1, next: route("a", 2), want: 1},
		"attempted again":               {before: func(f *fakes, w *Writer) { f.set(w, key, delivered) }, wrote: 1, after: func(f *fakes, w *Writer) { f.set(w, key, delivered) }, want: 1},
		"filter failed":                 {next: filtered(t, "a", 2), after: func(_ *fakes, w *Writer) { w.FilterFailed(key, "WrongType", "no such overload") }, want: 2}, // and healthy again
		"filter failed once attempted": {
			first: filtered(t, "a", 1), before: func(f *fakes, w *Writer) { f.set(w, key, delivered) }, wrote: 1,
			after: func(_ *fakes, w *Writer) { w.FilterFailed(key, "WrongType", "no such overload") }, want: 2,
		},
		"filter added once attempted, and failed": {
			before: func(f *fakes, w *Writer) { f.set(w, key, delivered) }, wrote: 1, next: filtered(t, "a", 2),
			after: func(_ *fakes, w *Writer) { w.FilterFailed(key, "WrongType", "no such overload") }, want: 2,
		},
		"filter removed once it failed": {
			first: filtered(t, "a", 1), before: func(_ *fakes, w *Writer) { w.FilterFailed(key, "WrongType", "no such overload") }, wrote: 1,
			next: route("a", 2), want: 1,
		},
		"written by an earlier version":   {before: func(f *fakes, w *Writer) { f.stand(route("a", 1)); w.Taken(delivery.ShardOf(key)) }},
		"of an earlier version, changed":  {before: func(f *fakes, w *Writer) { f.stand(route("a", 1)); w.Taken(delivery.ShardOf(key)) }, next: route("a", 2)},
		"of an earlier version, attempts": {before: func(f *fakes, w *Writer) { f.stand(route("a", 1)); w.Taken(delivery.ShardOf(key)) }, after: func(f *fakes, w *Writer) { f.set(w, key, delivered) }, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFakes()
				w, stop := startByRevision(t, f)
				defer stop()
				w.Use(table(t))
				now := route("a", 1)
				if test.first != nil {
					now = test.first
				}
				w.Use(table(t, now))
				if test.before != nil {
					test.before(f, w)
				}
				advance(5 * time.Minute)
				if got := f.takeWrites(); got != test.wrote {
					t.Errorf("%d writes of generation 1, want %d: %+v", got, test.wrote, f.status("a"))
				}
				if test.next != nil {
					now = test.next
					w.Use(table(t, now))
					advance(time.Minute)
				}
				if test.after != nil {
					test.after(f, w)
				}
				advance(filterQuiet + 5*time.Minute)
				if got := f.takeWrites(); got != test.want {
					t.Errorf("%d writes, want %d: %+v", got, test.want, f.status("a"))
				}
				if s := f.status("a"); test.want > 0 && (s.ProgrammedGeneration != 0 || f.condition("a", v1alpha1.ConditionEndpointHealthy).ObservedGeneration != now.Generation) {
					t.Errorf("wrote %+v", s)
				}
			})
		})
	}
}

// TestARestartByRevisionWritesNothing also if what stands is about an earlier generation, or nothing stands.
func TestARestartByRevisionWritesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		key := event.NewSubscriptionKey("a")
		w, stop := startByRevision(t, f)
		w.Use(table(t, route("a", 1), route("b", 1)))
		f.set(w, key, func(c *delivery.Counts) { c.Delivered, c.LastDelivered = 1, epoch })
		advance(time.Minute)
		stop()
		if got := f.takeWrites(); got != 1 {
			t.Fatalf("%d writes, want one of what was attempted", got)
		}
		w, stop = startByRevision(t, f)
		w.Use(table(t, route("a", 2), route("b", 2)))
		advance(time.Minute)
		if got := f.takeWrites(); got != 0 {
			t.Errorf("%d writes after a restart", got)
		}
		f.set(w, key, func(c *delivery.Counts) { c.FailuresInARow = 1 })
		advance(time.Second)
		stop()
		if c := f.condition("a", v1alpha1.ConditionEndpointHealthy); c.Status != metav1.ConditionFalse || c.ObservedGeneration != 2 {
			t.Errorf("EndpointHealthy is %+v", c)
		}
	})
}

// TestManagerBeforeIsToldAtEachSubscription: what a Writer by revision left out is made good once pods serve a manager of the version
// before.
func TestManagerBeforeIsToldAtEachSubscription(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		w, stop := startByRevision(t, f)
		w.Use(table(t, route("a", 3)))
		advance(time.Minute)
		stop()
		w, stop = start(t, f)
		defer stop()
		w.Use(table(t, route("a", 3)))
		advance(time.Minute)
		if s := f.status("a"); s.ProgrammedGeneration != 3 || f.takeWrites() != 1 {
			t.Errorf("says %+v", s)
		}
	})
}
