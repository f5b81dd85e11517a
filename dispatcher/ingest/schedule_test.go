package ingest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/clinikapi/eventflow/api/event"
	"github.com/clinikapi/eventflow/dispatcher/expression"
	"github.com/clinikapi/eventflow/dispatcher/plan"
	"github.com/clinikapi/eventflow/dispatcher/quota"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

var noon = time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)

// scheduledTable returns a table of clinic-a's subscriptions, each as an entry with what the test is about.
func scheduledTable(t testing.TB, entries ...routing.Entry) *routing.Table {
	t.Helper()
	var routes []*routing.Route
	for i := range entries {
		e := &entries[i]
		e.Identity, e.Namespace, e.Name, e.URL = fmt.Sprint("uid-", i), "clinic-a", fmt.Sprint("sub-", i), "https://example.com/"
		e.Keys, e.Timeout, e.MaxInFlight = [][]byte{[]byte("a signing key of 24 bytes or more")}, time.Second, 1
		e.Retry = routing.Retry{Initial: time.Second, Max: time.Minute, MaxAge: time.Hour, Factor: 2}
		if e.Patterns == nil {
			e.Patterns = []event.Pattern{"appointment.*"}
		}
		route, err := e.Route()
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

// causes says in words what an event was stored with, sorted.
func causes(t testing.TB, e *store.NewEvent) (all []string) {
	t.Helper()
	for _, sub := range e.Subscriptions {
		all = append(all, sub.Name+" delivers")
	}
	for _, p := range e.Plans {
		what := p.Subscription.Name + " plans " + keyName(t, p.Key) + " " + p.Decision.At.Sub(noon).String()
		switch {
		case p.Failed:
			what = p.Subscription.Name + " fails"
		case !p.Decision.Planned():
			what = p.Subscription.Name + " plans " + keyName(t, p.Key) + " " + string(p.Decision.Reason)
		}
		all = append(all, what)
	}
	for _, c := range e.Cancels {
		all = append(all, c.Subscription.Name+" cancels "+keyName(t, c.Key))
	}
	slices.Sort(all)
	return all
}

// keyName is the text of a key that the tests use.
func keyName(t testing.TB, key plan.Key) string {
	t.Helper()
	for _, text := range []string{"", "a", "b", "c"} {
		if k, err := plan.NewKey(text); err == nil && k == key {
			return "'" + text + "'"
		}
	}
	return "another key"
}

// TestPublishSchedules: what an event causes for each subscription, and what the store is given.
func TestPublishSchedules(t *testing.T) {
	t.Parallel()
	const in = `{"type":"appointment.%s","timestamp":"2026-01-15T11:00:00Z","data":%s}`
	at := func(s routing.Schedule) *routing.Schedule {
		s.At, s.IfPast = "event.data.at", plan.SkipPast
		return &s
	}
	for name, test := range map[string]struct {
		entries        []routing.Entry
		typ, data      string
		want           []string
		wantFailures   int
		wantDeliveries int
	}{
		"planned":           {entries: []routing.Entry{{Schedule: at(routing.Schedule{})}}, data: `{"resourceId":"a","at":"2026-01-15T13:00:00Z"}`, want: []string{"sub-0 plans 'a' 1h0m0s"}, wantDeliveries: 1},
		"a FHIR resource":   {entries: []routing.Entry{{Schedule: at(routing.Schedule{})}}, data: `{"resourceType":"Appointment","id":"b","at":"2026-01-15T13:00:00Z"}`, want: []string{"sub-0 plans 'b' 1h0m0s"}, wantDeliveries: 1},
		"without a key":     {entries: []routing.Entry{{Schedule: at(routing.Schedule{})}}, data: `{"at":"2026-01-15T13:00:00Z"}`, want: []string{"sub-0 plans '' 1h0m0s"}, wantDeliveries: 1},
		"past":              {entries: []routing.Entry{{Schedule: at(routing.Schedule{})}}, data: `{"resourceId":"a","at":"2026-01-15T11:00:00Z"}`, want: []string{"sub-0 plans 'a' Past"}, wantDeliveries: 1},
		"fails":             {entries: []routing.Entry{{Schedule: at(routing.Schedule{})}}, data: `{"resourceId":"a"}`, want: []string{"sub-0 fails"}, wantDeliveries: 1, wantFailures: 1},
		"beside a plain":    {entries: []routing.Entry{{}, {Schedule: at(routing.Schedule{})}}, data: `{"resourceId":"a","at":"2026-01-15T13:00:00Z"}`, want: []string{"sub-0 delivers", "sub-1 plans 'a' 1h0m0s"}, wantDeliveries: 2},
		"filtered":          {entries: []routing.Entry{{Filter: "event.data.n == 1", Schedule: at(routing.Schedule{})}}, data: `{"resourceId":"a","n":2,"at":"2026-01-15T13:00:00Z"}`},
		"plain alone":       {entries: []routing.Entry{{}}, data: `{"resourceId":"a"}`, want: []string{"sub-0 delivers"}, wantDeliveries: 1},
		"cancels":           {entries: []routing.Entry{{Patterns: []event.Pattern{"lab.created"}, Schedule: at(routing.Schedule{CancelOn: []routing.CancelRule{{Patterns: []event.Pattern{"appointment.deleted"}}}})}}, typ: "deleted", data: `{"resourceId":"a"}`, want: []string{"sub-0 cancels 'a'"}},
		"cancels only":      {entries: []routing.Entry{{Schedule: at(routing.Schedule{CancelOn: []routing.CancelRule{{Patterns: []event.Pattern{"*"}, Filter: "event.data.n == 1"}}})}}, data: `{"resourceId":"a","n":1,"at":"2026-01-15T13:00:00Z"}`, want: []string{"sub-0 cancels 'a'"}},
		"does not cancel":   {entries: []routing.Entry{{Schedule: at(routing.Schedule{CancelOn: []routing.CancelRule{{Patterns: []event.Pattern{"*"}, Filter: "event.data.n == 1"}}})}}, data: `{"resourceId":"a","n":2,"at":"2026-01-15T13:00:00Z"}`, want: []string{"sub-0 plans 'a' 1h0m0s"}, wantDeliveries: 1},
		"a failing cancel":  {entries: []routing.Entry{{Schedule: at(routing.Schedule{CancelOn: []routing.CancelRule{{Patterns: []event.Pattern{"*"}, Filter: "event.data.n > 1"}}})}}, data: `{"resourceId":"a","n":"x","at":"2026-01-15T13:00:00Z"}`, want: []string{"sub-0 plans 'a' 1h0m0s"}, wantDeliveries: 1, wantFailures: 1},
		"a cancel's key":    {entries: []routing.Entry{{Schedule: at(routing.Schedule{Key: "event.data.other", CancelOn: []routing.CancelRule{{Patterns: []event.Pattern{"*"}}, {Patterns: []event.Pattern{"*"}, Key: "event.data.third"}}})}}, data: `{"resourceId":"a","other":"b","third":"c"}`, want: []string{"sub-0 cancels 'b'", "sub-0 cancels 'c'"}},
		"no key to cancel":  {entries: []routing.Entry{{Schedule: at(routing.Schedule{CancelOn: []routing.CancelRule{{Patterns: []event.Pattern{"*"}}}})}}, data: `{"at":"2026-01-15T13:00:00Z"}`},
		"cancels, delivers": {entries: []routing.Entry{{}, {Schedule: at(routing.Schedule{CancelOn: []routing.CancelRule{{Patterns: []event.Pattern{"*"}}}})}}, data: `{"resourceId":"a"}`, want: []string{"sub-0 delivers", "sub-1 cancels 'a'"}, wantDeliveries: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table, failures := scheduledTable(t, test.entries...), 0
			f := newFixture(t, func(o *Options) {
				o.Routes = func() *routing.Table { return table }
				o.Now = func() time.Time { return noon }
				o.ScheduleFailed = func(event.SubscriptionKey, *expression.Error) { failures++ }
			})
			typ := test.typ
			if typ == "" {
				typ = "created"
			}
			w := f.publish(fmt.Sprintf(in, typ, test.data))
			var answer struct{ Deliveries int }
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusAccepted {
				t.Fatalf("got %d %s", w.Code, w.Body)
			}
			e := f.store.stored()[0]
			if got := causes(t, &e); !slices.Equal(got, test.want) {
				t.Errorf("it causes %q, want %q", got, test.want)
			}
			if answer.Deliveries != test.wantDeliveries || failures != test.wantFailures {
				t.Errorf("%d deliveries, %d failures", answer.Deliveries, failures)
			}
			for _, p := range e.Plans {
				if !p.Timestamp.Equal(noon.Add(-time.Hour)) {
					t.Errorf("the timestamp is %s", p.Timestamp)
				}
			}
			if total := sum(f); (total == 0) != (len(e.Plans)+len(e.Cancels) == 0) && name != "no key to cancel" {
				t.Errorf("%v decisions are counted", total)
			}
			if used := f.memory.budget.Used(); used != 0 {
				t.Errorf("%d bytes stay charged", used)
			}
		})
	}
}

// sum is how many decisions were counted.
func sum(f *fixture) (total float64) {
	for _, decision := range []string{decidedPlanned, decidedFailed, decidedCancel, string(plan.Past), string(plan.OutsideWindow), string(plan.TooFarAhead)} {
		total += testutil.ToFloat64(f.filters.schedules.decisions.WithLabelValues(decision))
	}
	return total
}

// TestPlansAreCountedAsPending: planned deliveries are pending ones; what is skipped or fails is not, and neither is a repetition.
func TestPlansAreCountedAsPending(t *testing.T) {
	t.Parallel()
	table := scheduledTable(t, routing.Entry{Schedule: &routing.Schedule{At: "event.data.at", IfPast: plan.SkipPast}})
	keeper := quota.New(func(string) quota.Limits { return quota.Limits{} }, time.Now)
	f := newFixture(t, func(o *Options) {
		o.Routes = func() *routing.Table { return table }
		o.Now, o.Quota = func() time.Time { return noon }, keeper
	})
	body := `{"id":"evt_1","type":"appointment.created","data":{"at":"2026-01-15T%d:00:00Z"}}`
	for range 2 {
		f.publish(fmt.Sprintf(body, 13))
	}
	f.publish(strings.Replace(fmt.Sprintf(body, 11), "evt_1", "evt_2", 1))
	usage := keeper.Largest(1)
	if len(usage) != 1 || usage[0].Deliveries != 1 || usage[0].Bytes != int64(len(f.store.stored()[0].Event.Body)) {
		t.Errorf("pending is %+v", usage)
	}
}

// TestScheduledQuota: a namespace that has as many planned as it may is refused by name, but for events that plan nothing.
func TestScheduledQuota(t *testing.T) {
	t.Parallel()
	table := scheduledTable(t, routing.Entry{Schedule: &routing.Schedule{
		At: "event.data.at", IfPast: plan.SkipPast, CancelOn: []routing.CancelRule{{Patterns: []event.Pattern{"appointment.deleted"}}},
	}})
	keeper := quota.New(func(string) quota.Limits { return quota.Limits{ScheduledDeliveries: 2} }, time.Now)
	f := newFixture(t, func(o *Options) {
		o.Routes = func() *routing.Table { return table }
		o.Now, o.Quota = func() time.Time { return noon }, keeper
	})
	publish := func(kind string, hour int, want int) {
		t.Helper()
		w := f.publish(fmt.Sprintf(`{"type":"appointment.%s","data":{"resourceId":"a","at":"2026-01-15T%d:00:00Z"}}`, kind, hour))
		if w.Code != want {
			t.Errorf("%s at %d: %d %s, want %d", kind, hour, w.Code, w.Body, want)
		}
		if want == http.StatusTooManyRequests {
			wantProblem(t, w, quotaExceeded, "scheduledDeliveries of 2")
			if got := w.Header().Get("Retry-After"); got != "60" {
				t.Errorf("Retry-After is %q, want 60", got)
			}
		}
	}
	publish("created", 13, http.StatusAccepted)
	publish("created", 14, http.StatusAccepted)
	publish("created", 15, http.StatusTooManyRequests)
	publish("created", 11, http.StatusAccepted) // past: listed, and not planned
	publish("deleted", 15, http.StatusAccepted)
	if got := keeper.Largest(1); len(got) != 1 || got[0].Scheduled != 2 || keeper.Refused(quota.ScheduledDeliveries) != 1 {
		t.Errorf("usage %+v, %d refused", got, keeper.Refused(quota.ScheduledDeliveries))
	}
	count := func(add func(string, int64, int64, int64)) error { add("clinic-a", 1, 100, 1); return nil }
	if err := keeper.Rebase(count); err != nil {
		t.Fatal(err)
	}
	publish("created", 15, http.StatusAccepted) // once one was counted to have gone
}

// reference says what an event causes for a subscription with a schedule, as docs/automations.md has it: one of nothing,
// "plans", "fails" and "cancels".
func reference(typ event.Type, n, at string, filtered, cancelFiltered bool) string {
	cancels := typ == "appointment.deleted" || typ == "lab.deleted"
	if cancels && cancelFiltered {
		cancels = n == "1"
	}
	switch {
	case cancels:
		return "cancels"
	case typ.Resource() != "appointment":
		return ""
	case filtered && n == "2": // what is no number fails, and is delivered
		return ""
	case at == "soon":
		return "fails"
	}
	return "plans"
}

// TestEachEventCausesOneThing: for random events and rules, an event causes at most one thing for each subscription, and
// what the reference says.
func TestEachEventCausesOneThing(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	choose := func(of ...string) string { return of[random.IntN(len(of))] }
	for round := range 200 {
		n := 1 + random.IntN(4)
		entries, filtered, cancelFiltered := make([]routing.Entry, n), make([]bool, n), make([]bool, n)
		for i := range entries {
			filtered[i], cancelFiltered[i] = random.IntN(2) == 0, random.IntN(2) == 0
			rule := routing.CancelRule{Patterns: []event.Pattern{"appointment.deleted", "lab.deleted"}}
			if cancelFiltered[i] {
				rule.Filter = "event.data.n < 2"
			}
			if filtered[i] {
				entries[i].Filter = "event.data.n < 2"
			}
			entries[i].Schedule = &routing.Schedule{At: "event.data.at", IfPast: plan.DeliverPast, CancelOn: []routing.CancelRule{rule}}
		}
		table := scheduledTable(t, entries...)
		f := newFixture(t, func(o *Options) {
			o.Routes = func() *routing.Table { return table }
			o.Now = func() time.Time { return noon }
		})
		typ := choose("appointment.created", "appointment.deleted", "lab.created", "lab.deleted")
		value, at := choose("1", "2", `"x"`), choose("soon", "2026-01-15T13:00:00Z", "2026-01-14T13:00:00Z")
		if w := f.publish(fmt.Sprintf(`{"type":%q,"data":{"resourceId":"a","n":%s,"at":%q}}`, typ, value, at)); w.Code != http.StatusAccepted {
			t.Fatalf("got %d %s", w.Code, w.Body)
		}
		e := f.store.stored()[0]
		got := make(map[string][]string)
		for _, text := range causes(t, &e) {
			fields := strings.Fields(text)
			got[fields[0]] = append(got[fields[0]], fields[1])
		}
		for i := range entries {
			var want []string
			if what := reference(event.Type(typ), value, at, filtered[i], cancelFiltered[i]); what != "" {
				want = []string{what}
			}
			if name := fmt.Sprint("sub-", i); !slices.Equal(got[name], want) {
				t.Fatalf("round %d: %s n=%s at=%s (filters %t, %t): %v, want %v", round, typ, value, at, filtered[i], cancelFiltered[i], got[name], want)
			}
		}
	}
}

// FuzzPublishScheduled: whatever is published where every kind of rule is, the answer is one, and nothing stays charged.
func FuzzPublishScheduled(f *testing.F) {
	for _, seed := range []string{
		`{"type":"appointment.created","data":{"resourceId":"a","at":"2026-01-15T13:00:00Z","zone":"Europe/Berlin"}}`,
		`{"type":"appointment.created","data":{"id":[],"at":"9999-12-31T23:59:59Z"},"previous":{}}`,
		`[{"type":"appointment.deleted","data":{"id":"a"}},{"type":"appointment.updated","timestamp":"0001-01-01T00:00:00Z","data":{"at":""}}]`,
	} {
		f.Add(seed)
	}
	table := scheduledTable(f,
		routing.Entry{Schedule: &routing.Schedule{
			At: "event.data.at", Key: "event.data.id", IfPast: plan.DeliverPast,
			Window:   &routing.Window{Zone: "event.data.zone", From: 9 * 60, Until: 20 * 60, Outside: plan.Earlier},
			CancelOn: []routing.CancelRule{{Patterns: []event.Pattern{"appointment.deleted"}, Filter: "event.data.n > 1"}, {Patterns: []event.Pattern{"*"}, Filter: "event.previous.x == event.data.x", Key: "event.data.x"}},
		}},
		routing.Entry{Schedule: &routing.Schedule{At: "timestamp(event.data.at) - duration('24h')", IfPast: plan.SkipPast}, Filter: "event.data.n != 3"},
		routing.Entry{},
	)
	fixture := newFixture(f, func(o *Options) { o.Routes = func() *routing.Table { return table } })
	f.Fuzz(func(t *testing.T, body string) {
		before := len(fixture.store.stored())
		w := fixture.publish(body)
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
		for _, e := range fixture.store.stored()[before:] {
			seen := make(map[string]bool)
			for _, sub := range e.Subscriptions {
				seen[sub.Name] = true
			}
			for _, p := range e.Plans {
				if seen[p.Subscription.Name] || !p.Failed && p.Decision.Planned() == p.Decision.At.IsZero() {
					t.Errorf("%+v", p)
				}
				seen[p.Subscription.Name] = true
			}
			for _, c := range e.Cancels {
				if seen[c.Subscription.Name] || c.Key.IsZero() {
					t.Errorf("%+v", c)
				}
			}
		}
		if used := fixture.memory.budget.Used(); used != 0 {
			t.Errorf("%d bytes stay charged", used)
		}
	})
}
