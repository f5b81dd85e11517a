package ingest

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/dispatcher/places"
)

// metrics are what the API counts. Their labels hold operations and status codes, nothing that a client chooses.
type metrics struct {
	requests  *prometheus.CounterVec
	published prometheus.Counter // requests with operation publish and code 202, which are nearly all
	accepted  prometheus.Counter
	repeated  prometheus.Counter
	unordered prometheus.Counter
	duration  prometheus.Histogram
}

// newMetrics registers the metrics with registerer, which may be nil.
func newMetrics(registerer prometheus.Registerer, memory *holdings, pool *places.Pool) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventflow_ingest_requests_total",
			Help: "Requests to the publish and delivery API, by operation and status code.",
		}, []string{"operation", "code"}),
		accepted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "eventflow_ingest_events_accepted_total",
			Help: "Events made durable.",
		}),
		repeated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "eventflow_ingest_events_repeated_total",
			Help: "Events that were accepted before, and answered with the first answer.",
		}),
		unordered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "eventflow_ingest_unordered_total",
			Help: "Events that a subscription wants in the order of their resources and that name none.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "eventflow_ingest_publish_duration_seconds",
			Help:    "Time from a publish's headers until its events are durable and answered.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	inFlightBytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "eventflow_ingest_inflight_bytes",
		Help: "Memory that publishes in flight have reserved.",
	}, func() float64 { return float64(memory.inFlight.Load()) })
	waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "eventflow_ingest_publishes_waiting",
		Help: "Publishes whose body is there, and that wait until others have been worked on.",
	}, func() float64 { return float64(pool.Waiting()) })
	m.published = m.requests.WithLabelValues(string(opPublish), strconv.Itoa(http.StatusAccepted))
	if registerer == nil {
		return m, nil
	}
	var errs []error
	for _, collector := range []prometheus.Collector{m.requests, m.accepted, m.repeated, m.unordered, m.duration, inFlightBytes, waiting} {
		errs = append(errs, registerer.Register(collector))
	}
	return m, errors.Join(errs...)
}

// observe counts an answered request.
func (m *metrics) observe(op operation, status int, started time.Time) {
	if op == opPublish {
		m.duration.Observe(time.Since(started).Seconds())
		if status == http.StatusAccepted {
			m.published.Inc()
			return
		}
	}
	m.requests.WithLabelValues(string(op), strconv.Itoa(status)).Inc()
}
