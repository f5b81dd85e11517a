package operational

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/clinikapi/eventflow/api/event"
)

// The results of a happening that somebody subscribes to.
const (
	resultStored   = "Stored"   // durable
	resultRepeated = "Repeated" // it was told of within the last 24 hours
	resultJoined   = "Joined"   // faster than the subscription's rate: counted by the next event
	resultDropped  = "Dropped"  // no room in memory, or no store for an hour
)

type metrics struct {
	events *prometheus.CounterVec
	held   prometheus.GaugeFunc
}

func newMetrics(r prometheus.Registerer, held func() float64) (*metrics, error) {
	m := &metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventflow_operational_events_total",
			Help: "Operational events that a subscription wants, by type and by what became of them. Dropped ones are lost.",
		}, []string{"type", "result"}),
		held: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eventflow_operational_held",
			Help: "Operational events, and rates of subscriptions, in memory.",
		}, held),
	}
	for _, t := range event.OperationalTypes {
		for _, result := range []string{resultStored, resultRepeated, resultJoined, resultDropped} {
			m.events.WithLabelValues(string(t), result)
		}
	}
	if r == nil {
		return m, nil
	}
	if err := r.Register(m.events); err != nil {
		return nil, err
	}
	return m, r.Register(m.held)
}

func (m *metrics) count(t event.Type, result string) {
	m.events.WithLabelValues(string(t), result).Inc()
}
