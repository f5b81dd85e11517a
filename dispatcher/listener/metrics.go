package listener

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what a listener counts. No label holds anything of a client.
type metrics struct {
	refused, strangers, idle, starved, paused prometheus.Counter
}

func newMetrics(options Options, open func() float64) (*metrics, error) {
	labels := prometheus.Labels{"listener": options.Name}
	letGo := func(reason string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Name:        "eventflow_connections_let_go_total",
			Help:        "Connections closed in favour of new ones: strangers without an authorized request, and idle ones.",
			ConstLabels: prometheus.Labels{"listener": options.Name, "reason": reason},
		})
	}
	m := &metrics{
		strangers: letGo("stranger"),
		idle:      letGo("idle"),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "eventflow_connections_refused_total", Help: "Connections closed at once because of the bound on them.", ConstLabels: labels,
		}),
		starved: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "eventflow_accept_failures_total", Help: "Connections that could not be accepted for want of a file descriptor.", ConstLabels: labels,
		}),
	}
	m.paused = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "eventflow_connections_paused_total", Help: "Times that a client had to wait because requests from its address were not authorized.", ConstLabels: labels,
	})
	if options.Registerer == nil {
		return m, nil
	}
	gauge := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "eventflow_connections", Help: "Open connections of clients.", ConstLabels: labels,
	}, open)
	limit := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "eventflow_connections_limit", Help: "Bound on the open connections of clients.", ConstLabels: labels,
	})
	limit.Set(float64(options.Connections))
	var errs []error
	for _, collector := range []prometheus.Collector{m.strangers, m.idle, m.refused, m.starved, m.paused, gauge, limit} {
		errs = append(errs, options.Registerer.Register(collector))
	}
	return m, errors.Join(errs...)
}
