package storetest

import (
	"errors"
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// metricsTests: every store shows the same, by the same names.
var metricsTests = map[string]func(*fixture){
	"Backlog": testMetricsBacklog,
	"Full":    testMetricsFull,
	"Close":   testMetricsClose,
}

// commonMetrics are those of every store, all of them gauges without labels.
var commonMetrics = []string{"ready", "full", "owned_shards", "due_deliveries", "oldest_due_age_seconds", "disk_used_bytes"}

// measured are the store's metrics without labels, after it looked at its backlog.
func (f *fixture) measured() map[string]float64 {
	f.Helper()
	if f.place.Measure == nil {
		f.Skip("the implementation has no metrics")
	}
	if err := f.place.Measure(f.Store); err != nil {
		f.Fatalf("Measure: %v", err)
	}
	all := map[string]float64{}
	families, err := f.registry.Gather()
	if err != nil {
		f.Fatal(err)
	}
	for _, family := range families {
		if family.GetType() == dto.MetricType_GAUGE {
			all[family.GetName()] = family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return all
}

// shows expects the common metrics, but for the size on disk, which is not 0.
func (f *fixture) shows(what string, want ...float64) {
	f.Helper()
	all := f.measured()
	for i, name := range commonMetrics {
		got, there := all["eventflow_store_"+name]
		switch {
		case !there:
			f.Errorf("%s: there is no gauge %s", what, name)
		case i == len(want):
			if got < 1 {
				f.Errorf("%s: %s is %v", what, name, got)
			}
		case math.Round(got) != want[i]: // events are some milliseconds apart
			f.Errorf("%s: %s is %v, want %v", what, name, got, want[i])
		}
	}
}

// testMetricsBacklog: what is due is counted, and its age is that of the earliest. What is retried later, or planned, is
// not due.
func testMetricsBacklog(f *fixture) {
	a, b := subscription(clinicA, "a"), subscription(clinicB, "b")
	f.shows("an empty store", 1, 0, 64, 0, 0)
	f.sized(100, a)
	f.sized(200, a, b)
	f.planned(b, keyOf(f, "a"), 1, f.clock.Now().Add(time.Hour))
	f.clock.Advance(90 * time.Second)
	f.shows("three are due", 1, 0, 64, 3, 90)
	for _, sub := range []delivery.Subscription{a, b} {
		for _, d := range f.pending(sub) {
			if d.Planned.IsZero() {
				f.retry(d, 10*time.Minute)
			}
		}
	}
	f.shows("all are tried again later", 1, 0, 64, 0, 0)
	f.clock.Advance(time.Hour + 10*time.Minute)
	f.shows("all are due", 1, 0, 64, 4, 3600)
}

// testMetricsFull: a full store is not ready, and its backlog is still looked at.
func testMetricsFull(f *fixture) {
	sub := subscription(clinicA, "a")
	f.one(sub)
	f.fill(true)
	if _, _, err := f.Append(f.ctx, []store.NewEvent{newEvent(clinicA, "evt", "x", sub)}); !errors.Is(err, store.ErrFull) {
		f.Errorf("Append gave %v", err)
	}
	f.clock.Advance(time.Minute)
	if got := f.measured(); got["eventflow_store_ready"] != 0 || got["eventflow_store_full"] != 1 || got["eventflow_store_due_deliveries"] != 1 {
		f.Errorf("a full store shows %v", got)
	}
	f.fill(false)
	if got := f.measured(); got["eventflow_store_ready"] != 1 || got["eventflow_store_full"] != 0 {
		f.Errorf("one that has space again shows %v", got)
	}
}

// testMetricsClose: a closed store shows nothing, so that the next one may.
func testMetricsClose(f *fixture) {
	f.measured()
	f.disown()
	if err := f.Close(); err != nil {
		f.Fatal(err)
	}
	if families, err := f.registry.Gather(); err != nil || len(families) != 0 {
		f.Errorf("a closed store shows %d metrics, %v", len(families), err)
	}
	if err := f.place.Measure(f.Store); err != nil && !errors.Is(err, store.ErrClosed) {
		f.Errorf("Measure of a closed store gave %v", err)
	}
	f.open()
}
