package simulate

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/ingest"
	"github.com/clinikapi/eventflow/dispatcher/routing"
	"github.com/clinikapi/eventflow/dispatcher/routing/folder"
	"github.com/clinikapi/eventflow/dispatcher/store"
	"github.com/clinikapi/eventflow/dispatcher/store/pebble"
	"github.com/clinikapi/eventflow/dispatcher/store/storetest"
)

// TestAsTheStoreDoes publishes random sequences into a real store as well, and compares what becomes of each delivery.
func TestAsTheStoreDoes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(25) {
		random := rand.New(rand.NewPCG(seed, 7))
		var events []string
		for i := range 25 {
			at := time.Date(2026, 2, 1, random.IntN(20), 0, i, 0, time.UTC)
			start := at.AddDate(0, 0, 3+random.IntN(5))
			if random.IntN(6) == 0 {
				start = at.AddDate(0, -1, 0)
			}
			text := start.Format(time.RFC3339)
			if random.IntN(10) == 0 {
				text = "soon"
			}
			action := []string{"created", "updated", "updated", "deleted"}[random.IntN(4)]
			status := []string{"booked", "booked", "cancelled"}[random.IntN(3)]
			events = append(events, appointment(action, at.Format(time.RFC3339), []string{"a", "b", ""}[random.IntN(3)], status, text))
		}
		if !compare(t, manifest(schedule()...), "["+strings.Join(events, ",")+"]") {
			t.Fatalf("with seed %d", seed)
		}
	}
}

// compare reports whether a store does with the events what Run says.
func compare(t *testing.T, manifests, events string) bool {
	report := try(t, manifests, events, Options{})
	var clock storetest.Clock
	s, err := pebble.Open("data", pebble.Options{FS: vfs.NewMem(), FreeReserve: -1, Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	preview, err := ingest.NewPreview(ingest.PreviewOptions{Catalog: catalog(t)})
	if err != nil {
		t.Fatal(err)
	}
	table := tableOf(t, manifests)
	read, err := ReadEvents(catalog(t), []byte(events))
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range read {
		e.ID = report.Events[i].ID
		clock.Set(report.Events[i].Published)
		decided, err := preview.Decide(t.Context(), table, "clinic-a", e, clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Append(t.Context(), []store.NewEvent{decided}); err != nil {
			t.Fatal(err)
		}
	}
	records, err := s.List(t.Context(), store.Query{Tenant: "clinic-a", Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for i := range records {
		got[records[i].EventID] = fmt.Sprint(records[i].State, records[i].Reason, records[i].Planned.UTC())
	}
	same := true
	for _, e := range report.Events {
		if want := stored(e.Results[0]); got[e.ID] != want {
			t.Errorf("event %d is %q in the store, and %q (%s) in the report", e.Number, got[e.ID], want, e.Results[0].Outcome)
			same = false
		}
	}
	return same
}

// stored is how a store shows a result; "" for what causes no delivery.
func stored(r *Result) string {
	planned := time.Time{}
	if r.Plan != nil && r.Plan.Time != nil {
		planned = *r.Plan.Time
	}
	switch r.Outcome {
	case Scheduled:
		return fmt.Sprint(delivery.Pending, r.Reason, planned)
	case Cancelled:
		return fmt.Sprint(delivery.Cancelled, r.Reason, planned)
	case Skipped:
		return fmt.Sprint(delivery.Cancelled, r.Reason, time.Time{})
	case Failed:
		return fmt.Sprint(delivery.Failed, r.Reason, time.Time{})
	default:
		return ""
	}
}

// tableOf is the routing table of manifests.
func tableOf(t *testing.T, manifests string) *routing.Table {
	t.Helper()
	set := folder.NewSet()
	set.Add("test.yaml", []byte(manifests))
	var routes []*routing.Route
	for _, sub := range set.Subscriptions() {
		entry, rejection, err := routing.Compile(sub, set.Sources(sub.Namespace), routing.Policy{Catalog: catalog(t)})
		if err != nil || rejection != nil {
			t.Fatal(rejection, err)
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

// TestRepeated: the same event with the same id is accepted once; another with its id is refused.
func TestRepeated(t *testing.T) {
	t.Parallel()
	one := `{"id":"evt_1","type":"lab.created","data":{"n":1}}`
	if got := outcomes(try(t, manifest("events: ['*']"), "["+one+","+one+"]", Options{})); got != "Delivered NoMatch(Repeated)" {
		t.Errorf("got %s", got)
	}
	read, err := ReadEvents(catalog(t), []byte("["+one+","+strings.Replace(one, "1}", "2}", 1)+"]"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), nil, "clinic-a", read, Options{Policy: routing.Policy{Catalog: catalog(t)}})
	if err == nil || !strings.Contains(err.Error(), "event 2: event 1 has the id evt_1, too") {
		t.Errorf("another event with the id: %v", err)
	}
}
