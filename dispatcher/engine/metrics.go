package engine

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/dispatcher/delivery"
	"github.com/clinikapi/eventflow/dispatcher/egress"
)

// metrics are the engine's figures. None is labelled by subscription or host: their number would grow with the load.
type metrics struct {
	attempts *prometheus.CounterVec
	retries  prometheus.Counter
	finished *prometheus.CounterVec
	duration prometheus.Histogram
	latency  prometheus.Histogram
}

// delivered is the result of an attempt that succeeded.
const delivered = "delivered"

func newMetrics(e *Engine, registerer prometheus.Registerer) *metrics {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventflow_delivery_attempts_total", Help: "Attempts by result: delivered, or the reason why not.",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "eventflow_delivery_attempt_seconds", Help: "How long an attempt took, from dialling to the answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 13),
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "eventflow_delivery_first_attempt_delay_seconds", Help: "From an event's acceptance to the start of its first attempt.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 14),
		}),
	}
	m.retries = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "eventflow_delivery_retries_total", Help: "Attempts of deliveries that were attempted before.",
	})
	m.finished = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eventflow_delivery_finished_total",
		Help: "Deliveries that ended by an attempt, by their age, or with their subscription, by state: Delivered, Failed (exhausted), Cancelled.",
	}, []string{"state"})
	m.attempts.WithLabelValues(delivered) // there from the start, so that a rate can be taken of it
	for _, state := range []delivery.State{delivery.Delivered, delivery.Failed, delivery.Cancelled} {
		m.finished.WithLabelValues(state.String())
	}
	if registerer == nil {
		return m
	}
	gauge := func(name, help string, read func() int) {
		registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			e.mu.Lock()
			defer e.mu.Unlock()
			return float64(read())
		}))
	}
	registerer.MustRegister(m.attempts, m.retries, m.finished, m.duration, m.latency)
	gauge("eventflow_delivery_in_flight", "Attempts under way.", e.places.total)
	gauge("eventflow_delivery_held", "Deliveries in memory that wait for a free place.", func() int { return e.held })
	gauge("eventflow_delivery_in_flight_limit", "Attempts that may be under way.", func() int { return e.places.all })
	gauge("eventflow_delivery_waiting", "Attempts under way to endpoints that fail, are slow, or have not answered for a second.", func() int { return e.places.used[patient] })
	gauge("eventflow_delivery_tenants", "Namespaces that had something to deliver.", func() int { return len(e.tenants) })
	gauge("eventflow_delivery_tenants_parked", "Namespaces that wait for a place for their next attempt, because they have their share or all are taken.", e.parkedTenants)
	gauge("eventflow_delivery_tenants_starved", "Namespaces that wait for memory for their next attempt.", e.starvedTenants)
	gauge("eventflow_delivery_lanes", "Subscriptions that had something to deliver.", func() int { return len(e.lanes) })
	gauge("eventflow_delivery_endpoints_failing", "Subscriptions with something to deliver whose last ten attempts or more failed in a row, and that are not pulled.", e.failingLanes)
	return m
}

func (e *Engine) failingLanes() (n int) {
	for _, l := range e.lanes {
		if l.failing() && !l.pulled() {
			n++
		}
	}
	return n
}

func (e *Engine) parkedTenants() (n int) {
	for r := range e.serve {
		n += e.serve[r].parked.Len()
	}
	return n
}

func (e *Engine) starvedTenants() (n int) {
	for r := range e.serve {
		n += e.serve[r].starved.len()
	}
	return n
}

func (m *metrics) observe(d delivery.PendingDelivery, r egress.Result) {
	result := string(r.Reason)
	if r.Delivered() {
		result = delivered
	}
	m.attempts.WithLabelValues(result).Inc()
	m.duration.Observe(r.Duration.Seconds())
	if d.Attempts == 0 {
		m.latency.Observe(r.Started.Sub(d.Since).Seconds())
	} else {
		m.retries.Inc()
	}
}

// ended counts the deliveries of a batch that was recorded and that ended.
func (m *metrics) ended(batch []settlement) {
	for i := range batch {
		if state := batch[i].outcome.State; state != delivery.Pending {
			m.finished.WithLabelValues(state.String()).Inc()
		}
	}
}
