package ingest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/routing"
)

// filtered returns a table of clinic-a's subscriptions on lab.created, each with a filter, or "".
func filtered(t testing.TB, skip bool, filters ...string) *routing.Table {
	t.Helper()
	var routes []*routing.Route
	for i, filter := range filters {
		entry := &routing.Entry{
			Identity: fmt.Sprint("uid-", i), Namespace: "clinic-a", Name: fmt.Sprint("sub-", i), Patterns: []event.Pattern{"lab.created"},
			URL: "https://example.com/", Keys: [][]byte{[]byte("a signing key of 24 bytes or more")}, Timeout: time.Second, MaxInFlight: 1,
			Retry:  routing.Retry{Initial: time.Second, Max: time.Minute, MaxAge: time.Hour, Factor: 2},
			Filter: filter, SkipFilterErrors: skip,
		}
		route, err := entry.Route()
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, route)
	}
	table, err := routing.NewTable(routes)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestPublishFilters: an event causes a delivery to each subscription whose filter keeps it, and to those without one.
func TestPublishFilters(t *testing.T) {
	t.Parallel()
	const critical, high = `event.data.flag == "critical"`, `event.data.flag in ["high", "critical"]`
	sample := func(flag string) string { return `{"type":"lab.created","data":{"flag":` + flag + `}}` }
	for name, test := range map[string]struct {
		filters  []string
		skip     bool
		body     string
		want     [][]string // of each event stored
		failures int
	}{
		"all":            {filters: []string{critical, high, ""}, body: sample(`"critical"`), want: [][]string{{"sub-0", "sub-1", "sub-2"}}},
		"some":           {filters: []string{critical, high, ""}, body: sample(`"high"`), want: [][]string{{"sub-1", "sub-2"}}},
		"none":           {filters: []string{critical, high}, body: sample(`"low"`), want: [][]string{nil}},
		"absent":         {filters: []string{critical, "event.data.flag != 'x'"}, body: `{"type":"lab.created","data":{}}`, want: [][]string{{"sub-1"}}},
		"a batch":        {filters: []string{critical, high}, body: "[" + sample(`"high"`) + "," + sample(`"critical"`) + "," + sample(`"low"`) + "]", want: [][]string{{"sub-1"}, {"sub-0", "sub-1"}, nil}},
		"previous":       {filters: []string{"event.previous.flag != event.data.flag"}, body: `{"type":"lab.created","data":{"flag":1},"previous":{"flag":1}}`, want: [][]string{nil}},
		"errors":         {filters: []string{"event.data.flag > 3", high}, body: sample(`"high"`), want: [][]string{{"sub-0", "sub-1"}}, failures: 1},
		"errors skipped": {filters: []string{"event.data.flag > 3", high}, skip: true, body: sample(`"high"`), want: [][]string{{"sub-1"}}, failures: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table, failed := filtered(t, test.skip, test.filters...), 0
			f := newFixture(t, func(o *Options) {
				o.Routes = func() *routing.Table { return table }
				o.FilterFailed = func(event.SubscriptionKey, *expression.Error) { failed++ }
			})
			if w := f.publish(test.body); w.Code != http.StatusAccepted {
				t.Fatalf("got %d %s", w.Code, w.Body)
			}
			var got [][]string
			for _, e := range f.store.stored() {
				var names []string
				for _, sub := range e.Subscriptions {
					names = append(names, sub.Name)
				}
				got = append(got, names)
			}
			if !slices.EqualFunc(got, test.want, slices.Equal) {
				t.Errorf("deliveries to %v, want %v", got, test.want)
			}
			counted := testutil.ToFloat64(f.filters.failures.WithLabelValues(string(expression.WrongType)))
			if failed != test.failures || counted != float64(test.failures) {
				t.Errorf("%d failures are told and %v counted, want %d", failed, counted, test.failures)
			}
			if used := f.memory.budget.Used(); used != 0 {
				t.Errorf("%d bytes stay charged", used)
			}
		})
	}
}

// TestFiltersTakeTurns: a tenant whose filters take long waits for its own, and lets others have theirs in between.
func TestFiltersTakeTurns(t *testing.T) {
	t.Parallel()
	// As many steps as one evaluation may take.
	const slow = "event.data.list.all(a, event.data.list.all(b, event.data.list.all(c, a + b + c >= 0)))"
	table := filtered(t, false, slices.Repeat([]string{slow}, 100)...)
	f := newFixture(t, func(o *Options) { o.Routes = func() *routing.Table { return table } })
	if err := f.filters.turns.Acquire(t.Context(), "clinic-b", 1); err != nil { // the place that the slow ones want
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, in := newScratch(&f.options, f.memory), &incoming{id: "evt_1", eventType: "lab.created", data: []byte(`{"list":[` + strings.Repeat("1,", 90) + `1]}`)}
	s.body.account.tenant = "clinic-a"
	m, err := s.match(table, "lab.created")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := f.filters.decide(ctx, s, m, in, time.Now())
		done <- err
	}()
	f.filters.turns.Release("clinic-b", 1)
	for range 5 { // each within a turn of the other's
		if err := f.filters.turns.Acquire(t.Context(), "clinic-b", 1); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Fatalf("the slow ones ended: %v", err)
		default:
		}
		f.filters.turns.Release("clinic-b", 1)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("a publisher that left is still served")
	}
}

func BenchmarkPublishFiltered(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			filters := make([]string, n)
			for i := range filters {
				filters[i] = fmt.Sprintf(`event.data.flag == "critical" && event.data.clinic == "c%d"`, i)
			}
			table := filtered(b, false, filters...)
			f := newFixture(b, func(o *Options) { o.Routes = func() *routing.Table { return table } })
			s := newScratch(&f.options, f.memory)
			s.body.account.tenant = "clinic-a"
			in := &incoming{id: "evt_1", eventType: "lab.created", data: []byte(`{"flag":"critical","clinic":"c0","pad":"` + strings.Repeat("x", 900) + `"}`)}
			m, err := s.match(table, "lab.created")
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.filters.decide(b.Context(), s, m, in, time.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
