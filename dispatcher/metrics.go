package dispatcher

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/quota"
	"github.com/clinikapi/eventflow/dispatcher/store"
)

// register registers what the process shares among tenants. None of it is labelled by tenant: their number would grow with
// the load.
func (d *dispatcher) register() {
	gauge := func(name, help string, read func() float64) {
		d.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
	}
	gauge("eventflow_memory_budget_bytes", "Memory that tenants share for events that are being accepted or delivered.",
		func() float64 { return float64(d.memory.Limit()) })
	gauge("eventflow_memory_used_bytes", "Of that, what is in use.", func() float64 { return float64(d.memory.Used()) })
	gauge("eventflow_memory_largest_tenant_bytes", "Of that, what the tenant with the most uses.", func() float64 {
		for _, largest := range d.memory.Largest(1) {
			return float64(largest.Held)
		}
		return 0
	})
	gauge("eventflow_quota_largest_pending_deliveries", "Deliveries that the tenant with the most of them has pending.", func() float64 {
		for _, largest := range d.quotas.Largest(1) {
			return float64(largest.Deliveries)
		}
		return 0
	})
	gauge("eventflow_memory_limit_bytes", "Memory that the process may use, by its cgroup; 0 without a limit.", func() float64 { return float64(d.machine.Memory) })
	gauge("eventflow_store_pending_deliveries", "Pending deliveries of the shards owned here, counted once a minute.", func() float64 { return float64(d.counted.pending.Load()) })
	gauge("eventflow_store_scheduled_deliveries", "Of them, those that wait for a planned time.", func() float64 { return float64(d.counted.scheduled.Load()) })
	d.registry.MustRegister(fullest{d.quotas}, build(d.Version, d.storeKind()))
	counter := func(name, help string, labels prometheus.Labels, read func() float64) {
		d.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, read))
	}
	counter("eventflow_memory_refused_total", "Requests for memory that the budget or the tenant's share of it did not allow.", nil,
		func() float64 { return float64(d.memory.Refused()) })
	for _, name := range []string{quota.EventsPerSecond, quota.EventsBurst, quota.PendingDeliveries, quota.PendingBytes, quota.ScheduledDeliveries} {
		counter("eventflow_quota_refused_total", "Publishes that a quota of their tenant did not admit.", prometheus.Labels{"quota": name},
			func() float64 { return float64(d.quotas.Refused(name)) })
	}
}

// counts are what was counted last of the shards that this process works on.
type counts struct{ pending, scheduled atomic.Int64 }

// storeKind is "embedded" or "postgresql".
func (d *dispatcher) storeKind() string {
	if d.postgresURL != "" {
		return "postgresql"
	}
	return "embedded"
}

// build says which program runs. Its value is 1.
func build(version, kind string) prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "eventflow_build_info", Help: "The program that runs, and what it keeps events in; always 1.",
		ConstLabels: prometheus.Labels{"component": "dispatcher", "version": version, "goversion": runtime.Version(), "store": kind},
	})
	info.Set(1)
	return info
}

// fullest shows how full the fullest tenant's quotas are.
type fullest struct{ keeper *quota.Keeper }

var fullestDesc = prometheus.NewDesc("eventflow_quota_largest_use_ratio",
	"How much of a quota the tenant uses that uses most of it: 1 is all. 0 where no tenant has the quota.", []string{"quota"}, nil)

// Describe is of prometheus.Collector.
func (fullest) Describe(descs chan<- *prometheus.Desc) { descs <- fullestDesc }

// Collect looks at all tenants once.
func (f fullest) Collect(metrics chan<- prometheus.Metric) {
	for name, ratio := range f.keeper.Fullest() {
		metrics <- prometheus.MustNewConstMetric(fullestDesc, prometheus.GaugeValue, ratio, name)
	}
}

// timed is a store whose appends are timed, whatever it is.
type timed struct {
	store.Store
	took prometheus.Observer
}

// newTimed registers the histogram.
func newTimed(s store.Store, registerer prometheus.Registerer) *timed {
	took := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "eventflow_store_append_seconds",
		Help:    "How long the store took to make the events of a publish durable, or to fail.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	})
	registerer.MustRegister(took)
	return &timed{s, took}
}

// Append is the store's.
func (t *timed) Append(ctx context.Context, events []store.NewEvent) ([]store.Accepted, []delivery.Fanout, error) {
	began := time.Now()
	defer func() { t.took.Observe(time.Since(began).Seconds()) }()
	return t.Store.Append(ctx, events)
}
