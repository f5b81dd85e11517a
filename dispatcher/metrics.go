package dispatcher

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/dispatcher/quota"
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
