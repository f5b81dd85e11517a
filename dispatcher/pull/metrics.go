package pull

import "github.com/prometheus/client_golang/prometheus"

// What deliveries_total counts.
const (
	resultAnswered     = "answered"
	resultAcknowledged = "acknowledged"
	resultUnmade       = "unmade"
)

// Why calls are refused.
const (
	refusedPlaces = "places"
	refusedMemory = "memory"
)

type metrics struct {
	deliveries *prometheus.CounterVec
	refused    *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer, waiting func() float64) (*metrics, error) {
	m := &metrics{
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventflow_pull_deliveries_total",
			Help: "Deliveries of subscriptions that are pulled, by result: answered (again each time), acknowledged, or unmade because an expression failed.",
		}, []string{"result"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventflow_pull_refused_total",
			Help: "Pulls that were refused, by what their namespace has used up: places, or memory.",
		}, []string{"reason"}),
	}
	for _, result := range []string{resultAnswered, resultAcknowledged, resultUnmade} {
		m.deliveries.WithLabelValues(result)
	}
	for _, reason := range []string{refusedPlaces, refusedMemory} {
		m.refused.WithLabelValues(reason)
	}
	if registerer == nil {
		return m, nil
	}
	underWay := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "eventflow_pull_calls", Help: "Pulls that are under way, most of which wait for deliveries.",
	}, waiting)
	for _, c := range []prometheus.Collector{m.deliveries, m.refused, underWay} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
