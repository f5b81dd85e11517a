package ingest

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// reviewMetrics are what is counted of authentication. No label holds anything that a client chooses.
type reviewMetrics struct {
	reviews *prometheus.CounterVec
	unasked *prometheus.CounterVec
}

// replyNames are the replies as labels.
var replyNames = map[reply]string{yes: "yes", no: "no", unreachable: "unreachable", failed: "failed", busy: "busy"}

func newReviewMetrics(registerer prometheus.Registerer, lanes *lanes) (*reviewMetrics, error) {
	m := &reviewMetrics{
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventflow_ingest_reviews_total",
			Help: "Reviews of tokens and of accesses by the API server, by result; busy: a limit of this dispatcher was reached.",
		}, []string{"kind", "result"}),
		unasked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eventflow_ingest_tokens_refused_unasked_total",
			Help: "Tokens that cannot be valid and were refused without asking the API server, by reason.",
		}, []string{"reason"}),
	}
	for _, kind := range []string{"token", "access"} {
		for _, result := range replyNames {
			m.reviews.WithLabelValues(kind, result)
		}
	}
	for _, reason := range []string{"expired", "not_yet_valid", "issuer", "audience"} {
		m.unasked.WithLabelValues(reason)
	}
	if registerer == nil {
		return m, nil
	}
	var errs []error
	for _, collector := range []prometheus.Collector{m.reviews, m.unasked} {
		errs = append(errs, registerer.Register(collector))
	}
	for name, lane := range map[string]*lane{"known": lanes.known, "grants": lanes.grants, "tokens": lanes.tokens, "proven": lanes.proven, "odd": lanes.odd} {
		errs = append(errs, registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "eventflow_ingest_reviews_waiting",
			Help:        "Reviews that wait for a place, by lane.",
			ConstLabels: prometheus.Labels{"lane": name},
		}, func() float64 { return float64(lane.Waiting()) })))
	}
	return m, errors.Join(errs...)
}

// count counts a review.
func (m *reviewMetrics) count(kind string, r reply) {
	m.reviews.WithLabelValues(kind, replyNames[r]).Inc()
}
